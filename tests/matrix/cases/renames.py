"""Renames, told by ``info={"renamed_from": ...}``, and all that depends on the old name."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item, number, table

Old = str | None


def was(old: Old) -> dict[str, str]:
    """Return the info of something that was called ``old``; nothing if that is None."""
    return {"renamed_from": old} if old else {}


def noted(name: str, old: Old = None, kind: Any = Text, **options: Any) -> MetaData:
    """Return items with one further column."""
    return item(Column(name, kind, info=was(old), **options))


def busy(name: str, old: Old = None) -> MetaData:
    """Return items with a column in an index, a constraint, a check and a generated column."""
    return item(
        Column(name, Integer, info=was(old), nullable=False, server_default="1"),
        Column("double", Integer, Computed(f"{name} * 2", persisted=True)),
        Index("item_by", name, postgresql_where=Column(name, Integer) > 0),
        UniqueConstraint(name, "title", name="item_both"),
        CheckConstraint(f"{name} > 0", name="item_positive"),
    )


def thing(name: str, old: Old = None, key: Any = None) -> MetaData:
    """Return a table with a serial key, an unnamed unique column and index, and one that refers."""
    metadata = MetaData()
    Table(
        name,
        metadata,
        Column("id", Integer, *([key] if key is not None else []), primary_key=True),
        Column("code", Text, unique=True),
        Column("rank", Integer, CheckConstraint("rank > 0"), index=True),
        Column("up", ForeignKey(f"{name}.id")),
        info=was(old),
    )
    Table("tag", metadata, number(), Column("thing_id", ForeignKey(f"{name}.id"), nullable=False))
    return metadata


def indexed(name: str, old: Old = None, **options: Any) -> MetaData:
    """Return items with a named index."""
    return item(Column("rank", Integer), Index(name, "rank", info=was(old), **options))


def constrained(constraint: Any) -> MetaData:
    """Return items with a code, an owner and one named constraint."""
    return item(
        Column("code", Text),
        Column("rank", Integer),
        Column("up", Integer),
        constraint,
    )


def keyed(name: str, old: Old = None) -> MetaData:
    """Return a table with a named primary key."""
    return table("entry", Column("a", Integer), PrimaryKeyConstraint("a", name=name, info=was(old)))


def referring(name: str, old: Old = None) -> MetaData:
    """Return two tables, the key of the first called ``name``."""
    metadata = MetaData()
    Table("owner", metadata, Column(name, Integer, primary_key=True, info=was(old)))
    Table(
        "item",
        metadata,
        number(),
        Column("owner_id", Integer),
        ForeignKeyConstraint(["owner_id"], [f"owner.{name}"], name="item_owner"),
    )
    return metadata


def enumerated(
    name: str, old: Old = None, *, values: tuple[str, ...] = ("a", "b"), column: str = "state"
) -> MetaData:
    """Return a table with a type of its own."""
    renamed = was("state") if column != "state" else {}
    return table(
        name,
        number(),
        Column(column, Enum(*values, name="state"), server_default="a", info=renamed),
        info=was(old),
    )


def swapped(first: Old, second: Old) -> MetaData:
    """Return items with two columns of one type."""
    return item(
        Column("a", Integer, info=was(first)),
        Column("b", Integer, info=was(second)),
    )


CASES: list[Case] = [
    change("rename-column", lambda: noted("body"), lambda: noted("content", "body")),
    change(
        "rename-column-not-null",
        lambda: noted("body", nullable=False),
        lambda: noted("content", "body", nullable=False),
    ),
    change(
        "rename-column-and-change-it",
        lambda: noted("body", kind=Integer),
        lambda: noted("content", "body", kind=BigInteger, nullable=False, comment="more"),
    ),
    change("rename-column-with-dependants", lambda: busy("rank"), lambda: busy("place", "rank")),
    change("rename-column-referred-to", lambda: referring("id"), lambda: referring("key", "id")),
    change(
        "rename-column-generated",
        lambda: item(Column("a", Text, Computed("upper(title)", persisted=True))),
        lambda: item(Column("b", Text, Computed("upper(title)", persisted=True), info=was("a"))),
    ),
    change(
        "rename-column-serial",
        lambda: table("note", number("id"), Column("body", Text)),
        lambda: table(
            "note",
            Column("number", Integer, primary_key=True, info=was("id")),
            Column("body", Text),
        ),
    ),
    change(
        "rename-column-with-automatic-names",
        lambda: item(Column("code", Text, unique=True), Column("up", ForeignKey("item.id"))),
        lambda: item(
            Column("mark", Text, unique=True, info=was("code")),
            Column("above", ForeignKey("item.id"), info=was("up")),
        ),
    ),
    change(
        "rename-two-columns",
        lambda: swapped(None, None),
        lambda: item(Column("x", Integer, info=was("a")), Column("y", Integer, info=was("b"))),
    ),
    change(
        "rename-column-and-add-one",
        lambda: noted("body"),
        lambda: item(Column("content", Text, info=was("body")), Column("more", Text)),
    ),
    change("rename-table", lambda: thing("thing"), lambda: thing("object", "thing")),
    change(
        "rename-table-with-identity",
        lambda: thing("thing", key=Identity()),
        lambda: thing("object", "thing", key=Identity()),
    ),
    change("rename-table-with-enum", lambda: enumerated("a"), lambda: enumerated("b", "a")),
    change(
        "rename-table-and-column-and-values-reordered",
        lambda: enumerated("a"),
        lambda: enumerated("b", "a", values=("b", "a"), column="phase"),
    ),
    change(
        "rename-table-and-column-and-value-added",
        lambda: enumerated("a"),
        lambda: enumerated("b", "a", values=("a", "b", "c"), column="phase"),
    ),
    decision(
        "rename-table-and-column-and-value-removed",
        lambda: enumerated("a", values=("a", "b", "c")),
        lambda: enumerated("b", "a", column="phase"),
    ),
    change(
        "rename-table-and-its-column",
        lambda: table("a", number(), Column("body", Text), Index("body_ix", "body")),
        lambda: table(
            "b",
            number(),
            Column("content", Text, info=was("body")),
            Index("body_ix", "content"),
            info=was("a"),
        ),
    ),
    change(
        "rename-table-and-add-a-column",
        lambda: table("a", number(), Column("body", Text)),
        lambda: table("b", number(), Column("body", Text), Column("rank", Integer), info=was("a")),
    ),
    change("rename-index", lambda: indexed("by_rank"), lambda: indexed("item_rank", "by_rank")),
    change(
        "rename-index-and-change-it",
        lambda: indexed("by_rank"),
        lambda: indexed("item_rank", "by_rank", unique=True),
    ),
    change(
        "rename-unique",
        lambda: constrained(UniqueConstraint("code", name="by_code")),
        lambda: constrained(UniqueConstraint("code", name="item_code", info=was("by_code"))),
    ),
    change(
        "rename-check",
        lambda: constrained(CheckConstraint("rank > 0", name="positive")),
        lambda: constrained(CheckConstraint("rank > 0", name="item_rank", info=was("positive"))),
    ),
    change(
        "rename-check-and-change-it",
        lambda: constrained(CheckConstraint("rank > 0", name="positive")),
        lambda: constrained(CheckConstraint("rank > -5", name="item_rank", info=was("positive"))),
    ),
    change(
        "rename-foreign-key",
        lambda: constrained(ForeignKeyConstraint(["up"], ["item.id"], name="upwards")),
        lambda: constrained(
            ForeignKeyConstraint(["up"], ["item.id"], name="item_up", info=was("upwards"))
        ),
    ),
    change(
        "rename-primary-key", lambda: keyed("entry_key"), lambda: keyed("entry_pk", "entry_key")
    ),
    control(
        "rename-column-done-long-ago", lambda: noted("content"), lambda: noted("content", "body")
    ),
    control(
        "rename-table-done-long-ago", lambda: thing("object"), lambda: thing("object", "thing")
    ),
    control(
        "rename-index-done-long-ago",
        lambda: indexed("item_rank"),
        lambda: indexed("item_rank", "by_rank"),
    ),
    control(
        "rename-constraint-done-long-ago",
        lambda: constrained(UniqueConstraint("code", name="item_code")),
        lambda: constrained(UniqueConstraint("code", name="item_code", info=was("by_code"))),
    ),
    control(
        "rename-notes-of-two-that-swapped", lambda: swapped(None, None), lambda: swapped("b", "a")
    ),
]
