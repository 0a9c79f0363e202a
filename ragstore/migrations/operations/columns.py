"""Generated columns: another expression, or none."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.operations import ops as alembic_ops

from ragstore.migrations.operations.base import Operation, quoted, run, select
from ragstore.migrations.operations.rebuilding import rebuild


@Operations.register_operation("set_generated")
class SetGeneratedOp(Operation):
    """Give a generated column another expression; ``existing`` is the one it has."""

    verb = "set_generated"

    def __init__(
        self,
        table: str,
        column: str,
        expression: str,
        *,
        schema: str | None = None,
        existing: str | None = None,
    ) -> None:
        self.table = table
        self.column = column
        self.expression = expression
        self.schema = schema
        self.existing = existing

    @classmethod
    def set_generated(
        cls,
        operations: Operations,
        table: str,
        column: str,
        expression: str,
        *,
        schema: str | None = None,
    ) -> None:
        """Compute the generated ``column`` by ``expression`` from now on, and for every row.

        Before PostgreSQL 17 the column is dropped and added again as the last one, and what
        depends on it in its table is made again: indexes, constraints, statistics, and the foreign
        keys that refer to it. With ``--sql`` the script is one for PostgreSQL 17 and later.
        """
        operations.invoke(cls(table, column, expression, schema=schema))

    def facts(self) -> tuple[str, str, str]:
        """Return the table, the column and the expression."""
        return (self.table, self.column, self.expression)

    def reverse(self) -> SetGeneratedOp:
        """Return the operation that brings the old expression back."""
        return SetGeneratedOp(
            self.table,
            self.column,
            self.reversible_by(self.existing),
            schema=self.schema,
            existing=self.expression,
        )


@Operations.register_operation("drop_generated")
class DropGeneratedOp(Operation):
    """Make a stored generated column a plain one with the values it has.

    ``column`` is its name, or the whole generated column, which the reverse needs.
    """

    verb = "drop_generated"

    def __init__(
        self, table: str, column: str | sa.Column[Any], *, schema: str | None = None
    ) -> None:
        self.table = table
        self.column = column if isinstance(column, str) else column.name
        self.existing = None if isinstance(column, str) else column
        self.schema = schema

    @classmethod
    def drop_generated(
        cls, operations: Operations, table: str, column: str, *, schema: str | None = None
    ) -> None:
        """Keep the values of the generated ``column``, and compute it no longer.

        PostgreSQL cannot do it to a virtual column, which has no values to keep.
        """
        operations.invoke(cls(table, column, schema=schema))

    def facts(self) -> tuple[str, str]:
        """Return the table and the column."""
        return (self.table, self.column)

    def reverse(self) -> RegenerateColumnOps:
        """Return the operations that drop the column and add it as it was, without its indexes."""
        return RegenerateColumnOps(
            self.table, self.reversible_by(self.existing), schema=self.schema
        )


class RegenerateColumnOps(alembic_ops.ModifyTableOps):
    """Drop a column and add it as a generated one: Alembic's own two operations."""

    def __init__(self, table: str, column: sa.Column[Any], *, schema: str | None = None) -> None:
        drop = alembic_ops.DropColumnOp.from_column_and_tablename(schema, table, column)
        add = alembic_ops.AddColumnOp.from_column_and_tablename(schema, table, column)
        super().__init__(table, [drop, add], schema=schema)
        self.column = column

    def reverse(self) -> DropGeneratedOp:  # type: ignore[override]  # Alembic's returns its own class
        """Return the operation that makes it a plain column, with the values it has."""
        return DropGeneratedOp(self.table_name, self.column, schema=self.schema)


_MUST_REBUILD = """
SELECT current_setting('server_version_num')::int < 170000 OR EXISTS (
  SELECT FROM pg_attribute a JOIN pg_constraint k ON k.conrelid = a.attrelid AND k.contype = 'c'
  WHERE a.attrelid = to_regclass(%s) AND a.attname = %s AND a.attgenerated = 'v')
"""


@Operations.implementation_for(SetGeneratedOp)
def _set_generated(operations: Operations, operation: SetGeneratedOp) -> None:
    table = quoted(operation.table, operation.schema)
    if not operations.migration_context.as_sql and _must_rebuild(operations, table, operation):
        rebuild(operations, table, operation.column, operation.expression)
        return
    column = quoted(operation.column)
    statement = f"ALTER COLUMN {column} SET EXPRESSION AS ({operation.expression})"
    run(operations, f"ALTER TABLE {table} {statement}")


def _must_rebuild(operations: Operations, table: str, operation: SetGeneratedOp) -> bool:
    """Tell whether the server lacks SET EXPRESSION, or refuses it, as for a checked virtual one."""
    [(answer,)] = select(operations.get_bind(), _MUST_REBUILD, table, operation.column)
    return bool(answer)


@Operations.implementation_for(DropGeneratedOp)
def _drop_generated(operations: Operations, operation: DropGeneratedOp) -> None:
    table = quoted(operation.table, operation.schema)
    run(operations, f"ALTER TABLE {table} ALTER COLUMN {quoted(operation.column)} DROP EXPRESSION")
