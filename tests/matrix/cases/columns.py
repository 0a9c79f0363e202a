"""Columns: added and dropped, nullable or not, collation, comment, order."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item, number


def ranked(**options: object) -> MetaData:
    """Return items with a rank."""
    return item(Column("rank", Integer, **options))  # type: ignore[arg-type]  # as given


def used() -> MetaData:
    """Return items whose rank stands in an index, a constraint and a check."""
    return item(
        Column("rank", Integer),
        Column("code", Text),
        Index("item_rank", "rank"),
        Index("item_code_rank", "code", "rank"),
        UniqueConstraint("rank", "code", name="item_rank_code"),
        CheckConstraint("rank > 0", name="item_rank_positive"),
    )


def unused() -> MetaData:
    """Return the same items without their rank."""
    return item(Column("code", Text))


def thing(name: str) -> MetaData:
    """Return items, and a table of that name."""
    metadata = item()
    Table(name, metadata, number(), Column("body", Text))
    return metadata


NULLS = """
INSERT INTO item (title, rank) VALUES ('a', 1), ('b', NULL), ('c', NULL);
"""

CASES: list[Case] = [
    change("column-added", item, ranked),
    change("column-dropped", ranked, item),
    change(
        "column-added-with-default",
        item,
        lambda: ranked(nullable=False, server_default="0"),
        holds="SELECT count(*) = 3 FROM item WHERE rank = 0",
    ),
    change("column-dropped-with-default", lambda: ranked(nullable=False, server_default="0"), item),
    change(
        "column-array-added",
        item,
        lambda: item(Column("tags", ARRAY(Text), nullable=False, server_default="{}")),
    ),
    change(
        "column-json-added",
        item,
        lambda: item(Column("extra", JSONB, nullable=False, server_default=text("'{}'::jsonb"))),
    ),
    change(
        "column-time-added",
        item,
        lambda: item(
            Column("at", DateTime(timezone=True), nullable=False, server_default=func.now())
        ),
    ),
    change("column-dropped-with-dependants", used, unused),
    change("column-added-with-dependants", unused, used),
    change("column-made-nullable", lambda: ranked(nullable=False), ranked),
    change("column-made-not-null", ranked, lambda: ranked(nullable=False)),
    change(
        "column-collation-added",
        lambda: item(Column("name", Text)),
        lambda: item(Column("name", Text(collation="C"))),
    ),
    change(
        "column-collation-changed",
        lambda: item(Column("name", String(9, collation="C"))),
        lambda: item(Column("name", String(9, collation="POSIX"))),
    ),
    change(
        "column-collation-removed",
        lambda: item(Column("name", Text(collation="C"))),
        lambda: item(Column("name", Text)),
    ),
    change(
        "column-collation-changed-under-index",
        lambda: item(Column("name", Text), Index("item_name", "name")),
        lambda: item(Column("name", Text(collation="C")), Index("item_name", "name")),
    ),
    change("column-comment-added", ranked, lambda: ranked(comment="it's 100% :good")),
    change("column-comment-changed", lambda: ranked(comment="a"), lambda: ranked(comment="b")),
    change("column-comment-removed", lambda: ranked(comment="a"), ranked),
    change(
        "column-key-differs-from-name",
        lambda: item(Column("rank", Integer, key="place")),
        lambda: item(Column("rank", BigInteger, key="place")),
    ),
    change(
        "column-quoted-name-added",
        item,
        lambda: item(Column("Total %", Integer), Column("order", Integer)),
    ),
    change(
        "column-quoted-name-changed",
        lambda: item(Column("Total %", Integer), Column("order", Integer)),
        lambda: item(Column("Total %", BigInteger), Column("order", Integer, nullable=False)),
    ),
    control(
        "column-order",
        lambda: item(Column("a", Integer), Column("b", Text)),
        lambda: item(Column("b", Text), Column("a", Integer)),
    ),
    control("column-info", ranked, lambda: ranked(info={"label": "rank"})),
    control("column-python-default", ranked, lambda: ranked(default=5, onupdate=lambda: 6)),
    control("column-system-doc", ranked, lambda: ranked(doc="only for people")),
    control(
        "column-python-key",
        ranked,
        lambda: item(Column("rank", Integer, key="place")),
    ),
    control("column-empty-comment", ranked, lambda: ranked(comment="")),
    control("column-collation-rebuilt", lambda: item(Column("name", Text(collation="C")))),
    control(
        "column-default-collation",
        lambda: item(Column("name", Text)),
        lambda: item(Column("name", Text(collation="default"))),
    ),
    decision("column-not-null-dropped", lambda: ranked(nullable=False), item),
    decision("column-not-null-without-default", item, lambda: ranked(nullable=False)),
    decision("column-not-null-over-nulls", ranked, lambda: ranked(nullable=False), seed=NULLS),
    decision(
        "column-not-null-boolean-without-default",
        item,
        lambda: item(Column("done", Boolean, nullable=False)),
    ),
    decision(
        "columns-not-null-without-default",
        item,
        lambda: item(
            Column("a", Text, nullable=False),
            Column("b", Integer, nullable=False),
            UniqueConstraint("a", name="item_a"),
        ),
    ),
    decision(
        "column-dropped-and-like-it-added",
        lambda: item(Column("rank", Integer)),
        lambda: item(Column("position", Integer)),
        says="renamed_from",
    ),
    decision(
        "table-dropped-and-like-it-added",
        lambda: thing("thing"),
        lambda: thing("object"),
        says="renamed_from",
    ),
]
