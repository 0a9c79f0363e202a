"""How types are written into a revision file: by public names, with their import."""

from __future__ import annotations

from typing import Any, Literal

from alembic.autogenerate import render
from alembic.autogenerate.api import AutogenContext
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy.types import TypeDecorator

from ragstore.migrations.operations.base import IMPORT
from ragstore.migrations.sqltext import SqlType

# Decorators that only change the Python side. A revision names what the column is in the
# database, so that it runs whatever becomes of the package the decorator came from.
_UNWRAPPED = ("ragstore.", "sqlmodel.")


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Render a pgvector, SQLModel or ragstore type; leave everything else to Alembic.

    Passed to ``context.configure(render_item=...)``.
    """
    if kind != "type":
        return False
    if isinstance(item, TypeDecorator) and type(item).__module__.startswith(_UNWRAPPED):
        return render._repr_type(item.impl_instance, context)  # noqa: SLF001 - no public twin
    if isinstance(item, BIT):
        return _pgvector("BIT", getattr(item.impl, "length", None), context)
    if isinstance(item, (VECTOR, HALFVEC, SPARSEVEC)):
        return _pgvector(type(item).__name__, item.dim, context)
    if isinstance(item, SqlType):
        context.imports.add(IMPORT)
        return f"ragstore.migrations.operations.SqlType({item.sql!r})"
    return False


def _pgvector(name: str, size: int | None, context: AutogenContext) -> str:
    context.imports.add("import pgvector.sqlalchemy")
    return f"pgvector.sqlalchemy.{name}({'' if size is None else size})"
