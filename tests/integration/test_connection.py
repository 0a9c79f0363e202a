"""DatabaseConnection on a real server."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import literal
from sqlalchemy.engine import URL
from sqlmodel import select

from ragstore import exceptions
from ragstore.conf import override_settings
from ragstore.connection import DatabaseConnection, connect
from ragstore.database import create_database, drop_database


@pytest.fixture(scope="module")
def url(server_url: URL) -> Iterator[URL]:
    """Give a database of this module's own."""
    own = server_url.set(database=f"ragstore_connection_{uuid4().hex[:8]}")
    create_database(own)
    yield own
    drop_database(own)


@pytest.fixture
def connection(url: URL) -> Iterator[DatabaseConnection]:
    """Give a connection to it."""
    with DatabaseConnection(url) as opened:
        yield opened


@pytest.fixture
def unprivileged(url: URL) -> Iterator[URL]:
    """Give the URL of a role that may nothing but log in."""
    role = f"ragstore_reader_{uuid4().hex[:8]}"
    with connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN")
        yield url.set(username=role)
        admin.execute(f"DROP ROLE {role}")


def one(connection: DatabaseConnection, query: str) -> object:
    """Return the first value of a query."""
    with connection.transaction() as driver:
        row = driver.execute(query).fetchone()
    assert row is not None
    return row[0]


def run(connection: DatabaseConnection, *statements: str) -> None:
    """Run statements in one transaction."""
    with connection.transaction() as driver:
        for statement in statements:
            driver.execute(statement)


# --- sessions and transactions ------------------------------------------------------------------


def test_session_is_sqlmodels_own(connection: DatabaseConnection) -> None:
    """session() is a SQLModel session on the engine, with the options given."""
    with connection.session(expire_on_commit=False) as session:
        assert session.exec(select(1)).one() == 1
        assert session.get_bind() is connection.engine
        assert not session.expire_on_commit


async def test_async_session_is_sqlmodels_own(url: URL) -> None:
    """async_session() is a SQLModel session whose objects outlive a commit."""
    async with DatabaseConnection(url) as connection, connection.async_session() as session:
        assert (await session.exec(select(1))).one() == 1
        assert not session.sync_session.expire_on_commit


def test_transaction_commits_at_the_end_and_rolls_back_on_an_error(
    connection: DatabaseConnection,
) -> None:
    """All of a block is kept, or none of it; a transaction inside is a savepoint."""
    with connection.transaction() as driver:
        driver.execute("CREATE TABLE kept (id int)")
        with suppress(KeyError), driver.transaction():
            driver.execute("INSERT INTO kept VALUES (1)")
            raise KeyError
        driver.execute("INSERT INTO kept VALUES (2)")
    with suppress(KeyError), connection.transaction() as driver:
        driver.execute("DROP TABLE kept")
        raise KeyError
    assert one(connection, "SELECT array_agg(id) FROM kept") == [2]
    run(connection, "DROP TABLE kept")


def test_transaction_cannot_be_ended_inside(connection: DatabaseConnection) -> None:
    """A commit in the middle is refused, so a block stays one transaction."""
    with pytest.raises(exceptions.QueryFailed, match=r"commit"), connection.transaction() as driver:
        driver.commit()


async def test_async_transaction_is_the_twin(url: URL) -> None:
    """The async transaction commits, rolls back and translates as the sync one does."""

    async def run_async(*statements: str) -> None:
        async with database.async_transaction() as driver:
            assert isinstance(driver, psycopg.AsyncConnection)
            for statement in statements:
                await driver.execute(statement)

    async with DatabaseConnection(url) as database:
        await run_async("CREATE TABLE twin (id int)")
        with pytest.raises(exceptions.QueryFailed) as caught:
            await run_async("DROP TABLE twin", "SELECT 1/0")
        assert caught.value.sqlstate == "22012"
        await run_async("DROP TABLE twin")


def test_threads_share_one_engine(url: URL) -> None:
    """Threads that all ask first get the same engine, and work at once."""
    with DatabaseConnection(url) as connection, ThreadPoolExecutor(8) as threads:
        engines = list(threads.map(lambda _: connection.engine, range(8)))
        assert len(set(map(id, engines))) == 1
        list(threads.map(lambda _: connection.ping(), range(16)))


# --- closing ------------------------------------------------------------------------------------


def test_close_closes_the_pool_and_leaves_the_object_usable(url: URL) -> None:
    """close() may be repeated, ends the sessions, and a later use opens a new pool."""
    connection = DatabaseConnection(url)
    connection.ping()
    engine = connection.engine
    connection.close()
    connection.close()
    pool: Any = engine.pool
    assert pool.checkedin() == 0
    connection.ping()
    assert connection.engine is not engine
    connection.close()


async def test_aclose_closes_both_pools(url: URL) -> None:
    """aclose() may be repeated, and ends the sessions of both engines."""
    connection = DatabaseConnection(url, connect_args={"application_name": "closing"})
    connection.ping()
    await connection.aping()
    await connection.aclose()
    await connection.aclose()
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'closing'"
    with connect(url, autocommit=True) as admin:
        for _ in range(100):
            if admin.execute(query).fetchone() == (0,):
                return
            await asyncio.sleep(0.02)
    pytest.fail("sessions were left open")


def test_an_async_connection_serves_one_loop_after_another(url: URL) -> None:
    """Closed before its loop ends, the object works in the next loop."""
    connection = DatabaseConnection(url)

    async def use() -> None:
        async with connection:
            await connection.aping()

    asyncio.run(use())
    asyncio.run(use())


# --- the owner's transactions --------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False], ids=["one URL", "two URLs"])
async def test_owner_transaction_is_the_migration_roles(
    url: URL, unprivileged: URL, own: bool
) -> None:
    """Sync and async, it runs as the role of the migration URL, in one transaction."""
    runtime = url if own else unprivileged
    async with DatabaseConnection(runtime, migration_url=url) as connection:
        with connection.owner_transaction() as driver:
            assert driver.info.user == url.username
            driver.execute("CREATE TABLE owned (id int)")
        with suppress(KeyError):
            async with connection.async_owner_transaction() as twin:
                assert twin.info.user == url.username
                await twin.execute("DROP TABLE owned")
                raise KeyError
        with connection.owner_transaction() as driver:
            driver.execute("DROP TABLE owned")


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expected", "sqlstate"),
    [
        ("SELECT nothing()", exceptions.QueryFailed, "42883"),
        ("SELECT 'a secret'::int", exceptions.QueryFailed, "22P02"),
        ("INSERT INTO pg_temp.t VALUES ('a secret', NULL)", exceptions.QueryFailed, "23502"),
        ("SELECT * FROM ragstore_chunk", exceptions.SchemaMissing, None),
        ("SELECT * FROM nothing", exceptions.QueryFailed, "42P01"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", exceptions.DatabaseUnavailable, None),
    ],
)
def test_errors_in_a_transaction_are_ours(
    connection: DatabaseConnection, statement: str, expected: type, sqlstate: str | None
) -> None:
    """Each error has its class, shows no row, and leaves a connection that works."""
    table = "CREATE TEMP TABLE t (a text, b int NOT NULL) ON COMMIT DROP"
    with pytest.raises(exceptions.RagstoreError) as caught:
        run(connection, table, statement)
    assert type(caught.value) is expected
    assert getattr(caught.value, "sqlstate", None) == sqlstate
    shown = "".join(traceback.format_exception(caught.value))
    assert "a secret" not in shown.replace(statement, "")
    connection.ping()


def test_sessions_keep_sqlalchemys_errors(connection: DatabaseConnection) -> None:
    """An ordinary session raises what SQLAlchemy's users expect, without the parameters."""
    from sqlalchemy.exc import DataError

    with connection.session() as session, pytest.raises(DataError) as caught:
        session.exec(select(1 / (literal(271) - 271)))
    assert "hide_parameters" in str(caught.value)


def test_a_lock_that_is_not_given_is_a_lock_timeout(connection: DatabaseConnection) -> None:
    """55P03 becomes LockTimeout."""
    lock = "SELECT pg_advisory_xact_lock(20211)"
    with connection.transaction() as holder:
        holder.execute(lock)
        with pytest.raises(exceptions.LockTimeout):
            run(connection, "SET LOCAL lock_timeout = '50ms'", lock)


def test_a_right_that_is_missing_is_permission_denied(unprivileged: URL) -> None:
    """42501 becomes PermissionDenied."""
    with DatabaseConnection(unprivileged) as connection:
        with pytest.raises(exceptions.PermissionDenied, match="GRANT"):
            one(connection, "SELECT rolpassword FROM pg_authid")
        connection.ping()


async def test_a_connection_that_died_in_use_is_replaced(
    url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    """Both pools survive a session that was ended under them, and log no error about it."""
    async with DatabaseConnection(url) as connection:
        with pytest.raises(exceptions.DatabaseUnavailable):
            async with connection.async_transaction() as driver:
                await driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        await connection.aping()
        with pytest.raises(exceptions.DatabaseUnavailable):
            run(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
        connection.ping()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_connections_that_died_in_the_pool_are_replaced_unseen(url: URL) -> None:
    """A server restart between two uses costs the caller nothing."""
    with DatabaseConnection(url) as connection:
        pid = one(connection, "SELECT pg_backend_pid()")
        with connect(url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        assert one(connection, "SELECT pg_backend_pid()") != pid


@override_settings(POOL_SIZE=1, MAX_OVERFLOW=0, POOL_TIMEOUT=0.05)
def test_a_pool_in_use_says_so(connection: DatabaseConnection) -> None:
    """Waiting in vain for the pool is reported as that, with the settings to change."""
    with connection.transaction(), pytest.raises(exceptions.PoolExhausted, match="POOL_SIZE"):
        connection.ping()


@pytest.fixture(scope="module")
def closed_port() -> int:
    """Give a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize(
    "place",
    [
        {"host": "127.0.0.1", "port": "closed"},
        {"host": "no-such-host.invalid"},
        {"host": "", "query": {"host": "/nonexistent"}},
    ],
)
@pytest.mark.usefixtures("ragstore_server")
async def test_a_dead_server_is_unavailable(place: dict[str, Any], closed_port: int) -> None:
    """Sync and async say that the server is not there, where, and without the password."""
    port = closed_port if place.get("port") else None
    url = URL.create("postgresql", username="bob", password="s3cret", database="app").set(
        **{**place, "port": port}
    )
    connection = DatabaseConnection(url)
    for ask in (connection.aping, connection.ping):
        with pytest.raises(exceptions.DatabaseUnavailable) as caught:
            await (ask() or asyncio.sleep(0))
        shown = "".join(traceback.format_exception(caught.value))
        assert "s3cret" not in shown
        assert (place["host"] or "/nonexistent") in str(caught.value).replace("%2F", "/")
    await connection.aclose()


@pytest.mark.usefixtures("ragstore_server")
@override_settings(CONNECT_TIMEOUT=1)
def test_a_server_that_stays_silent_is_unavailable() -> None:
    """A port that accepts and says nothing does not block (psycopg waits 2 s at least)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = DatabaseConnection(f"postgresql://bob@127.0.0.1:{server.getsockname()[1]}/app")
        with pytest.raises(exceptions.DatabaseUnavailable, match="timeout"):
            connection.ping()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"database": "ragstore_none"}, exceptions.DatabaseNotFound),
        ({"username": "ragstore_nobody"}, exceptions.AuthenticationFailed),
    ],
)
async def test_a_refused_connection_says_why(
    url: URL, change: dict[str, Any], expected: type
) -> None:
    """Sync and async tell a missing database and a refused role from a dead server."""
    connection = DatabaseConnection(url.set(**change))
    for ask in (connection.aping, connection.ping):
        with pytest.raises(exceptions.RagstoreError) as caught:
            await (ask() or asyncio.sleep(0))
        assert type(caught.value) is expected
    await connection.aclose()


# --- fork ---------------------------------------------------------------------------------------

_FORK = """
import os, sys
from ragstore.connection import DatabaseConnection

connection = DatabaseConnection(sys.argv[1])

def backend():
    with connection.session() as session:
        return session.connection().exec_driver_sql("SELECT pg_backend_pid()").scalar_one()

parents = backend()
child = os.fork()
if child == 0:
    childs = backend()
    connection.close()
    sys.exit(0 if childs != parents else 1)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert backend() == parents  # the child's end did not end the parent's session
connection.close()
"""


def test_a_forked_child_does_not_use_the_parents_sockets(url: URL) -> None:
    """The child opens a session of its own, and the parent keeps its own."""
    command = [sys.executable, "-W", "error", "-c", _FORK]
    done = subprocess.run(
        [*command, url.render_as_string(hide_password=False)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_last_connection_is_taken_first(url: URL) -> None:
    """What has its statements prepared is used again, rather than each of the pool in turn."""
    with DatabaseConnection(url) as database:
        with database.reading() as last, database.reading():
            pass
        for _ in range(3):
            with database.reading() as lent:
                assert lent is last


async def test_the_last_async_connection_is_taken_first(url: URL) -> None:
    """The async pool does the same."""
    async with DatabaseConnection(url) as database:
        async with database.async_reading() as last, database.async_reading():
            pass
        for _ in range(3):
            async with database.async_reading() as lent:
                assert lent is last
