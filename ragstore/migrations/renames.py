"""What is renamed: an object whose ``info`` in the models says ``{"renamed_from": "old name"}``.

The note may stay in the model for ever: where the new name is in the database, it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.util.sqla_compat import _get_constraint_final_name
from sqlalchemy.dialects import postgresql

from ragstore.migrations.facts import Catalog, Name

RENAMED_FROM = "renamed_from"
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Rename:
    """A new name for a ``table``, or for a ``column``, ``index`` or ``constraint`` of one.

    ``table`` is the key of the table by its old name.
    """

    kind: str
    table: Name
    old: str
    new: str


def renames(models: Mapping[Name, sa.Table], found: Catalog) -> list[Rename]:
    """Return what the models say was renamed, and the database has by the old name only."""
    return [rename for key, model in models.items() for rename in _of_table(key, model, found)]


def _of_table(key: Name, model: sa.Table, found: Catalog) -> Iterator[Rename]:
    before = key
    old = model.info.get(RENAMED_FROM)
    if old and key not in found.tables and (key[0], old) in found.tables:
        before = (key[0], old)
        yield Rename("table", before, old, key[1])
    table = found.tables.get(before)
    if table is None:
        return
    names: dict[str, Any] = {
        "column": table.columns,
        "index": table.indexes,
        "constraint": table.constraints,
    }
    for kind, name, old in _noted(model):
        if old in names[kind] and name not in names[kind]:
            yield Rename(kind, before, old, name)


def _noted(model: sa.Table) -> Iterator[tuple[str, str, str]]:
    parts: dict[str, Any] = {
        "column": model.columns,
        "index": model.indexes,
        "constraint": model.constraints,
    }
    for kind, items in parts.items():
        for item in items:
            old = item.info.get(RENAMED_FROM)
            name = item.name if kind == "column" else _get_constraint_final_name(item, _DIALECT)
            if old and name:
                yield kind, str(name), old
