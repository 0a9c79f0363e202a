"""New names for what stays as it is: tables, columns, indexes and constraints."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import Operations
from alembic.operations import ops as alembic_ops

from ragstore.migrations.operations.base import Operation, prefix_of, quoted, run
from ragstore.migrations.operations.writing import call


class RenameTableOp(alembic_ops.RenameTableOp):
    """Alembic's ``rename_table``, with its opposite and its text."""

    def reverse(self) -> RenameTableOp:
        """Return the operation that gives the old name back."""
        return RenameTableOp(self.new_table_name, self.table_name, schema=self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return ``("rename_table", schema, old, new)``."""
        return ("rename_table", self.schema, self.table_name, self.new_table_name)


@renderers.dispatch_for(RenameTableOp)
def _render_rename_table(context: AutogenContext, operation: RenameTableOp) -> str:
    schema = {} if operation.schema is None else {"schema": operation.schema}
    names = (operation.table_name, operation.new_table_name)
    return call(prefix_of(context), "rename_table", names, schema)


class RenameColumnOp(alembic_ops.AlterColumnOp):
    """Alembic's ``alter_column`` with a new name and nothing else."""

    def __init__(self, table: str, old: str, new: str, *, schema: str | None = None) -> None:
        super().__init__(table, old, schema=schema, modify_name=new)
        self.new_name = new

    def has_changes(self) -> bool:
        """Return True: Alembic does not count a name."""
        return True

    def reverse(self) -> RenameColumnOp:
        """Return the operation that gives the old name back."""
        return RenameColumnOp(self.table_name, self.new_name, self.column_name, schema=self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return ``("rename_column", schema, table, old, new)``."""
        return ("rename_column", self.schema, self.table_name, self.column_name, self.new_name)


@Operations.register_operation("rename_index")
class RenameIndexOp(Operation):
    """Give an index another name."""

    verb = "rename_index"

    def __init__(self, old: str, new: str, *, schema: str | None = None) -> None:
        self.old = old
        self.new = new
        self.schema = schema

    @classmethod
    def rename_index(
        cls, operations: Operations, old: str, new: str, *, schema: str | None = None
    ) -> None:
        """Rename the index ``old`` to ``new``; searches that use it go on."""
        operations.invoke(cls(old, new, schema=schema))

    def facts(self) -> tuple[str, str]:
        """Return the old name and the new one."""
        return (self.old, self.new)

    def reverse(self) -> RenameIndexOp:
        """Return the operation that gives the old name back."""
        return RenameIndexOp(self.new, self.old, schema=self.schema)


@Operations.register_operation("rename_constraint")
class RenameConstraintOp(Operation):
    """Give a constraint another name, and with it the index behind it."""

    verb = "rename_constraint"

    def __init__(self, table: str, old: str, new: str, *, schema: str | None = None) -> None:
        self.table = table
        self.old = old
        self.new = new
        self.schema = schema

    @classmethod
    def rename_constraint(
        cls,
        operations: Operations,
        table: str,
        old: str,
        new: str,
        *,
        schema: str | None = None,
    ) -> None:
        """Rename the constraint ``old`` of ``table`` to ``new``."""
        operations.invoke(cls(table, old, new, schema=schema))

    def facts(self) -> tuple[str, str, str]:
        """Return the table, the old name and the new one."""
        return (self.table, self.old, self.new)

    def reverse(self) -> RenameConstraintOp:
        """Return the operation that gives the old name back."""
        return RenameConstraintOp(self.table, self.new, self.old, schema=self.schema)


@Operations.implementation_for(RenameIndexOp)
def _rename_index(operations: Operations, operation: RenameIndexOp) -> None:
    old = quoted(operation.old, operation.schema)
    run(operations, f"ALTER INDEX {old} RENAME TO {quoted(operation.new)}")


@Operations.implementation_for(RenameConstraintOp)
def _rename_constraint(operations: Operations, operation: RenameConstraintOp) -> None:
    table = quoted(operation.table, operation.schema)
    names = f"{quoted(operation.old)} TO {quoted(operation.new)}"
    run(operations, f"ALTER TABLE {table} RENAME CONSTRAINT {names}")
