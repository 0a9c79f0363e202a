"""The index of a space: what each kind serves, and what it is refused for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from psycopg import sql
from sqlalchemy import literal, select

from ragstore import DatabaseConnection, NewChunk, NewDocument, Store, ann, exceptions
from ragstore.execution import compiled
from ragstore.models import Embedding
from ragstore.space import Space
from ragstore.types import INDEX_TYPES, METRICS, METRICS_OF_INDEX, IndexType, Metric, Vector

DIMENSIONS = 8
KINDS = [
    (index, metric)
    for index in INDEX_TYPES
    if index != "none"
    for metric in METRICS_OF_INDEX[index]
]


@pytest.fixture(scope="module")
def spaces(shared: Store) -> dict[tuple[IndexType, Metric], Space]:
    """Return a space of every kind, each with an index over all and one over a collection."""
    made = {}
    vectors = np.random.default_rng(1).normal(size=(60, DIMENSIONS))
    for index, metric in KINDS:
        name = f"{index} {metric}"
        space = made[index, metric] = shared.create_space(
            name, model="m", dimensions=DIMENSIONS, metric=metric, index=index
        )
        collection = shared.create_collection(name, space=name)
        chunks = [NewChunk(str(at), vector) for at, vector in enumerate(vectors)]
        shared.ingest(name, [NewDocument("a", chunks)])
        with shared.connection.transaction() as connection:
            for target in (None, collection.id):
                connection.execute(
                    sql.SQL("CREATE INDEX {} ON {} {}").format(
                        sql.Identifier(ann.index_name(space, target)),
                        sql.Identifier(space.partition),
                        ann.definition(space, target),
                    )
                )
    return made


def plan(connection: DatabaseConnection, statement: Any) -> str:
    """Return the plan of a statement where nothing but an index may be used."""
    query = compiled(statement)
    with connection.transaction() as cursor:
        for setting in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
            cursor.execute(f"SET LOCAL {setting} = off".encode())
        lines = cursor.execute(b"EXPLAIN " + query.statement, query.parameters).fetchall()
    return "\n".join(line for (line,) in lines)


@pytest.mark.parametrize(("index", "metric"), KINDS, ids=lambda value: value)
@pytest.mark.parametrize("given", ["numbers", "expression"])
def test_distance_is_served_by_the_index(
    shared: Store, spaces: dict[tuple[str, str], Space], index: str, metric: str, given: str
) -> None:
    """Ordering by ann.distance reads the index, of the space or of the collection it names."""
    space = spaces[index, metric]
    collection = shared.collection(space.name)
    numbers = [1.0] * DIMENSIONS
    vector: Any = numbers if given == "numbers" else literal(numbers, Vector(DIMENSIONS))
    near = ann.distance(space, vector)
    statement = select(Embedding.chunk_id, near).where(Embedding.space_id == space.id)

    whole = plan(shared.connection, statement.order_by(near).limit(5))
    one = statement.where(Embedding.collection_id == collection.id)

    assert f"Index Scan using {ann.index_name(space)} " in whole
    with shared.connection.session() as session:
        rows = session.execute(one.order_by(near).limit(5)).all()
    assert len(rows) == 5
    assert ann.index_name(space, collection.id) in plan(
        shared.connection, one.order_by(near).limit(5)
    )


def test_space_without_index_is_compared_as_it_is(shared: Store) -> None:
    """The nearest by ann.distance are the nearest where nothing is indexed."""
    space = shared.create_space("bare", model="m", dimensions=2, metric="l2", index="none")
    assert str(ann.distance(space, [1, 0])) == str(space.distance([1, 0]))


@pytest.mark.parametrize("kind", ["halfvec", "vector", "binary", "ivfflat"])
def test_only_a_binary_index_is_inexact(kind: IndexType) -> None:
    """What a binary index finds is to be ranked again; the others rank as the vectors do."""
    assert ann.is_exact(Space(1, "s", "m", 2, "cosine", kind)) == (kind != "binary")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"index": "hnsw"}, exceptions.InvalidName, "'hnsw' is none of halfvec, vector"),
        (
            {"index": "vector", "dimensions": 2_001},
            exceptions.InvalidInput,
            "up to 2,000 dimensions as 'vector'.*2,001: pass index='halfvec' or index='binary'",
        ),
        (
            {"dimensions": 4_001},
            exceptions.InvalidInput,
            "up to 4,000 dimensions as 'halfvec'.*'binary' .signs only.*or index='none' .every",
        ),
        (
            {"dimensions": 4_001, "metric": "l2"},
            exceptions.InvalidInput,
            r"pass index='none' \(every search",
        ),
        (
            {"index": "binary", "metric": "l2"},
            exceptions.InvalidInput,
            r"'binary' cannot serve the metric 'l2' \(the signs.*direction.*pass index='halfvec'",
        ),
        (
            {"index": "ivfflat", "metric": "l1"},
            exceptions.InvalidInput,
            "'ivfflat' cannot serve the metric 'l1' .*no operator class",
        ),
        (
            {"index": "ivfflat", "dimensions": 1},
            exceptions.InvalidInput,
            "'ivfflat' for the metric 'cosine' over a single dimension: pass index='halfvec'",
        ),
        (
            {"index": "ivfflat", "dimensions": 1, "metric": "inner_product"},
            exceptions.InvalidInput,
            "a single dimension: pass",
        ),
        ({"exact_limit": -1}, exceptions.InvalidInput, "exact_limit is -1: it takes"),
        ({"exact_limit": 2**31}, exceptions.InvalidInput, "0 to 2,147,483,647"),
        ({"exact_limit": True}, exceptions.InvalidInput, "exact_limit is True"),
    ],
)
def test_index_that_cannot_be_is_refused(
    shared: Store, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What pgvector cannot index is refused before the space is made, with what it can have."""
    with pytest.raises(error, match=message):
        shared.create_space("bad", **{"model": "m", "dimensions": 2, **options})
    with pytest.raises(exceptions.SpaceNotFound):
        shared.create_collection("bad", space="bad")


def test_another_index_is_another_definition(either: Any) -> None:
    """With exists_ok, index and exact_limit must be those of the space that is there."""
    given: dict[str, Any] = {"model": "m", "dimensions": 2, "index": "vector", "exact_limit": 7}
    made = either.create_space("s", **given)
    assert (made.index_type, made.exact_limit) == ("vector", 7)
    assert either.create_space("s", **given, exists_ok=True) == made
    assert either.create_collection("c", space="s").space == made
    for change in ({"index": "halfvec"}, {"exact_limit": 8}):
        with pytest.raises(exceptions.SpaceExists, match="index 'vector', exact_limit 7"):
            either.create_space("s", **{**given, **change}, exists_ok=True)


def test_every_kind_is_tried() -> None:
    """The table above leaves out no index and no metric."""
    assert {index for index, _ in KINDS} == set(INDEX_TYPES) - {"none"}
    assert {metric for _, metric in KINDS} == set(METRICS)
