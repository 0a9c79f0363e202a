"""Column types, vector indexes and functions, as far as they need no server."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from pgvector import HalfVector
from pgvector import Vector as PgVector
from sqlalchemy import Column, Integer, MetaData, Table, Text, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.schema import CreateIndex

from ragstore import types
from ragstore.types import Function, UtcDateTime, Vector, function, hnsw, ivfflat, verbatim

DIALECT = psycopg.dialect()  # type: ignore[no-untyped-call]
PLAIN: Any = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy's


def sql(construct: Any) -> str:
    """Return the SQL of a construct on one line."""
    return " ".join(str(construct.compile(dialect=PLAIN)).split())


@pytest.fixture
def table() -> Table:
    """Give a table with a vector column."""
    return Table("items", MetaData(), Column("id", Integer), Column("v", Vector(3)))


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        np.array([1, 2, 3], dtype=np.float32),
        np.array([1, 2, 3], dtype=np.int64),
        PgVector([1, 2, 3]),
        HalfVector([1, 2, 3]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_vector_takes(value: Any) -> None:
    """Any flat sequence of numbers is bound, and read, as a list of floats."""
    for converted in (
        Vector().process_bind_param(value, DIALECT),
        Vector().process_result_value(value, DIALECT),
    ):
        assert converted == [1.0, 2.0, 3.0]
        assert isinstance(converted, list)
        assert all(type(number) is float for number in converted)


def test_vector_null() -> None:
    """NULL is None both ways."""
    assert Vector().process_bind_param(None, DIALECT) is None
    assert Vector().process_result_value(None, DIALECT) is None


@pytest.mark.parametrize(
    ("x", "y", "same"),
    [
        (None, None, True),
        (None, [1.0], False),
        ([1.0], None, False),
        ([1.0, 2.0], np.array([1.0, 2.0]), True),
        (np.array([1.0, 2.0]), np.array([1.0, 3.0]), False),
        ([1.0], [1.0, 2.0], False),
    ],
)
def test_vector_compare(x: Any, y: Any, same: bool) -> None:
    """The ORM can compare arrays, whose == has no truth value."""
    assert Vector().compare_values(x, y) is same


@pytest.mark.parametrize(("dimensions", "rendered"), [(None, "VECTOR"), (3, "VECTOR(3)")])
def test_vector_type(dimensions: int | None, rendered: str) -> None:
    """The column type is pgvector's, with its length or without one."""
    assert Vector(dimensions).compile(PLAIN) == rendered


@pytest.mark.parametrize(
    ("method", "operator"),
    [
        ("cosine_distance", "<=>"),
        ("l2_distance", "<->"),
        ("max_inner_product", "<#>"),
        ("l1_distance", "<+>"),
    ],
)
def test_vector_distance(table: Table, method: str, operator: str) -> None:
    """The column has pgvector's distance methods, and they take arrays."""
    distance = getattr(table.c.v, method)(np.array([1, 2, 3]))

    assert f"items.v {operator} " in sql(select(distance))
    assert operator in types.DISTANCE_OPERATORS.values()


def test_datetime_is_read_in_utc() -> None:
    """Whatever the session's time zone, what is read is in UTC."""
    given = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    read = UtcDateTime().process_result_value(given, DIALECT)

    assert read == given
    assert read is not None
    assert read.tzinfo is timezone.utc
    assert UtcDateTime().process_bind_param(given, DIALECT) == given


@pytest.mark.parametrize("process", ["process_bind_param", "process_result_value"])
def test_datetime_null(process: str) -> None:
    """NULL is None both ways."""
    assert getattr(UtcDateTime(), process)(None, DIALECT) is None


def test_naive_datetime_refused() -> None:
    """A datetime without time zone is refused, with the remedy."""
    with pytest.raises(ValueError, match=r"datetime\.now\(timezone\.utc\)"):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), DIALECT)  # noqa: DTZ001 - the case


DEFAULTS = "WITH (m = 16, ef_construction = 64)"
INDEXES: list[tuple[Any, str]] = [
    (
        lambda v: hnsw("i", v, dimensions=3),
        f"hnsw (CAST(v AS HALFVEC(3)) halfvec_cosine_ops) {DEFAULTS}",
    ),
    (
        lambda v: hnsw("i", v, dimensions=3, metric="l1", storage="vector", m=8, ef_construction=9),
        "hnsw (CAST(v AS VECTOR(3)) vector_l1_ops) WITH (m = 8, ef_construction = 9)",
    ),
    (
        lambda v: ivfflat("i", v, dimensions=3, lists=2, metric="l2", where=v.table.c.id == 7),
        "ivfflat (CAST(v AS HALFVEC(3)) halfvec_l2_ops) WITH (lists = 2) WHERE id = 7",
    ),
    (
        lambda v: hnsw("i", v, dimensions=3, metric="l2", where=v.table.c.id == 7),
        f"hnsw (CAST(v AS HALFVEC(3)) halfvec_l2_ops) {DEFAULTS} WHERE id = 7",
    ),
    (
        lambda v: ivfflat("i", v, dimensions=3, lists=10, metric="inner_product"),
        "ivfflat (CAST(v AS HALFVEC(3)) halfvec_ip_ops) WITH (lists = 10)",
    ),
]


@pytest.mark.parametrize(("make", "expected"), INDEXES)
def test_index_sql(table: Table, make: Any, expected: str) -> None:
    """An index names its cast, operator class, options and condition."""
    assert sql(CreateIndex(make(table.c.v))) == f"CREATE INDEX i ON items USING {expected}"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: hnsw("i", c, dimensions=4001), "4001 dimensions as halfvec: at most 4000$"),
        (
            lambda c: hnsw("i", c, dimensions=2001, storage="vector"),
            "2001 dimensions as vector: at most 2000; storage='halfvec' takes up to 4000",
        ),
        (lambda c: ivfflat("i", c, dimensions=4001, lists=1), "at most 4000"),
        (lambda c: ivfflat("i", c, dimensions=3, lists=1, metric="l1"), "no operator class for l1"),
    ],
)
def test_index_refused(table: Table, make: Any, message: str) -> None:
    """An index that pgvector cannot build is refused when it is declared."""
    with pytest.raises(ValueError, match=message):
        make(table.c.v)


def test_limits_are_indexable(table: Table) -> None:
    """The longest vectors that pgvector indexes are accepted."""
    assert hnsw("i", table.c.v, dimensions=4000)
    assert hnsw("j", table.c.v, dimensions=2000, storage="vector")


def test_every_metric_is_known() -> None:
    """Operators and operator classes exist for every metric."""
    assert set(types.METRICS) == set(types.DISTANCE_OPERATORS) == set(types.OPERATOR_CLASSES)


def test_function_sql() -> None:
    """A function writes its own statements."""
    made = Function("f", [("a", "text"), ("b", "int")], "int", "SELECT 1")

    assert made.signature == "f(text, int)"
    assert made.drop_sql() == "DROP FUNCTION IF EXISTS f(text, int)"
    assert made.create_sql() == (
        "CREATE OR REPLACE FUNCTION f(a text, b int) RETURNS int"
        " LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$SELECT 1$function$"
    )


def test_function_is_declared() -> None:
    """A declared function is found in the metadata, for autogenerate."""
    table = Table("items", MetaData(), Column("id", Text))

    made = function(table, "f", [], "int", "SELECT 1", language="plpgsql", options="STABLE")

    assert table.metadata.info["functions"] == {"f": made}
    assert "LANGUAGE plpgsql STABLE" in made.create_sql()


@pytest.mark.parametrize("dialect", [PLAIN, DIALECT], ids=["offline", "psycopg"])
def test_verbatim(dialect: Any) -> None:
    """A statement is run to the letter; for psycopg a % is doubled, as it halves them again."""
    compiled = str(verbatim("SELECT '50 %', ':name', '%(x)s'").compile(dialect=dialect))

    assert compiled.replace("%%", "%") == "SELECT '50 %', ':name', '%(x)s'"
    assert ("%%" in compiled) == (dialect is DIALECT)
