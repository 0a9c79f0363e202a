"""A question that a person must answer before a revision can go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alembic.operations import Operations

from ragstore.exceptions import DecisionNeeded
from ragstore.migrations.operations.base import (
    Operation,
    dollar_quoted,
    literal,
    quoted,
    run,
    select,
)
from ragstore.migrations.operations.remark import Remark


@Operations.register_operation("require_decision")
class RequireDecisionOp(Operation):
    """Stop a revision where rows stand in its way.

    Its reverse does nothing: a question of the one direction says nothing of the other.
    """

    verb = "require_decision"

    def __init__(
        self,
        question: str,
        table: str,
        where: str,
        *,
        schema: str | None = None,
        advice: str | None = None,
    ) -> None:
        self.question = question
        self.table = table
        self.where = where
        self.schema = schema
        self.advice = advice or None

    @classmethod
    def require_decision(
        cls,
        operations: Operations,
        question: str,
        table: str,
        where: str,
        *,
        schema: str | None = None,
        advice: str | None = None,
    ) -> None:
        """Go on only if no row of ``table`` satisfies ``where``, an expression in SQL.

        With an empty ``where`` it never goes on. ``advice`` is what the message proposes to write
        before this line. It reads the table, and keeps nobody from reading or writing it.

        Raises:
            DecisionNeeded: there are such rows. What the revision did before is rolled back.
        """
        operations.invoke(cls(question, table, where, schema=schema, advice=advice))

    def facts(self) -> tuple[str, str, str]:
        """Return the question, the table and the condition."""
        return (self.question, self.table, self.where)

    def options(self) -> Mapping[str, Any]:
        """Return the advice."""
        return {"advice": self.advice}

    def reverse(self) -> Remark:
        """Return nothing to do."""
        return Remark()

    @property
    def place(self) -> str:
        """Return the table's name for a person."""
        return self.table if self.schema is None else f"{self.schema}.{self.table}"

    def count(self) -> str:
        """Return the query that counts the rows."""
        where = f" WHERE ({self.where})" if self.where else ""
        return f"SELECT count(*) FROM {quoted(self.table, self.schema)}{where}"  # noqa: S608 - it is SQL that the revision brings

    def message(self, rows: str) -> str:
        """Return the question with what to do, for a number of rows."""
        of = f" where {self.where}" if self.where else ""
        example = f", for example:\n{self.advice}\nThen" if self.advice else ", then"
        remedy = "Decide it in the revision: write before this line what makes the values"
        if not self.where:
            remedy = "Decide it in the revision: write in place of this line what is to be done"
        return (
            f"{self.question} (rows of {self.place}{of}: {rows}). {remedy}{example} run it again."
            " Nothing was changed."
        )


@Operations.implementation_for(RequireDecisionOp)
def _require_decision(operations: Operations, operation: RequireDecisionOp) -> None:
    if operations.migration_context.as_sql:
        run(operations, _block(operation))
        return
    connection = operations.get_bind()
    first = operation.count().replace("count(*)", "1", 1) + " LIMIT 1"
    if operation.where and not select(connection, first):
        return
    rows = select(connection, operation.count())[0][0]
    message = operation.message(str(rows))
    raise DecisionNeeded(message, question=operation.question, table=operation.place)


def _block(operation: RequireDecisionOp) -> str:
    message = literal(operation.message(_ROWS))
    body = f"""
DECLARE
  found bigint := ({operation.count()});
BEGIN
  IF found > 0 OR {str(not operation.where).lower()} THEN
    RAISE EXCEPTION '%', replace({message}, {literal(_ROWS)}, found::text);
  END IF;
END
"""
    return f"DO {dollar_quoted(body)}"


_ROWS = "<rows>"
