"""Work of several transactions, some of them the owner's, and how its steps are done.

A *procedure* is a ``ragstore.work.Work`` that also changes the schema: it yields operations for the
owner of the tables, in a transaction or outside of all, and calls of the user's functions.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow

from ragstore.connection import DatabaseConnection
from ragstore.driver import connect, connect_async, translate_errors
from ragstore.exceptions import ImproperlyConfigured, QueryFailed
from ragstore.execution import Call, Operation, call, call_async, run, run_async
from ragstore.work import Pause, Transact

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class AsOwner:
    """An operation to run in a transaction as the role of ``migration_url``."""

    operation: Operation[Any]


@dataclass(frozen=True)
class Outside:
    """An operation to run as that role outside of transactions, each statement its own.

    ``settings`` hold for its session; what Postgres says meanwhile is logged.
    """

    operation: Operation[Any]
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tell:
    """A function of the caller's to call with a report: for asyncio on the loop, and awaited."""

    function: Callable[[Any], object]
    report: Any


Procedure = Generator[Any, Any, T]


LOCK_PAUSES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Seconds between two attempts at a step that others stood in the way of."""


def patiently(
    step: Callable[[], Any],
    pauses: Sequence[float],
    states: AbstractSet[str],
    told: Mapping[str, Any] | None = None,
) -> Procedure[Any]:
    """Do a step again, after a pause, while the server answers it with one of these SQLSTATEs.

    For what waits for locks under a timeout: whoever comes after a session that waits for a lock
    waits behind it, so a long wait is given up, and begun anew. ``told`` goes into the log record.
    """
    left = iter(pauses)
    while True:
        try:
            return (yield step())
        except QueryFailed as exc:  # noqa: PERF203 - a transaction costs more
            if exc.sqlstate not in states or (pause := next(left, None)) is None:
                raise
            logger.info(
                "Other sessions are in the way (%s): trying again",
                exc.sqlstate,
                extra={**(told or {}), "sqlstate": exc.sqlstate, "pause": pause},
            )
            yield Pause(pause)


def perform(connection: DatabaseConnection) -> Callable[[Any], Any]:
    """Return what does one step, for ``ragstore.work.do``."""

    def step_by(step: Any) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if isinstance(step, Call):
            return call(step)
        if isinstance(step, Tell):
            return step.function(step.report)
        with _place(connection, step) as lent:
            return run(lent, step.operation)

    return step_by


def perform_async(connection: DatabaseConnection) -> Callable[[Any], Awaitable[Any]]:
    """Return what does one step, for ``ragstore.work.do_async``."""

    async def step_by(step: Any) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Call):
            return await call_async(step)
        if isinstance(step, Tell):
            told = step.function(step.report)
            return await told if inspect.isawaitable(told) else told
        async with _async_place(connection, step) as lent:
            return await run_async(lent, step.operation)

    return step_by


def _place(connection: DatabaseConnection, step: Transact | AsOwner | Outside) -> Any:
    if isinstance(step, Transact):
        return connection.transaction()
    return connection.owner_transaction() if isinstance(step, AsOwner) else _alone(connection, step)


def _async_place(connection: DatabaseConnection, step: Transact | AsOwner | Outside) -> Any:
    if isinstance(step, Transact):
        return connection.async_transaction()
    if isinstance(step, AsOwner):
        return connection.async_owner_transaction()
    return _alone_async(connection, step)


_SET = "SELECT set_config(%s, %s, false)"


@contextmanager
def _alone(connection: DatabaseConnection, step: Outside) -> Iterator[psycopg.Connection[TupleRow]]:
    """Lend a session of its own, which ends with the operation and so keeps nothing behind."""
    _refuse_pooler(connection)
    url = connection.migration_url
    with translate_errors(url), connect(url, autocommit=True) as session:
        session.add_notice_handler(_log)
        for setting in step.settings.items():
            session.execute(_SET, setting)
        yield session


@asynccontextmanager
async def _alone_async(
    connection: DatabaseConnection, step: Outside
) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
    _refuse_pooler(connection)
    url = connection.migration_url
    with translate_errors(url):
        async with await connect_async(url, autocommit=True) as session:
            session.add_notice_handler(_log)
            for setting in step.settings.items():
                await session.execute(_SET, setting)
            yield session


def _refuse_pooler(connection: DatabaseConnection) -> None:
    """Refuse a session through a transaction pooler: settings and locks would be a stranger's."""
    from ragstore.conf import settings

    if settings.POOLER == "transaction" and connection.migration_url == connection.url:
        raise ImproperlyConfigured(
            "Indexes and partitions are built and detached in a session of their own, which a"
            " transaction pooler does not give: set DB_MIGRATION_DATABASE_URL (or migration_url=)"
            " to the URL of the server itself"
        )


def _log(diagnosis: psycopg.errors.Diagnostic) -> None:
    extra = {"sqlstate": diagnosis.sqlstate}
    logger.warning("Postgres: %s", diagnosis.message_primary, extra=extra)
