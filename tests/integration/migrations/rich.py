"""Models with one of everything, for the tests of what is read and built."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.types import TypeDecorator

from ragstore.types import UtcDateTime, Vector, function, hnsw, ivfflat

PREPARATION = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE SCHEMA rag;
CREATE SCHEMA "Mixed Case";
CREATE TYPE given AS ENUM ('x', 'y');
CREATE TYPE rag.given AS ENUM ('z', 'a');
"""
"""What has to be in a database before ``create_all`` of these models."""


def create(engine: sa.Engine, metadatas: list[sa.MetaData]) -> None:
    """Create everything as ``create_all`` does, which cannot build an index concurrently."""
    with engine.begin() as connection:
        connection.exec_driver_sql(PREPARATION)
    # SQLAlchemy does not see that one needs the other.
    tables = metadatas[0].tables
    tables["heir"].add_is_dependent_on(tables["parents"])
    (later,) = [index for index in tables["item"].indexes if index.name == "item_later"]
    options = later.dialect_options["postgresql"]
    options["concurrently"] = False
    for metadata in metadatas:
        metadata.create_all(engine)
    options["concurrently"] = True


class Wrapped(TypeDecorator[str]):
    """A native enum behind a decorator."""

    impl = sa.Enum("left", "right", name="side")
    cache_ok = True


def models(*, version: int = 18, vectors: bool = True) -> list[sa.MetaData]:
    """Return two MetaData: the second has a schema of its own and refers to the first."""
    metadata = sa.MetaData()
    _items(metadata)
    _keys(metadata)
    _columns(metadata, version)
    _storage(metadata)
    if vectors:
        _vectors(metadata)
    return [metadata, _other_schema(metadata)]


def _items(metadata: sa.MetaData) -> None:
    status = sa.Enum("draft", "it's done", "100%", name="status", metadata=metadata)
    sa.Enum("used", "nowhere", name="unused", metadata=metadata)
    sa.Table(
        "item",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("status", status, server_default="draft", nullable=False),
        sa.Column("history", sa.ARRAY(status), server_default=sa.text("ARRAY['100%'::status]")),
        sa.Column("side", Wrapped),
        sa.Column("given", pg.ENUM("x", "y", name="given", create_type=False)),
        sa.Column("kind", sa.String(20), comment="what it's; 100%"),
        sa.Column("loose", sa.Enum("a", "b", native_enum=False, create_constraint=True)),
        sa.Column("Price", sa.Numeric(10, 2), server_default="0"),
        sa.Column("parent_id", sa.ForeignKey("item.id")),
        sa.Column("body", pg.JSONB),
        sa.CheckConstraint("kind IN ('a', 'b%', 'c:d')", name="kind_check"),
        sa.CheckConstraint('"Price" % 5 = 0'),
        sa.UniqueConstraint("kind", "Price", postgresql_nulls_not_distinct=True),
        sa.UniqueConstraint("side", "kind", postgresql_include=["Price"], name="wide"),
        sa.Index("item_lower", sa.text("lower(kind) DESC NULLS LAST"), "Price"),
        sa.Index("item_part", "kind", postgresql_where=sa.text("status = 'draft'"), unique=True),
        sa.Index(
            "item_body", "body", postgresql_using="gin", postgresql_ops={"body": "jsonb_path_ops"}
        ),
        sa.Index(
            "Item Mixed", "Price", postgresql_include=["kind"], postgresql_with={"fillfactor": 70}
        ),
        sa.Index("item_pattern", "kind", postgresql_ops={"kind": "varchar_pattern_ops"}),
        sa.Index("item_later", "parent_id", postgresql_concurrently=True),
        sa.Index("item_distinct", "side", unique=True, postgresql_nulls_not_distinct=True),
        sa.Index("item_never", "id").ddl_if(dialect="sqlite"),
        comment="It's an item; 100%",
    )


def _keys(metadata: sa.MetaData) -> None:
    sa.Table(
        "pair",
        metadata,
        sa.Column("a", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("b", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("child_id", sa.Integer),
        sa.ForeignKeyConstraint(["child_id"], ["child.id"], use_alter=True, name="pair_child"),
    )
    sa.Table(
        "child",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(start=5, increment=2), primary_key=True),
        sa.Column("a", sa.Integer),
        sa.Column("b", sa.Integer),
        sa.Column("item_id", sa.ForeignKey("item.id", onupdate="CASCADE", ondelete="SET DEFAULT")),
        sa.Column("other_id", sa.ForeignKey("item.id", deferrable=True, initially="DEFERRED")),
        sa.Column("self_id", sa.ForeignKey("child.id", deferrable=True, ondelete="RESTRICT")),
        sa.ForeignKeyConstraint(["a", "b"], ["pair.a", "pair.b"], name="x", comment="its %"),
        sa.ForeignKeyConstraint(["a", "b"], ["pair.a", "pair.b"], match="FULL"),
        sa.ForeignKeyConstraint(
            ["a", "b"], ["pair.a", "pair.b"], ondelete="SET NULL (b)", name="child_pair_null"
        ),
    )


def _columns(metadata: sa.MetaData, version: int) -> None:
    number = sa.Sequence("item_number", metadata=metadata, start=100, cycle=True, maxvalue=900)
    short = pg.DOMAIN(
        "short", sa.String(8), check="VALUE <> 'x%'", not_null=True, metadata=metadata
    )
    table = sa.Table(
        "many",
        metadata,
        sa.Column("id", sa.SmallInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("own", sa.Integer, sa.Sequence("own_number")),
        sa.Column("number", sa.BigInteger, server_default=number.next_value()),
        sa.Column("short", short),
        sa.Column("collated", sa.Text(collation="C")),
        sa.Column("first", sa.Text, nullable=False, server_default=sa.text("'it''s 5%'")),
        sa.Column("double", sa.Integer, sa.Computed("number::integer * 2", persisted=True)),
        sa.Column("folded", sa.Text, sa.Computed("fold(first)", persisted=True)),
        sa.Column("during", pg.TSTZRANGE),
        sa.Column("days", sa.ARRAY(sa.Date, dimensions=2)),
        sa.Column("at", UtcDateTime, server_default=sa.func.now()),
        sa.Column("moment", sa.DateTime, server_default=sa.text("'2020-01-02 03:04'")),
        sa.Column("each", pg.UUID, server_default=sa.func.gen_random_uuid()),
        sa.Column("wait", pg.INTERVAL(fields="DAY TO SECOND", precision=3)),
        pg.ExcludeConstraint(("number", "="), ("during", "&&"), name="apart", where="number > 0"),
        sa.Index("many_collated", sa.text('collated COLLATE "POSIX" text_pattern_ops')),
        sa.Index("many_fold", sa.text("fold(first)")),
        sa.Index(
            "many_words",
            sa.text("to_tsvector('english', first) tsvector_ops (siglen = 100)"),
            postgresql_using="gist",
        ),
        sa.CheckConstraint("fold(first) <> ''", name="folds", info={}),
    )
    if version >= 18:
        table.append_column(sa.Column("lazy", sa.Integer, sa.Computed("id * 2", persisted=False)))
    function(table, "fold", [("t", "text")], "text", "SELECT lower(t) || '%'")


def _storage(metadata: sa.MetaData) -> None:
    sa.Table(
        "fast",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        prefixes=["UNLOGGED"],
        postgresql_with={"fillfactor": 50, "toast.autovacuum_enabled": False},
    )
    sa.Table(
        "parts",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Index("parts_day", "day"),
        postgresql_partition_by="RANGE (day)",
    )
    sa.Table("heir", metadata, sa.Column("more", sa.Text), postgresql_inherits="parents")
    sa.Table("parents", metadata, sa.Column("name", sa.Text, sa.CheckConstraint("name <> ''")))
    sa.Table("passing", metadata, sa.Column("id", sa.Integer), prefixes=["TEMPORARY"])


def _vectors(metadata: sa.MetaData) -> None:
    table = sa.Table(
        "vectors",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("any", Vector()),
        sa.Column("full", VECTOR(3)),
        sa.Column("half", HALFVEC(3)),
        sa.Column("sparse", SPARSEVEC(100)),
        sa.Column("bits", BIT(8)),
        sa.Column("several", sa.ARRAY(VECTOR(2))),
        sa.Index(
            "by_half", "half", postgresql_using="hnsw", postgresql_ops={"half": "halfvec_l2_ops"}
        ),
        sa.Index(
            "by_bits", "bits", postgresql_using="hnsw", postgresql_ops={"bits": "bit_hamming_ops"}
        ),
    )
    column: Any = table.c["any"]
    for index in (
        hnsw("by_any", column, dimensions=3, m=8, where=table.c.id > 5),
        ivfflat("by_list", table.c.full, dimensions=3, lists=10, storage="vector", metric="l2"),
    ):
        assert index.table is table


def _other_schema(first: sa.MetaData) -> sa.MetaData:
    metadata = sa.MetaData(schema="rag")
    sa.Table(
        "item",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("status", sa.Enum("in", "out", name="status", metadata=metadata)),
        sa.Column("given", pg.ENUM(name="given", create_type=False, schema="rag")),
        sa.Column("number", sa.Integer, sa.Sequence("numbers", schema="rag")),
        sa.Column("default", sa.Enum("on", "off", name="power", schema="rag"), server_default="on"),
        sa.Column("first_id", sa.ForeignKey(first.tables["item"].c.id)),
        sa.Column("parent_id", sa.ForeignKey("rag.item.id", ondelete="CASCADE")),
        sa.Index("item_status", "status", postgresql_where=sa.text("status = 'in'")),
        comment="in another schema",
    )
    sa.Table(
        "Odd Name",
        metadata,
        sa.Column("The Id", sa.Integer, primary_key=True),
        sa.Column("item_id", sa.ForeignKey("rag.item.id")),
        sa.CheckConstraint('"The Id" > 0'),
        sa.Index("Odd Index", "item_id"),
        schema="Mixed Case",
    )
    return metadata
