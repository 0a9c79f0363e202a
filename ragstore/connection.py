"""One database URL: its engines and sessions, sync and async.

Nothing is opened, started or read from the settings before it is first used.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from threading import RLock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import Pool

from ragstore.driver import (
    VERSION_TABLE,
    connect,
    connect_async,
    from_driver,
    place_of,
    resolve_url,
    session_options,
    translate_errors,
)
from ragstore.exceptions import QueryFailed
from ragstore.url import parse_url

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlmodel import Session
    from sqlmodel.ext.asyncio.session import AsyncSession
    from typing_extensions import Self

__all__ = [
    "VERSION_TABLE",
    "DatabaseConnection",
    "connect",
    "from_driver",
    "resolve_url",
    "translate_errors",
]

# No query: before one, whoever begins the transaction may still choose its isolation level.
_SET_TIMEOUT = "SET LOCAL statement_timeout = {}"

# True while a connection is taken from the pool without asking it for a sign of life.
_unasked: ContextVar[bool] = ContextVar("unasked", default=False)

_engines: WeakSet[Engine] = WeakSet()
_inherited: list[Pool] = []


def _leave_sockets_to_parent() -> None:
    """Give every engine an empty pool in a forked child: two processes cannot share a socket."""
    for engine in list(_engines):
        _inherited.append(engine.pool)  # kept, as collecting it warns of connections left open
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_leave_sockets_to_parent)


class DatabaseConnection:
    """The engines and sessions of one database.

    ``url`` is the setting DATABASE_URL unless given; ``migration_url`` (a more privileged role, or
    the server itself behind a pooler) is MIGRATION_DATABASE_URL when the URL comes from the
    settings, else the URL. ``engine_options`` go to SQLAlchemy's ``create_engine`` and win over
    the settings.

    The sync and the async engine are made when first asked for and share nothing: each has a pool
    of its own, of DB_POOL_SIZE connections. A thread may use it beside others, and so may a forked
    child, whose pools start empty. The async engine belongs to the event loop that first used it:
    ``aclose()`` before that loop ends. After ``close()`` or ``aclose()`` the object is as new: the
    next use reads the settings again and opens new pools.

    Sessions raise SQLAlchemy's errors, as everywhere; ``ping()``, ``transaction()`` and
    ``drop_tables()`` raise ragstore's.
    """

    def __init__(
        self,
        url: str | URL | None = None,
        *,
        migration_url: str | URL | None = None,
        **engine_options: Any,
    ) -> None:
        self._given = None if url is None else parse_url(url)
        self._given_migration = None if migration_url is None else parse_url(migration_url)
        self._options = engine_options
        self._lock = RLock()
        self._url: URL | None = None
        self._migration_url: URL | None = None
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None
        self._set_timeout = ""

    def __repr__(self) -> str:
        url = self._url or self._given
        return f"<DatabaseConnection {place_of(url) if url is not None else 'of the settings'}>"

    @property
    def url(self) -> URL:
        """Return the URL to connect to; an embedded server is started or joined by this.

        Raises:
            ImproperlyConfigured: no URL was given, and the settings have none.
        """
        with self._lock:
            if self._url is None:
                self._url = resolve_url(self._given or _setting("DATABASE_URL"))
            return self._url

    @property
    def migration_url(self) -> URL:
        """Return the URL for what changes the schema."""
        with self._lock:
            if self._migration_url is None:
                self._migration_url = self._find_migration_url()
            return self._migration_url

    def _find_migration_url(self) -> URL:
        configured = self._given_migration
        if configured is None and self._given is None:
            configured = _setting("MIGRATION_DATABASE_URL")
            if configured == _setting("DATABASE_URL"):
                return self.url  # resolved once: an embedded server is joined once
        return self.url if configured is None else resolve_url(configured)

    @property
    def engine(self) -> Engine:
        """Return the sync engine, making it on first use."""
        with self._lock:
            if self._engine is None:
                self._engine = create_engine(self.url, **self._engine_options())
                self._watch(self._engine)
            return self._engine

    @property
    def async_engine(self) -> AsyncEngine:
        """Return the async engine, making it on first use."""
        with self._lock:
            if self._async_engine is None:
                from sqlalchemy.ext.asyncio import create_async_engine

                self._async_engine = create_async_engine(self.url, **self._engine_options())
                self._watch(self._async_engine.sync_engine)
            return self._async_engine

    def _engine_options(self) -> dict[str, Any]:
        from ragstore.conf import settings

        sizes = {
            "pool_size": settings.POOL_SIZE,
            "max_overflow": settings.MAX_OVERFLOW,
            "pool_timeout": settings.POOL_TIMEOUT,
            # The one that was used last has the statements of a search prepared, its pages mapped
            # and in the processor's caches: taken in turns, three answered a third slower than one.
            "pool_use_lifo": True,
        }
        return {
            **({} if self._options.keys() & {"poolclass", "pool"} else sizes),
            "pool_recycle": settings.POOL_RECYCLE,
            "pool_pre_ping": True,
            "hide_parameters": True,
            "echo": settings.ECHO,
            **self._options,
            "connect_args": {**self._connect_args(), **self._options.get("connect_args", {})},
        }

    def _connect_args(self) -> dict[str, Any]:
        """Give psycopg's options; a transaction pooler takes nothing that lasts for a session."""
        from ragstore.conf import settings

        options = session_options(self.url)
        milliseconds = math.ceil(settings.STATEMENT_TIMEOUT * 1000)
        self._set_timeout = ""
        if settings.POOLER == "transaction":
            options["prepare_threshold"] = None
            self._set_timeout = _SET_TIMEOUT.format(milliseconds) if milliseconds else ""
        elif milliseconds:
            # The URL's own options come last, and the last one wins.
            given = self.url.normalized_query.get("options", ())
            options["options"] = " ".join([f"-c statement_timeout={milliseconds}", *given])
        return options

    def _watch(self, engine: Engine) -> None:
        _engines.add(engine)
        ask = engine.dialect.do_ping
        engine.dialect.do_ping = (  # type: ignore[method-assign]  # the pool's only way to ask
            lambda dbapi_connection: _unasked.get() or ask(dbapi_connection)
        )
        set_timeout = self._set_timeout
        if set_timeout:

            @event.listens_for(engine, "begin")
            def limit(connection: Connection) -> None:
                connection.exec_driver_sql(set_timeout)

    def session(self, **options: Any) -> Session:
        """Return a SQLModel session on the sync engine; ``options`` are the session's."""
        from sqlmodel import Session

        return Session(self.engine, **options)

    def async_session(self, **options: Any) -> AsyncSession:
        """Return a SQLModel session on the async engine; ``options`` are the session's.

        Its objects stay readable after a commit (``expire_on_commit=False``): loading them again
        on access, as a sync session does, is not possible without an await.
        """
        from sqlmodel.ext.asyncio.session import AsyncSession

        return AsyncSession(self.async_engine, **{"expire_on_commit": False, **options})

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """Lend the psycopg connection of a pooled one, inside one transaction.

        It is committed at the end and rolled back on an error. ``connection.transaction()`` inside
        is a savepoint; ``commit()`` and ``rollback()`` are refused by psycopg.

        Raises:
            RagstoreError: what :func:`from_driver` makes of a driver's error in the block.
        """
        with translate_errors(self.url), self.engine.connect() as pooled:
            connection: Any = pooled.connection.driver_connection
            try:
                with connection.transaction():
                    if self._set_timeout:
                        connection.execute(self._set_timeout)
                    yield connection
            finally:
                if connection.closed:
                    pooled.invalidate()  # a reset would be tried on it, and logged as an error

    @asynccontextmanager
    async def async_transaction(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """Lend the async psycopg connection of a pooled one, as :meth:`transaction` does."""
        with translate_errors(self.url):
            async with self.async_engine.connect() as pooled:
                connection: Any = (await pooled.get_raw_connection()).driver_connection
                try:
                    async with connection.transaction():
                        if self._set_timeout:
                            await connection.execute(self._set_timeout)
                        yield connection
                finally:
                    if connection.closed:
                        await pooled.invalidate()

    @contextmanager
    def reading(self, *, ask: bool = False) -> Iterator[psycopg.Connection[TupleRow]]:
        """Lend a pooled psycopg connection for statements that only read, each by itself.

        One statement is one round trip: there is no BEGIN and COMMIT around it, and unless ``ask``
        the pool does not ask a connection first whether it still lives. A dead one raises
        DatabaseUnavailable; the caller tries again, with ``ask``.

        Raises:
            RagstoreError: what :func:`from_driver` makes of a driver's error in the block.
        """
        with translate_errors(self.url):
            engine = self.engine
            if self._set_timeout:  # set behind BEGIN, where a session has no settings
                with self.transaction() as connection:
                    yield connection
                return
            pooled = _checked_out(engine, ask=ask)
            try:
                connection = pooled.driver_connection
                if connection.pgconn.transaction_status == TransactionStatus.INTRANS:
                    with connection.transaction():  # the test kit keeps it in one of its own
                        yield connection
                    return
                before = connection.autocommit  # True in an engine of isolation level AUTOCOMMIT
                connection.autocommit = True
                try:
                    yield connection
                finally:
                    if connection.pgconn.transaction_status == TransactionStatus.IDLE:
                        connection.autocommit = before
                    else:
                        pooled.invalidate()
            finally:
                pooled.close()

    @asynccontextmanager
    async def async_reading(
        self, *, ask: bool = False
    ) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """Lend an async connection for statements that only read, as :meth:`reading` does."""
        with translate_errors(self.url):
            from sqlalchemy.util import greenlet_spawn

            engine = self.async_engine
            if self._set_timeout:
                async with self.async_transaction() as connection:
                    yield connection
                return
            pooled = await greenlet_spawn(_checked_out, engine.sync_engine, ask=ask)
            try:
                driver: Any = pooled.driver_connection
                if driver.pgconn.transaction_status == TransactionStatus.INTRANS:
                    async with driver.transaction():
                        yield driver
                    return
                before = driver.autocommit
                await driver.set_autocommit(True)
                try:
                    yield driver
                finally:
                    if driver.pgconn.transaction_status == TransactionStatus.IDLE:
                        await driver.set_autocommit(before)
                    else:
                        await greenlet_spawn(pooled.invalidate)
            finally:
                await greenlet_spawn(pooled.close)

    @contextmanager
    def owner_transaction(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """Lend a connection of the role of :attr:`migration_url`, inside one transaction.

        It is that of :meth:`transaction` where both URLs are one, else one opened for this.
        """
        url = self.migration_url
        if url == self.url:
            with self.transaction() as connection:
                yield connection
        else:
            with translate_errors(url), connect(url) as connection:
                yield connection

    @asynccontextmanager
    async def async_owner_transaction(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """Lend an async connection of the role of :attr:`migration_url`, inside a transaction."""
        url = self.migration_url
        if url == self.url:
            async with self.async_transaction() as connection:
                yield connection
        else:
            with translate_errors(url):
                async with await connect_async(url) as connection:
                    yield connection

    def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            DatabaseUnavailable: the server does not answer, or (AuthenticationFailed) refuses.
            DatabaseNotFound: it has no such database.
        """
        with self.transaction() as connection:
            connection.execute("SELECT 1")

    async def aping(self) -> None:
        """Ask the database for a sign of life, as :meth:`ping` does, through the async engine."""
        async with self.async_transaction() as connection:
            await connection.execute("SELECT 1")

    def drop_tables(self, *, cascade: bool = False) -> None:
        """Drop ragstore's tables, partitions, function and version table, and nothing else.

        All in one transaction as the role of :attr:`migration_url`; the extension stays. With
        ``cascade``, foreign keys of other tables to ours are dropped first (the tables stay).

        Raises:
            QueryFailed: a foreign key, view or column of yours depends on them; nothing was done.
            LockTimeout: a session used them for longer than MIGRATION_LOCK_TIMEOUT.
        """
        url = self.migration_url
        with translate_errors(url), connect(url) as connection:
            _drop_tables(connection, cascade=cascade)

    def close(self) -> None:
        """Close the sync pool; safe to repeat. The async pool is closed by ``aclose()``."""
        with self._lock:
            engine, self._engine = self._engine, None
            self._url = self._migration_url = None
        if engine is not None:
            engine.dispose()

    async def aclose(self) -> None:
        """Close both pools; safe to repeat."""
        with self._lock:
            engine, self._async_engine = self._async_engine, None
        if engine is not None:
            await engine.dispose()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


def _checked_out(engine: Engine, *, ask: bool) -> Any:
    token = _unasked.set(not ask)
    try:
        return engine.raw_connection()
    finally:
        _unasked.reset(token)


def _setting(name: str) -> URL:
    from ragstore.conf import settings

    url: URL = getattr(settings, name)
    return url


# --- dropping our tables -----------------------------------------------------------------------

_OUR_TABLES = """
SELECT class.oid, space.nspname, class.relname
FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = class.relnamespace
WHERE class.relkind IN ('r', 'p')
  AND class.oid IN (SELECT to_regclass(quote_ident(name)) FROM unnest(%s::text[]) AS name)
"""
# Rows with a conparentid are the copies that a key to or from a partitioned table has.
_FOREIGN_KEYS_TO_US = """
WITH ours AS (
  SELECT unnest(%(tables)s::oid[]) AS oid
  UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = ANY (%(tables)s::oid[])
)
SELECT space.nspname, class.relname, key.conname
FROM pg_constraint AS key JOIN pg_class AS class ON class.oid = key.conrelid
JOIN pg_namespace AS space ON space.oid = class.relnamespace
WHERE key.contype = 'f' AND key.conparentid = 0
  AND key.confrelid IN (SELECT oid FROM ours) AND key.conrelid NOT IN (SELECT oid FROM ours)
"""


def _drop_tables(connection: psycopg.Connection[TupleRow], *, cascade: bool) -> None:
    from ragstore.conf import settings
    from ragstore.models import TABLES

    limit = f"{math.ceil(settings.MIGRATION_LOCK_TIMEOUT * 1000)}ms"
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (limit,))
    names = [VERSION_TABLE, *(table.name for table in TABLES)]
    found = connection.execute(_OUR_TABLES, (names,)).fetchall()
    if cascade:
        _drop_foreign_keys(connection, [oid for oid, _, _ in found])
    try:
        if found:
            tables = [sql.Identifier(*names) for _, *names in found]
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.SQL(", ").join(tables)))
        connection.execute("DROP FUNCTION IF EXISTS ragstore_tsvector(text, text)")
    except psycopg.errors.DependentObjectsStillExist as exc:
        raise _still_needed(exc, cascade=cascade) from exc


def _drop_foreign_keys(connection: psycopg.Connection[TupleRow], tables: list[int]) -> None:
    drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
    for *table, key in connection.execute(_FOREIGN_KEYS_TO_US, {"tables": tables}).fetchall():
        connection.execute(drop.format(sql.Identifier(*table), sql.Identifier(key)))


def _still_needed(exc: psycopg.Error, *, cascade: bool) -> QueryFailed:
    # This DETAIL names objects, never rows.
    remedy = "" if cascade else ", or drop_tables(cascade=True) for foreign keys"
    return QueryFailed(
        f"ragstore's tables were not dropped, as others depend on them: {exc.diag.message_detail}."
        f" Drop those dependencies first{remedy}",
        sqlstate=exc.sqlstate,
    )
