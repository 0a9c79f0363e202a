"""A DatabaseConnection whose work never leaves its transaction.

Each engine here has one connection, inside one transaction that is only ever rolled back. What
SQLAlchemy calls a transaction is a savepoint in it: ``commit()`` releases it, ``rollback()``
returns to it, so code under test commits and rolls back as it does elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus, TransactionStatus
from psycopg.rows import TupleRow
from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import StaticPool

from ragstore.driver import session_options
from ragstore.exceptions import LockTimeout, QueryFailed
from ragstore.testing.fresh import TestConnection

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

LOCK_TIMEOUT = "2s"
"""How long a statement waits for a lock: both sides of a test may want the same."""

TURN_TIMEOUT = 30.0
"""Seconds that a thread or task waits until another one's ``transaction()`` has ended."""

# The guard is how a COMMIT or ROLLBACK of the test's own is found out: it ends with it.
_GUARD = "ragstore_test"
_BEGIN = f"BEGIN; SAVEPOINT {_GUARD}".encode()
_END = f"ROLLBACK TO SAVEPOINT {_GUARD}; ROLLBACK".encode()

_NO_TRANSACTION, _NO_SAVEPOINT = b"25P01", b"3B001"

_ESCAPED = (
    "the test sent a COMMIT or ROLLBACK of its own, which ended the transaction that isolates it:"
    " its rows may have stayed in the database, where other tests meet them. Use db_fresh"
)


class Savepoints:
    """Turns the transactions of an engine into savepoints, by the hooks of its dialect.

    Several SQLAlchemy connections may be open at once; they share the one transaction. A commit
    under a younger savepoint keeps it; a rollback undoes what is younger too.
    """

    def __init__(self, engine: Engine) -> None:
        self._stack: list[tuple[object, str]] = []
        self._count = 0
        dialect: Any = engine.dialect
        dialect.do_begin = self._begin
        dialect.do_commit = self._commit
        dialect.do_rollback = self._rollback
        dialect.set_isolation_level = _refuse_isolation_level

    def forget(self) -> None:
        """Start anew: the transaction around them is over."""
        self._stack.clear()

    @property
    def depth(self) -> int:
        """Return how many are open."""
        return len(self._stack)

    def cut(self, depth: int) -> None:
        """Forget those that ended together with a savepoint of somebody else around them."""
        del self._stack[depth:]

    def _begin(self, connection: Any) -> None:
        self._count += 1
        name = f"ragstore_test_{self._count}"
        _execute(connection, f"SAVEPOINT {name}")
        self._stack.append((connection, name))

    def _commit(self, connection: Any) -> None:
        position = self._position(connection)
        if position is not None and position == len(self._stack) - 1:
            _execute(connection, f"RELEASE SAVEPOINT {self._stack.pop()[1]}")

    def _rollback(self, connection: Any) -> None:
        position = self._position(connection)
        if position is not None:
            name = self._stack[position][1]
            del self._stack[position:]
            _execute(connection, f"ROLLBACK TO SAVEPOINT {name}")
            _execute(connection, f"RELEASE SAVEPOINT {name}")

    def _position(self, connection: Any) -> int | None:
        """Find the youngest savepoint of a connection, as SQLAlchemy lends the pooled one."""
        positions = [at for at, (owner, _) in enumerate(self._stack) if owner is connection]
        return positions[-1] if positions else None


class RolledBackEngine:
    """An engine over one connection, for one test after another.

    ``begin()`` opens a transaction and ``end()`` rolls it back; the connection stays, because
    opening one costs more than a small test. It is made by the engine's first use, and that of
    an async engine serves one event loop after another: ``end()`` and ``dispose()`` need none.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.savepoints = Savepoints(engine)
        self.is_watched = False
        self._driver: Any = None
        event.listen(engine, "connect", self._opened)

    def _opened(self, connection: Any, record: Any) -> None:
        self._driver = record.driver_connection
        self.savepoints.forget()  # those of a connection that broke
        self._driver.commit = self._driver.rollback = _refuse_to_end
        _execute(connection, f"SAVEPOINT {_GUARD}")  # psycopg sends a BEGIN first

    def begin(self) -> None:
        """Begin a transaction on the connection there is, if it still answers."""
        if self._driver is None:
            return
        if self.engine.dialect.is_async:
            self._driver.lock = asyncio.Lock()  # the old one may belong to another event loop
        if _send(self._driver, _BEGIN) is not None:
            self.dispose()

    def end(self) -> None:
        """Roll the transaction back; a connection that the test broke is thrown away.

        Raises:
            QueryFailed: the transaction was over already, by the test's own doing.
        """
        self.savepoints.forget()
        if self._driver is None:
            return
        status = self._driver.pgconn.transaction_status
        is_waiting = status not in (TransactionStatus.INTRANS, TransactionStatus.INERROR)
        error = b"" if is_waiting else _send(self._driver, _END)
        if error is not None:
            self.dispose()
        if status == TransactionStatus.IDLE or error in (_NO_TRANSACTION, _NO_SAVEPOINT):
            raise QueryFailed(_ESCAPED)

    def dispose(self) -> None:
        """Close the connection; the next use opens another."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.pgconn.finish()
        self.engine.dispose(close=False)


class RolledBackEngines:
    """The sync and the async engine of one database, each made when first asked for."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._sync: RolledBackEngine | None = None
        self._async: tuple[AsyncEngine, RolledBackEngine] | None = None

    @property
    def sync_side(self) -> RolledBackEngine:
        """Return the sync engine."""
        if self._sync is None:
            self._sync = RolledBackEngine(create_engine(self.url, **_options(self.url)))
        return self._sync

    @property
    def async_side(self) -> tuple[AsyncEngine, RolledBackEngine]:
        """Return the async engine, and what begins and ends its transactions."""
        if self._async is None:
            from sqlalchemy.ext.asyncio import create_async_engine

            engine = create_async_engine(self.url, **_options(self.url))
            self._async = engine, RolledBackEngine(engine.sync_engine)
        return self._async

    def dispose(self) -> None:
        """Close the connections."""
        for side in (self._sync, self._async and self._async[1]):
            if side is not None:
                side.dispose()


class RolledBackConnection(TestConnection):
    """A DatabaseConnection for one test: all it does is undone by ``finish()``.

    The sync and the async engine are two transactions, and neither sees the other's rows. Within
    one of them, the calls of ``transaction()`` by several threads or tasks take turns.
    """

    def __init__(self, engines: RolledBackEngines) -> None:
        super().__init__(engines.url)
        self._engines = engines
        self._begun: dict[str, RolledBackEngine] = {}
        self._is_finished = False
        self._turn = RLock()
        self._async_turn = asyncio.Lock()
        self._async_owner: object = None

    @property
    def engine(self) -> Engine:
        """Return the engine inside the test's transaction, begun by the first use."""
        with self._lock:
            if self._engine is None:
                self._engine = self._begin("sync", self._engines.sync_side).engine
            return self._engine

    @property
    def async_engine(self) -> AsyncEngine:
        """Return the async engine inside a transaction of its own, begun by the first use."""
        with self._lock:
            if self._async_engine is None:
                engine, side = self._engines.async_side
                self._begin("async", side)
                self._async_engine = engine
            return self._async_engine

    @property
    def used_both_sides(self) -> bool:
        """Tell whether the test used the sync and the async engine."""
        return len(self._begun) > 1

    def _begin(self, name: str, side: RolledBackEngine) -> RolledBackEngine:
        if self._is_finished:
            raise QueryFailed("the test of this connection is over: it was rolled back")
        side.begin()
        self._begun[name] = side
        if not side.is_watched:
            self._watch(side.engine)
            side.is_watched = True
        return side

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """Lend the connection inside a savepoint, to one thread at a time."""
        if not self._turn.acquire(timeout=TURN_TIMEOUT):
            raise LockTimeout(_NO_TURN)
        try:
            with super().transaction() as connection, self._ending("sync"):
                yield connection
        finally:
            self._turn.release()

    @asynccontextmanager
    async def async_transaction(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """Lend the async connection inside a savepoint, to one task at a time."""
        before, task = self._async_owner, asyncio.current_task()
        if before is not task:
            await self._wait_for_turn()
        try:
            self._async_owner = task
            async with super().async_transaction() as connection:
                with self._ending("async"):
                    yield connection
        finally:
            if before is not task:
                self._async_owner = None
                self._async_turn.release()

    async def _wait_for_turn(self) -> None:
        try:
            await asyncio.wait_for(self._async_turn.acquire(), TURN_TIMEOUT)
        except asyncio.TimeoutError as exc:
            raise LockTimeout(_NO_TURN) from exc

    @contextmanager
    def _ending(self, side: str) -> Iterator[None]:
        """Forget the savepoints of sessions that were begun inside and are open at the end."""
        savepoints = self._begun[side].savepoints
        depth = savepoints.depth
        try:
            yield
        finally:
            savepoints.cut(depth)

    def drop_tables(self, *, cascade: bool = False) -> None:
        """Refuse: dropping needs a connection of its own, which would wait for this one.

        Raises:
            QueryFailed: always.
        """
        raise QueryFailed("a rolled-back connection cannot drop the tables: use db_fresh")

    def close(self) -> None:
        """Do nothing: the transaction ends with the test."""

    async def aclose(self) -> None:
        """Do nothing: the transactions end with the test."""

    def finish(self) -> None:
        """Roll both transactions back, from outside the event loop of the async one.

        Raises:
            QueryFailed: the test ended a transaction by its own COMMIT or ROLLBACK.
        """
        self._is_finished = True
        self._engine = self._async_engine = None
        with ExitStack() as last_first:
            last_first.callback(self._release_sessions)
            for side in self._begun.values():
                last_first.callback(side.end)


_NO_TURN = (
    f"another thread or task has been inside transaction() for {TURN_TIMEOUT:.0f} s, and a test's"
    " connection serves one at a time: use db_fresh"
)


def _options(url: URL) -> dict[str, Any]:
    # The URL's own options come last, and the last one wins.
    given = url.normalized_query.get("options", ())
    options = " ".join([f"-c lock_timeout={LOCK_TIMEOUT}", *given])
    return {
        "poolclass": StaticPool,
        "pool_reset_on_return": None,
        "hide_parameters": True,
        "connect_args": {**session_options(url), "prepare_threshold": None, "options": options},
    }


def _execute(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()


def _send(driver: Any, commands: bytes) -> bytes | None:
    """Send commands without an event loop; return the SQLSTATE of what went wrong, if it did."""
    try:
        result = driver.pgconn.exec_(commands)
    except psycopg.Error:
        return b""
    if result.status == ExecStatus.COMMAND_OK:
        return None
    return result.error_field(DiagnosticField.SQLSTATE) or b""


def _refuse_to_end() -> NoReturn:
    raise QueryFailed(
        "the driver's own commit() and rollback() would end the transaction that isolates the"
        " test: use those of the session, engine.begin() or transaction(), or db_fresh"
    )


def _refuse_isolation_level(_connection: Any, level: str) -> NoReturn:
    raise QueryFailed(
        f"the isolation level {level} cannot be set inside the transaction that isolates the test:"
        " use db_fresh"
    )
