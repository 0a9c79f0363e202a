"""Whole tables: added, dropped, with keys between them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB

from tests.matrix.case import Case, change, control
from tests.matrix.models import item, number, table, with_tag


def tree() -> MetaData:
    """Return items, and a table whose rows refer to others of it."""
    metadata = item()
    Table("node", metadata, number(), Column("parent_id", ForeignKey("node.id", name="node_up")))
    return metadata


def cycle() -> MetaData:
    """Return items, and two tables that refer to each other."""
    metadata = item()
    Table("a", metadata, number(), Column("b_id", Integer))
    Table("b", metadata, number(), Column("a_id", Integer))
    a, b = metadata.tables["a"], metadata.tables["b"]
    a.append_constraint(ForeignKeyConstraint(["b_id"], ["b.id"], name="a_b", use_alter=True))
    b.append_constraint(ForeignKeyConstraint(["a_id"], ["a.id"], name="b_a"))
    return metadata


def chain() -> MetaData:
    """Return items, and three tables in a row, declared in the wrong order."""
    metadata = item()
    Table("c", metadata, number(), Column("b_id", ForeignKey("b.id", ondelete="CASCADE")))
    Table("b", metadata, number(), Column("a_id", ForeignKey("a.id", ondelete="CASCADE")))
    Table("a", metadata, number(), Column("item_id", ForeignKey("item.id")))
    return metadata


def rich() -> MetaData:
    """Return items, and a table with something of everything."""
    metadata = item()
    Table(
        "note",
        metadata,
        Column("id", BigInteger, Identity(always=True, start=100), primary_key=True),
        Column("body", Text, nullable=False, server_default="empty", comment="what it says"),
        Column("length", Integer, Computed("length(body)", persisted=True)),
        Column("extra", JSONB, nullable=False, server_default="{}"),
        UniqueConstraint("body", name="note_body"),
        comment="notes on nothing",
    )
    return metadata


def keyless() -> MetaData:
    """Return items, and a table without a primary key."""
    metadata = item()
    Table("log", metadata, Column("line", Text, nullable=False))
    return metadata


def log(**options: object) -> MetaData:
    """Return a table of log lines."""
    return table("log", number(), Column("line", Text), **options)


CASES: list[Case] = [
    change("table-added", item, with_tag),
    change("table-dropped", with_tag, item),
    change("table-with-itself-added", item, tree),
    change("table-with-itself-dropped", tree, item),
    change("tables-in-a-cycle-added", item, cycle),
    change("tables-in-a-cycle-dropped", cycle, item),
    change("tables-in-a-chain-added", item, chain),
    change("tables-in-a-chain-dropped", chain, item),
    change("table-of-everything-added", item, rich),
    change("table-of-everything-dropped", rich, item),
    change("table-without-key-added", item, keyless),
    change("table-unlogged", log, lambda: log(prefixes=["UNLOGGED"])),
    change("table-logged", lambda: log(prefixes=["UNLOGGED"]), log),
    change(
        "table-options-added",
        log,
        lambda: log(postgresql_with={"fillfactor": 70, "autovacuum_enabled": False}),
    ),
    change(
        "table-options-changed",
        lambda: log(postgresql_with={"fillfactor": 70}),
        lambda: log(postgresql_with={"fillfactor": 90}),
    ),
    change("table-options-removed", lambda: log(postgresql_with={"fillfactor": 70}), log),
    change("table-comment-added", log, lambda: log(comment="it's what happened")),
    change("table-comment-changed", lambda: log(comment="old"), lambda: log(comment="new")),
    change("table-comment-removed", lambda: log(comment="old"), log),
    control("table-rebuilt", with_tag),
    control("table-with-itself-rebuilt", tree),
    control("tables-in-a-cycle-rebuilt", cycle),
    control("table-of-everything-rebuilt", rich),
    control("table-unlogged-rebuilt", lambda: log(prefixes=["UNLOGGED"])),
    control(
        "table-options-rebuilt",
        lambda: log(postgresql_with={"fillfactor": 70}),
        lambda: log(postgresql_with={"fillfactor": "70"}),
    ),
]
