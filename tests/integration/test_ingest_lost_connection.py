"""Runs whose connections die at work: they go on with new ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from ragstore import DatabaseConnection, NewDocument, Store, exceptions, retry

# A sequence counts even what is rolled back.
DYING = """
CREATE SEQUENCE insertions;
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF int8range({first}, {last}, '[]') @> nextval('insertions') THEN
    PERFORM pg_terminate_backend(pg_backend_pid());
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER die BEFORE {event} ON ragstore_{table} FOR EACH STATEMENT EXECUTE FUNCTION die();
"""
DOCUMENTS = [NewDocument(f"k{at}", [f"text {at}", "more"]) for at in range(10)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LOST_PAUSE", 0.001)


def dying(connection: DatabaseConnection, event: str, table: str, first: int, last: int) -> None:
    """Let the sessions of these insertions or deletions be ended by the server."""
    statement = DYING.format(event=event, table=table, first=first, last=last)
    with connection.transaction() as driver:
        driver.execute(statement.encode())


def stored(connection: DatabaseConnection) -> tuple[int, int]:
    """Return how many documents and chunks there are."""
    counts = (
        "SELECT (SELECT count(*) FROM ragstore_document), (SELECT count(*) FROM ragstore_chunk)"
    )
    with connection.transaction() as driver:
        documents, chunks = driver.execute(counts).fetchall()[0]
    return documents, chunks


def test_batch_is_stored_by_another_connection(
    either: Any, connection: DatabaseConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """The second batch is tried three times, and all of the source is stored once."""
    caplog.set_level("INFO", logger="ragstore")
    either.create_collection("c")
    dying(connection, "INSERT", "chunk", 2, 3)
    report = either.ingest("c", DOCUMENTS, batch_size=7)
    assert (report.inserted, report.unchanged, report.chunks) == (10, 0, 20)
    assert stored(connection) == (10, 20)
    assert caplog.text.count("the connection was lost: it is tried again") == 2


def test_connection_that_is_always_lost_is_an_error(
    either: Any, connection: DatabaseConnection
) -> None:
    """After some attempts the run ends, with what was stored before."""
    either.create_collection("c")
    dying(connection, "INSERT", "chunk", 2, 1_000)
    with pytest.raises(exceptions.DatabaseUnavailable):
        either.ingest("c", DOCUMENTS, batch_size=7)
    assert stored(connection) == (4, 8)


def test_batch_that_was_stored_after_all_is_found(
    store: Store, connection: DatabaseConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection lost after the commit leaves nothing to do, and no text is embedded again."""
    store.create_space("s", model="m", dimensions=2)
    store.create_collection("c", space="s")
    asked: list[str] = []
    losses = iter([False, False, True])  # after the look-up, then after the batch
    whole = DatabaseConnection.transaction

    @contextmanager
    def losing(self: DatabaseConnection) -> Iterator[Any]:
        with whole(self) as driver:
            yield driver
        if next(losses, False):
            raise exceptions.DatabaseUnavailable("gone")

    def embed(texts: list[str]) -> list[list[int]]:
        asked.extend(texts)
        return [[1, 1]] * len(texts)

    monkeypatch.setattr(DatabaseConnection, "transaction", losing)
    report = store.ingest("c", DOCUMENTS, embed=embed)
    assert (report.inserted, report.unchanged) == (0, 10)
    assert len(asked) == 11
    assert stored(connection) == (10, 20)


@pytest.mark.parametrize("lost", range(9))
def test_each_step_of_a_run_is_tried_again(
    store: Store, connection: DatabaseConnection, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """Whichever transaction is lost, that of the statistics included, the run goes on."""
    store.create_collection("c")
    store.ingest("c", [NewDocument("gone", ["x"])])
    begun = count()
    whole = DatabaseConnection.transaction

    @contextmanager
    def losing(self: DatabaseConnection) -> Iterator[Any]:
        with whole(self) as driver:
            if next(begun) == lost:
                raise exceptions.DatabaseUnavailable("gone")
            yield driver

    monkeypatch.setattr(DatabaseConnection, "transaction", losing)
    documents = [NewDocument(f"k{at:02}", ["x"] * 100) for at in range(4)]
    report = store.ingest("c", documents, batch_size=200, sync=True, build_index="never")
    assert (report.inserted, report.deleted) == (4, 1)
    assert next(begun) in (10, 11)  # with a second look, where a batch was lost
    monkeypatch.undo()
    assert stored(connection) == (4, 400)


def test_deletion_of_a_sync_is_done_by_another_connection(
    either: Any, connection: DatabaseConnection
) -> None:
    """What left the source is deleted, although the first attempt was lost."""
    either.create_collection("c")
    either.ingest("c", DOCUMENTS)
    dying(connection, "DELETE", "document", 1, 1)
    assert either.ingest("c", DOCUMENTS[:4], sync=True).deleted == 6
    assert stored(connection) == (4, 8)


def _ones(texts: list[str]) -> list[list[int]]:
    return [[1, 1]] * len(texts)


def lacking(connection: DatabaseConnection) -> int:
    """Return how many chunks have no vector in their collection's space."""
    statement = b"""
        SELECT count(*) FROM ragstore_chunk c JOIN ragstore_collection o ON o.id = c.collection_id
        WHERE NOT EXISTS (SELECT FROM ragstore_embedding e WHERE e.collection_id = o.id
          AND e.space_id = o.space_id AND e.chunk_id = c.id)
    """
    with connection.transaction() as driver:
        return int(driver.execute(statement).fetchall()[0][0])


def with_texts(store: Any) -> Any:
    """Make a collection of 20 chunks, and a space for it to move to; return the space."""
    store.create_collection("c")
    store.ingest("c", DOCUMENTS)
    return store.create_space("s", model="m", dimensions=2)


def test_move_goes_on_with_another_connection(
    either: Any, connection: DatabaseConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """Its third batch is stored at the third attempt, and no text is embedded again."""
    caplog.set_level("INFO", logger="ragstore")
    asked: list[str] = []
    with_texts(either)
    dying(connection, "INSERT", "embedding", 3, 4)

    def embed(some: list[str]) -> list[list[int]]:
        asked.extend(some)
        return _ones(some)

    report = either.reembed("c", to="s", embed=embed, batch_size=5)
    assert (report.embedded, report.switched, len(asked)) == (20, True, 14)
    assert lacking(connection) == 0
    assert caplog.text.count("the connection was lost: it is tried again") == 2


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("lost", range(1, 9))
def test_each_step_of_a_move_is_tried_again(
    store: Store,
    connection: DatabaseConnection,
    monkeypatch: pytest.MonkeyPatch,
    lost: int,
    is_done: bool,
) -> None:
    """Whichever look or batch is lost, even after its commit, all chunks get their vectors."""
    with_texts(store)
    begun = count()
    whole = DatabaseConnection.transaction

    @contextmanager
    def losing(self: DatabaseConnection) -> Iterator[Any]:
        at = next(begun)
        with whole(self) as driver:
            if at == lost and not is_done:
                raise exceptions.DatabaseUnavailable("gone")
            yield driver
        if at == lost:
            raise exceptions.DatabaseUnavailable("gone")

    monkeypatch.setattr(DatabaseConnection, "transaction", losing)
    assert store.reembed("c", to="s", embed=_ones, batch_size=10).switched
    assert next(begun) == 11  # the first and the last are the beginning and the switch
    monkeypatch.undo()
    assert lacking(connection) == 0
