"""Renames: what the models say was called otherwise before."""

from __future__ import annotations

from collections.abc import Iterable

from alembic.operations import MigrateOperation

from ragstore.migrations.facts import Name
from ragstore.migrations.operations import (
    RenameColumnOp,
    RenameConstraintOp,
    RenameIndexOp,
    RenameTableOp,
)
from ragstore.migrations.plan.context import Context
from ragstore.migrations.plan.steps import Difference, Phase, place
from ragstore.migrations.rebuild import NewNames
from ragstore.migrations.renames import Rename


def columns_after(context: Context, columns: Iterable[tuple[Name, str]]) -> list[tuple[Name, str]]:
    """Return columns by the names that they have once everything is renamed."""
    names = NewNames.of(context.renames)
    return [(names.table(key), names.part("column", key, column)) for key, column in columns]


def rename(context: Context) -> None:
    """Plan the renames: of the tables first, so that the others find them by the new names."""
    new_keys = {
        each.table: (each.table[0], each.new) for each in context.renames if each.kind == "table"
    }
    for each in sorted(context.renames, key=lambda each: each.kind != "table"):
        table = new_keys.get(each.table, each.table)
        parts = () if each.kind == "table" else (each.new,)
        difference = Difference(
            each.kind, place(table, *parts), f"is named {each.old} in the database"
        )
        context.plan.add(difference, (Phase.RENAMES, _operation(each, table)))


def _operation(each: Rename, table: Name) -> MigrateOperation:
    schema, name = table
    if each.kind == "table":
        return RenameTableOp(each.old, each.new, schema=schema)
    if each.kind == "column":
        return RenameColumnOp(name, each.old, each.new, schema=schema)
    if each.kind == "index":
        return RenameIndexOp(each.old, each.new, schema=schema)
    return RenameConstraintOp(name, each.old, each.new, schema=schema)
