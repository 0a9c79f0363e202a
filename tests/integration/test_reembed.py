"""A collection moves to another space: whole, resumable, and under its readers and writers."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from ragstore import (
    AsyncStore,
    DatabaseConnection,
    NewDocument,
    Store,
    backfill,
    exceptions,
    reembed,
)
from ragstore.conf import override_settings
from ragstore.reembed import ReembedReport

OLD, NEW = 8, 12
Embed = Callable[[list[str]], Any]


def embedder(dimensions: int) -> Embed:
    """Return a function that gives each text a vector of its own."""

    def embed(texts: list[str]) -> Any:
        seeds = [zlib.crc32(text.encode(), dimensions) for text in texts]
        return np.array([np.random.default_rng(seed).normal(size=dimensions) for seed in seeds])

    return embed


def documents(count: int, of: str = "x", chunks: int = 4) -> list[NewDocument]:
    """Return documents of a few chunks each."""
    return [
        NewDocument(f"{of}{at}", [f"{of} {at} {part}" for part in range(chunks)])
        for at in range(count)
    ]


def rows(connection: DatabaseConnection, statement: str) -> list[tuple[Any, ...]]:
    """Return what the database holds."""
    with connection.transaction() as cursor:
        return cursor.execute(statement.encode()).fetchall()


LACKING = """
SELECT count(*) FROM ragstore_chunk c JOIN ragstore_collection k ON k.id = c.collection_id
WHERE NOT EXISTS (SELECT FROM ragstore_embedding e WHERE e.collection_id = c.collection_id
  AND e.chunk_id = c.id AND e.space_id = k.space_id)
"""


@pytest.fixture
def filled(store: Store) -> Store:
    """Return a store with 40 chunks in a space, and another, empty space."""
    store.create_space("old", model="m", dimensions=OLD)
    store.create_space("new", model="n", dimensions=NEW, exact_limit=20)
    store.create_collection("c", space="old")
    store.ingest("c", documents(10), embed=embedder(OLD))
    return store


@pytest.fixture(params=["sync", "async"])
def moving(request: pytest.FixtureRequest, filled: Store) -> Iterator[Any]:
    """Yield the filled store, then the async one on the same database."""
    if request.param == "sync":
        yield filled
        return
    from tests.integration.conftest import Awaited

    awaited = Awaited(filled.connection)
    yield awaited
    awaited.close()


def test_move_there_and_back(moving: Any) -> None:
    """Every chunk is embedded, the index built and the space switched; back, nothing is made."""
    connection = moving.connection
    progress: list[ReembedReport] = []
    embed = embedder(NEW)

    report = moving.reembed(
        "c", to="new", embed=embed, batch_size=15, last=7, on_progress=progress.append
    )

    assert (report.collection, report.replaced, report.space) == ("c", "old", "new")
    assert (report.embedded, report.last, report.passes, report.switched) == (40, 0, 1, True)
    assert [each.embedded for each in progress] == [15, 30, 40]
    assert {each.lacking for each in progress} == {40}
    assert report.index is not None
    assert report.index.state == "built"
    assert report.comparison is not None
    assert report.comparison.sample == 20
    assert 0 < report.comparison.overlap < 1
    assert report.comparison.recall is not None
    assert report.comparison.recall >= 0.9  # halves may change places
    assert 0 < report.stall < report.seconds
    assert moving.collection("c").space.name == "new"
    assert moving.search("c", vector=embed(["x 3 1"])[0], k=1)[0].text == "x 3 1"

    moving.ingest("c", documents(1, "later"), embed=embed)
    back = moving.reembed("c", to="old", embed=embedder(OLD))

    assert (back.embedded, back.last, back.passes, back.switched) == (4, 0, 1, True)
    assert rows(connection, LACKING) == [(0,)]
    assert moving.search("c", vector=embedder(OLD)(["later 0 1"])[0], k=1)[0].text == "later 0 1"


def test_move_behind_a_pooler_with_a_timeout(filled: Store) -> None:
    """The timeout of each transaction leaves it the choice of its isolation level."""
    connection = filled.connection
    database = connection.url.database
    with connection.transaction() as driver:
        driver.execute(
            f'ALTER DATABASE "{database}" SET default_transaction_isolation = serializable'.encode()
        )
    pooled = override_settings(POOLER="transaction", STATEMENT_TIMEOUT=30.0)
    with pooled, DatabaseConnection(connection.url) as theirs:
        shown = rows(theirs, "SHOW transaction_isolation"), rows(theirs, "SHOW statement_timeout")
        report = Store(theirs).reembed("c", to="new", embed=embedder(NEW), last=7)

    assert shown == ([("serializable",)], [("30s",)])
    assert (report.embedded, report.switched) == (40, True)


def test_move_that_is_done_does_nothing(moving: Any) -> None:
    """A run after the switch finds nothing to do, and says that it did not switch."""
    moving.reembed("c", to="new", embed=embedder(NEW))

    again = moving.reembed("c", to="new", embed=refuse)

    assert (again.embedded, again.switched, again.space) == (0, False, "new")


def refuse(texts: list[str]) -> Any:
    """Embed nothing."""
    raise AssertionError(f"embed was called with {len(texts)} texts")


def test_texts_alone_get_a_space(moving: Any) -> None:
    """A collection without space is moved to its first one."""
    moving.create_collection("bare")
    moving.ingest("bare", documents(2))

    report = moving.reembed("bare", to="new", embed=embedder(NEW), last=0)

    assert (report.replaced, report.embedded, report.comparison) == (None, 8, None)
    assert report.switched
    assert report.index is not None
    assert report.index.state == "not needed"


def test_killed_run_goes_on_where_it_stopped(moving: Any) -> None:
    """What was stored before embed failed is not made again, and searches saw nothing of it."""
    seen: list[str] = []
    embed = embedder(NEW)

    def failing(texts: list[str]) -> Any:
        if len(seen) >= 20:
            raise RuntimeError("the embedding service is gone")
        seen.extend(texts)
        return embed(texts)

    with pytest.raises(exceptions.EmbeddingFailed, match="RuntimeError") as failed:
        moving.reembed("c", to="new", embed=failing, batch_size=10, last=0, embed_retries=0)
    assert str(failed.value.__cause__) == "the embedding service is gone"
    assert moving.collection("c").space.name == "old"
    assert len(moving.search("c", vector=embedder(OLD)(["x 3 1"])[0])) == 10
    assert len(seen) == 20

    def remaining(texts: list[str]) -> Any:
        assert not set(texts) & set(seen)
        return embed(texts)

    report = moving.reembed("c", to="new", embed=remaining, batch_size=10, last=0)

    assert (report.embedded, report.lacking, report.switched) == (20, 0, True)
    assert rows(moving.connection, LACKING) == [(0,)]


MOVE = """
import sys, time
from ragstore import DatabaseConnection, Store

def embed(texts):
    print(*texts, sep="|", flush=True)
    time.sleep(0.2)
    return [[len(text) + 1.0] * 12 for text in texts]

with DatabaseConnection(sys.argv[1]) as connection:
    Store(connection).reembed("c", to="new", embed=embed, batch_size=5, last=0)
"""


def test_process_killed_on_the_way_is_followed_by_another(filled: Store) -> None:
    """After kill -9 the next run makes what was not stored, and the batch under way again."""
    url = filled.connection.url.render_as_string(hide_password=False)
    with subprocess.Popen(
        [sys.executable, "-c", MOVE, url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip().split("|") for _ in range(4)]
        process.kill()
    stored = {text for line in lines[:3] for text in line}
    assert len(stored) == 15
    made: list[str] = []

    def embed(texts: list[str]) -> Any:
        made.extend(texts)
        return embedder(NEW)(texts)

    report = filled.reembed("c", to="new", embed=embed, last=0)

    assert report.switched
    assert report.embedded == len(made) == 25
    assert not stored & set(made)
    assert rows(filled.connection, LACKING) == [(0,)]


def test_move_elsewhere_is_refused_until_it_is_cancelled(moving: Any) -> None:
    """A collection goes to one space at a time; cancelled, it may go to another."""
    moving.create_space("third", model="o", dimensions=OLD)
    with pytest.raises(exceptions.EmbeddingFailed, match="returned 0 vectors for 10 texts"):
        moving.reembed("c", to="new", embed=lambda _: [], batch_size=10, last=0)

    with pytest.raises(exceptions.ReembedUnderWay, match=r"to='new'.*cancel_reembed") as refused:
        moving.reembed("c", to="third", embed=embedder(OLD))
    assert (refused.value.collection, refused.value.space) == ("c", "new")
    assert [moving.cancel_reembed("c") for _ in range(2)] == ["new", None]

    assert moving.reembed("c", to="third", embed=embedder(OLD)).switched


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"to": "nowhere"}, exceptions.SpaceNotFound, "'nowhere'"),
        ({"collection": "d"}, exceptions.CollectionNotFound, "'d'"),
        ({"to": "bare"}, exceptions.SpaceNotReady, "'bare' has no partition"),
        ({"embed": lambda _: 7}, exceptions.EmbeddingFailed, "returned int: it must return"),
        ({"embed_batch_size": 0}, exceptions.InvalidInput, "embed_batch_size is 0"),
        ({"embed_concurrency": 0}, exceptions.InvalidInput, "embed_concurrency is 0"),
        ({"embed_retries": -1}, exceptions.InvalidInput, "embed_retries is -1"),
        ({"batch_size": 0}, exceptions.InvalidInput, "batch_size is 0"),
        ({"last": -1}, exceptions.InvalidInput, "last is -1"),
        ({"sample": True}, exceptions.InvalidInput, "sample is True"),
        ({"embed": None}, exceptions.InvalidInput, "embed is NoneType: it takes a function"),
        ({"approve": True}, exceptions.InvalidInput, "approve is bool: it takes a function"),
        ({"on_progress": 5}, exceptions.InvalidInput, "on_progress is int: it takes a function"),
    ],
)
def test_what_cannot_be_moved_is_named(
    filled: Store, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What is missing or wrong is said before the collection is touched, or leaves it as it was."""
    bare = filled.create_space("bare", model="m", dimensions=2)
    with filled.connection.transaction() as cursor:
        cursor.execute(f"DROP TABLE {bare.partition}".encode())
    given: dict[str, Any] = {"collection": "c", "to": "new", "embed": embedder(NEW), "last": 0}
    given.update(options)

    with pytest.raises(error, match=message):
        filled.reembed(given.pop("collection"), **given)

    space = filled.collection("c").space
    assert space is not None
    assert space.name == "old"


# --- the model -----------------------------------------------------------------------------------


def test_texts_are_embedded_as_ingest_does(moving: Any) -> None:
    """A call has so many texts at most, equal ones once, and one that failed is made again."""
    moving.ingest("c", [NewDocument("x0", ["equal", "x 0 1", "equal"])], embed=embedder(OLD))
    calls: list[list[str]] = []

    def embed(texts: list[str]) -> Any:
        calls.append(texts)
        if len(calls) in {2, 3}:
            raise ConnectionError("the service is gone for a moment")
        return embedder(NEW)(texts)

    report = moving.reembed("c", to="new", embed=embed, batch_size=20, embed_batch_size=12)

    assert sorted(map(len, calls)) == [6, 8, 8, 8, 12, 12]
    assert (report.embedded, report.switched) == (39, True)
    assert sum(text == "equal" for each in calls for text in each) == 1
    assert rows(moving.connection, LACKING) == [(0,)]


def test_calls_run_at_once(moving: Any) -> None:
    """Of ``embed_concurrency`` calls none ends before the others have begun."""
    together = threading.Barrier(4, timeout=20)

    def embed(texts: list[str]) -> Any:
        together.wait()
        return embedder(NEW)(texts)

    assert moving.reembed(
        "c", to="new", embed=embed, embed_batch_size=10, embed_concurrency=4
    ).switched


UNFIT = {
    "dimension": ([1.0] * OLD, exceptions.DimensionMismatch, "has 8 dim.*takes 12"),
    "nan": ([float("nan")] * NEW, exceptions.NonFiniteVector, "NaN"),
    "zero": ([0.0] * NEW, exceptions.ZeroVector, "no direction"),
}


@pytest.mark.parametrize("at", [0, 2], ids=["in a pass", "while writers wait"])
@pytest.mark.parametrize(("vector", "error", "message"), UNFIT.values(), ids=UNFIT)
def test_vector_that_does_not_fit_names_its_chunk(
    filled: Store, vector: list[float], error: type[Exception], message: str, at: int
) -> None:
    """The error has the key of the document and the place of the chunk, and nothing is switched."""
    odd = NewDocument("odd", ["even", "odd"])
    calls: list[list[str]] = []

    def embed(texts: list[str]) -> Any:
        calls.append(texts)
        if at and len(calls) <= at:  # the first two are passes
            document = odd if len(calls) == at else NewDocument("more", ["more"])
            filled.ingest("c", [document], embed=embedder(OLD))
        return [vector if text == "odd" else [1.0] * NEW for text in texts]

    if not at:
        filled.ingest("c", [odd], embed=embedder(OLD))
    with pytest.raises(error, match=f"document 'odd', chunk 1: .*{message}") as refused:
        filled.reembed("c", to="new", embed=embed)

    assert isinstance(refused.value, exceptions.InvalidVector)
    assert (refused.value.key, refused.value.chunk) == ("odd", 1)
    assert len(calls) == at + 1
    assert filled.collection("c").require_space().name == "old"


def test_writers_are_let_by_when_the_model_fails(filled: Store) -> None:
    """A call that fails while writers wait is made again when they are done, not before."""
    calls: list[list[str]] = []
    stored: list[int] = []

    def write() -> None:
        report = filled.ingest("c", documents(1, "waited"), embed=embedder(OLD))
        stored.append(report.inserted)

    thread = threading.Thread(target=write)

    def embed(texts: list[str]) -> Any:
        calls.append(texts)
        if len(calls) < 3:
            filled.ingest("c", documents(1, f"time {len(calls)}"), embed=embedder(OLD))
        elif len(calls) == 3:  # the last ones: the collection is locked
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
            raise ConnectionError("the service is gone for a moment")
        else:
            thread.join(20)
        return embedder(NEW)(texts)

    report = filled.reembed("c", to="new", embed=embed)

    assert stored == [1]
    assert report.switched
    assert report.embedded == 40 + 3 * 4
    assert rows(filled.connection, LACKING) == [(0,)]


def test_model_that_fails_each_time_writers_wait_ends_the_run(filled: Store) -> None:
    """After so many attempts at the last ones the run ends with the model's error."""
    calls: list[bool] = []  # whether writers waited

    def embed(texts: list[str]) -> Any:
        with filled.connection.transaction() as cursor:
            taken = cursor.execute(
                b"SELECT id FROM ragstore_collection FOR KEY SHARE SKIP LOCKED"
            ).fetchall()
        calls.append(not taken)
        if not taken:
            raise ConnectionError("the service is gone for a moment")
        filled.ingest("c", documents(1, f"time {len(calls)}"), embed=embedder(OLD))
        return embedder(NEW)(texts)

    with pytest.raises(exceptions.EmbeddingFailed, match="ConnectionError for 4 texts, once"):
        filled.reembed("c", to="new", embed=embed, embed_retries=1)

    assert sum(calls) == 2
    assert filled.collection("c").require_space().name == "old"
    assert filled.reembed("c", to="new", embed=embedder(NEW)).switched


# --- whoever may refuse ------------------------------------------------------------------------


def test_switch_that_is_refused_changes_nothing(moving: Any) -> None:
    """Who is asked sees the comparison and the index; refused, all is kept for the next run."""
    asked: list[ReembedReport] = []

    def refuse_it(report: ReembedReport) -> bool:
        asked.append(report)
        # Nothing is locked: writers go on.
        Store(moving.connection).ingest("c", documents(1, "meanwhile"), embed=embedder(OLD))
        return False

    with pytest.raises(exceptions.SwitchRefused, match=r"'c'.*'new'.*cancel_reembed") as refused:
        moving.reembed("c", to="new", embed=embedder(NEW), approve=refuse_it)

    assert [refused.value.report] == asked
    assert (asked[0].replaced, asked[0].space, asked[0].embedded) == ("old", "new", 40)
    assert asked[0].comparison.overlap < 1
    assert asked[0].index.state == "built"
    assert not asked[0].switched
    assert moving.collection("c").space.name == "old"
    state = rows(moving.connection, "SELECT next_space_id IS NULL FROM ragstore_collection")
    assert state == [(False,)]

    report = moving.reembed("c", to="new", embed=embedder(NEW), approve=lambda _: np.True_)

    assert (report.embedded, report.switched) == (4, True)


@pytest.mark.parametrize("answer", [None, 1, "yes"], ids=repr)
def test_answer_that_is_no_answer_switches_nothing(filled: Store, answer: Any) -> None:
    """A function that forgets its return, or returns something else, is told so."""
    with pytest.raises(exceptions.InvalidInput, match=r"approve\(\) returned .* True or False"):
        filled.reembed("c", to="new", embed=embedder(NEW), approve=lambda _: answer)

    assert filled.collection("c").require_space().name == "old"


def test_error_of_whoever_is_asked_is_theirs(moving: Any) -> None:
    """What approve raises reaches the caller as it is, and nothing is switched."""

    def fail(_: ReembedReport) -> bool:
        raise LookupError("no such evaluation")

    with pytest.raises(LookupError, match="no such evaluation"):
        moving.reembed("c", to="new", embed=embedder(NEW), approve=fail)

    assert moving.collection("c").space.name == "old"


# --- while others write ------------------------------------------------------------------------


def test_chunks_replaced_and_deleted_meanwhile(filled: Store) -> None:
    """A chunk that goes while its vector is made is left out; what comes is embedded too."""
    writer = Store(filled.connection)
    embed = embedder(NEW)
    calls: list[int] = []

    def writing(texts: list[str]) -> Any:
        calls.append(len(texts))
        if len(calls) == 1:
            writer.ingest("c", documents(2, chunks=3), embed=embedder(OLD))
            writer.ingest("c", documents(1, "new"), embed=embedder(OLD))
            with filled.connection.transaction() as cursor:
                cursor.execute("DELETE FROM ragstore_document WHERE key = 'x9'")
                cursor.execute("UPDATE ragstore_chunk SET text = 'new' WHERE text = 'x 8 0'")
        return embed(texts)

    report = filled.reembed("c", to="new", embed=writing, batch_size=100, last=0)

    assert report.switched
    assert report.passes >= 1
    assert rows(filled.connection, LACKING) == [(0,)]
    texts = [text for (text,) in rows(filled.connection, "SELECT text FROM ragstore_chunk")]
    assert "x 9 0" not in texts
    for text in texts:
        assert filled.search("c", vector=embed([text])[0], k=1)[0].text == text


def test_few_chunks_are_embedded_under_the_lock(filled: Store) -> None:
    """What comes in the last passes is embedded while writers wait; readers go on.

    A write that waited ends with SpaceChanged.
    """
    filled.reembed("c", to="new", embed=embedder(NEW), last=40, sample=0)
    filled.reembed("c", to="old", embed=embedder(OLD))
    filled.ingest("c", documents(1, "few"), embed=embedder(OLD))
    calls: list[list[str]] = []
    outcome: list[Any] = []

    def write() -> None:
        try:
            Store(filled.connection).ingest("c", documents(1, "late"), embed=embedder(OLD))
        except exceptions.SpaceChanged as exc:
            outcome.append(exc)

    thread = threading.Thread(target=write)

    def slow(texts: list[str]) -> Any:
        calls.append(texts)
        if len(calls) < 3:
            filled.ingest("c", documents(1, f"time {len(calls)}"), embed=embedder(OLD))
            return embedder(NEW)(texts)
        assert len(texts) == 4
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert len(filled.search("c", vector=embedder(OLD)(["x 3 1"])[0])) == 10
        return embedder(NEW)(texts)

    report = filled.reembed("c", to="new", embed=slow)
    thread.join()

    assert (report.embedded, report.last, report.passes) == (12, 4, 2)
    assert report.stall > 0.5
    assert len(outcome) == 1
    assert rows(filled.connection, LACKING) == [(0,)]


def test_writers_that_take_long_are_let_by(
    filled: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The switch gives up its wait, lets the writers behind it by, and tries again."""
    caplog.set_level(logging.INFO, "ragstore")
    monkeypatch.setattr(reembed, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(reembed, "LOCK_PAUSES", (0.01, 0.01))
    filled.create_space("plain", model="n", dimensions=NEW)  # no index, which would wait for good
    share = b"SELECT FROM ragstore_collection FOR SHARE"
    with filled.connection.transaction() as holder:
        holder.execute(share)
        with pytest.raises(exceptions.LockTimeout):
            filled.reembed("c", to="plain", embed=embedder(NEW), last=0)
    monkeypatch.setattr(reembed, "LOCK_PAUSES", (0.2,) * 20)
    held = threading.Event()

    def hold() -> None:
        with filled.connection.transaction() as holder:
            holder.execute(share)
            held.set()
            time.sleep(0.5)

    thread = threading.Thread(target=hold)

    def embed_while_held(texts: list[str]) -> Any:
        thread.start()
        held.wait()
        return embedder(NEW)(texts)

    report = filled.reembed("c", to="plain", embed=embed_while_held, last=0, sample=0)
    thread.join()

    assert (report.embedded, report.switched) == (40, True)
    assert "Other sessions are in the way (55P03): trying again" in caplog.text
    records: list[Any] = [each for each in caplog.records if hasattr(each, "pause")]
    told = {(each.collection, each.space, each.sqlstate) for each in records}
    assert told == {("c", "plain", "55P03")}


def test_writers_faster_than_embed_are_told_of(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many passes the run ends with what is left; the next goes on."""
    monkeypatch.setattr(reembed, "MAX_PASSES", 3)
    embed, count = embedder(NEW), iter(range(100))

    def growing(texts: list[str]) -> Any:
        made = embed(texts)
        # Ids below those of the pass: as of a transaction that began before, and ended after.
        with filled.connection.transaction() as cursor:
            cursor.execute(
                b"INSERT INTO ragstore_chunk (collection_id, id, document_id, ordinal, text)"
                b" SELECT collection_id, -%(n)s, min(document_id), 1000 + %(n)s, 'grown'"
                b" FROM ragstore_chunk GROUP BY collection_id",
                {"n": next(count) + 1},
            )
        return made

    with pytest.raises(exceptions.ReembedUnfinished, match="After 3 passes") as unfinished:
        filled.reembed("c", to="new", embed=growing, last=0, batch_size=1_000)
    assert unfinished.value.collection == "c"
    assert unfinished.value.lacking > 0
    assert filled.reembed("c", to="new", embed=embed, last=0).switched


def test_switch_is_not_tried_for_ever(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If each time more came than may be embedded while writers wait, the run says so."""
    monkeypatch.setattr(reembed, "MAX_PASSES", 3)
    attempts: list[Any] = []

    locked = reembed.Move._locked

    def after_a_write(move: reembed.Move, *given: Any) -> Any:
        filled.ingest("c", documents(1, f"time {len(attempts)}"), embed=embedder(OLD))
        attempts.append(given)
        return (yield from locked(move, *given))

    monkeypatch.setattr(reembed.Move, "_locked", after_a_write)
    with pytest.raises(exceptions.ReembedUnfinished, match="4 chunks of 'c'") as unfinished:
        filled.reembed("c", to="new", embed=embedder(NEW), last=3)

    assert len(attempts) == 3
    assert unfinished.value.lacking == 4
    monkeypatch.undo()
    assert filled.reembed("c", to="new", embed=embedder(NEW), last=3).embedded == 4


def test_two_runs_share_the_work(filled: Store) -> None:
    """A second run to the same space makes nothing fail, and every chunk is embedded once."""
    results: list[Any] = []

    def move() -> None:
        try:
            results.append(
                Store(filled.connection).reembed("c", to="new", embed=embedder(NEW), batch_size=5)
            )
        except exceptions.SpaceChanged as exc:
            results.append(exc)

    threads = [threading.Thread(target=move) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(getattr(each, "switched", False) for each in results) == 1
    assert len(results) == 3
    assert rows(filled.connection, LACKING) == [(0,)]
    assert rows(filled.connection, "SELECT next_space_id FROM ragstore_collection") == [(None,)]


def test_page_is_read_in_order_whatever_the_statistics(filled: Store) -> None:
    """A page costs what it holds: just after a load, too, nothing is sorted or read as a whole."""
    filled.ingest("c", documents(300, "more"), embed=embedder(OLD))
    space = filled.create_space("new", model="n", dimensions=NEW, exact_limit=20, exists_ok=True)
    values = {
        "collection": filled.collection("c").id,
        "space": space.id,
        "after": 100,
        "size": 50,
        "ids": list(range(100, 150)),
    }
    with filled.connection.transaction() as cursor:
        cursor.execute(backfill._IN_ORDER)
        for statement in (backfill._LACKING_CHUNKS, backfill._STILL_THERE, backfill._MADE_ALREADY):
            query = b"EXPLAIN " + statement.as_string(None).encode()
            plan = "\n".join(line for (line,) in cursor.execute(query, values).fetchall())
            assert "Index" in plan
            assert not re.search("Seq Scan|Bitmap|Hash", plan), plan
            assert "Sort" not in plan or statement is backfill._STILL_THERE, plan
            if statement is backfill._LACKING_CHUNKS:  # what lacks a vector is found by the keys
                assert plan.count("Index Only Scan") == 2, plan


# --- other roles, other functions --------------------------------------------------------------


async def test_functions_may_be_coroutine_functions(filled: Store) -> None:
    """For an AsyncStore, embed, on_progress and approve are awaited."""
    embed = embedder(NEW)
    told: list[int] = []

    async def embed_later(texts: list[str]) -> Any:
        return embed(texts)

    async def tell(report: ReembedReport) -> None:
        told.append(report.embedded)

    async def agree(report: ReembedReport) -> bool:
        return report.embedded == 40

    async with DatabaseConnection(filled.connection.url) as connection:
        report = await AsyncStore(connection).reembed(
            "c",
            to="new",
            embed=embed_later,
            last=3,
            batch_size=37,
            approve=agree,
            on_progress=tell,
        )

    assert (report.embedded, report.switched, told) == (40, True, [37, 40])


async def test_progress_is_told_on_the_loop(filled: Store) -> None:
    """A plain on_progress of an AsyncStore is called on the loop, as that of ingest is."""
    loops: list[Any] = []

    async with DatabaseConnection(filled.connection.url) as connection:
        await AsyncStore(connection).reembed(
            "c",
            to="new",
            embed=embedder(NEW),
            on_progress=lambda _: loops.append(asyncio.get_running_loop()),
        )

    assert loops == [asyncio.get_running_loop()]


def test_role_that_owns_nothing_moves_a_collection(filled: Store) -> None:
    """What ingest may do is enough; the index is due, and the report says what to run."""
    role = f"mover_{uuid4().hex[:8]}"
    statements = [
        f"CREATE ROLE {role} LOGIN PASSWORD 'guest'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    ]
    with filled.connection.transaction() as cursor:
        for statement in statements:
            cursor.execute(statement.encode())
    guest = filled.connection.url.set(username=role, password="guest")

    with DatabaseConnection(guest) as connection:
        report = Store(connection).reembed("c", to="new", embed=embedder(NEW))
    with filled.connection.transaction() as cursor:
        cursor.execute(f"DROP OWNED BY {role}".encode())
        cursor.execute(f"DROP ROLE {role}".encode())

    assert report.switched
    assert report.index is not None
    assert report.index.state == "due"
    assert "store.ensure_indexes('new')" in report.index.reason
    assert filled.ensure_indexes("new")[0].state == "built"


def test_collection_deleted_meanwhile_is_named(filled: Store) -> None:
    """A run whose collection is gone ends with an error that says so."""

    def delete(texts: list[str]) -> Any:
        with filled.connection.transaction() as cursor:
            cursor.execute("DELETE FROM ragstore_collection")
        return embedder(NEW)(texts)

    with pytest.raises(exceptions.CollectionNotFound, match="'c' was deleted meanwhile"):
        filled.reembed("c", to="new", embed=delete, last=0)


def test_move_that_was_cancelled_meanwhile_ends(filled: Store) -> None:
    """Another session may give the move up: the run stores nothing more, and says why."""

    def cancel(texts: list[str]) -> Any:
        filled.cancel_reembed("c")
        return embedder(NEW)(texts)

    with pytest.raises(exceptions.SpaceChanged, match="no longer on its way to space 'new'"):
        filled.reembed("c", to="new", embed=cancel, last=0)
    assert rows(filled.connection, "SELECT count(DISTINCT space_id) FROM ragstore_embedding") == [
        (1,)
    ]


def test_batches_are_small_where_there_is_an_index(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers wait for a batch that is stored into an index: it is of few vectors."""
    monkeypatch.setattr(reembed, "INDEXED_BATCH", 7)
    filled.build_index("new")
    sizes: list[int] = []

    def embed(texts: list[str]) -> Any:
        sizes.append(len(texts))
        return embedder(NEW)(texts)

    filled.reembed("c", to="new", embed=embed, last=0)

    assert sizes == [7, 7, 7, 7, 7, 5]
