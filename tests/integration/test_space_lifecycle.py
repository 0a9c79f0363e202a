"""A space is removed when nothing is in it, while everybody else works on."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from ragstore import DatabaseConnection, NewChunk, NewDocument, Store, exceptions, space_lifecycle
from ragstore.driver import connect
from ragstore.space import Space

DOCUMENT = NewDocument("a", [NewChunk("x", [1, 0])])


def rows(connection: DatabaseConnection, statement: str) -> list[tuple[Any, ...]]:
    """Return what the database holds."""
    with connection.transaction() as cursor:
        return cursor.execute(statement.encode()).fetchall()


def is_gone(connection: DatabaseConnection, space: Space) -> bool:
    """Tell whether nothing of a space is left."""
    found = rows(
        connection,
        f"SELECT to_regclass('{space.partition}') IS NULL, NOT EXISTS"
        f" (SELECT FROM ragstore_embedding_space WHERE id = {space.id})",
    )
    return found == [(True, True)]


@pytest.fixture
def used(store: Store) -> Space:
    """Return a space whose collection has moved on to another one."""
    old = store.create_space("old", model="m", dimensions=2)
    store.create_space("new", model="n", dimensions=2)
    store.create_collection("c", space="old")
    store.ingest("c", [DOCUMENT])
    store.reembed("c", to="new", embed=lambda texts: [[0, 1]] * len(texts))
    return old


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for locks for less time than an application would."""
    monkeypatch.setattr(space_lifecycle, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(space_lifecycle, "LOCK_PAUSES", (0.01, 0.05))
    monkeypatch.setattr(space_lifecycle, "DROP_PAUSES", (0.01, 0.05))


def test_space_is_dropped_with_its_vectors(either: Any, used: Space) -> None:
    """Nothing is left of it, and the collection it was left by is as it was."""
    either.drop_space("old")

    assert is_gone(either.connection, used)
    assert len(either.search("c", vector=[0, 1])) == 1
    with pytest.raises(exceptions.SpaceNotFound):
        either.drop_space("old")


def test_space_in_use_is_kept(either: Any, used: Space) -> None:
    """Collections in it, and those on the way to it, are named, and nothing is changed."""
    either.create_collection("b", space="new")
    with pytest.raises(exceptions.SpaceInUse, match="'b', 'c', in it or on") as refused:
        either.drop_space("new")
    assert (refused.value.space, refused.value.collections) == ("new", ["b", "c"])

    either.ingest("b", [DOCUMENT])
    with pytest.raises(exceptions.EmbeddingFailed):
        either.reembed("b", to="old", embed=lambda _: None)
    with pytest.raises(exceptions.SpaceInUse, match=r"'b'.*cancel_reembed"):
        either.drop_space("old")

    assert not is_gone(either.connection, used)
    assert len(either.search("c", vector=[0, 1])) == 1


def test_pending_detach_is_finished(
    either: Any, used: Space, connection: DatabaseConnection, impatient: None
) -> None:
    """A reader of all spaces holds the detach up; it is left pending, and the next call ends it."""
    with connection.transaction() as reader:
        reader.execute("LOCK ragstore_embedding IN ACCESS SHARE MODE")
        with pytest.raises(exceptions.LockTimeout):
            either.drop_space("old")
        assert len(either.search("c", vector=[0, 1])) == 1
    pending = "SELECT inhdetachpending FROM pg_inherits i JOIN pg_class c ON c.oid = inhrelid"
    assert (True,) in rows(connection, f"{pending} WHERE relname = '{used.partition}'")

    either.drop_space("old")

    assert is_gone(connection, used)


def test_pending_detach_is_undone(
    either: Any, used: Space, connection: DatabaseConnection, impatient: None
) -> None:
    """A space whose drop was cut short says that it is not ready, and can be had back whole."""
    with connection.transaction() as reader:
        reader.execute("LOCK ragstore_embedding IN ACCESS SHARE MODE")
        with pytest.raises(exceptions.LockTimeout):
            either.drop_space("old")
    with pytest.raises(exceptions.SpaceNotReady, match="exists_ok=True"):
        either.reembed("c", to="old", embed=lambda texts: [[1, 0]] * len(texts))

    assert either.create_space("old", model="m", dimensions=2, exists_ok=True) == used

    assert either.reembed("c", to="old", embed=lambda _: None).switched  # its vector is still there
    assert len(either.search("c", vector=[1, 0])) == 1


def test_reader_that_ends_is_waited_for(
    store: Store, used: Space, connection: DatabaseConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that found the tables locked is tried again after a pause."""
    monkeypatch.setattr(space_lifecycle, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(space_lifecycle, "LOCK_PAUSES", (0.1,) * 50)
    with connect(connection.migration_url) as reader:
        reader.execute("LOCK ragstore_chunk IN ROW EXCLUSIVE MODE")
        thread = threading.Thread(target=store.drop_space, args=["old"])
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join()

    assert is_gone(connection, used)


def test_searches_do_not_queue_behind_a_drop(
    used: Space, connection: DatabaseConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """While a drop waits for one reader it lets others by, again and again.

    A search that stayed behind it would wait for the reader, who waits for the searches here.
    """
    caplog.set_level("INFO", logger="ragstore")
    thread = threading.Thread(target=Store(connection).drop_space, args=["old"])
    finite = connection.url.update_query_dict({"options": "-c statement_timeout=20s"})
    give_up = time.monotonic() + 30
    with connect(connection.migration_url) as reader, DatabaseConnection(finite) as other:
        reader.execute("LOCK ragstore_chunk IN ACCESS SHARE MODE")
        thread.start()
        while caplog.text.count("in the way (55P03)") < 3 and time.monotonic() < give_up:
            assert len(Store(other).search("c", vector=[0, 1])) == 1
        assert caplog.text.count("in the way (55P03)") >= 3
        assert thread.is_alive()
    thread.join()

    assert is_gone(connection, used)


def test_collection_that_comes_meanwhile_keeps_the_space(
    store: Store, used: Space, connection: DatabaseConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one is made after the look, the partition is attached again, its vectors in it."""
    detached = space_lifecycle._detached

    def then_made(space: Space) -> Any:
        yield from detached(space)
        store.create_collection("d", space="old")

    monkeypatch.setattr(space_lifecycle, "_detached", then_made)
    with pytest.raises(exceptions.SpaceInUse, match="'d'"):
        store.drop_space("old")

    store.ingest("d", [DOCUMENT])
    assert len(store.search("d", vector=[1, 0])) == 1
    assert rows(connection, f"SELECT count(*) FROM {used.partition}") == [(2,)]


def test_space_without_partition_is_dropped(store: Store, connection: DatabaseConnection) -> None:
    """What an interrupted making or removal left is removed."""
    bare = store.create_space("bare", model="m", dimensions=2)
    with connection.transaction() as cursor:
        cursor.execute(f"DROP TABLE {bare.partition}".encode())
    store.drop_space("bare")
    assert is_gone(connection, bare)

    detached = store.create_space("detached", model="m", dimensions=2)
    with connection.transaction() as cursor:
        cursor.execute(
            f"ALTER TABLE ragstore_embedding DETACH PARTITION {detached.partition}".encode()
        )
    store.drop_space("detached")
    assert is_gone(connection, detached)
