"""Documents that are no longer in the source go, and only those."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from ragstore import DatabaseConnection, NewDocument, Store, exceptions, load, syncing
from ragstore.driver import connect
from ragstore.execution import run
from ragstore.syncing import Beginning, delete_since


def documents(keys: str, text: str = "x") -> list[NewDocument]:
    """Return a document for each letter."""
    return [NewDocument(key, [text]) for key in keys]


def keys(connection: DatabaseConnection, name: str = "c") -> str:
    """Return the keys of a collection."""
    statement = """
        SELECT coalesce(string_agg(d.key, '' ORDER BY d.key), '') FROM ragstore_document d
        JOIN ragstore_collection c ON c.id = d.collection_id WHERE c.name = %s
    """
    with connection.transaction() as driver:
        return str(driver.execute(statement, [name]).fetchall()[0][0])


@pytest.fixture
def filled(either: Any) -> Any:
    """Return a store with collections ``c`` and ``other`` of documents a to f."""
    for name in ("c", "other"):
        either.create_collection(name)
        either.ingest(name, documents("abcdef"))
    return either


def test_documents_not_in_the_source_are_deleted(
    filled: Any, connection: DatabaseConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With sync the collection ends as its source, page by page; others are not touched."""
    monkeypatch.setattr(load, "SYNC_PAGE", 2)
    report = filled.ingest("c", documents("bexy"), sync=True, batch_size=1)
    assert (report.deleted, report.inserted, report.unchanged) == (4, 2, 2)
    assert keys(connection) == "bexy"
    assert keys(connection, "other") == "abcdef"
    assert filled.ingest("c", documents("bexy"), sync=True).deleted == 0


def test_without_sync_nothing_is_deleted(filled: Any, connection: DatabaseConnection) -> None:
    """A source that is a part of the collection leaves the rest."""
    assert filled.ingest("c", documents("b")).deleted == 0
    assert keys(connection) == "abcdef"


def test_empty_source_empties_the_collection(filled: Any, connection: DatabaseConnection) -> None:
    """A source without documents is one like any other."""
    assert filled.ingest("c", [], sync=True).deleted == 6
    assert keys(connection) == ""


def test_aborted_run_deletes_nothing(filled: Any, connection: DatabaseConnection) -> None:
    """Neither a source that breaks off nor a bad document leads to a deletion."""

    def source() -> Iterator[NewDocument]:
        yield from documents("bx")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - it has no message
        filled.ingest("c", source(), sync=True, batch_size=1)
    with pytest.raises(exceptions.EmptyChunk):
        filled.ingest("c", [*documents("b"), NewDocument("a", [" "])], sync=True)
    assert set("abcdef") <= set(keys(connection))


def test_skipped_document_is_still_in_the_source(
    filled: Any, connection: DatabaseConnection
) -> None:
    """What is stored of a document that has become bad stays."""
    source = [*documents("b"), NewDocument("a", [" "])]
    report = filled.ingest("c", source, sync=True, on_error="skip")
    assert (report.deleted, report.skipped) == (4, 1)
    assert keys(connection) == "ab"


def test_skipped_document_without_key_stops_the_deletion(
    filled: Any, connection: DatabaseConnection
) -> None:
    """It may be any of those that are stored."""
    source: list[Any] = [*documents("b"), None]
    report = filled.ingest("c", source, sync=True, on_error="skip")
    assert (report.deleted, report.skipped) == (0, 1)
    assert keys(connection) == "abcdef"


def test_what_another_writer_stored_meanwhile_stays(
    filled: Any, connection: DatabaseConnection
) -> None:
    """A document that came or changed after the run began is not taken for an old one."""

    def source() -> Iterator[NewDocument]:
        yield from documents("b")
        with DatabaseConnection(connection.url) as another:
            Store(another).ingest("c", [*documents("z"), *documents("a", "changed")])

    report = filled.ingest("c", source(), sync=True, batch_size=1)
    assert report.deleted == 4
    assert keys(connection) == "abz"


def test_deletion_lets_a_writer_by_and_tries_again(
    filled: Any, connection: DatabaseConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """A document that another session keeps locked for a while is deleted nevertheless."""
    caplog.set_level("INFO", logger="ragstore")
    is_locked = threading.Event()

    def hold() -> None:
        with DatabaseConnection(connection.url) as other, other.transaction() as driver:
            driver.execute("SELECT FROM ragstore_document WHERE key = 'a' FOR UPDATE")
            is_locked.set()
            time.sleep(0.3)

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_locked.wait(30)
    impatient = connection.url.update_query_dict({"options": "-c lock_timeout=50ms"})
    with DatabaseConnection(impatient) as another:
        assert Store(another).ingest("c", documents("b"), sync=True).deleted == 5
    holder.join()
    assert "other writers were in the way: it is tried again" in caplog.text
    assert keys(connection) == "b"


WRITES = """
UPDATE ragstore_document SET metadata = '{}' FROM ragstore_collection c
  WHERE c.id = collection_id AND c.name = 'c' AND key = 'a';
INSERT INTO ragstore_document (collection_id, key)
  SELECT id, 'z' FROM ragstore_collection WHERE name = 'c';
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WRITES, "SELECT 1"),
        ("SELECT now()", WRITES),
        (f"SAVEPOINT mine; {WRITES}", "SELECT 1"),
        (f"SAVEPOINT mine; {WRITES}; RELEASE mine", "SELECT 1"),
        ("SAVEPOINT mine", WRITES),
        (f"SAVEPOINT a; SAVEPOINT b; {WRITES}", "RELEASE b"),
    ],
    ids=[
        "written before",
        "written after",
        "under a savepoint",
        "under one that was released",
        "under a savepoint after",
        "under two savepoints",
    ],
)
def test_what_was_under_way_when_the_run_began_stays(
    filled: Any, connection: DatabaseConnection, before: str, after: str
) -> None:
    """Not when a writer's transaction began counts, but whether it had ended."""
    with closing(connect(connection.url)) as other:
        other.execute(before.encode())
        # One that ends later makes those numbers earlier ones.
        with connection.transaction() as driver:
            driver.execute("SELECT pg_current_xact_id()")

        def source() -> Iterator[NewDocument]:
            other.execute(after.encode())
            other.commit()
            yield from documents("b")

        assert filled.ingest("c", source(), sync=True).deleted == 4
    assert keys(connection) == "abz"


def test_document_stays_for_a_run_if_too_many_numbers_are_open(
    store: Store, connection: DatabaseConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a transaction that is open for very long, what was stored since is kept at first."""
    store.create_collection("c")
    store.ingest("c", documents("ab"))
    with closing(connect(connection.url)) as other:
        other.execute("SELECT pg_current_xact_id()")
        store.ingest("c", documents("cd"))
        with monkeypatch.context() as patched:
            patched.setattr(syncing, "ASKED", 0)
            store.ingest("c", documents("a"), sync=True)
        assert {"a", "c", "d"} <= set(keys(connection))
        assert store.ingest("c", documents("a"), sync=True).deleted >= 2
    assert keys(connection) == "a"


@pytest.mark.parametrize(
    ("ahead", "deleted"),
    [(1, 6), (2**31, 6), (2**32 - 2**28, 6), (0, 0), (-1, 0), (1 - 2**28, 0)],
    ids=["just before", "long ago", "round", "next", "after", "long after"],
)
def test_numbers_of_transactions_come_round(
    store: Store, connection: DatabaseConnection, ahead: int, deleted: int
) -> None:
    """A document is old whose number stands before the next of the beginning, modulo 2^32."""
    collection = store.create_collection("c")
    store.ingest("c", documents("abcdef"))
    with connection.transaction() as driver:
        found = driver.execute("SELECT id, xmin::text::bigint FROM ragstore_document").fetchall()
        ids, (number, *_) = zip(*found, strict=True)
        beginning = Beginning([], (number + ahead) % 2**32)
        assert run(driver, delete_since(collection, ids, beginning)) == deleted


def test_writer_under_way_is_told_by_its_number(
    store: Store, connection: DatabaseConnection
) -> None:
    """What a transaction wrote that had not ended stays, though its number is an old one."""
    collection = store.create_collection("c")
    store.ingest("c", documents("abcdef"))
    with connection.transaction() as driver:
        found = driver.execute("SELECT id, xmin::text::bigint FROM ragstore_document").fetchall()
        ids, (number, *_) = zip(*found, strict=True)
        assert run(driver, delete_since(collection, ids, Beginning([number], number + 5))) == 0
