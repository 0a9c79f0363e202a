"""Primary keys and unique constraints."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item, table


def coded(*more: Any) -> MetaData:
    """Return items with a code and a region."""
    return item(Column("code", Text), Column("region", Integer), *more)


def unique(*columns: str, name: str | None = "item_code", **options: Any) -> MetaData:
    """Return such items with a unique constraint."""
    return coded(UniqueConstraint(*columns, name=name, **options))


def keyed(*columns: str, name: str | None = None, **options: Any) -> MetaData:
    """Return a table whose key are these columns."""
    key = [PrimaryKeyConstraint(*columns, name=name, **options)] if columns else []
    return table(
        "entry",
        Column("a", Integer, nullable=False),
        Column("b", Integer, nullable=False),
        Column("c", Text),
        *key,
    )


def referred(*columns: str) -> MetaData:
    """Return a table with two candidate keys, and one that refers to the first of ``columns``."""
    metadata = MetaData()
    Table(
        "owner",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("code", Integer, nullable=False),
        UniqueConstraint(*columns, name="owner_code"),
    )
    Table(
        "item",
        metadata,
        Column("id", Integer, primary_key=True),
        *(Column(f"owner_{name}", Integer) for name in columns),
        ForeignKeyConstraint(
            [f"owner_{name}" for name in columns],
            [f"owner.{name}" for name in columns],
            name="item_owner",
        ),
    )
    return metadata


TWICE = "INSERT INTO item (title, code, region) VALUES ('a', 'x', 1), ('b', 'x', 1), ('c', 'y', 2);"
SAME_KEYS = "INSERT INTO entry (a, b, c) VALUES (1, 1, 'x'), (1, 2, 'y'), (2, 1, 'z');"

CASES: list[Case] = [
    change("unique-added", coded, lambda: unique("code")),
    change("unique-dropped", lambda: unique("code"), coded),
    change("unique-columns", lambda: unique("code"), lambda: unique("code", "region")),
    change("unique-order", lambda: unique("code", "region"), lambda: unique("region", "code")),
    change(
        "unique-nulls-not-distinct",
        lambda: unique("code"),
        lambda: unique("code", postgresql_nulls_not_distinct=True),
    ),
    change(
        "unique-nulls-distinct-again",
        lambda: unique("code", postgresql_nulls_not_distinct=True),
        lambda: unique("code"),
    ),
    change(
        "unique-include",
        lambda: unique("code"),
        lambda: unique("code", postgresql_include=["region"]),
    ),
    change("unique-deferrable", lambda: unique("code"), lambda: unique("code", deferrable=True)),
    change(
        "unique-deferred",
        lambda: unique("code", deferrable=True),
        lambda: unique("code", deferrable=True, initially="DEFERRED"),
    ),
    change(
        "unique-not-deferrable",
        lambda: unique("code", deferrable=True, initially="DEFERRED"),
        lambda: unique("code"),
    ),
    change("unique-name", lambda: unique("code"), lambda: unique("code", name="item_by_code")),
    change("unique-gets-name", lambda: unique("code", name=None), lambda: unique("code")),
    change("unique-loses-name", lambda: unique("code"), lambda: unique("code", name=None)),
    change(
        "unique-to-unique-index",
        lambda: unique("code"),
        lambda: coded(Index("item_code", "code", unique=True)),
    ),
    change(
        "unique-index-to-unique",
        lambda: coded(Index("item_code", "code", unique=True)),
        lambda: unique("code"),
    ),
    change("unique-comment", lambda: unique("code"), lambda: unique("code", comment="one each")),
    change("unique-referred-changes", lambda: referred("code"), lambda: referred("code", "id")),
    change("key-added", keyed, lambda: keyed("a")),
    change("key-dropped", lambda: keyed("a"), keyed),
    change("key-columns", lambda: keyed("a"), lambda: keyed("a", "b")),
    change("key-order", lambda: keyed("a", "b"), lambda: keyed("b", "a")),
    change("key-name", lambda: keyed("a", name="entry_key"), lambda: keyed("a", name="entry_pk")),
    change("key-gets-name", lambda: keyed("a"), lambda: keyed("a", name="entry_pk")),
    change("key-include", lambda: keyed("a"), lambda: keyed("a", postgresql_include=["b"])),
    change("key-deferrable", lambda: keyed("a"), lambda: keyed("a", deferrable=True)),
    control("unique-unnamed-rebuilt", lambda: unique("code", name=None)),
    control(
        "unique-spelling",
        lambda: item(Column("code", Text, unique=True)),
        lambda: item(Column("code", Text), UniqueConstraint("code")),
    ),
    control(
        "unique-generated-name-written-out",
        lambda: item(Column("code", Text, unique=True)),
        lambda: item(Column("code", Text), UniqueConstraint("code", name="item_code_key")),
    ),
    control(
        "unique-twice-unnamed",
        lambda: coded(UniqueConstraint("code"), UniqueConstraint("region")),
        lambda: coded(UniqueConstraint("region"), UniqueConstraint("code")),
    ),
    control(
        "unique-options-written-out",
        lambda: unique("code"),
        lambda: unique(
            "code", deferrable=False, initially="IMMEDIATE", postgresql_nulls_not_distinct=False
        ),
    ),
    control("key-unnamed-rebuilt", lambda: keyed("a", "b")),
    control(
        "key-generated-name-written-out",
        lambda: keyed("a"),
        lambda: keyed("a", name="entry_pkey"),
    ),
    decision("unique-over-duplicates", coded, lambda: unique("code"), seed=TWICE),
    decision(
        "unique-with-its-column-and-default-added",
        item,
        lambda: item(Column("code", Text, server_default="x"), UniqueConstraint("code")),
    ),
    decision(
        "unique-narrower-over-duplicates",
        lambda: unique("code", "title"),
        lambda: unique("code"),
        seed=TWICE,
    ),
    decision(
        "unique-nulls-not-distinct-over-nulls",
        lambda: unique("code"),
        lambda: unique("code", postgresql_nulls_not_distinct=True),
        seed="INSERT INTO item (title, code) VALUES ('a', NULL), ('b', NULL), ('c', 'x');",
    ),
    decision("key-over-duplicates", keyed, lambda: keyed("a"), seed=SAME_KEYS),
    decision(
        "key-over-nulls",
        lambda: table("entry", Column("a", Integer), Column("b", Text)),
        lambda: table(
            "entry", Column("a", Integer, primary_key=True, autoincrement=False), Column("b", Text)
        ),
        seed="INSERT INTO entry (a, b) VALUES (1, 'x'), (NULL, 'y'), (2, 'z');",
    ),
    decision(
        "unique-index-over-duplicates",
        coded,
        lambda: coded(Index("item_code", "code", unique=True)),
        seed=TWICE,
    ),
]
