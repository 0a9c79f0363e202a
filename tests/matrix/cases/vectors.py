"""Columns of pgvector's types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy import ARRAY, Column, Float, MetaData, Text
from sqlalchemy.dialects import postgresql as pg

from ragstore.types import Vector
from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item


def embedded(kind: Any, *more: Any, **options: Any) -> Callable[[], MetaData]:
    """Return a model of items with an embedding of that type."""
    return lambda: item(Column("embedding", kind, **options), *more)


def _row(name: str, before: Any, after: Any, **more: Any) -> Case:
    return change(f"vector-{name}", before, after, needs="vector", **more)


def _same(name: str, before: Any, after: Any) -> Case:
    return control(f"vector-{name}", embedded(before), embedded(after), needs="vector")


def _asks(name: str, before: Any, after: Any, **more: Any) -> Case:
    return decision(f"vector-{name}", embedded(before), embedded(after), needs="vector", **more)


OTHERS = (
    "CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions;"
    'ALTER DATABASE "{database}" SET search_path = public, extensions'
)
MIXED = "INSERT INTO item (title, embedding) VALUES ('a', '[1,2,3]'), ('b', '[1,2]'), ('c', NULL);"
FINE = "INSERT INTO item (title, embedding) VALUES ('a', '[0.1,0.2,0.3]'), ('b', '[1,2,3]');"
LENGTHS = (
    "INSERT INTO item (title, embedding) VALUES ('a', '{1}'), ('b', '{1,2}'), ('c', NULL),"
    " ('d', '{}'), ('e', '{NULL}'), ('f', '{{1},{2}}');"
)

CASES: list[Case] = [
    _row("column-added", item, embedded(VECTOR(3))),
    _row("column-dropped", embedded(VECTOR(3)), item),
    _row("halfvec-added", item, embedded(HALFVEC(3))),
    _row("halfvec-dropped", embedded(HALFVEC(3)), item),
    _row("bit-added", item, embedded(BIT(8))),
    _row("bit-dropped", embedded(BIT(8)), item),
    _row("sparsevec-added", item, embedded(SPARSEVEC(100))),
    _row("sparsevec-dropped", embedded(SPARSEVEC(100)), item),
    _row("of-ours-added", item, embedded(Vector(3))),
    _row("without-dimensions-added", item, embedded(VECTOR())),
    _row("dimensions-removed", embedded(VECTOR(3)), embedded(VECTOR())),
    _row("halfvec-dimensions-removed", embedded(HALFVEC(3)), embedded(HALFVEC())),
    _row("dimensions-given-that-rows-have", embedded(VECTOR()), embedded(VECTOR(3))),
    _row("to-halfvec", embedded(VECTOR(3)), embedded(HALFVEC(3))),
    _row("from-halfvec", embedded(HALFVEC(3)), embedded(VECTOR(3))),
    _row("array-to-vector", embedded(ARRAY(Float(24))), embedded(VECTOR(1))),
    _row(
        "default-added",
        embedded(VECTOR(3)),
        embedded(VECTOR(3), server_default="[0,0,0]"),
    ),
    _row(
        "not-null-with-default-added",
        item,
        embedded(VECTOR(3), nullable=False, server_default="[0,0,0]"),
    ),
    _row("made-not-null", embedded(VECTOR(3)), embedded(VECTOR(3), nullable=False)),
    _row("extension-needed", item, embedded(VECTOR(3)), bare=True),
    _row("extension-needed-at-once", embedded(VECTOR(3)), embedded(VECTOR()), bare=True),
    _row(
        "extension-in-another-schema",
        item,
        lambda: item(Column("embedding", VECTOR(3)), Column("note", Text)),
        prepare=OTHERS,
        bare=True,
    ),
    _row(
        "extension-in-another-schema-type",
        embedded(VECTOR(3)),
        embedded(HALFVEC(3)),
        prepare=OTHERS,
        bare=True,
    ),
    _same("rebuilt", VECTOR(3), VECTOR(3)),
    _same("of-ours", VECTOR(3), Vector(3)),
    _same("without-dimensions", VECTOR(), Vector()),
    _same("halfvec-rebuilt", HALFVEC(3), HALFVEC(3)),
    _same("bit-rebuilt", BIT(8), BIT(8)),
    _same("bit-names", BIT(8), pg.BIT(8)),
    _same("sparsevec-rebuilt", SPARSEVEC(100), SPARSEVEC(100)),
    control(
        "vector-extension-in-another-schema-rebuilt",
        embedded(VECTOR(3)),
        needs="vector",
        prepare=OTHERS,
        bare=True,
    ),
    _asks("dimensions-changed", VECTOR(3), VECTOR(4)),
    _asks("dimensions-reduced", VECTOR(4), VECTOR(3)),
    _asks("halfvec-dimensions-changed", HALFVEC(3), HALFVEC(4)),
    _asks("bit-dimensions-changed", BIT(8), BIT(16)),
    _asks("sparsevec-dimensions-changed", SPARSEVEC(3), SPARSEVEC(5)),
    _asks("dimensions-given-that-rows-have-not", VECTOR(), VECTOR(3), seed=MIXED),
    _asks("to-bit", VECTOR(3), BIT(3)),
    _asks("to-sparsevec", VECTOR(3), SPARSEVEC(3)),
    _asks("to-halfvec-with-other-values", VECTOR(3), HALFVEC(3), seed=FINE),
    _asks("from-array-of-other-lengths", ARRAY(Float(24)), VECTOR(1), seed=LENGTHS),
    _asks("to-halfvec-and-other-dimensions", VECTOR(3), HALFVEC(4)),
    _asks("text-to-vector", Text(), VECTOR(3)),
    decision(
        "vector-not-null-added",
        item,
        embedded(VECTOR(3), nullable=False),
        needs="vector",
    ),
]
