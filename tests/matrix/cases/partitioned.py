"""Partitioned tables; their partitions are made by others."""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    cast,
    column,
)

from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item

PART = "CREATE TABLE event_rest PARTITION OF event DEFAULT;"
ROWS = (
    "INSERT INTO item (title) VALUES ('a'), ('b'), ('c');"
    "INSERT INTO event (id, kind, body) VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');"
)
PARTS = """
CREATE TABLE event_1 PARTITION OF event FOR VALUES IN (1);
CREATE TABLE event_2 PARTITION OF event FOR VALUES IN (2);
CREATE TABLE event_rest PARTITION OF event DEFAULT;
CREATE INDEX event_1_own ON event_1 (body);
ALTER TABLE event_2 ADD CHECK (body <> 'none');
"""


def events(*more: Any, by: str = "LIST (kind)", **options: Any) -> MetaData:
    """Return a partitioned table beside a plain one."""
    metadata = item()
    Table(
        "event",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("kind", Integer, primary_key=True, autoincrement=False),
        Column("body", Text),
        *more,
        postgresql_partition_by=by,
        **options,
    )
    return metadata


def unpartitioned() -> MetaData:
    """Return the same table, not partitioned."""
    metadata = item()
    Table(
        "event",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("kind", Integer, primary_key=True, autoincrement=False),
        Column("body", Text),
    )
    return metadata


def vectors(size: int = 3, ops: str = "halfvec_cosine_ops") -> MetaData:
    """Return a partitioned table of vectors with an index that every partition gets."""
    key = cast(column("embedding", VECTOR()), HALFVEC(size)).label("e")
    return events(
        Column("embedding", VECTOR()),
        Index("event_near", key, postgresql_using="hnsw", postgresql_ops={"e": ops}),
    )


def _row(name: str, before: Any, after: Any, **more: Any) -> Case:
    return change(f"partitioned-{name}", before, after, **{"beside": PARTS, **more})


def _asks(name: str, after: Any) -> Case:
    clear = "DROP TABLE event_rest; TRUNCATE item"
    return decision(f"partitioned-{name}", events, after, seed=PART + ROWS, clear=clear)


CASES: list[Case] = [
    change("partitioned-table-added", item, events),
    change("partitioned-table-by-range-added", item, lambda: events(by="RANGE (kind)")),
    change("partitioned-table-by-expression-added", item, lambda: events(by="HASH (kind)")),
    change("partitioned-table-dropped", events, item),
    _row("column-added", events, lambda: events(Column("rank", Integer))),
    _row(
        "column-with-default-added",
        events,
        lambda: events(Column("rank", Integer, nullable=False, server_default="0")),
    ),
    _row("column-dropped", lambda: events(Column("rank", Integer)), events),
    _row(
        "column-made-not-null",
        lambda: events(Column("rank", Integer)),
        lambda: events(Column("rank", Integer, nullable=False)),
    ),
    _row(
        "column-type", lambda: events(Column("rank", Integer)), lambda: events(Column("rank", Text))
    ),
    _row("index-added", events, lambda: events(Index("event_body", "body"))),
    _row(
        "index-changed",
        lambda: events(Index("event_body", "body")),
        lambda: events(Index("event_body", "body", "id")),
    ),
    _row("index-dropped", lambda: events(Index("event_body", "body")), events),
    _row(
        "unique-added", events, lambda: events(UniqueConstraint("kind", "body", name="event_once"))
    ),
    _row("check-added", events, lambda: events(CheckConstraint("id > 0", name="event_id"))),
    _row(
        "check-changed",
        lambda: events(CheckConstraint("id > 0", name="event_id")),
        lambda: events(CheckConstraint("id > -1", name="event_id")),
    ),
    _row(
        "foreign-key-added",
        lambda: events(Column("item_id", Integer)),
        lambda: events(Column("item_id", ForeignKey("item.id", name="event_item"))),
    ),
    _row("comment-added", events, lambda: events(comment="what happened")),
    _row("vector-index-metric", vectors, lambda: vectors(ops="halfvec_l2_ops"), needs="vector"),
    control("partitioned-rebuilt", events),
    control("partitioned-with-partitions", events, beside=PARTS),
    control("partitioned-spelling", events, lambda: events(by="list ( kind )")),
    control("partitioned-vector-index-with-partitions", vectors, beside=PARTS, needs="vector"),
    control(
        "partitioned-with-subpartitions",
        events,
        beside="CREATE TABLE event_1 PARTITION OF event FOR VALUES IN (1) PARTITION BY RANGE (id);"
        "CREATE TABLE event_1_a PARTITION OF event_1 FOR VALUES FROM (0) TO (100);" + PART,
    ),
    _asks("key-changed", lambda: events(by="LIST (id)")),
    _asks("method-changed", lambda: events(by="RANGE (kind)")),
    _asks("made-plain", unpartitioned),
    decision("plain-made-partitioned", unpartitioned, events),
]
