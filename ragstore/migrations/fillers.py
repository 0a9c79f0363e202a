"""What the rows of a column get that was dropped and comes back: its values are gone."""

from __future__ import annotations

import re

from ragstore.migrations.facts import Column


def filler(column: Column, values: tuple[str, ...] = ()) -> str | None:
    """Return a neutral value in SQL: zero, empty, the first of ``values`` of an enumerated type.

    None where the rows need no value: it may be NULL, or has a default.
    """
    counts = column.identity or column.serial or column.generated
    if column.nullable or column.default is not None or counts:
        return None
    if values and not column.type.endswith("[]"):
        first = values[0].replace("'", "''")
        return f"'{first}'::{column.type}"
    return _neutral(column.type)


_NEUTRAL = {
    "boolean": "false",
    "date": "'1970-01-01'",
    "uuid": "'00000000-0000-0000-0000-000000000000'",
    "json": "'{}'",
    "jsonb": "'{}'",
    "interval": "'0'",
    "inet": "'0.0.0.0'",
    "cidr": "'0.0.0.0'",
    "tsvector": "''",
    "bytea": "''",
    "text": "''",
}


def _neutral(kind: str) -> str:
    base = re.sub(r"\(.*", "", kind).strip()
    if kind.endswith("[]"):
        return f"'{{}}'::{kind}"
    if kind.startswith("timestamp"):
        return "'1970-01-01 00:00:00+00'"
    if kind.startswith("time"):
        return "'00:00'"
    if base in {"vector", "halfvec"}:
        size = int(re.sub(r"\D", "", kind) or 1)
        return f"array_fill(0, ARRAY[{size}])::{kind}"
    if base == "bit":
        return f"0::{kind}"
    if base == "sparsevec":
        return f"'{{}}/{re.sub(r'[^0-9]', '', kind) or 1}'"
    if base.endswith("range"):
        return "'empty'"
    if base.startswith("character"):
        return "''"
    return _NEUTRAL.get(base, "0")
