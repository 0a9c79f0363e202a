"""What is measured of an index and of a space is what is so."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from ragstore import DatabaseConnection, NewChunk, NewDocument, Store, exceptions
from ragstore.driver import connect
from ragstore.execution import run
from ragstore.recall import compare_spaces
from ragstore.space import insert_space
from ragstore.types import IndexType

DIMENSIONS, COUNT = 32, 3_000


def chunks(count: int = COUNT, dimensions: int = DIMENSIONS) -> list[NewChunk]:
    """Return chunks with random vectors, the hardest there are for an index."""
    vectors = np.random.default_rng(count).normal(size=(count, dimensions))
    return [
        NewChunk(f"chunk {at}", vector, {"tenth": at % 10 == 0})
        for at, vector in enumerate(vectors)
    ]


def make(store: Any, index: IndexType, **options: Any) -> None:
    """Make a space and a collection of that name, filled."""
    store.create_space(index, model="m", dimensions=DIMENSIONS, index=index, **options)
    store.create_collection(index, space=index)
    store.ingest(index, [NewDocument("a", chunks())], build_index="never")


@pytest.mark.parametrize("index", ["halfvec", "binary"])
def test_recall_grows_until_the_target(shared: Store, index: IndexType) -> None:
    """The values tried rise to the first that finds enough; the index used is named."""
    make(shared, index, exact_limit=100)
    without = shared.measure_recall(index, sample=5)
    assert (without.index, without.recall, without.suggested, without.sample) == (None, {}, None, 5)
    report = shared.build_index(index, index, m=4, ef_construction=8)

    measured = shared.measure_recall(index, sample=20, target=0.9)

    assert (measured.index, measured.collection, measured.space) == (report.name, index, index)
    assert (measured.k, measured.sample, measured.setting) == (10, 20, "hnsw.ef_search")
    assert measured.suggested == list(measured.recall)[-1]
    assert measured.recall[measured.suggested] >= 0.9
    assert all(recall < 0.9 for recall in list(measured.recall.values())[:-1])
    assert len(measured.recall) > 1
    assert without.arguments == {}
    if index == "halfvec":
        assert measured.arguments == {"ef_search": measured.suggested}
    else:
        assert 10 * measured.arguments["rerank"] >= measured.suggested
    assert len(shared.search(index, vector=[1.0] * DIMENSIONS, **measured.arguments)) == 10


def test_recall_in_a_space_without_partition(store: Store, connection: DatabaseConnection) -> None:
    """A space of which only the row was made is not ready, whether named or the collection's."""
    with connection.transaction() as driver:
        run(driver, insert_space("bare", "m", 2, "cosine", "halfvec", 10, exists_ok=False))
    store.create_collection("c", space="bare")
    for name in (None, "bare"):
        with pytest.raises(exceptions.SpaceNotReady, match="'bare' has no partition"):
            store.measure_recall("c", space=name)


def test_recall_of_a_filter_and_of_the_whole_index(either: Any) -> None:
    """A filter is asked exactly and by the index; the space's index serves where no other does."""
    make(either, "vector", exact_limit=100)
    either.build_index("vector")

    measured = either.measure_recall("vector", sample=10, where={"tenth": True}, k=50)

    assert measured.index is not None
    assert measured.index.endswith("_ann")
    assert min(measured.recall) >= 50
    assert measured.suggested is not None
    either.create_collection("other")
    with pytest.raises(exceptions.SpaceNotReady):
        either.measure_recall("other")
    assert either.measure_recall("other", space="vector").sample == 0


def test_recall_of_ivfflat_is_by_probes(store: Store) -> None:
    """An index of another kind has another setting."""
    make(store, "ivfflat", exact_limit=100)
    with pytest.warns(exceptions.OldExtensionWarning):
        store.build_index("ivfflat", "ivfflat", lists=30)

    measured = store.measure_recall("ivfflat", sample=10)

    assert measured.setting == "ivfflat.probes"
    assert measured.recall[1] < 0.95
    assert measured.suggested is not None
    assert measured.arguments == {"ef_search": 4 * measured.suggested}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0: it takes a whole number from 1 to 1,000"),
        ({"sample": 10_001}, "sample is 10001"),
        ({"target": 0}, "target is 0: it takes a share"),
        ({"target": 1.1}, r"target is 1\.1"),
        ({"target": "0.9"}, r"target is '0\.9'"),
        ({"target": None}, "target is None"),
        ({"target": float("nan")}, "target is nan"),
    ],
)
def test_measurements_out_of_range_are_refused(
    shared: Store, options: dict[str, Any], message: str
) -> None:
    """What cannot be measured is said before anything is asked."""
    with pytest.raises(exceptions.InvalidInput, match=message):
        shared.measure_recall("any", **options)


def test_settings_of_a_measurement_stay_in_it(store: Store, connection: DatabaseConnection) -> None:
    """Whoever gets the connection next finds the settings as they were."""
    make(store, "halfvec", exact_limit=100)
    store.build_index("halfvec", "halfvec")
    store.measure_recall("halfvec", sample=2)
    with connection.transaction() as cursor:
        for name in ("enable_sort", "enable_seqscan"):
            assert cursor.execute(f"SHOW {name}".encode()).fetchall() == [("on",)]
        assert cursor.execute("SHOW hnsw.ef_search").fetchall() == [("40",)]


def test_spaces_are_compared_by_their_answers(store: Store) -> None:
    """The same vectors answer alike, others by chance."""
    given = chunks(300)
    noise = np.random.default_rng(7).normal(size=(300, DIMENSIONS))
    other = {chunk.text: vector for chunk, vector in zip(given, noise, strict=True)}
    same = {chunk.text: chunk.vector for chunk in given}
    spaces = [store.create_space(name, model="m", dimensions=DIMENSIONS) for name in "abc"]
    store.create_collection("k", space="a")
    store.ingest("k", [NewDocument("a", given)], build_index="never")
    for name, vectors in (("b", same), ("c", other)):
        report = store.reembed(
            "k", to=name, embed=lambda texts, vectors=vectors: [vectors[text] for text in texts]
        )
        assert report.comparison is not None
        assert report.comparison.recall is None
    id_ = store.collection("k").id
    with store.connection.transaction() as connection:
        from ragstore.execution import run

        compared = [
            run(connection, compare_spaces(id_, spaces[0], new, sample=30)) for new in spaces[1:]
        ]

    assert compared[0].overlap == 1
    assert compared[1].overlap < 0.2
    assert {each.sample for each in compared} == {30}


# --- stats -------------------------------------------------------------------------------------


def test_stats_of_a_space(either: Any) -> None:
    """Rows, sizes, indexes and what is due are told, for each collection in it or on its way."""
    make(either, "halfvec", exact_limit=100)
    either.create_collection("bare")
    either.ingest("bare", [NewDocument("a", ["one", "two"])])
    with pytest.raises(exceptions.EmbeddingFailed):
        either.reembed("bare", to="halfvec", embed=lambda _: None, last=0)

    before = either.space_stats("halfvec")
    built = either.build_index("halfvec", "halfvec")
    after = either.space_stats("halfvec")

    assert before.indexes == before.building == ()
    bare, full = before.collections
    assert (bare.name, bare.vectors, bare.lacking, bare.is_active, bare.is_due) == (
        "bare", 0, 2, False, False,
    )  # fmt: skip
    assert (full.name, full.vectors, full.lacking, full.is_active, full.is_due) == (
        "halfvec", COUNT, 0, True, True,
    )  # fmt: skip
    (index,) = after.indexes
    assert (index.name, index.collection, index.is_valid) == (built.name, "halfvec", True)
    assert index.size > 8_192
    assert after.table_size > COUNT * DIMENSIONS * 4
    assert after.rows == COUNT
    assert after.dead_rows == 0
    assert not any(each.is_due for each in after.collections)
    with pytest.raises(exceptions.SpaceNotFound):
        either.space_stats("none")


def test_stats_tell_of_a_build(store: Store, connection: DatabaseConnection) -> None:
    """While an index is built its phase is there to see; without partition all is zero."""
    make(store, "halfvec", exact_limit=100)
    space = store.space_stats("halfvec").space
    with connect(connection.migration_url) as writer:
        writer.execute(f"LOCK {space.partition} IN ROW EXCLUSIVE MODE".encode())
        thread = threading.Thread(target=store.build_index, args=["halfvec"])
        thread.start()
        building: Any = ()
        for _ in range(100):
            building = store.space_stats("halfvec").building
            if building:
                break
            time.sleep(0.05)
    thread.join()

    (progress,) = building
    assert progress.index == f"{space.partition}_ann"
    assert "waiting" in progress.phase
    assert 0 <= progress.share <= 1
    with connection.transaction() as cursor:
        cursor.execute(f"DROP TABLE {space.partition}".encode())
    gone = store.space_stats("halfvec")
    assert (gone.rows, gone.table_size, gone.indexes) == (0, 0, ())
