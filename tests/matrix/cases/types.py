"""The types of columns, with what stands in brackets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    ARRAY,
    CHAR,
    INTEGER,
    JSON,
    TIMESTAMP,
    VARCHAR,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Double,
    Float,
    ForeignKey,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Time,
    Unicode,
    Uuid,
    types,
)
from sqlalchemy.dialects import postgresql as pg

from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item


def typed(kind: Any, **options: Any) -> Callable[[], MetaData]:
    """Return a model of items with a value of that type."""
    return lambda: item(Column("value", kind, **options))


class Upper(types.TypeDecorator[str]):
    """Changes the Python side only."""

    impl = String
    cache_ok = True


def _row(name: str, before: Any, after: Any, **more: Any) -> Case:
    return change(f"type-{name}", typed(before), typed(after), **more)


def _same(name: str, before: Any, after: Any, **more: Any) -> Case:
    return control(f"type-{name}", typed(before), typed(after), **more)


def _asks(name: str, before: Any, after: Any, **more: Any) -> Case:
    return decision(f"type-{name}", typed(before), typed(after), **more)


def _indexed(kind: Any) -> MetaData:
    return item(
        Column("value", kind, nullable=False, server_default="5"),
        Column("twice", BigInteger, Computed("value * 2", persisted=True)),
        Index("item_value", "value", postgresql_where=Column("value", Integer) > 0),
        CheckConstraint("value < 1000", name="item_value_small"),
    )


LONG = "INSERT INTO item (title, value) VALUES ('a', repeat('x', 40)), ('b', 'y'), ('c', 'z');"
LOSES = "SELECT false"  # with these rows, whatever is there after the upgrade is less than before
WORDS = "INSERT INTO item (title, value) VALUES ('a', 'seven'), ('b', '8'), ('c', NULL);"
BIG = "INSERT INTO item (title, value) VALUES ('a', 5000000000), ('b', 1), ('c', 2);"
FINE = "INSERT INTO item (title, value) VALUES ('a', 1.2345), ('b', 123456.5), ('c', 2);"


def _keys(kind: Any) -> MetaData:
    metadata = MetaData()
    Table("item", metadata, Column("id", kind, primary_key=True), Column("title", Text))
    Table(
        "tag",
        metadata,
        Column("id", kind, primary_key=True),
        Column("item_id", kind, ForeignKey("item.id", ondelete="CASCADE"), nullable=False),
    )
    return metadata


CASES: list[Case] = [
    _row("varchar-widened", String(20), String(40)),
    _row("varchar-unbounded", String(20), String()),
    _row("varchar-to-text", String(20), Text()),
    _row("text-to-varchar-without-length", Text(), String()),
    _row("smallint-to-integer", SmallInteger(), Integer()),
    _row("integer-to-bigint", Integer(), BigInteger()),
    _row("integer-to-numeric", Integer(), Numeric(12, 2)),
    _row("numeric-widened", Numeric(10, 2), Numeric(12, 2)),
    _row("numeric-unbounded", Numeric(10, 2), Numeric()),
    _row("float-to-double", Float(24), Double()),
    _asks("timestamp-gets-zone", DateTime(), DateTime(timezone=True)),
    _asks("timestamp-loses-zone", DateTime(timezone=True), DateTime()),
    _row("timestamp-precision-widened", pg.TIMESTAMP(precision=0), pg.TIMESTAMP(precision=6)),
    _asks("time-gets-zone", Time(), Time(timezone=True)),
    _row("date-to-timestamp", Date(), DateTime()),
    _row("json-to-jsonb", JSON(), pg.JSONB()),
    _row("array-element-widened", ARRAY(Integer), ARRAY(BigInteger)),
    _row("char-to-varchar", CHAR(10), String(10)),
    _row("inet-to-text", pg.INET(), Text()),
    _row("integer-to-text", Integer(), Text()),
    _row("uuid-to-text", Uuid(), Text()),
    _row("interval-fields", pg.INTERVAL(), pg.INTERVAL(precision=3)),
    _row("text-to-citext", Text(), pg.CITEXT(), needs="citext"),
    change(
        "type-changed-with-dependants", lambda: _indexed(Integer()), lambda: _indexed(BigInteger())
    ),
    change(
        "type-of-key-and-reference",
        lambda: _keys(Integer()),
        lambda: _keys(BigInteger()),
    ),
    _row(
        "to-domain",
        Text(),
        pg.DOMAIN("word", Text, create_type=False),
        prepare="CREATE DOMAIN word AS text",
    ),
    _row(
        "from-domain",
        pg.DOMAIN("word", Text, create_type=False),
        Text(),
        prepare="CREATE DOMAIN word AS text CHECK (VALUE <> 'VALUE')",
    ),
    _same("integer-names", Integer(), INTEGER()),
    _same("string-names", String(20), VARCHAR(20)),
    _same("unicode", String(20), Unicode(20)),
    _same("double-names", Float(53), pg.DOUBLE_PRECISION()),
    _same("float-default", Float(), Float(53)),
    _same("numeric-scale", Numeric(10), Numeric(10, 0)),
    _same("real-names", Float(24), pg.REAL()),
    _same("timestamp-names", DateTime(timezone=True), TIMESTAMP(timezone=True)),
    _same("boolean-names", Boolean(), pg.BOOLEAN()),
    _same("uuid-names", Uuid(), pg.UUID(as_uuid=False)),
    _same("binary-names", LargeBinary(), pg.BYTEA()),
    _same("array-names", ARRAY(Integer), pg.ARRAY(INTEGER, dimensions=2)),
    _same("decorated", String(20), Upper(20)),
    _same("char-names", CHAR(3), pg.CHAR(3)),
    _same("interval-names", Interval(), pg.INTERVAL()),
    _same("bit-names", pg.BIT(3), pg.BIT(3)),
    _same("tsvector-names", pg.TSVECTOR(), pg.TSVECTOR()),
    _same("variant", Text(), String().with_variant(Text(), "postgresql")),
    _same("jsonb-rebuilt", pg.JSONB(), pg.JSONB(none_as_null=True)),
    _asks("varchar-narrowed", String(50), String(10), seed=LONG),
    _asks("text-to-varchar", Text(), String(10), seed=LONG),
    _asks("integer-narrowed", BigInteger(), Integer(), seed=BIG),
    _asks("numeric-scale-narrowed", Numeric(12, 4), Numeric(12, 2), seed=FINE, holds=LOSES),
    _asks("numeric-precision-narrowed", Numeric(12, 4), Numeric(8, 4), seed=FINE),
    _asks(
        "to-domain-with-a-check",
        Text(),
        pg.DOMAIN("count", Integer, create_type=False),
        prepare="CREATE DOMAIN count AS integer CHECK (VALUE < 8)",
        seed=WORDS,
    ),
    _asks(
        "to-domain-of-its-type-with-a-check",
        Integer(),
        pg.DOMAIN("count", Integer, create_type=False),
        prepare="CREATE DOMAIN count AS integer NOT NULL CHECK (VALUE < 2)",
    ),
    _asks("text-to-integer", Text(), Integer(), seed=WORDS),
    _asks("text-to-jsonb", Text(), pg.JSONB(), seed=WORDS),
    _asks("text-to-timestamp", Text(), DateTime(timezone=True), seed=WORDS),
    _asks("text-to-uuid", Text(), Uuid(), seed=WORDS),
    _asks("integer-to-boolean", Integer(), Boolean()),
    _asks("integer-to-date", Integer(), Date()),
    _asks("json-to-integer", pg.JSONB(), Integer()),
    _asks("timestamp-to-date", DateTime(), Date(), holds=LOSES),
    _asks("text-to-array", Text(), ARRAY(Text), seed=WORDS),
    _asks("array-to-text", ARRAY(Text), Text()),
    _asks("double-to-float", Double(), Float(24), seed=FINE, holds=LOSES),
    _asks(
        "timestamp-precision-narrowed",
        pg.TIMESTAMP(precision=6),
        pg.TIMESTAMP(precision=0),
        holds=LOSES,
    ),
]
