"""Documents in: what is written, what is recognised, and what a failure leaves behind."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import text

from ragstore import (
    AsyncStore,
    DatabaseConnection,
    IngestReport,
    NewChunk,
    NewDocument,
    Store,
    exceptions,
    ingest,
)
from ragstore.content import prepare_batch
from ragstore.driver import connect
from ragstore.execution import run
from ragstore.models import MAX_TEXT_BYTES
from ragstore.packing import pack_vectors

CHUNKS = """
SELECT d.key, c.ordinal, c.text, c.token_count, c.metadata, c.language, c.id
FROM ragstore_chunk c JOIN ragstore_document d
  ON d.collection_id = c.collection_id AND d.id = c.document_id
ORDER BY d.key, c.ordinal
"""
VECTORS = """
SELECT d.key, c.ordinal, e.vector::real[] FROM ragstore_embedding e
JOIN ragstore_chunk c ON c.collection_id = e.collection_id AND c.id = e.chunk_id
JOIN ragstore_document d ON d.collection_id = c.collection_id AND d.id = c.document_id
ORDER BY d.key, c.ordinal
"""


def rows(connection: DatabaseConnection, statement: str = CHUNKS) -> list[tuple[Any, ...]]:
    """Return what the database holds."""
    with connection.transaction() as cursor:
        return cursor.execute(statement.encode()).fetchall()


def counts(report: IngestReport) -> tuple[int, ...]:
    """Return (inserted, updated, unchanged, chunks, embedded)."""
    return (
        report.inserted, report.updated, report.unchanged, report.chunks, report.embedded,
    )  # fmt: skip


def lengths(texts: Sequence[str]) -> list[list[float]]:
    """Embed each text as its length."""
    return [[float(len(each)), 1.0] for each in texts]


@pytest.fixture
def filled(either: Any) -> Any:
    """Return a store with space ``s`` of 2 dimensions, collection ``c`` in it and ``plain``."""
    either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s", language="german")
    either.create_collection("plain")
    return either


def test_documents_are_written_as_given(filled: Any, connection: DatabaseConnection) -> None:
    """Chunks keep their order, text, metadata and count, and take the collection's language."""
    document = NewDocument(
        "a", ["one", NewChunk("two", meta={"x": [1, {"y": "é"}]}, token_count=7)], title="T"
    )
    report = filled.ingest("c", [document, NewDocument("b", ("three",))], embed=lengths)
    assert counts(report) == (2, 0, 0, 3, 3)
    assert (report.documents, report.seconds > 0, report.chunks_per_second > 0) == (2, True, True)
    assert [row[:-1] for row in rows(connection)] == [
        ("a", 0, "one", None, {}, "german"),
        ("a", 1, "two", 7, {"x": [1, {"y": "é"}]}, "german"),
        ("b", 0, "three", None, {}, "german"),
    ]
    assert rows(connection, VECTORS) == [("a", 0, [3, 1]), ("a", 1, [3, 1]), ("b", 0, [5, 1])]


def test_unchanged_documents_are_recognised(filled: Any, connection: DatabaseConnection) -> None:
    """Only what changed is written: the other chunks keep their ids."""
    documents = [NewDocument(key, [key, "same"]) for key in "abc"]
    filled.ingest("plain", documents)
    before = rows(connection)
    again = filled.ingest("plain", documents)
    assert counts(again) == (0, 0, 3, 0, 0)
    assert rows(connection) == before
    others = [NewDocument("c", ["c"]), NewDocument("d", ["e"])]
    changed = filled.ingest("plain", [*documents[:2], *others])
    assert counts(changed) == (1, 1, 2, 1, 0)
    after = rows(connection)
    assert [row for row in after if row[0] in "ab"] == before[:4]
    assert [row[:3] for row in after if row[0] in "cd"] == [("c", 0, "c"), ("d", 0, "e")]
    assert after[4] == before[4]


@pytest.mark.parametrize(
    "changed",
    [
        NewDocument("a", [NewChunk("x", [1, 0])], title="T"),
        NewDocument("a", [NewChunk("x", [1, 0])], meta={"a": 1}),
        NewDocument("a", [NewChunk("x", [1, 0], meta={"a": 1})]),
        NewDocument("a", [NewChunk("x", [0, 1])]),
        NewDocument("a", [NewChunk("x", [1, 0], token_count=3)]),
        NewDocument("a", [NewChunk("x", [1, 0]), NewChunk("y", [1, 0])]),
    ],
    ids=["title", "metadata", "chunk metadata", "vector", "token count", "chunk"],
)
def test_every_change_is_written(
    store: Store, connection: DatabaseConnection, changed: NewDocument
) -> None:
    """A change of anything stored is a change of the document, whose id and birth stay."""
    store.create_space("s", model="m", dimensions=2)
    store.create_collection("c", space="s")
    store.ingest("c", [NewDocument("a", [NewChunk("x", [1, 0])])])
    identity = "SELECT id, created_at FROM ragstore_document"
    is_older = "SELECT created_at < updated_at FROM ragstore_document"
    before = rows(connection, identity)
    assert rows(connection, is_older) == [(False,)]
    assert counts(store.ingest("c", [changed]))[:3] == (0, 1, 0)
    assert rows(connection, identity) == before
    assert rows(connection, is_older) == [(True,)]
    assert counts(store.ingest("c", [changed]))[:3] == (0, 0, 1)


def test_batches_are_drawn_one_at_a_time(filled: Any, connection: DatabaseConnection) -> None:
    """A generator is read one batch ahead and no further, and progress follows each batch."""
    drawn: list[int] = []
    seen: list[tuple[int, int, int]] = []

    def documents() -> Iterator[NewDocument]:
        for number in range(10):
            drawn.append(number)
            yield NewDocument(f"{number}", ["one", "two"])

    def progress(report: IngestReport) -> None:
        stored = rows(connection, "SELECT count(*) FROM ragstore_document")[0][0]
        seen.append((len(drawn), report.documents, stored))

    report = filled.ingest("plain", documents(), batch_size=7, on_progress=progress)
    assert [told for _, told, _ in seen] == [4, 8, 10]
    assert all(told <= read <= told + 4 for read, told, _ in seen)
    assert all(stored >= told for _, told, stored in seen)
    assert counts(report) == (10, 0, 0, 20, 0)


def test_failure_keeps_earlier_batches_alone(filled: Any, connection: DatabaseConnection) -> None:
    """The batch of a bad document is not stored, those before it are."""
    documents = [NewDocument(f"{number}", ["x"]) for number in range(3)]
    bad = [*documents, NewDocument("bad", [" "])]
    told: list[int] = []
    with pytest.raises(exceptions.EmptyChunk, match="'bad', chunk 0"):
        filled.ingest(
            "plain", bad, batch_size=2, on_progress=lambda report: told.append(report.documents)
        )
    assert [row[0] for row in rows(connection)] == ["0", "1"]
    assert told == [2]


def test_documents_are_let_go_with_their_batch(filled: Any) -> None:
    """Of a long stream no more than three batches are in memory at a time."""
    alive: weakref.WeakSet[NewDocument] = weakref.WeakSet()
    most = 0

    class Counted(NewDocument):
        __hash__ = object.__hash__

    def documents() -> Iterator[NewDocument]:
        nonlocal most
        for number in range(200):
            document = Counted(f"{number}", ["one", NewChunk("two", np.ones(2))])
            alive.add(document)
            most = max(most, len(alive))
            yield document
            del document

    filled.ingest("c", documents(), embed=lengths, batch_size=20)
    assert 10 <= most <= 31


def test_no_documents_are_no_work(filled: Any) -> None:
    """An empty iterable is not an error."""
    assert counts(filled.ingest("plain", iter(()))) == (0, 0, 0, 0, 0)


def test_embed_makes_only_what_is_missing(filled: Any, connection: DatabaseConnection) -> None:
    """Vectors given are kept, others made, and none for documents that are stored already."""
    calls: list[list[str]] = []

    def embed(texts: list[str]) -> Any:
        calls.append(texts)
        return np.array(lengths(texts))

    mixed = NewDocument("a", ["one", NewChunk("two", [0.5, 0.5]), "three"])
    given = NewDocument("b", [NewChunk("four", (1, 2))])
    assert counts(filled.ingest("c", [mixed, given], embed=embed)) == (2, 0, 0, 4, 2)
    assert counts(filled.ingest("c", [mixed, given], embed=embed)) == (0, 0, 2, 0, 0)
    filled.ingest("c", [mixed, given, NewDocument("c", ["new"])], embed=embed)
    assert calls == [["one", "three"], ["new"]]
    assert [vector for *_, vector in rows(connection, VECTORS)] == [
        [3, 1], [0.5, 0.5], [5, 1], [1, 2], [3, 1],
    ]  # fmt: skip


def test_no_transaction_is_open_while_embedding(
    filled: Any, connection: DatabaseConnection
) -> None:
    """A slow model holds no lock and no snapshot."""
    states: list[tuple[Any, ...]] = []
    query = (
        "SELECT state, backend_xmin, backend_xid FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def embed(texts: list[str]) -> Any:
        with connect(connection.url) as other:
            states.extend(other.execute(query).fetchall())
        return lengths(texts)

    filled.ingest("c", [NewDocument("a", ["x"])], embed=embed)
    assert states
    assert set(states) == {("idle", None, None)}


def test_space_set_later_gets_its_vectors(filled: Any, connection: DatabaseConnection) -> None:
    """A document is not unchanged while a chunk of it lacks its vector in the active space."""
    documents = [NewDocument("a", ["one", "two"])]
    filled.ingest("plain", documents)
    with connection.session() as session, session.begin():
        session.execute(
            text("UPDATE ragstore_collection c SET space_id = s.id FROM ragstore_embedding_space s")
        )
    assert counts(filled.ingest("plain", documents, embed=lengths)) == (0, 1, 0, 0, 2)
    assert counts(filled.ingest("plain", documents, embed=lengths)) == (0, 0, 1, 0, 0)
    assert len(rows(connection, VECTORS)) == 2


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        ("DELETE FROM ragstore_collection", exceptions.CollectionNotFound, "deleted"),
        ("UPDATE ragstore_collection SET space_id = NULL", exceptions.SpaceChanged, "again"),
    ],
    ids=["deleted", "switched"],
)  # fmt: skip
def test_change_of_the_collection_meanwhile_stops_the_batch(
    filled: Any, connection: DatabaseConnection, statement: str, error: Any, message: str
) -> None:
    """Vectors made for what is no longer there are not written anywhere."""

    def embed(texts: list[str]) -> Any:
        with connect(connection.url) as other:
            other.execute(statement.encode())
        return lengths(texts)

    with pytest.raises(error, match=message):
        filled.ingest("c", [NewDocument("a", ["x"])], embed=embed)
    assert rows(connection, "SELECT FROM ragstore_document") == []


def test_space_cannot_be_switched_while_a_batch_is_written(
    store: Store, connection: DatabaseConnection
) -> None:
    """A switch waits for the batch: its vectors are never left in a space that nobody searches."""
    store.create_space("s", model="m", dimensions=2)
    target = store.create_collection("c", space="s")
    vector = np.array([[1, 0]], dtype=np.float32)
    prepared = prepare_batch([NewDocument("a", [NewChunk("x", vector[0])])])
    batch = ingest.Batch(prepared, vectors={ingest.Place("a", 0): pack_vectors(vector)[0]})
    with connection.transaction() as writer, connect(connection.url) as other:
        run(writer, ingest.write(target, batch))
        other.execute("SET LOCAL lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("UPDATE ragstore_collection SET space_id = NULL")
    assert len(rows(connection, VECTORS)) == 1


def test_two_writers_end_as_if_one_after_the_other(
    store: Store, connection: DatabaseConnection
) -> None:
    """The same keys in different order neither deadlock nor mix their chunks."""
    store.create_collection("c")
    keys = [f"k{number:02}" for number in range(20)]
    errors: list[BaseException] = []

    def write(mark: str, order: list[str]) -> None:
        documents = [NewDocument(key, [f"{mark} {at}" for at in range(3)]) for key in order]
        try:
            store.ingest("c", documents, batch_size=30)
        except BaseException as exc:  # noqa: BLE001 - told to the test's own thread
            errors.append(exc)

    for attempt in range(8):
        orders = [(f"a{attempt}", keys), (f"b{attempt}", keys[10:] + keys[:10])]
        threads = [threading.Thread(target=write, args=order) for order in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stored: dict[str, list[str]] = {}
        for key, _, passage, *_ in rows(connection):
            stored.setdefault(key, []).append(passage)
        assert sorted(stored) == keys
        whole = [[f"{mark} {at}" for at in range(3)] for mark, _ in orders]
        assert all(chunks in whole for chunks in stored.values())
    assert errors == []


AWKWARD = [
    "tab\tnewline\nreturn\r\\ \\N \\. \\t",
    "\\N",
    "'\"; DROP TABLE x; -- %s {} $1",
    "é ü 漢字 😀 👩‍👩‍👧 \u202e \ufeff \uffff \U0010ffff",
    " leading and trailing ",
    "\x01\x02\x7f\x85\u2028",
    "x" * MAX_TEXT_BYTES,
    "😀" * (MAX_TEXT_BYTES // 4),
]


def test_text_round_trips(filled: Any, connection: DatabaseConnection) -> None:
    """What COPY would escape as text arrives as it was, in text, keys, titles and metadata."""
    documents = [
        NewDocument(f"{at}{each[:100]}", [NewChunk(each, meta={each[:99]: each[:99]})], each[:100])
        for at, each in enumerate(AWKWARD)
    ]
    filled.ingest("plain", documents)
    stored = {row[0]: row for row in rows(connection)}
    titles = dict(rows(connection, "SELECT key, title FROM ragstore_document"))
    for document in documents:
        chunk: Any = document.chunks[0]
        assert stored[document.key][2] == chunk.text
        assert stored[document.key][4] == chunk.meta
        assert titles[document.key] == document.title
    assert counts(filled.ingest("plain", documents))[:3] == (0, 0, len(documents))


async def test_encoding_of_a_url_changes_no_text(
    connection: DatabaseConnection, store: Store
) -> None:
    """Rows are packed as UTF-8, whatever encoding the URL says of its connections."""
    store.create_collection("c")
    documents = [NewDocument(f"k{at}", ["Häuser"]) for at in range(3)]
    latin = connection.url.update_query_dict({"client_encoding": "latin1"})
    async with DatabaseConnection(latin) as other:
        Store(other).ingest("c", documents[:2])
        await AsyncStore(other).ingest("c", documents[2:])
    assert {row[2] for row in rows(connection)} == {"Häuser"}


def test_vectors_round_trip(filled: Any, connection: DatabaseConnection) -> None:
    """Vectors are stored as 4-byte floats, bit for bit."""
    random = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    scaled = random * np.logspace(-2, 4, 50, dtype=np.float32)[:, None]
    filled.ingest("c", [NewDocument("a", [NewChunk("x", row) for row in scaled])])
    stored = np.array([vector for *_, vector in rows(connection, VECTORS)], dtype=np.float32)
    assert np.array_equal(stored, scaled)


async def test_async_store_takes_coroutines_and_async_iterables(
    connection: DatabaseConnection,
) -> None:
    """A coroutine function may embed, and an async generator bring the documents."""

    async def documents() -> AsyncIterator[NewDocument]:
        for key in "abc":
            await asyncio.sleep(0)
            yield NewDocument(key, [key])

    async def embed(texts: list[str]) -> Any:
        await asyncio.sleep(0)
        return lengths(texts)

    class Model:
        async def __call__(self, texts: list[str]) -> Any:
            return await embed(texts)

    async with connection:
        store = AsyncStore(connection)
        await store.create_space("s", model="m", dimensions=2)
        await store.create_collection("c", space="s")
        seen: list[int] = []

        async def on_progress(report: IngestReport) -> None:
            await asyncio.sleep(0)
            seen.append(report.documents)

        report = await store.ingest(
            "c", documents(), embed=embed, batch_size=2, on_progress=on_progress
        )
        assert counts(report) == (3, 0, 0, 3, 3)
        assert seen == [2, 3]
        more = await store.ingest("c", [NewDocument("d", ["d"])], embed=Model())
        assert counts(more) == (1, 0, 0, 1, 1)


class Traced(dict[str, Any]):
    """Metadata that notes the threads that read it."""

    def __init__(self, threads: set[int]) -> None:
        super().__init__(a=1)
        self._threads = threads

    def items(self) -> Any:
        """Note the thread."""
        self._threads.add(threading.get_ident())
        return super().items()


async def test_documents_are_read_and_checked_off_the_loop(connection: DatabaseConnection) -> None:
    """Neither a plain generator, nor checking its documents, keeps the loop from anything else."""
    drew: set[int] = set()
    checked: set[int] = set()

    def source() -> Iterator[NewDocument]:
        for at in range(10):
            drew.add(threading.get_ident())
            yield NewDocument(f"{at}", [NewChunk("x", meta=Traced(checked))])

    async with connection:
        store = AsyncStore(connection)
        await store.create_collection("c")
        assert (await store.ingest("c", source(), batch_size=2)).inserted == 10
    assert drew
    assert checked
    assert threading.get_ident() not in drew | checked


async def test_plain_embed_does_not_block_the_loop(connection: DatabaseConnection) -> None:
    """A plain function runs in a thread, and the loop goes on."""
    loop_thread = threading.get_ident()
    used: list[int] = []
    ticks = 0

    def embed(texts: list[str]) -> Any:
        used.append(threading.get_ident())
        time.sleep(0.3)
        return lengths(texts)

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += bool(used)

    async with connection:
        store = AsyncStore(connection)
        await store.create_space("s", model="m", dimensions=2)
        await store.create_collection("c", space="s")
        ticking = asyncio.create_task(tick())
        await store.ingest("c", [NewDocument("a", ["x"])], embed=embed)
        ticking.cancel()
    assert used != [loop_thread]
    assert ticks >= 5
