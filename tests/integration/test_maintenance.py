"""Stored documents deleted, collections renamed and deleted, tables analysed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ragstore import DatabaseConnection, NewChunk, NewDocument, Store, exceptions, maintenance
from ragstore.execution import run
from ragstore.models import Chunk, Document


def rows(connection: DatabaseConnection, statement: str) -> list[tuple[Any, ...]]:
    """Return what the database holds."""
    with connection.transaction() as driver:
        return driver.execute(statement.encode()).fetchall()


def counts(connection: DatabaseConnection) -> tuple[int, ...]:
    """Return how many documents, chunks and embeddings there are."""
    tables = ("ragstore_document", "ragstore_chunk", "ragstore_embedding")
    return tuple(rows(connection, f"SELECT count(*) FROM {table}")[0][0] for table in tables)


WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def wait_for_a_waiter(connection: DatabaseConnection) -> bool:
    """Return True once a session waits for a lock, or False after 30 s."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if rows(connection, WAITING) != [(0,)]:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def filled(either: Any) -> Any:
    """Return a store with collections ``c`` and ``other`` of 10 documents of 2 chunks."""
    either.create_space("s", model="m", dimensions=2)
    for name in ("c", "other"):
        either.create_collection(name, space="s")
        documents = [
            NewDocument(
                f"k{at}",
                [NewChunk(f"text {at}", [1, at], {"n": at % 2}), NewChunk("same", [1, 0])],
                meta={"n": at},
            )
            for at in range(10)
        ]
        either.ingest(name, documents)
    return either


def test_documents_are_deleted_by_key(filled: Any, connection: DatabaseConnection) -> None:
    """Chunks and vectors go with them; a key that is not there, or twice, is no error."""
    assert filled.delete_documents("c", ["k1", "k2", "k1", "nothing"]) == 2
    assert counts(connection) == (18, 36, 36)
    assert filled.delete_documents("c", []) == 0
    assert filled.delete_documents("c", (f"k{at}" for at in range(10))) == 8
    assert counts(connection) == (10, 20, 20)


@pytest.mark.parametrize(
    ("where", "number"),
    [({"n": 1}, 5), (Document.key == "k3", 1), (Chunk.ordinal == 1, 10), (Chunk.text == "x", 0)],
    ids=["metadata of a chunk", "key", "every document", "none"],
)
def test_documents_are_deleted_by_filter(
    filled: Any, connection: DatabaseConnection, monkeypatch: Any, where: Any, number: int
) -> None:
    """What a search with the filter would find goes with its whole document, page by page."""
    monkeypatch.setattr(maintenance, "PAGE", 3)
    assert filled.delete_documents("c", where=where) == number
    assert counts(connection) == (20 - number, 40 - 2 * number, 40 - 2 * number)


def test_chunks_are_deleted_and_come_back(filled: Any, connection: DatabaseConnection) -> None:
    """A chunk goes alone, by id or filter, and the next ingest of its source restores it."""
    (hit, *_) = filled.search("c", text="text", k=1)
    assert filled.delete_chunks("c", [hit.chunk_id, hit.chunk_id, 10**12]) == 1
    assert filled.delete_chunks("c", where=Chunk.text == "same") == 10
    assert counts(connection) == (20, 29, 29)
    chunks = [NewChunk("text 5", [1, 5], {"n": 1}), NewChunk("same", [1, 0])]
    report = filled.ingest("c", [NewDocument("k5", chunks, meta={"n": 5})])
    assert (report.updated, report.chunks) == (1, 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.delete_documents("c"), exceptions.InvalidInput, "give keys= or where="),
        (lambda s: s.delete_documents("c", ["a"], where={"n": 1}), exceptions.InvalidInput, "both"),
        (lambda s: s.delete_documents("c", "k1"), exceptions.InvalidInput, r"pass \[key\]"),
        (lambda s: s.delete_documents("c", ["a\0"]), exceptions.NulByte, "a key"),
        (lambda s: s.delete_documents("c", where=5), exceptions.InvalidFilter, "where="),
        (lambda s: s.delete_documents("c", where={}), exceptions.InvalidInput, "delete_collection"),
        (lambda s: s.delete_chunks("c", where={}), exceptions.InvalidInput, "delete_collection"),
        (lambda s: s.delete_documents("x", ["a"]), exceptions.CollectionNotFound, "'x'"),
        (lambda s: s.delete_chunks("c"), exceptions.InvalidInput, "give ids= or where="),
        (lambda s: s.delete_chunks("c", ["1"]), exceptions.InvalidInput, "'1' is no id"),
        (lambda s: s.delete_documents("c", 5), exceptions.InvalidInput, "keys is int, not a list"),
        (lambda s: s.delete_chunks("c", 5), exceptions.InvalidInput, r"ids is int.*pass \[id\]"),
        (lambda s: s.delete_chunks("c", [2**63]), exceptions.InvalidInput, "no id"),
        (lambda s: s.delete_collection("x"), exceptions.CollectionNotFound, "'x'"),
        (lambda s: s.rename_collection("x", "y"), exceptions.CollectionNotFound, "'x'"),
        (lambda s: s.rename_collection("c", "other"), exceptions.CollectionExists, "'other'"),
        (lambda s: s.rename_collection("c", ""), exceptions.InvalidName, "needs a name"),
        (lambda s: s.rename_collection("c", "\0"), exceptions.NulByte, "the new name"),
        (lambda s: s.analyze("x"), exceptions.CollectionNotFound, "'x'"),
    ],
)
def test_wrong_calls_change_nothing(
    filled: Any, connection: DatabaseConnection, call: Any, error: Any, message: str
) -> None:
    """Each is refused by its name, and everything stays."""
    with pytest.raises(error, match=message):
        call(filled)
    assert counts(connection) == (20, 40, 40)


def test_collection_is_deleted_with_all_it_has(
    filled: Any, connection: DatabaseConnection, monkeypatch: Any
) -> None:
    """Page by page; the space and the other collection stay."""
    monkeypatch.setattr(maintenance, "PAGE", 3)
    assert filled.delete_collection("c") == 10
    assert counts(connection) == (10, 20, 20)
    with pytest.raises(exceptions.CollectionNotFound):
        filled.collection("c")
    assert filled.create_collection("c", space="s").name == "c"


@pytest.mark.parametrize(
    ("delete", "number"),
    [
        (lambda s: s.delete_documents("c", ["k3", "k1"]), 2),
        (lambda s: s.delete_documents("c", where={"n": 1}), 5),
        (lambda s: s.delete_chunks("c", range(1, 3)), 2),
        (lambda s: s.delete_chunks("c", where={"n": 1}), 5),
        (lambda s: s.delete_collection("c"), 10),
    ],
    ids=["documents", "documents by filter", "chunks", "chunks by filter", "collection"],
)
def test_deletes_let_a_writer_by_and_try_again(
    filled: Any, caplog: pytest.LogCaptureFixture, delete: Callable[[Any], int], number: int
) -> None:
    """A document that another session keeps locked, as ingest does, is waited for by new tries."""
    caplog.set_level(logging.INFO, "ragstore")
    is_locked = threading.Event()

    def hold() -> None:
        with DatabaseConnection(filled.connection.url) as other, other.transaction() as driver:
            driver.execute("UPDATE ragstore_document SET title = 'theirs'")
            is_locked.set()
            time.sleep(0.4)

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_locked.wait(30)
    impatient = filled.connection.url.update_query_dict({"options": "-c lock_timeout=50ms"})
    with DatabaseConnection(impatient) as connection:
        assert delete(Store(connection)) == number
    holder.join()
    assert "Other sessions are in the way (55P03): trying again" in caplog.text


@pytest.mark.parametrize(
    ("change", "delete", "number"),
    [
        (
            "UPDATE ragstore_chunk SET metadata = '{}' WHERE text IN ('text 1', 'text 3')",
            lambda s: s.delete_chunks("c", where={"n": 1}),
            3,
        ),
        (
            "UPDATE ragstore_chunk SET metadata = '{}'; UPDATE ragstore_document SET title = ''",
            lambda s: s.delete_chunks("c", where={"n": 1}),
            0,
        ),
        (
            "UPDATE ragstore_chunk SET metadata = '{}'; UPDATE ragstore_document SET title = ''",
            lambda s: s.delete_documents("c", where={"n": 1}),
            0,
        ),
        (
            "UPDATE ragstore_document SET metadata = '{}' WHERE key = 'k3'",
            lambda s: s.delete_documents("c", where={"$document": {"meta": {"n": {"$gt": 2}}}}),
            6,
        ),
    ],
    ids=["chunks", "chunks by ingest", "documents by ingest", "documents"],
)
def test_what_no_longer_matches_is_not_deleted(
    filled: Any, change: str, delete: Callable[[Any], int], number: int
) -> None:
    """A filter is asked again where another session has changed what it found."""
    is_changed = threading.Event()
    was_waited_for: list[bool] = []

    def hold() -> None:
        with DatabaseConnection(filled.connection.url) as other, other.transaction() as driver:
            driver.execute(change.encode())
            is_changed.set()
            was_waited_for.append(wait_for_a_waiter(other))  # what it looks for is found by then

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_changed.wait(30)
    assert delete(filled) == number
    holder.join()
    assert was_waited_for == [True]


def test_rows_with_ids_below_one_are_rows(filled: Any, connection: DatabaseConnection) -> None:
    """What a session stored under 0 or less is found by every page, and deleted like the rest."""
    collection = filled.collection("c").id
    with connection.session() as session, session.begin():
        for number in (-3, -2, -1, 0):
            session.add(Document(collection_id=collection, id=number, key=f"low {number}"))
            session.flush()
            session.add(
                Chunk(
                    collection_id=collection, id=number, document_id=number, ordinal=0, text="low"
                )
            )

    assert filled.delete_chunks("c", [-3]) == 1
    assert filled.delete_chunks("c", where=Chunk.id == -2) == 1
    assert filled.delete_documents("c", where=Document.key == "low -1") == 1
    assert filled.ingest("c", [NewDocument("new", ["x"])], embed=_ones, sync=True).deleted == 13
    assert filled.delete_collection("c") == 1


def _ones(texts: list[str]) -> list[list[int]]:
    return [[1, 1]] * len(texts)


def test_collection_is_renamed(filled: Any) -> None:
    """Its id and content stay; its own name is one it may have."""
    before = filled.collection("c")
    renamed = filled.rename_collection("c", "new")
    assert (renamed.id, renamed.name) == (before.id, "new")
    assert filled.rename_collection("new", "new") == renamed
    assert len(filled.search("new", text="text", k=50)) == 10


def test_analyze_names_what_it_analysed(filled: Any, connection: DatabaseConnection) -> None:
    """The planner knows the size of documents, chunks and the collection's partition."""
    space = filled.collection("c").space
    expected = ("ragstore_chunk", "ragstore_document", space.partition)
    assert filled.analyze("c") == expected
    names = ", ".join(repr(name) for name in expected)
    sizes = f"SELECT reltuples::int FROM pg_class WHERE relname IN ({names}) ORDER BY relname"
    assert rows(connection, sizes) == [(40,), (20,), (40,)]


def test_chunks_wait_for_the_writer_of_their_document(
    filled: Any, connection: DatabaseConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """Documents are locked first, as ingest does, so the two never wait in a circle."""
    caplog.set_level(logging.INFO, "ragstore")
    delete = b"DELETE FROM ragstore_chunk WHERE id = %s"
    failures: list[BaseException] = []
    is_begun = threading.Event()

    def write() -> None:
        try:
            with DatabaseConnection(connection.url) as other, other.transaction() as driver:
                driver.execute("UPDATE ragstore_document SET title = 'mine' WHERE key = 'k0'")
                driver.execute(delete, [2])
                is_begun.set()
                wait_for_a_waiter(other)
                driver.execute(delete, [1])
        except exceptions.RagstoreError as exc:
            failures.append(exc)

    writer = threading.Thread(target=write)
    writer.start()
    assert is_begun.wait(30)
    assert filled.delete_chunks("c", [1, 2]) == 0
    writer.join()
    assert failures == []
    assert "in the way" not in caplog.text


def test_two_renames_to_one_name(filled: Any, connection: DatabaseConnection) -> None:
    """The second, which found the name free, is told that it is taken."""
    is_renamed = threading.Event()

    def rename() -> None:
        with DatabaseConnection(connection.url) as other, other.transaction() as driver:
            run(driver, maintenance.rename_collection("other", "new"))
            is_renamed.set()
            wait_for_a_waiter(other)

    first = threading.Thread(target=rename)
    first.start()
    assert is_renamed.wait(30)
    with pytest.raises(exceptions.CollectionExists, match="'new' already"):
        filled.rename_collection("c", "new")
    first.join()
    assert filled.collection("c").name == "c"
