"""Several writers of the same documents: no deadlock, and the result of one after the other."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from ragstore import DatabaseConnection, IngestReport, NewDocument, Store, exceptions, retry
from ragstore.driver import connect

STORED = """
SELECT d.key, array_agg(c.text ORDER BY c.ordinal), array_agg(c.ordinal ORDER BY c.ordinal),
  array_agg((e.vector::real[])[1] ORDER BY c.ordinal)
FROM ragstore_document d JOIN ragstore_chunk c
  ON c.collection_id = d.collection_id AND c.document_id = d.id
LEFT JOIN ragstore_embedding e ON e.collection_id = c.collection_id AND e.chunk_id = c.id
GROUP BY d.key
"""


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Embed each text as its number."""
    return [[float(number_of(each)), 1.0] for each in texts]


def number_of(text: str) -> int:
    """Return what stands at the end of a text, and is not zero."""
    return int(text.rsplit(" ", 1)[1]) + 1


@pytest.fixture
def filled(store: Store) -> Store:
    """Return a store with collection ``c`` in a space of 2 dimensions."""
    store.create_space("s", model="m", dimensions=2)
    store.create_collection("c", space="s")
    return store


def together(*calls: Callable[[], Any]) -> None:
    """Run calls in threads that start together, and raise what one of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            call()
        except BaseException as exc:  # noqa: BLE001 - told to the test's own thread
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def check_whole(store: Store, versions: dict[str, list[list[str]]]) -> None:
    """Check that each document is one of its versions, whole, each chunk with its own vector."""
    with store.connection.transaction() as driver:
        rows = driver.execute(STORED.encode()).fetchall()
    assert {key for key, *_ in rows} == set(versions)
    for key, texts, ordinals, vectors in rows:
        assert texts in versions[key], key
        assert ordinals == list(range(len(texts)))
        assert vectors == [float(number_of(text)) for text in texts]


@pytest.mark.parametrize("seed", range(3))
def test_writers_of_the_same_keys_end_as_if_in_turn(filled: Store, seed: int) -> None:
    """Four writers with shared chunks, in other orders and batches, leave whole documents."""
    choice = random.Random(seed)
    keys = [f"k{at:02}" for at in range(15)]
    for _turn in range(4):
        versions: dict[str, list[list[str]]] = {key: [] for key in keys}

        def writer(number: int) -> Callable[[], IngestReport]:
            documents = []
            for key in choice.sample(keys, len(keys)):
                # Some chunks are those of the other writers, so that they are kept and moved.
                numbers = choice.choices(range(6), k=choice.randint(1, 8))
                texts = [f"{key} {each}" for each in numbers]
                versions[key].append(texts)  # noqa: B023 - called in its own turn
                documents.append(NewDocument(key, texts))
            size = choice.randint(5, 200)
            return lambda: filled.ingest("c", documents, embed=embed, batch_size=size)

        together(*[writer(number) for number in range(4)])
        check_whole(filled, versions)


def test_batch_is_one_of_its_writers_as_a_whole(filled: Store) -> None:
    """A document that a batch took for unchanged is looked at again before the batch is stored."""
    mine = [NewDocument("a", ["a 1"]), NewDocument("b", ["b 1"])]
    filled.ingest("c", [mine[0], NewDocument("b", ["b 0"])], embed=embed)
    theirs = [NewDocument("a", ["a 2"]), NewDocument("b", ["b 2"])]
    asked: list[list[str]] = []

    def overtaken(texts: list[str]) -> Any:
        if not asked:
            with DatabaseConnection(filled.connection.url) as other:
                Store(other).ingest("c", theirs, embed=embed)
        asked.append(texts)
        return embed(texts)

    report = filled.ingest("c", mine, embed=overtaken)

    assert asked == [["b 1"], ["a 1", "b 1"]]
    assert (report.updated, report.unchanged) == (2, 0)
    check_whole(filled, {"a": [["a 1"]], "b": [["b 1"]]})


def test_chunk_that_another_writer_took_away_is_embedded_after_all(filled: Store) -> None:
    """What was to be kept, and is gone when the batch is written, gets a vector like a new one."""
    filled.ingest("c", [NewDocument("a", ["a 1", "a 2"])], embed=embed)
    asked: list[list[str]] = []

    def overtaken(texts: list[str]) -> Any:
        if not asked:
            with DatabaseConnection(filled.connection.url) as other:
                Store(other).ingest("c", [NewDocument("a", ["a 9"])], embed=embed)
        asked.append(texts)
        return embed(texts)

    filled.ingest("c", [NewDocument("a", ["a 1", "a 3"])], embed=overtaken)

    assert asked == [["a 3"], ["a 1", "a 3"]]
    check_whole(filled, {"a": [["a 1", "a 3"]]})


def test_last_conflict_is_an_error(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that was overtaken at its last attempt is given up, with nothing of it stored."""
    monkeypatch.setattr(retry, "ATTEMPTS", 1)
    filled.ingest("c", [NewDocument("a", ["a 1"])], embed=embed)

    def overtaken(texts: list[str]) -> Any:
        with DatabaseConnection(filled.connection.url) as other:
            Store(other).ingest("c", [NewDocument("a", ["a 2"])], embed=embed)
        return embed(texts)

    with pytest.raises(exceptions.WriteConflict, match=r"'c'.*again"):
        filled.ingest("c", [NewDocument("a", ["a 0", "a 1"])], embed=overtaken)
    check_whole(filled, {"a": [["a 2"]]})


def test_deadlock_with_others_is_tried_again(filled: Store, caplog: Any) -> None:
    """A session that locks the same rows in another order costs an attempt, not the batch."""
    caplog.set_level("INFO", logger="ragstore")
    filled.ingest("c", [NewDocument(key, [f"{key} 1"]) for key in "ab"], embed=embed)
    lock = "SELECT FROM ragstore_document WHERE key = %s FOR UPDATE"
    ingesting = threading.Thread(
        target=filled.ingest,
        args=("c", [NewDocument(key, [f"{key} 2"]) for key in "ab"]),
        kwargs={"embed": embed},
    )
    with connect(filled.connection.url) as other:
        other.execute("SET deadlock_timeout = '10s'")  # so that it is the batch that gives way
        other.execute(lock, ["b"])
        ingesting.start()
        while not _waits(filled):
            pass
        other.execute(lock, ["a"])
        other.rollback()
    ingesting.join()
    check_whole(filled, {key: [[f"{key} 2"]] for key in "ab"})
    assert "tried again" in caplog.text


def _waits(store: Store) -> bool:
    with store.connection.transaction() as driver:
        waiting = driver.execute("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(waiting.fetchall())


def test_lock_timeout_is_tried_again_and_then_told(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a lock is never let go, the caller is told after some attempts, in the end."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.0001)
    options: dict[str, Any] = {"connect_args": {"options": "-c lock_timeout=20ms"}}
    with (
        connect(filled.connection.url) as other,
        DatabaseConnection(filled.connection.url, **options) as impatient,
    ):
        other.execute("SELECT FROM ragstore_collection FOR UPDATE")
        with pytest.raises(exceptions.LockTimeout):
            Store(impatient).ingest("c", [NewDocument("a", ["a 1"])], embed=embed)
        other.rollback()
        assert Store(impatient).ingest("c", [NewDocument("a", ["a 1"])], embed=embed).inserted == 1


def test_next_batch_is_planned_while_one_is_written(filled: Store) -> None:
    """A model at work does not wait for the server, nor the server for the model."""
    events: list[str] = []
    with connect(filled.connection.url) as other:
        other.execute("SELECT FROM ragstore_collection FOR UPDATE")

        def watched(texts: list[str]) -> Any:
            events.append(texts[0])
            if len(events) == 2:
                other.rollback()  # only now can the first batch be stored
            return embed(texts)

        documents = [NewDocument(f"{at}", [f"text {at}"]) for at in range(3)]
        report = filled.ingest("c", documents, embed=watched, batch_size=1)
    assert events == ["text 0", "text 1", "text 2"]
    assert report.inserted == 3


def test_later_document_of_a_key_wins(filled: Store) -> None:
    """A document that is as stored, but was another in the batch before, is put back."""
    stored, other_text = NewDocument("a", ["a 1"]), NewDocument("a", ["a 2"])
    filled.ingest("c", [stored], embed=embed)
    with connect(filled.connection.url) as other:
        other.execute("SELECT FROM ragstore_collection FOR UPDATE")
        # Long enough for the second batch to be looked up before the first is stored.
        timer = threading.Timer(0.5, other.rollback)
        timer.start()
        report = filled.ingest("c", [other_text, stored], embed=embed, batch_size=1)
        timer.join()
    assert (report.updated, report.unchanged) == (2, 0)
    check_whole(filled, {"a": [["a 1"]]})


def test_failure_of_an_earlier_batch_comes_first(filled: Store) -> None:
    """Where a batch cannot be stored and the next not be planned, the first is told."""
    with filled.connection.transaction() as driver:
        driver.execute("ALTER TABLE ragstore_chunk ADD CONSTRAINT own CHECK (text <> 'bad 1')")
    documents = [NewDocument("a", ["bad 1"]), NewDocument("b", [" "])]
    with pytest.raises(exceptions.QueryFailed, match="own"):
        filled.ingest("c", documents, embed=embed, batch_size=1)
    with filled.connection.transaction() as driver, pytest.raises(psycopg.errors.CheckViolation):
        driver.execute("INSERT INTO ragstore_document (collection_id, key) VALUES (1, '')")
