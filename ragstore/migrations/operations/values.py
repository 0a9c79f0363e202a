"""The values of a column: converted to another type, or replaced where they are gone."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import render_op
from alembic.operations import MigrateOperation, Operations, ops

from ragstore.migrations.sqltext import Expression


class ConvertColumnOp(ops.AlterColumnOp):
    """Alembic's ``alter_column``, with the conversion of the values in both directions."""

    def __init__(
        self,
        table_name: str,
        column_name: str,
        *,
        using: str | None = None,
        using_back: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(table_name, column_name, **options)
        self.using = using
        self.using_back = using_back
        if using is not None and self.modify_type is not None:
            self.kw["postgresql_using"] = using

    def reverse(self) -> ConvertColumnOp:
        """Return the operation that converts back."""
        options: dict[str, Any] = {
            "schema": self.schema,
            "existing_type": self.existing_type,
            "existing_nullable": self.existing_nullable,
        }
        if self.modify_type is not None:
            options |= {"existing_type": self.modify_type, "modify_type": self.existing_type}
        if self.modify_nullable is not None:
            options |= {
                "existing_nullable": self.modify_nullable,
                "modify_nullable": self.existing_nullable,
            }
        if self.modify_server_default is not False:
            options |= {
                "existing_server_default": self.modify_server_default,
                "modify_server_default": self.existing_server_default,
            }
        if self.modify_comment is not False:
            options |= {
                "existing_comment": self.modify_comment,
                "modify_comment": self.existing_comment,
            }
        return ConvertColumnOp(
            self.table_name,
            self.column_name,
            using=self.using_back,
            using_back=self.using,
            **options,
        )


@renderers.dispatch_for(ConvertColumnOp)
def _render_conversion(context: AutogenContext, operation: ConvertColumnOp) -> list[str]:
    written = render_op(context, _plain(operation))
    using = operation.kw.get("postgresql_using")
    if using is not None:
        written[-1] = f"{written[-1].removesuffix(')')},\n           postgresql_using={using!r})"
    return written


def _plain(operation: ConvertColumnOp) -> ops.AlterColumnOp:
    plain = ops.AlterColumnOp(operation.table_name, operation.column_name)
    vars(plain).update(vars(operation))
    return plain


class RestoreColumnOp(ops.AddColumnOp):
    """Alembic's ``add_column`` for a column whose values are gone.

    ``filler`` is what the rows get where they need a value: an expression in SQL. It is the
    column's default while it is added, which rewrites no row.
    """

    def __init__(
        self,
        table_name: str,
        column: sa.Column[Any],
        *,
        schema: str | None = None,
        filler: str | None = None,
    ) -> None:
        super().__init__(table_name, column, schema=schema)
        self.filler = filler

    def reverse(self) -> ops.DropColumnOp:
        """Return the operation that drops the column."""
        return ops.DropColumnOp(
            self.table_name, self.column.name, schema=self.schema, _reverse=self
        )

    def steps(self) -> list[MigrateOperation]:
        """Return Alembic's operations for it."""
        column = self.column._copy()  # noqa: SLF001 - a Column is in one table only
        if self.filler is None:
            return [ops.AddColumnOp(self.table_name, column, schema=self.schema)]
        column.server_default = sa.DefaultClause(Expression(self.filler))
        return [
            ops.AddColumnOp(self.table_name, column, schema=self.schema),
            ops.AlterColumnOp(
                self.table_name,
                self.column.name,
                schema=self.schema,
                existing_type=self.column.type,
                modify_server_default=None,
            ),
        ]


class DropColumnOp(ops.DropColumnOp):
    """Alembic's ``drop_column``, which brings the column back with a value in its rows."""

    def reverse(self) -> Any:
        """Return the operation that brings the column back."""
        return self._reverse


@renderers.dispatch_for(RestoreColumnOp)
def _render_restored(context: AutogenContext, operation: RestoreColumnOp) -> list[str]:
    lines = [line for step in operation.steps() for line in render_op(context, step)]
    if operation.filler is not None:
        lines.insert(0, f"# The values of {operation.column.name} are gone: rows get another.")
    return lines


@Operations.implementation_for(RestoreColumnOp)
def _restore(operations: Operations, operation: RestoreColumnOp) -> None:
    for step in operation.steps():
        operations.invoke(step)
