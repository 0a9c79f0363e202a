"""A connection whose work never leaves its transaction."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from ragstore import AsyncStore, NewDocument, Store
from ragstore.exceptions import LockTimeout, RagstoreError
from ragstore.models import Collection
from ragstore.testing import isolation
from ragstore.testing.fresh import FreshConnection
from ragstore.testing.isolation import RolledBackConnection

DSN_COUNT = "SELECT count(*) FROM ragstore_collection"


def names(connection: RolledBackConnection) -> list[str]:
    """Return the names of the collections that the sync side sees."""
    with connection.session() as session:
        return sorted(session.exec(select(Collection.name)).all())


def count_elsewhere(url: URL) -> int:
    """Return how many collections another connection sees."""
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn) as connection:
        row = connection.execute(DSN_COUNT).fetchone()
    assert row is not None
    return int(row[0])


def by_session(connection: RolledBackConnection) -> None:
    """Commit through a session."""
    with connection.session() as session:
        session.add(Collection(name="made"))
        session.commit()


def by_engine(connection: RolledBackConnection) -> None:
    """Commit through engine.begin()."""
    with connection.engine.begin() as opened:
        opened.execute(text("INSERT INTO ragstore_collection (name) VALUES ('made')"))


def by_transaction(connection: RolledBackConnection) -> None:
    """Commit through transaction()."""
    with connection.transaction() as driver:
        driver.execute("INSERT INTO ragstore_collection (name) VALUES ('made')")


def by_owner(connection: RolledBackConnection) -> None:
    """Commit through owner_transaction()."""
    with connection.owner_transaction() as driver:
        driver.execute("INSERT INTO ragstore_collection (name) VALUES ('made')")


def by_store(connection: RolledBackConnection) -> None:
    """Commit through a Store."""
    Store(connection).create_collection("made")


WAYS = [by_session, by_engine, by_transaction, by_owner, by_store]


@pytest.mark.parametrize("commit", WAYS, ids=lambda way: way.__name__)
def test_committed_work_is_seen_by_its_own_test_only(
    begin: Callable[[], RolledBackConnection],
    ragstore_database: URL,
    commit: Callable[[RolledBackConnection], None],
) -> None:
    """However it is committed, neither another connection nor the next test sees it."""
    connection = begin()
    commit(connection)

    assert names(connection) == ["made"]
    assert count_elsewhere(ragstore_database) == 0
    assert names(begin()) == []


@pytest.mark.parametrize("commit", WAYS, ids=lambda way: way.__name__)
def test_an_error_undoes_its_own_transaction_only(
    begin: Callable[[], RolledBackConnection], commit: Callable[[RolledBackConnection], None]
) -> None:
    """A refused row leaves what was committed before, and the connection goes on."""
    connection = begin()
    commit(connection)

    with pytest.raises((IntegrityError, RagstoreError), match=r"'made'|duplicate key"):
        commit(connection)

    Store(connection).create_collection("after")
    assert names(connection) == ["after", "made"]


def test_session_rolls_back_to_its_last_commit(
    begin: Callable[[], RolledBackConnection],
) -> None:
    """rollback() undoes what came after the last commit(), as it does elsewhere."""
    with begin().session() as session:
        session.add(Collection(name="kept"))
        session.commit()
        session.add(Collection(name="undone"))
        session.flush()
        session.rollback()

        assert session.exec(select(Collection.name)).all() == ["kept"]


def test_session_goes_on_after_an_integrity_error(
    begin: Callable[[], RolledBackConnection],
) -> None:
    """After the error and a rollback the session works, and begin_nested() may have shielded it."""
    with begin().session() as session:
        session.add(Collection(name="one"))
        session.commit()
        nested = session.begin_nested()
        session.add(Collection(name="one"))
        with pytest.raises(IntegrityError):
            session.flush()
        nested.rollback()
        session.add(Collection(name="two"))
        session.add(Collection(name="two"))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.add(Collection(name="three"))
        session.commit()

        assert sorted(session.exec(select(Collection.name)).all()) == ["one", "three"]


def test_several_sessions_share_the_transaction(
    begin: Callable[[], RolledBackConnection],
) -> None:
    """A session sees what another one flushed, whichever of them ends first."""
    connection = begin()
    with connection.session() as older, connection.session() as younger:
        older.add(Collection(name="older"))
        older.flush()
        younger.add(Collection(name="younger"))
        younger.flush()
        older.commit()
        younger.commit()

    assert names(connection) == ["older", "younger"]


def test_session_begun_inside_a_transaction_may_end_after_it(
    begin: Callable[[], RolledBackConnection],
) -> None:
    """The savepoint around a session may be released before the session commits."""
    connection = begin()
    with connection.session() as session:
        with connection.transaction():
            session.add(Collection(name="inside"))
            session.flush()
        session.commit()

    assert names(connection) == ["inside"]


def test_store_ingests_and_finds(begin: Callable[[], RolledBackConnection]) -> None:
    """COPY, partitions and search work inside the transaction, and are gone with it."""
    for _ in range(2):
        store = Store(begin())
        space = store.create_space("tiny", model="test", dimensions=2)
        store.create_collection("book", space="tiny")
        report = store.ingest(
            "book", [NewDocument("page", ["a refund"])], embed=lambda _: [[1.0, 0.0]]
        )

        assert report.inserted == 1
        assert [hit.document_key for hit in store.search("book", vector=[1.0, 0.1])] == ["page"]
    with begin().transaction() as driver:
        left = driver.execute("SELECT to_regclass(%s)", [space.partition]).fetchone()
    assert left == (None,)


def test_threads_take_turns(begin: Callable[[], RolledBackConnection]) -> None:
    """Several threads may use a Store at once, as an application does."""
    store = Store(begin())
    threads = [
        threading.Thread(target=store.create_collection, args=(f"thread-{n}",)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert names(store.connection) == [f"thread-{n}" for n in range(4)]  # type: ignore[arg-type]


def test_waiting_for_a_turn_ends(
    begin: Callable[[], RolledBackConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread or task that never gets its turn is told to use db_fresh."""
    monkeypatch.setattr(isolation, "TURN_TIMEOUT", 0.05)
    connection = begin()
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            connection.ping()
        except LockTimeout as exc:
            caught.append(exc)

    async def wait_async() -> None:
        async with connection.async_transaction():
            task = asyncio.create_task(connection.aping())
            with pytest.raises(LockTimeout, match="db_fresh"):
                await task

    with connection.transaction():
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    asyncio.run(wait_async())

    assert "db_fresh" in str(caught[0])


# --- the async side ----------------------------------------------------------------------------


def test_async_side_serves_one_loop_after_another(
    begin: Callable[[], RolledBackConnection], ragstore_database: URL
) -> None:
    """Each loop sees its own test's rows on the one connection, even after tasks had to wait."""
    pids = set()

    async def work(connection: RolledBackConnection) -> None:
        store = AsyncStore(connection)
        await asyncio.gather(*(store.create_collection(f"task-{n}") for n in range(4)))
        async with connection.async_transaction() as outer, connection.async_transaction():
            cursor = await outer.execute(
                "SELECT count(*), pg_backend_pid() FROM ragstore_collection"
            )
            row = await cursor.fetchone()
        assert row is not None
        assert row[0] == 4
        pids.add(row[1])

    async def wait_for_each_other(connection: RolledBackConnection) -> None:
        engine = connection.async_engine
        async with engine.connect() as one, engine.connect() as two:
            await asyncio.gather(*(each.execute(text("SELECT 1")) for each in (one, two)))

    for _ in range(3):
        asyncio.run(work(begin()))
        asyncio.run(wait_for_each_other(begin()))

    assert len(pids) == 1
    assert count_elsewhere(ragstore_database) == 0


@pytest.mark.filterwarnings("error")
def test_async_session_may_stay_open(begin: Callable[[], RolledBackConnection]) -> None:
    """A session that the test leaves open in a transaction is released without its loop."""

    async def work(connection: RolledBackConnection) -> None:
        session = connection.async_session()
        session.add(Collection(name="open"))
        await session.flush()

    asyncio.run(work(begin()))
    begin()
    gc.collect()

    async def read(connection: RolledBackConnection) -> list[str]:
        async with connection.async_session() as session:
            return list((await session.exec(select(Collection.name))).all())

    assert asyncio.run(read(begin())) == []


def test_interrupted_async_statement_costs_the_connection(
    begin: Callable[[], RolledBackConnection],
) -> None:
    """A loop that ends in the middle of a statement leaves nothing that the next test meets."""

    async def pid_of(connection: RolledBackConnection, *, interrupt: bool) -> int:
        async with connection.async_session() as session:
            pid = (await session.exec(select(text("pg_backend_pid()")))).one()
            if interrupt:
                connection.async_engine  # noqa: B018 - begun already
                sleeping = asyncio.create_task(session.exec(select(text("pg_sleep(20)"))))
                await asyncio.sleep(0.1)
                sleeping.cancel()
                with pytest.raises((asyncio.CancelledError, DBAPIError)):
                    await sleeping
            return int(pid[0] if isinstance(pid, tuple) else pid)

    asyncio.run(pid_of(begin(), interrupt=True))

    assert asyncio.run(pid_of(begin(), interrupt=False)) > 0


# --- a database of its own ---------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_fresh_connection_is_finished_from_outside(ragstore_new_database: Any) -> None:
    """Both engines' connections are closed without a loop, those in use included."""
    connection = FreshConnection(ragstore_new_database())

    async def work(connection: FreshConnection) -> AsyncSession:
        pooled = connection.async_session()
        pooled.add(Collection(name="async"))
        await pooled.commit()
        left_open = connection.async_session()
        await left_open.exec(select(Collection.name))
        return left_open

    left_open = asyncio.run(work(connection))
    session = connection.session()
    assert session.exec(select(Collection.name)).all() == ["async"]
    url = connection.url
    connection.finish()
    session.close()
    assert not left_open.in_transaction()
    del connection, session, left_open
    gc.collect()

    assert count_backends(url) == 0


def count_backends(url: URL) -> int:
    """Return how many connections a database has."""
    dsn = url.set(drivername="postgresql", database="postgres")
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    count = -1
    for _ in range(50):  # the server needs a moment to notice
        with psycopg.connect(dsn.render_as_string(hide_password=False)) as connection:
            [[count]] = connection.execute(query, [url.database]).fetchall()
            if count == 0:
                break
            connection.execute("SELECT pg_sleep(0.02)")
    return int(count)
