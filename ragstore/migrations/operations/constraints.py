"""Constraints that Alembic's own operations cannot write, or not take back."""

from __future__ import annotations

from typing import Any, ClassVar

from alembic.operations import MigrateOperation, Operations, ops
from sqlalchemy.sql.elements import conv

from ragstore.migrations.operations.base import Operation, literal, quoted, run


@Operations.register_operation("create_constraint")
class CreateConstraintOp(Operation):
    """Add a constraint by its definition in SQL."""

    verb: ClassVar[str] = "create_constraint"

    def __init__(
        self, name: str, table: str, definition: str, *, schema: str | None = None
    ) -> None:
        self.constraint_name = name
        self.table_name = table
        self.definition = definition
        self.schema = schema

    @classmethod
    def create_constraint(
        cls,
        operations: Operations,
        name: str,
        table: str,
        definition: str,
        *,
        schema: str | None = None,
    ) -> None:
        """Add the constraint that ``definition`` describes, as ``ALTER TABLE`` takes it.

        For what no other operation can say: a deferrable primary key, an exclusion constraint with
        operator classes, a check that is not inherited.
        """
        operations.invoke(cls(name, table, definition, schema=schema))

    def facts(self) -> tuple[Any, ...]:
        """Return the name, the table and the definition."""
        return (conv(self.constraint_name), self.table_name, self.definition)

    def reverse(self) -> MigrateOperation:
        """Return the operation that drops the constraint."""
        return DropConstraintOp(
            self.constraint_name, self.table_name, None, schema=self.schema, existing=self
        )


@Operations.register_operation("comment_on_constraint")
class CommentOnConstraintOp(Operation):
    """Comment on a constraint; without words, take its comment away."""

    verb: ClassVar[str] = "comment_on_constraint"

    def __init__(
        self,
        name: str,
        table: str,
        comment: str | None,
        *,
        schema: str | None = None,
        existing: str | None = None,
    ) -> None:
        self.constraint_name = name
        self.table_name = table
        self.comment = comment
        self.schema = schema
        self.existing = existing

    @classmethod
    def comment_on_constraint(
        cls,
        operations: Operations,
        name: str,
        table: str,
        comment: str | None,
        *,
        schema: str | None = None,
    ) -> None:
        """Set the comment of a constraint, or remove it if ``comment`` is None."""
        operations.invoke(cls(name, table, comment, schema=schema))

    def facts(self) -> tuple[Any, ...]:
        """Return the name, the table and the comment."""
        return (conv(self.constraint_name), self.table_name, self.comment)

    def reverse(self) -> CommentOnConstraintOp:
        """Return the operation that brings the old comment back."""
        return CommentOnConstraintOp(
            self.constraint_name,
            self.table_name,
            self.existing,
            schema=self.schema,
            existing=self.comment,
        )


class DropConstraintOp(ops.DropConstraintOp):
    """Alembic's operation; ``existing`` is the operation that brings the constraint back."""

    def __init__(
        self,
        name: str,
        table: str,
        kind: str | None,
        *,
        schema: str | None = None,
        existing: MigrateOperation,
    ) -> None:
        super().__init__(conv(name), table, kind, schema=schema)
        self._existing = existing

    def reverse(self) -> Any:
        """Return the operation that brings the constraint back."""
        return self._existing

    def to_diff_tuple(self) -> Any:
        """Return ``(remove_constraint, schema, table, name)``."""
        return ("remove_constraint", self.schema, self.table_name, self.constraint_name)


@Operations.implementation_for(CreateConstraintOp)
def _create_constraint(operations: Operations, operation: CreateConstraintOp) -> None:
    table = quoted(operation.table_name, operation.schema)
    name = quoted(operation.constraint_name)
    run(operations, f"ALTER TABLE {table} ADD CONSTRAINT {name} {operation.definition}")


@Operations.implementation_for(CommentOnConstraintOp)
def _comment(operations: Operations, operation: CommentOnConstraintOp) -> None:
    table = quoted(operation.table_name, operation.schema)
    comment = "NULL" if operation.comment is None else literal(operation.comment)
    name = quoted(operation.constraint_name)
    run(operations, f"COMMENT ON CONSTRAINT {name} ON {table} IS {comment}")
