"""Server defaults, and other ways to write the same one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    ARRAY,
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    Integer,
    Interval,
    MetaData,
    Numeric,
    String,
    Text,
    Uuid,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from tests.matrix.case import Case, change, control
from tests.matrix.models import item

NOW = DateTime(timezone=True)


def with_default(kind: Any, default: Any) -> Callable[[], MetaData]:
    """Return a model of items whose value has that default; none if it is None."""
    return lambda: item(Column("value", kind, server_default=default))


def _row(name: str, kind: Any, before: Any, after: Any) -> Case:
    return change(f"default-{name}", with_default(kind, before), with_default(kind, after))


def _same(name: str, kind: Any, before: Any, after: Any) -> Case:
    return control(f"default-{name}", with_default(kind, before), with_default(kind, after))


CASES: list[Case] = [
    _row("added", Text, None, "new"),
    _row("removed", Text, "old", None),
    _row("changed", Text, "old", "new"),
    _row("with-quotes", Text, "it's", 'it\'s "so" 100% :now \\'),
    _row("number-changed", Integer, "1", "2"),
    _row("number-sign-changed", Integer, "1", "-1"),
    _row("boolean-changed", Boolean, text("true"), text("false")),
    _row("json-changed", JSONB, "{}", '{"a": [1, "b:c"]}'),
    _row("array-changed", ARRAY(Text), "{}", "{a,b}"),
    _row("function-changed", NOW, func.now(), func.clock_timestamp()),
    _row("now-to-current-timestamp", NOW, func.now(), func.current_timestamp()),
    _row("now-at-zone", DateTime(), func.now(), text("(now() AT TIME ZONE 'utc')")),
    _row("uuid-function", Uuid, None, func.gen_random_uuid()),
    _row("null-to-none", Text, text("NULL"), "x"),
    _row("case-of-a-string", Text, "Draft", "draft"),
    _row("space-in-a-string", Text, "a  b", "a b"),
    _row("cast-inside", Text, text("'2020-01-01'::date::text"), "2020-01-01"),
    _row("interval-changed", Interval, text("interval '1 day'"), text("interval '2 days'")),
    _row("expression-changed", Integer, text("1 + 1"), text("2 + 1")),
    change(
        "default-and-type-changed",
        lambda: item(Column("value", String(5), server_default="1", nullable=False)),
        lambda: item(Column("value", Text, server_default="2", nullable=False)),
    ),
    change(
        "default-kept-while-type-changes",
        lambda: item(Column("value", Integer, server_default="7")),
        lambda: item(Column("value", Numeric(9, 2), server_default="7")),
    ),
    _same("string-with-cast", Text, "x", text("'x'::text")),
    _same("varchar-with-cast", String(9), "x", text("'x'::character varying")),
    _same("number-quoted", Integer, "1", text("1")),
    _same("number-in-brackets", Integer, text("1"), text("((1))")),
    _same("boolean-spelling", Boolean, text("false"), false()),
    _same("boolean-letter", Boolean, "t", text("TRUE")),
    _same("json-cast", JSONB, "{}", text("'{}'::jsonb")),
    _same("json-cast-function", JSONB, text("'{}'::jsonb"), text("CAST('{}' AS jsonb)")),
    _same("array-cast", ARRAY(Text), "{}", text("'{}'::text[]")),
    _same("now-spelling", NOW, func.now(), text("now( )")),
    _same("now-upper", NOW, text("NOW()"), text("pg_catalog.now()")),
    _same("current-timestamp-spelling", NOW, func.current_timestamp(), text("current_timestamp")),
    _same("whitespace", Integer, text("1+1"), text("1  +  1")),
    _same("uuid-rebuilt", Uuid, func.gen_random_uuid(), text("gen_random_uuid()")),
    _row("float-spelling", Float(53), "1.5", text("1.5")),
    _same("date-cast", Date, "2024-01-01", text("DATE '2024-01-01'")),
    _same("interval-spelling", Interval, text("interval '1 day'"), text("'1 day'::interval")),
    _same("explicit-null", Text, None, text("NULL")),
    _same("python-text", Text, "it's", text("'it''s'")),
]
