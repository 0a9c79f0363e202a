"""Tables in schemas of their own."""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
    text,
)

from tests.matrix.case import Case, change, control
from tests.matrix.models import item, number


def inside(*more: Any, schema: str = "shop", **options: Any) -> MetaData:
    """Return a table in a schema."""
    metadata = MetaData()
    Table("ware", metadata, number(), Column("name", Text), *more, schema=schema, **options)
    return metadata


def default(*more: Any) -> MetaData:
    """Return the same table through the MetaData's own schema."""
    metadata = MetaData(schema="shop")
    Table("ware", metadata, number(), Column("name", Text), *more)
    return metadata


def across(**options: Any) -> MetaData:
    """Return tables in two schemas, with a key between them."""
    metadata = item()
    key = ForeignKey("item.id", **options) if options.pop("key", True) else None
    Table(
        "ware",
        metadata,
        number(),
        Column("item_id", Integer, *([key] if key is not None else [])),
        schema="shop",
    )
    return metadata


def full(expression: str = "name || '!'", *, check: str = "rank > 0") -> MetaData:
    """Return a table in a schema with something of everything."""
    return inside(
        Column("rank", Integer, CheckConstraint(check, name="ware_rank"), index=True),
        Column("loud", Text, Computed(expression, persisted=True)),
        Column("up", ForeignKey("shop.ware.id", ondelete="CASCADE")),
        comment="what is sold",
    )


def state(*values: str, server_default: str | None = "a") -> MetaData:
    """Return a table in a schema whose type is in that schema, too."""
    kind = Enum(*values, name="ware_state", schema="shop")
    return inside(Column("state", kind, server_default=server_default))


def numbered(**options: Any) -> MetaData:
    """Return a table and a sequence in a schema."""
    metadata = inside()
    Sequence("ware_code", schema="shop", metadata=metadata, **options)
    return metadata


def two(name: str = "name") -> MetaData:
    """Return tables of one name in two schemas."""
    metadata = inside()
    Table("ware", metadata, number(), Column(name, Text), Index("ware_ix", name))
    return metadata


def near(ops: str) -> MetaData:
    """Return a table in a schema with vectors and their index."""
    return inside(
        Column("embedding", VECTOR(3)),
        Index("ware_near", "embedding", postgresql_using="hnsw", postgresql_ops={"embedding": ops}),
    )


def _with_full() -> MetaData:
    metadata = item()
    for table in full().tables.values():
        table.to_metadata(metadata)
    return metadata


def _uncommented() -> MetaData:
    metadata = full()
    metadata.tables["shop.ware"].comment = None
    return metadata


def _named(name: str, old: str | None) -> MetaData:
    metadata = MetaData()
    info = {"renamed_from": old} if old else {}
    Table(name, metadata, number(), Column("name", Text, index=True), schema="shop", info=info)
    Table(
        "tag", metadata, number(), Column("ware_id", ForeignKey(f"shop.{name}.id")), schema="shop"
    )
    return metadata


CASES: list[Case] = [
    change("schema-added", item, across),
    change("schema-dropped", across, item),
    change("schema-column-added", inside, lambda: inside(Column("rank", Integer))),
    change("schema-column-dropped", lambda: inside(Column("rank", Integer)), inside),
    change(
        "schema-of-the-metadata-column-added", default, lambda: default(Column("rank", Integer))
    ),
    change("schema-key-added", lambda: across(key=False), across),
    change("schema-key-changed", across, lambda: across(ondelete="CASCADE")),
    change("schema-table-moved-to-two", inside, two),
    change(
        "schema-table-of-one-name-changed",
        two,
        lambda: two("label"),
        seed="INSERT INTO ware (id) VALUES (1), (2), (3);"
        "INSERT INTO shop.ware (name) VALUES ('a'), ('b'), ('c')",
    ),
    change("schema-table-of-everything-added", item, _with_full),
    change("schema-generated-changed", full, lambda: full("name || '?'")),
    change("schema-check-changed", full, lambda: full(check="rank > -1")),
    change("schema-comment-removed", full, _uncommented),
    change("schema-enum-added", inside, lambda: state("a", "b")),
    change("schema-enum-dropped", lambda: state("a", "b"), inside),
    change("schema-enum-value-added", lambda: state("a", "b"), lambda: state("a", "b", "c")),
    change("schema-enum-values-reordered", lambda: state("a", "b"), lambda: state("b", "a")),
    change("schema-sequence-added", inside, numbered),
    change("schema-sequence-changed", numbered, lambda: numbered(increment=7)),
    change(
        "schema-vector-index",
        lambda: near("vector_l2_ops"),
        lambda: near("vector_cosine_ops"),
        needs="vector",
    ),
    change(
        "schema-rename-table",
        lambda: _named("ware", None),
        lambda: _named("article", "ware"),
    ),
    change(
        "schema-quoted-name",
        lambda: inside(schema="My Shop"),
        lambda: inside(Column("rank", Integer, index=True), schema="My Shop"),
    ),
    control("schema-rebuilt", full),
    control("schema-enum-rebuilt", lambda: state("a", "b")),
    control("schema-sequence-rebuilt", numbered),
    control("schema-of-the-metadata-or-the-table", default, inside),
    control("schema-key-rebuilt", across),
    control("schema-vector-index-rebuilt", lambda: near("vector_l2_ops"), needs="vector"),
    control(
        "schema-of-somebody-else",
        across,
        beside="CREATE SCHEMA theirs; CREATE TABLE theirs.thing (id int PRIMARY KEY);"
        "CREATE TABLE theirs.item (id int); CREATE TYPE theirs.kind AS ENUM ('a');"
        "CREATE SEQUENCE theirs.numbers; CREATE TABLE shop.theirs (id int)",
    ),
    control(
        "schema-written-out-in-an-expression",
        lambda: inside(
            Column("rank", Integer), Index("ware_rank", "rank", postgresql_where=text("rank > 0"))
        ),
        lambda: inside(
            Column("rank", Integer),
            Index("ware_rank", "rank", postgresql_where=text("ware.rank > 0")),
        ),
    ),
]
