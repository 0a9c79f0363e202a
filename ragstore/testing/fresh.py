"""A DatabaseConnection on a database of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Engine

from ragstore.connection import DatabaseConnection

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession


class TestConnection(DatabaseConnection):
    """A DatabaseConnection that is finished from outside its event loop.

    It keeps its async sessions: one that the test leaves open would be collected later, with a
    warning, and closing it takes a loop.
    """

    __test__ = False  # pytest would take it for a class of tests

    def __init__(self, url: URL) -> None:
        super().__init__(url, migration_url=url)
        self._sessions: list[AsyncSession] = []

    def async_session(self, **options: Any) -> AsyncSession:
        """Return a SQLModel session on the async engine; it need not be closed."""
        session = super().async_session(**options)
        self._sessions.append(session)
        return session

    def _release_sessions(self) -> None:
        """Close the sessions that are open; for when nothing can be sent any more."""
        for session in self._sessions:
            session.sync_session.close()
        self._sessions.clear()


class FreshConnection(TestConnection):
    """A DatabaseConnection like any other, whose ``finish()`` needs no event loop."""

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        self._engines: list[Engine] = []
        self._drivers: list[Any] = []

    def _watch(self, engine: Engine) -> None:
        super()._watch(engine)
        self._engines.append(engine)
        event.listen(engine, "connect", self._note)

    def _note(self, _connection: Any, record: Any) -> None:
        self._drivers.append(record.driver_connection)

    def finish(self) -> None:
        """Close every connection of either engine, those in use included."""
        self._engine = self._async_engine = None
        for driver in self._drivers:
            driver.pgconn.finish()
        for engine in self._engines:
            dialect: Any = engine.dialect
            dialect.do_rollback = _do_nothing
        self._release_sessions()
        for engine in self._engines:
            engine.dispose(close=False)


def _do_nothing(_connection: Any) -> None:
    """Stand in for a rollback, which a closed connection has no use for."""
