"""Connections lent for single statements: no transaction around them, and none left behind."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from ragstore import DatabaseConnection, exceptions
from ragstore.conf import override_settings

IDLE = psycopg.pq.TransactionStatus.IDLE
PID = "SELECT pg_backend_pid()"


def test_each_statement_is_a_transaction(connection: DatabaseConnection) -> None:
    """Two statements have two transaction ids, and the pool gets the connection as it was."""
    number = "SELECT pg_current_xact_id()::text"
    with connection.reading() as lent:
        assert lent.autocommit
        first, second = (lent.execute(number).fetchone() for _ in range(2))
        pid = lent.execute(PID).fetchone()
        assert lent.info.transaction_status == IDLE
    assert first != second
    with connection.transaction() as lent:
        assert lent.execute(PID).fetchone() == pid
        assert not lent.autocommit


async def test_async_statement_is_a_transaction(connection: DatabaseConnection) -> None:
    """The same of the async engine."""
    number = "SELECT pg_current_xact_id()::text"
    async with connection.async_reading() as lent:
        first, second = [await (await lent.execute(number)).fetchone() for _ in range(2)]
        pid = await (await lent.execute(PID)).fetchone()
    assert first != second
    async with connection.async_transaction() as lent:
        assert await (await lent.execute(PID)).fetchone() == pid
        assert not lent.autocommit
    await connection.aclose()


async def test_engine_in_autocommit_stays_so(connection: DatabaseConnection) -> None:
    """A connection goes back to the pool with the isolation level of its engine."""
    of_engine = {"isolation_level": "AUTOCOMMIT", "pool_size": 1}
    async with DatabaseConnection(connection.url, **of_engine) as automatic:
        with automatic.reading():
            pass
        async with automatic.async_reading():
            pass
        with automatic.transaction() as lent:
            assert lent.autocommit
        async with automatic.async_transaction() as driver:
            assert driver.autocommit


def test_error_leaves_the_connection_usable(connection: DatabaseConnection) -> None:
    """An error arrives as ragstore's, and the same connection serves the next."""
    with connection.reading() as lent:
        pid = lent.execute(PID).fetchone()
    with pytest.raises(exceptions.QueryFailed, match="division"), connection.reading() as lent:
        lent.execute("SELECT 1 / 0")
    with connection.reading() as lent:
        assert lent.execute(PID).fetchone() == pid


def test_transaction_that_was_opened_in_it_is_not_returned(connection: DatabaseConnection) -> None:
    """A connection that somebody left in a transaction is closed, not pooled."""
    with connection.reading() as lent:
        pid = lent.execute(PID).fetchone()
        lent.execute("BEGIN")
    with connection.reading() as lent:
        assert lent.execute(PID).fetchone() != pid


def test_dead_connection_is_found_out_when_asked(connection: DatabaseConnection) -> None:
    """Unasked, a connection that the server ended raises; asked for, another is lent."""
    for ask in (False, True):
        with connection.reading(ask=True) as lent:
            pid = lent.execute(PID).fetchone()
        with psycopg.connect(_conninfo(connection)) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
        if ask:
            with connection.reading(ask=True) as lent:
                assert lent.execute(PID).fetchone() != pid
        else:
            with pytest.raises(exceptions.DatabaseUnavailable), connection.reading() as lent:
                lent.execute(PID)


async def test_cancelled_statement_leaves_no_connection_in_use(
    connection: DatabaseConnection,
) -> None:
    """A task that is cancelled in its statement gives its connection back, or closes it."""

    async def sleep() -> None:
        async with connection.async_reading() as lent:
            await lent.execute("SELECT pg_sleep(30)")

    task = asyncio.create_task(sleep())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert connection.async_engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    async with connection.async_reading() as lent:
        assert await (await lent.execute("SELECT 1")).fetchone() == (1,)
    await connection.aclose()


async def test_timeout_holds_behind_a_pooler(connection: DatabaseConnection) -> None:
    """With a timeout that cannot be the session's, the statements are in a transaction with it."""
    shown = "SELECT current_setting('statement_timeout')"
    with override_settings(POOLER="transaction", STATEMENT_TIMEOUT=7.0):
        async with DatabaseConnection(connection.url) as limited:
            with limited.reading() as lent:
                assert lent.execute(shown).fetchone() == ("7s",)
            async with limited.async_reading() as lent_async:
                assert await (await lent_async.execute(shown)).fetchone() == ("7s",)


def _conninfo(connection: DatabaseConnection) -> str:
    return connection.url.set(drivername="postgresql").render_as_string(hide_password=False)
