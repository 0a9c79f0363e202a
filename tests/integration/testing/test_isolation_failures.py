"""What a test may do to its rolled-back connection, and the next test not notice."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from ragstore.exceptions import DatabaseUnavailable, QueryFailed
from ragstore.models import Collection
from ragstore.testing.isolation import RolledBackConnection, RolledBackEngines

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


def backend(connection: Any) -> int:
    """Return the server process of the sync side."""
    with connection.engine.connect() as opened:
        return int(opened.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def terminate(url: URL, pid: int) -> None:
    """End a server process, as a crash would."""
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def by_session(connection: RolledBackConnection) -> None:
    """Commit through a session."""
    with connection.session() as session:
        session.add(Collection(name="made"))
        session.commit()


def test_killed_backend_does_not_reach_the_next_test(
    begin: Callable[[], RolledBackConnection], ragstore_database: URL
) -> None:
    """The test sees the loss, goes on in a new transaction if it likes, and so does the next."""
    connection = begin()
    terminate(ragstore_database, backend(connection))
    with pytest.raises(DatabaseUnavailable):
        connection.ping()
    by_session(connection)

    assert names(connection) == ["made"]
    assert names(begin()) == []
    assert count_elsewhere(ragstore_database) == 0


def test_sessions_of_a_killed_backend_leave_the_new_one_alone(
    begin: Callable[[], RolledBackConnection], ragstore_database: URL
) -> None:
    """What began before the loss ends without touching what began after it."""
    connection = begin()
    first, second = connection.session(), connection.session()
    first.connection()
    second.connection()
    terminate(ragstore_database, backend(connection))
    with pytest.raises(DBAPIError):
        first.connection().exec_driver_sql("SELECT 1")
    with connection.session() as session:
        session.add(Collection(name="new"))
        session.flush()
        first.close()
        second.close()
        session.rollback()

    assert names(connection) == []


def test_backend_killed_between_tests_is_replaced(
    begin: Callable[[], RolledBackConnection], ragstore_database: URL
) -> None:
    """A connection that died unnoticed, in or after the test before, is opened anew."""
    pid = backend(begin())
    terminate(ragstore_database, pid)
    connection = begin()
    assert backend(connection) != pid

    pid = backend(connection)
    begin()
    terminate(ragstore_database, pid)
    assert names(begin()) == []


def test_closed_connection_is_replaced(begin: Callable[[], RolledBackConnection]) -> None:
    """A test may close the driver's connection."""
    with begin().engine.connect() as opened:
        driver: Any = opened.connection.driver_connection
        driver.close()

    assert names(begin()) == []


def test_statement_under_way_is_not_waited_for(
    begin: Callable[[], RolledBackConnection],
) -> None:
    """A test that gave up on a statement ends at once, and so does its connection."""
    with begin().engine.connect() as opened:
        driver: Any = opened.connection.driver_connection
        opened.exec_driver_sql("SELECT 1")
        started = time.monotonic()
        driver.pgconn.send_query(b"SELECT pg_sleep(5)")
        with pytest.raises(DBAPIError):
            opened.close()
    connection = begin()

    assert time.monotonic() - started < 3
    assert names(connection) == []


def test_connection_closed_between_tests_is_replaced(
    begin: Callable[[], RolledBackConnection], engines: RolledBackEngines
) -> None:
    """What a finalizer of the host closed is opened anew."""
    with begin().engine.connect() as opened:
        driver: Any = opened.connection.driver_connection
    connection = RolledBackConnection(engines)
    begin()
    driver.close()

    assert names(connection) == []
    connection.finish()


@pytest.mark.parametrize("then", ["", "SELECT 1"], ids=["idle", "in another transaction"])
def test_own_commit_is_found_out(
    begin: Callable[[], RolledBackConnection], engines: RolledBackEngines, then: str
) -> None:
    """A COMMIT sent as SQL ends the isolation: the test is told at its end, the next one not."""
    connection = RolledBackConnection(engines)
    with connection.engine.connect() as opened:
        driver: Any = opened.connection.driver_connection
        driver.execute("COMMIT")
        if then:
            driver.execute(then)

    with pytest.raises(QueryFailed, match="db_fresh"):
        connection.finish()
    assert names(begin()) == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_drivers_own_end_is_refused(
    begin: Callable[[], RolledBackConnection], end: str
) -> None:
    """What would end the transaction behind SQLAlchemy's back says what to use."""
    raw = begin().engine.raw_connection()
    with pytest.raises(QueryFailed, match="db_fresh"):
        getattr(raw, end)()
    raw.close()


def test_isolation_level_is_refused(begin: Callable[[], RolledBackConnection]) -> None:
    """Another isolation level, AUTOCOMMIT above all, needs a connection of its own."""
    engine = begin().engine.execution_options(isolation_level="AUTOCOMMIT")
    with pytest.raises(QueryFailed, match=r"AUTOCOMMIT .* db_fresh"):
        engine.connect()


def test_tables_are_not_dropped(begin: Callable[[], RolledBackConnection]) -> None:
    """drop_tables() names the fixture to use."""
    with pytest.raises(QueryFailed, match="db_fresh"):
        begin().drop_tables()


def test_closing_does_not_end_the_transaction(begin: Callable[[], RolledBackConnection]) -> None:
    """The application may close its connection: the rows are there until the test ends."""
    connection = begin()
    with connection:
        by_session(connection)
    asyncio.run(connection.aclose())

    assert names(connection) == ["made"]


def test_finished_connection_is_refused(engines: RolledBackEngines) -> None:
    """A thread that outlives its test does not write into the next one."""
    connection = RolledBackConnection(engines)
    connection.finish()

    with pytest.raises(QueryFailed, match="over"):
        connection.session()
    with pytest.raises(QueryFailed, match="over"):
        connection.async_session()


def test_forked_child_has_a_connection_of_its_own(
    begin: Callable[[], RolledBackConnection],
) -> None:
    """A child does not talk on its parent's socket, and its end does not close it."""
    connection = begin()
    by_session(connection)
    pid = os.fork()
    if pid == 0:
        seen = names(connection)
        os._exit(0 if seen == [] else 1)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert names(connection) == ["made"]
