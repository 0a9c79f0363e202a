"""pgvector on a real server, through our models, our column types and the Store.

Everything here is rolled back, tables and indexes included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from pgvector import SparseVector
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC
from sqlalchemy import Column, Connection, MetaData, Table, func, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from ragstore import DatabaseConnection, NewChunk, NewDocument, Store
from ragstore.exceptions import (
    DimensionMismatch,
    NonFiniteVector,
    QueryFailed,
    SpaceNotReady,
    ZeroVector,
)
from ragstore.models import CHUNKS, EMBEDDINGS, Chunk, Document, Embedding, EmbeddingSpace
from ragstore.space import Space, distance, space_of
from ragstore.types import MAX_INDEXED_DIMENSIONS, METRICS, Metric, Vector

RANDOM = np.random.default_rng(20)
POINTS = RANDOM.standard_normal((40, 8)).astype(np.float32)
QUERY = RANDOM.standard_normal(8).astype(np.float32)
NUMPY: dict[Metric, Callable[[Any, Any], Any]] = {
    "cosine": lambda a, b: 1 - a @ b / np.linalg.norm(a, axis=-1) / np.linalg.norm(b),
    "l2": lambda a, b: np.linalg.norm(a - b, axis=-1),
    "inner_product": lambda a, b: -(a @ b),
    "l1": lambda a, b: np.abs(a - b).sum(axis=-1),
}


@pytest.fixture
def store(db_connection: DatabaseConnection) -> Store:
    """Return a Store whose work is rolled back."""
    return Store(db_connection)


@pytest.fixture
def inside(db_connection: DatabaseConnection) -> Iterator[Connection]:
    """Yield a connection whose work is rolled back."""
    with db_connection.engine.connect() as connection:
        yield connection


def filled(store: Store, metric: Metric = "cosine", points: Any = POINTS) -> Space:
    """Make a space and a collection ``book`` whose one document has a chunk for each point."""
    dimensions = points.shape[1]
    space = store.create_space(
        "points",
        model="test",
        dimensions=dimensions,
        metric=metric,
        index="halfvec" if dimensions <= MAX_INDEXED_DIMENSIONS["halfvec"] else "none",
    )
    store.create_collection("book", space="points")
    chunks = [NewChunk(f"passage {n}", point) for n, point in enumerate(points)]
    store.ingest("book", [NewDocument("page", chunks)])
    return space


def run_sql(store: Store, statement: str, *parameters: Any) -> list[Any]:
    """Run SQL on the test's connection and return its rows."""
    with store.connection.transaction() as driver:
        cursor = driver.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


# --- round trips -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        (0.5, -0.25, 1e-3),
        np.array([1.5, 2.5, 3.5], dtype=np.float32),
        np.array([1, 2, 3], dtype=np.int64),
        [1e-38, 3e38, -3e38],
        [0.1, -0.0, 0.0],
    ],
    ids=["list", "tuple", "float32", "int64", "extremes", "zeros"],
)
def test_vector_round_trip(
    db_connection: DatabaseConnection, document_factory: Any, space_factory: Any, value: Any
) -> None:
    """What a model stores is read as a list of the same 4-byte floats."""
    with db_connection.session() as session:
        space = space_factory(session, dimensions=3, metric="l1")
        chunk = document_factory(session, texts=["text"]).chunks[0]
        session.add(Embedding(chunk=chunk, space=space, vector=value))
        session.flush()
        session.expire_all()
        read = session.get_one(Embedding, (chunk.collection_id, chunk.id, space.id)).vector

    assert type(read) is list
    assert np.array_equal(np.asarray(read, np.float32), np.asarray(value, dtype=np.float32))


@pytest.mark.parametrize("dimensions", [1, 2_000, 2_001, 16_000])
def test_any_dimension_round_trip(store: Store, dimensions: int) -> None:
    """From one dimension to pgvector's limit, COPY stores every number, in line or not."""
    point = np.linspace(-1, 1, dimensions, dtype=np.float32).reshape(1, -1) + 0.5
    space = filled(store, points=point)

    statement = select(EMBEDDINGS.c.vector).where(EMBEDDINGS.c.space_id == space.id)
    with store.connection.session() as session:
        (read,) = session.execute(statement).scalars()
    assert np.array_equal(np.asarray(read, np.float32), point[0])


def _floats(value: Any) -> list[float]:
    return value if isinstance(value, list) else list(value.to_list())  # by pgvector's version


OTHER_TYPES = [
    (HALFVEC(3), [0.5, 1, -2], lambda value: _floats(value) == [0.5, 1.0, -2.0]),
    (SPARSEVEC(9), SparseVector({1: 2.5, 8: -1}, 9), lambda value: value.indices() == [1, 8]),
    (BIT(4), "1010", lambda value: str(value).endswith("1010")),
    (Vector(2), [1, 2], lambda value: value == [1.0, 2.0]),
    (Vector(), None, lambda value: value is None),
]


@pytest.mark.parametrize(("kind", "value", "is_same"), OTHER_TYPES, ids=lambda kind: str(kind)[:9])
def test_other_types_round_trip(
    inside: Connection, kind: Any, value: Any, is_same: Callable[[Any], bool]
) -> None:
    """Half-precision, sparse and bit vectors live in a table beside ours."""
    table = Table("thing", MetaData(), Column("thing", kind), prefixes=["TEMPORARY"])
    table.create(inside)
    inside.execute(insert(table), [{"thing": value}])

    assert is_same(inside.execute(select(table.c.thing)).scalar_one())


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'{1:1,3:2}/3'::sparsevec <#> '{3:4}/3'::sparsevec", -8.0),
        ("'{1:3}/2'::sparsevec <-> '{2:4}/2'::sparsevec", 5.0),
        ("'1010'::bit(4) <~> '0110'::bit(4)", 2.0),
        ("'1010'::bit(4) <%> '0110'::bit(4)", 2 / 3),
        ("vector_dims(subvector('[1,2,3,4]'::vector, 2, 2))", 2),
        ("binary_quantize('[1,-1,0.5]'::vector)::text", "101"),
        ("vector_norm(l2_normalize('[3,4]'::vector))", 1.0),
        ("(SELECT avg(v) FROM (VALUES ('[1,2]'::vector), ('[3,6]')) AS t (v))::text", "[2,4]"),
    ],
)
def test_functions_of_pgvector(inside: Connection, expression: str, expected: object) -> None:
    """The operators and functions that applications build on are there and do what they say."""
    found = inside.scalar(text("SELECT " + expression))

    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


# --- distances ---------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_distance_is_numpys(store: Store, metric: Metric) -> None:
    """The expression of a space gives what numpy computes, for each metric."""
    space = filled(store, metric)
    statement = (
        select(space.distance(QUERY))
        .join(CHUNKS, CHUNKS.c.id == EMBEDDINGS.c.chunk_id)
        .where(EMBEDDINGS.c.space_id == space.id)
        .order_by(CHUNKS.c.ordinal)
    )
    with store.connection.session() as session:
        measured = session.execute(statement).scalars().all()

    assert measured == pytest.approx(NUMPY[metric](POINTS, QUERY), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_search_ranks_as_numpy_does(store: Store, metric: Metric) -> None:
    """A search returns the nearest by the space's metric, nearest first."""
    filled(store, metric)

    hits = store.search("book", vector=QUERY.tolist(), k=7)

    assert [hit.ordinal for hit in hits] == np.argsort(NUMPY[metric](POINTS, QUERY))[:7].tolist()


def test_row_of_a_space_measures_too(store: Store) -> None:
    """A row of EmbeddingSpace gives the expression that its Space gives."""
    space = filled(store, "l2")
    with store.connection.session() as session:
        row = session.get_one(EmbeddingSpace, space.id)
        assert space_of(row) == space
        statement = select(func.min(distance(row, QUERY)))
        found = session.execute(statement.where(EMBEDDINGS.c.space_id == space.id)).scalar_one()

    assert found == pytest.approx(NUMPY["l2"](POINTS, QUERY).min(), rel=1e-4)


# --- partitions --------------------------------------------------------------------------------


def plan_of(session: Session, statement: Any) -> str:
    """Return a plan, its parameters written out."""
    sql = statement.compile(session.connection(), compile_kwargs={"literal_binds": True})
    return "\n".join(session.connection().exec_driver_sql(f"EXPLAIN {sql}").scalars())


def test_space_in_the_query_prunes(store: Store) -> None:
    """Naming the space reads its partition alone; without it every partition is read."""
    one = filled(store)
    other = store.create_space("other", model="test", dimensions=2)
    every = select(EMBEDDINGS.c.chunk_id)
    with store.connection.session() as session:
        pruned = plan_of(session, every.where(EMBEDDINGS.c.space_id == one.id))
        whole = plan_of(session, every)

    assert one.partition in pruned
    assert other.partition not in pruned
    assert one.partition in whole
    assert other.partition in whole


def test_spaces_of_two_dimensions(store: Store) -> None:
    """A chunk may have a vector in each of two spaces, of different dimensions."""
    filled(store)
    wide = store.create_space("wide", model="test", dimensions=100)
    zeros = [0.0] * 99
    with store.connection.session() as session:
        chunk = session.execute(select(Chunk).where(CHUNKS.c.ordinal == 0)).scalar_one()
        chunk.embeddings.append(Embedding(space_id=wide.id, vector=[1.0, *zeros]))
        session.flush()
        session.expire_all()

        assert sorted(len(each.vector) for each in chunk.embeddings) == [8, 100]


@pytest.mark.parametrize("dimensions", [1, 7, 9])
def test_partition_checks_the_dimension(store: Store, dimensions: int) -> None:
    """Raw SQL cannot store a vector of another dimension, and the Store says which it takes."""
    space = filled(store)
    vector = [1.0] * dimensions

    with pytest.raises(QueryFailed) as caught:
        run_sql(store, "UPDATE ragstore_embedding SET vector = %s::real[]::vector", vector)
    assert caught.value.sqlstate == "23514"
    with pytest.raises(DimensionMismatch) as refused:
        store.search("book", vector=vector)
    assert (refused.value.expected, refused.value.got) == (space.dimensions, dimensions)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e39"])
def test_numbers_that_no_vector_holds(store: Store, number: str) -> None:
    """The server refuses NaN, infinity and what overflows to it; so does the Store."""
    filled(store)

    with pytest.raises(QueryFailed) as caught:
        run_sql(store, "SELECT %s::vector", f"[1,{number}]")
    assert str(caught.value.sqlstate).startswith("22")
    with pytest.raises(NonFiniteVector):
        store.search("book", vector=[float(number)] * 8)


def test_zero_vector_has_no_cosine(store: Store) -> None:
    """The server stores zeros by raw SQL, and measures NaN; the Store refuses them."""
    filled(store)

    assert run_sql(store, "SELECT ('[0,0]'::vector <=> '[1,0]')::text") == [("NaN",)]
    with pytest.raises(ZeroVector):
        store.ingest("book", [NewDocument("zeros", [NewChunk("text", [0.0] * 8)])])


@pytest.mark.parametrize(
    ("change", "sqlstate"),
    [("space_id = 0", "23514"), ("chunk_id = 0", "23503"), ("vector = NULL", "23502")],
)
def test_embedding_needs_its_chunk_and_space(store: Store, change: str, sqlstate: str) -> None:
    """An embedding without partition, chunk or vector is refused."""
    filled(store, points=POINTS[:1])

    with pytest.raises(QueryFailed) as caught:
        run_sql(store, f"UPDATE ragstore_embedding SET {change}")
    assert caught.value.sqlstate == sqlstate


def test_one_vector_in_a_space(store: Store) -> None:
    """A chunk has one vector in a space."""
    filled(store)

    with store.connection.session() as session:
        row = session.execute(select(Embedding)).scalars().all()[0].model_dump()
        with pytest.raises(IntegrityError):
            session.execute(insert(EMBEDDINGS), [row])


def test_collection_without_space_holds_no_vectors(store: Store) -> None:
    """Vectors need a space, and the error says so."""
    store.create_collection("plain")

    with pytest.raises(SpaceNotReady):
        store.ingest("plain", [NewDocument("page", [NewChunk("text", [1.0])])])


# --- many rows, and none -----------------------------------------------------------------------


def test_batch_insert(store: Store) -> None:
    """COPY and the ORM store hundreds of vectors, each where it belongs."""
    points = RANDOM.standard_normal((300, 8)).astype(np.float32)
    space = filled(store, points=points)
    with store.connection.session() as session:
        rows = session.execute(select(Chunk).order_by(CHUNKS.c.ordinal)).scalars().all()
        copied = {each.chunk_id: each.vector for each in _embeddings(session)}
        assert all(
            np.array_equal(np.asarray(copied[row.id], np.float32), points[row.ordinal])
            for row in rows
        )
        session.execute(EMBEDDINGS.delete().where(EMBEDDINGS.c.space_id == space.id))
        session.add_all(
            Embedding(chunk=row, space_id=space.id, vector=points[row.ordinal]) for row in rows
        )
        session.flush()
        session.expire_all()

        assert {each.chunk_id: each.vector for each in _embeddings(session)} == copied


def _embeddings(session: Session) -> Sequence[Embedding]:
    return session.execute(select(Embedding)).scalars().all()


@pytest.mark.parametrize("table", ["ragstore_chunk", "ragstore_document", "ragstore_collection"])
def test_vectors_go_with_what_they_are_of(store: Store, table: str) -> None:
    """Deleting chunks, documents or collections deletes the vectors, by the server alone."""
    filled(store)
    assert run_sql(store, "SELECT count(*) FROM ragstore_embedding") == [(len(POINTS),)]

    run_sql(store, f"DELETE FROM {table}")

    assert run_sql(store, "SELECT count(*) FROM ragstore_embedding") == [(0,)]


def test_vectors_go_with_a_document_of_the_orm(store: Store) -> None:
    """A session that deletes a document deletes its vectors."""
    filled(store)
    with store.connection.session() as session:
        session.delete(session.execute(select(Document)).scalars().one())
        session.commit()

    assert run_sql(store, "SELECT count(*) FROM ragstore_embedding") == [(0,)]


# --- hybrid search -----------------------------------------------------------------------------


def test_hybrid_search(store: Store) -> None:
    """A text and a vector are fused: what both find comes first, with the rank of either."""
    filled(store)
    near = int(np.argmin(NUMPY["cosine"](POINTS, QUERY)))

    found = store.search("book", text=f"passage {near}", vector=QUERY.tolist(), k=3)

    assert found.strategy == "hybrid"
    assert (found[0].ordinal, found[0].vector_rank, found[0].text_rank) == (near, 1, 1)


def test_hybrid_search_under_a_filter(store: Store) -> None:
    """A filter holds for both arms."""
    filled(store)
    chunks = [NewChunk("passage of another kind", QUERY, {"kind": "other"})]
    store.ingest("book", [NewDocument("other", chunks)])

    found = store.search("book", text="passage", vector=QUERY.tolist(), where={"kind": "other"})

    assert [hit.document_key for hit in found] == ["other"]
