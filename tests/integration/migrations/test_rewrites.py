"""Which changes write a table anew, asked of the server: the table's file has another number."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL

from ragstore.migrations.rewriting import is_volatile, rewrites
from ragstore.testing.plugin import NewDatabase


@pytest.fixture(scope="module")
def connection(ragstore_new_database: NewDatabase) -> Iterator[Connection]:
    """Yield a connection to a database with pgvector, whose changes are undone after each test."""
    url: URL = ragstore_new_database()
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()
    ragstore_new_database.drop(url)


def _file(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT pg_relation_filenode('rewritten')")) or 0)


def rewritten(connection: Connection, column: str, change: str) -> bool:
    """Make a table with one row and say if the change moves it to another file."""
    with connection.begin() as transaction:
        connection.exec_driver_sql("SET LOCAL TimeZone = 'Europe/Berlin'")
        connection.exec_driver_sql(f"CREATE TABLE rewritten (id int, {column})")
        connection.exec_driver_sql("INSERT INTO rewritten (id) VALUES (1)")
        before = _file(connection)
        connection.exec_driver_sql(f"ALTER TABLE rewritten {change}")
        result = _file(connection) != before
        transaction.rollback()
    return result


KNOWN = [
    ("character varying(10)", "character varying(20)"),
    ("character varying(20)", "character varying(10)"),
    ("character varying(10)", "character varying"),
    ("character varying", "character varying(10)"),
    ("character varying(10)", "text"),
    ("character varying", "text"),
    ("text", "character varying"),
    ("text", "character varying(10)"),
    ("text", "text"),
    ("character(3)", "character(5)"),
    ("character(3)", "text"),
    ("character(3)", "character varying"),
    ("character(3)", "bpchar"),
    ("text", "character(3)"),
    ("numeric(10,2)", "numeric(12,2)"),
    ("numeric(12,2)", "numeric(10,2)"),
    ("numeric(10,2)", "numeric(12,3)"),
    ("numeric(10,2)", "numeric(12,1)"),
    ("numeric(10,2)", "numeric"),
    ("numeric(10)", "numeric(12)"),
    ("numeric", "numeric(10,2)"),
    ("integer", "bigint"),
    ("integer", "numeric"),
    ("bigint", "integer"),
    ("smallint", "integer"),
    ("real", "double precision"),
    ("boolean", "integer USING b::integer"),
    ("bit(3)", "bit(5)"),
    ("bit(3)", "bit varying(5)"),
    ("bit(3)", "bit varying"),
    ("bit varying(3)", "bit varying(5)"),
    ("bit varying(5)", "bit varying(3)"),
    ("bit varying(5)", "bit varying"),
    ("timestamp(3) without time zone", "timestamp(6) without time zone"),
    ("timestamp(3) without time zone", "timestamp without time zone"),
    ("timestamp without time zone", "timestamp(3) without time zone"),
    ("timestamp(6) with time zone", "timestamp(3) with time zone"),
    ("timestamp(3) with time zone", "timestamp(4) with time zone"),
    ("timestamp without time zone", "timestamp with time zone"),
    ("timestamp with time zone", "timestamp without time zone"),
    ("timestamp without time zone", "date"),
    ("time(3) without time zone", "time(5) without time zone"),
    ("time(3) with time zone", "time with time zone"),
    ("interval(3)", "interval(5)"),
    ("interval(3)", "interval"),
    ("interval", "interval(3)"),
    ("cidr", "inet"),
    ("inet", "cidr"),
    ("xml", "text"),
    ("xml", "character varying"),
    ("json", "jsonb"),
    ("jsonb", "json"),
    ("jsonb", "text"),
    ("uuid", "text"),
    ("text", "uuid USING b::uuid"),
    ("character varying(10)[]", "character varying(20)[]"),
    ("character varying(10)[]", "character varying[]"),
    ("character varying(10)[]", "text[]"),
    ("text[]", "character varying[]"),
    ("text", "text[] USING ARRAY[b]"),
    ("integer[]", "bigint[]"),
    ("vector(3)", "vector"),
    ("vector(3)", "vector(4)"),
    ("vector", "vector(3)"),
    ("vector(3)", "halfvec(3)"),
    ("halfvec(3)", "vector(3)"),
]


@pytest.mark.parametrize(("old", "new"), KNOWN, ids=lambda name: str(name).replace(" ", "_"))
def test_rewrites_says_what_the_server_does(connection: Connection, old: str, new: str) -> None:
    """A change of type is said to write the table anew if, and only if, the server does so."""
    done = rewritten(connection, f"b {old}", f"ALTER COLUMN b TYPE {new}")
    assert rewrites(old, new.partition(" USING ")[0]) is done


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("VARCHAR(20)", "character varying(20)"),
        ('VARCHAR(20) COLLATE "C"', "character varying(20)"),
        ("NUMERIC(10, 2)", "numeric(10,2)"),
        ("TIMESTAMP(3) WITH TIME ZONE", "timestamp(3) with time zone"),
        ("TIMESTAMP", "timestamp without time zone"),
        ("CHAR", "character(1)"),
        ("INTEGER[]", "integer[]"),
        ("FLOAT8", "double precision"),
        ("VECTOR(3)", "vector(3)"),
    ],
)
def test_spellings_of_one_type_are_one(connection: Connection, written: str, printed: str) -> None:
    """A type as SQLAlchemy writes it is the one that format_type prints."""
    assert not rewrites(printed, written)
    assert not rewritten(connection, f"b {printed}", f"ALTER COLUMN b TYPE {written}")


DEFAULTS = [
    "'x'",
    "now()::text",
    "CURRENT_TIMESTAMP::text",
    "lower('ABC')",
    "'random()'",
    "pg_catalog.upper('a')",
    "'1.5'::numeric(10,2)::text",
    "'a'::character varying(3)",
    "to_char(now(), 'YYYY')",
    "'it''s clock_timestamp()'",
    "coalesce(current_setting('TimeZone'), 'x')",
    "gen_random_uuid()::text",
    "clock_timestamp()::text",
    "random()::text",
    "pg_catalog.random()::text",
    "timeofday()",
    "'a' || round(random())::text",
]


@pytest.mark.parametrize("default", DEFAULTS)
def test_volatile_defaults_write_the_table(connection: Connection, default: str) -> None:
    """A new column's default is said to be volatile if, and only if, the server fills the rows."""
    done = rewritten(connection, "a text", f"ADD COLUMN b text DEFAULT {default}")
    assert is_volatile(default) is done


@pytest.mark.parametrize(
    ("column", "change", "done"),
    [
        ("a text", "ADD COLUMN b text", False),
        ("a text", "ADD COLUMN b bigint GENERATED ALWAYS AS IDENTITY", True),
        ("a text", "ADD COLUMN b bigserial", True),
        ("a text", "ADD COLUMN b text GENERATED ALWAYS AS (lower(a)) STORED", True),
        ("a text, b text GENERATED ALWAYS AS (lower(a)) STORED", "ALTER b DROP EXPRESSION", False),
        ("a text", "ALTER COLUMN a SET DEFAULT gen_random_uuid()::text", False),
        ("a text DEFAULT 'x'", "ALTER COLUMN a DROP DEFAULT", False),
        ("a int DEFAULT 1", "ALTER COLUMN a SET NOT NULL", False),
        ("a text", "DROP COLUMN a", False),
        ("a text", "SET UNLOGGED", True),
        ("a text", "SET (fillfactor = 70)", False),
        ("a text", "RENAME COLUMN a TO b", False),
    ],
)
def test_other_changes_write_the_table_as_the_remarks_say(
    connection: Connection, column: str, change: str, done: bool
) -> None:
    """What remarks say of the other operations is what the server does."""
    assert rewritten(connection, column, change) is done
