"""The vector indexes of ``ragstore.types`` on a real server: which statements they serve.

Everything here is rolled back, tables and indexes included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    MetaData,
    Table,
    cast,
    insert,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from ragstore import DatabaseConnection, NewChunk, NewDocument, Store
from ragstore.models import EMBEDDINGS
from ragstore.types import DISTANCE_OPERATORS, METRICS, Metric, Vector, hnsw, ivfflat

RANDOM = np.random.default_rng(20)
POINTS = RANDOM.standard_normal((40, 8)).astype(np.float32)
QUERY = RANDOM.standard_normal(8).astype(np.float32)
KINDS: dict[str, Any] = {"halfvec": HALFVEC(8), "vector": VECTOR(8)}
NUMPY: dict[Metric, Callable[[Any, Any], Any]] = {
    "cosine": lambda a, b: 1 - a @ b / np.linalg.norm(a, axis=-1) / np.linalg.norm(b),
    "l2": lambda a, b: np.linalg.norm(a - b, axis=-1),
    "inner_product": lambda a, b: -(a @ b),
    "l1": lambda a, b: np.abs(a - b).sum(axis=-1),
}


@pytest.fixture
def inside(db_connection: DatabaseConnection) -> Iterator[Connection]:
    """Yield a connection whose work is rolled back."""
    with db_connection.engine.connect() as connection:
        yield connection


def indexed(connection: Connection, make: Callable[[ColumnElement[Any]], Index]) -> Table:
    """Make a table of the points with an index."""
    table = Table(
        "point", MetaData(), Column("id", BigInteger, primary_key=True), Column("v", Vector(8))
    )
    make(table.c.v)
    table.create(connection)
    connection.execute(insert(table), [{"id": n, "v": v} for n, v in enumerate(POINTS)])
    return table


def nearest(table: Table, metric: Metric, kind: Any) -> Any:
    """Return the statement that an index over ``kind`` serves."""
    measured = cast(table.c.v, kind).op(DISTANCE_OPERATORS[metric])(cast(QUERY.tolist(), kind))
    return select(table.c.id).order_by(measured).limit(5)


@pytest.mark.parametrize("storage", ["halfvec", "vector"])
@pytest.mark.parametrize("metric", METRICS)
def test_hnsw_is_used(
    inside: Connection, assert_uses_index: Any, metric: Metric, storage: Any
) -> None:
    """An index of hnsw() serves a query by its metric and storage, and finds the nearest."""
    table = indexed(
        inside, lambda v: hnsw("point_v", v, dimensions=8, metric=metric, storage=storage)
    )
    statement = nearest(table, metric, KINDS[storage])

    assert_uses_index(statement, "point_v", on=inside)
    inside.execute(text("SET LOCAL enable_seqscan = off"))
    found = inside.execute(statement).scalars().all()
    assert found[0] == np.argmin(NUMPY[metric](POINTS, QUERY))


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_ivfflat_is_used(inside: Connection, assert_uses_index: Any, metric: Metric) -> None:
    """An index of ivfflat() serves a query by its metric."""
    table = indexed(inside, lambda v: ivfflat("point_v", v, dimensions=8, lists=1, metric=metric))

    assert_uses_index(nearest(table, metric, HALFVEC(8)), "point_v", on=inside)


@pytest.mark.parametrize(("metric", "kind"), [("l2", HALFVEC(8)), ("cosine", VECTOR(8))])
def test_index_serves_its_own_expression(
    inside: Connection, assert_uses_index: Any, metric: Metric, kind: Any
) -> None:
    """A query by another metric, or without the cast, is not served."""
    table = indexed(inside, lambda v: hnsw("point_v", v, dimensions=8, metric="cosine"))

    with pytest.raises(AssertionError, match="does not use the index point_v"):
        assert_uses_index(nearest(table, metric, kind), "point_v", on=inside)


def test_index_on_a_partition(db_connection: DatabaseConnection, assert_uses_index: Any) -> None:
    """An expression index on one partition serves a search across the collections of a space."""
    store = Store(db_connection)
    space = store.create_space("points", model="test", dimensions=8)
    store.create_collection("book", space="points")
    chunks = [NewChunk("text", point) for point in POINTS]
    store.ingest("book", [NewDocument("page", chunks)])
    measured = cast(EMBEDDINGS.c.vector, HALFVEC(8)).op("<=>")(cast(QUERY.tolist(), HALFVEC(8)))
    statement = select(EMBEDDINGS.c.chunk_id).where(EMBEDDINGS.c.space_id == space.id)

    with db_connection.engine.begin() as connection:
        index = text(
            f"CREATE INDEX points_idx ON {space.partition}"
            " USING hnsw ((vector::halfvec(8)) halfvec_cosine_ops)"
        )
        connection.execute(index)
        connection.execute(text("SET LOCAL enable_sort = off"))  # for so few rows it is cheaper
        assert_uses_index(statement.order_by(measured).limit(5), "points_idx", on=connection)


def test_server_refuses_an_index_too_wide(inside: Connection) -> None:
    """What hnsw() refuses beforehand the server refuses too: 2,001 dimensions of 4 bytes."""
    inside.execute(text("CREATE TEMP TABLE wide (v vector(2001))"))
    with pytest.raises(ValueError, match="at most 2000"):
        hnsw("i", Column("v", Vector(2001)), dimensions=2_001, storage="vector")
    with pytest.raises(DBAPIError, match="more than 2000 dimensions"):
        inside.execute(text("CREATE INDEX ON wide USING hnsw (v vector_cosine_ops)"))
