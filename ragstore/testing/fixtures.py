"""The fixtures of one test: connections that are rolled back, settings, factories, plans.

They are plain functions: pytest-asyncio or anyio need not be there, and in whatever mode they run,
the async ones connect when the test first uses them, in its own event loop, and are torn down
without one. Nothing but pytest is imported before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL, Connection
    from sqlmodel import Session
    from sqlmodel.ext.asyncio.session import AsyncSession

    from ragstore.async_store import AsyncStore
    from ragstore.connection import DatabaseConnection
    from ragstore.testing import factories
    from ragstore.testing.isolation import RolledBackConnection, RolledBackEngines
    from ragstore.testing.plans import Statement
    from ragstore.testing.plugin import NewDatabase

__all__ = [
    "assert_uses_index",
    "chunk_factory",
    "collection_factory",
    "db_async_session",
    "db_connection",
    "db_fresh",
    "db_service",
    "db_session",
    "document_factory",
    "pytest_runtest_makereport",
    "ragstore_engine",
    "ragstore_settings",
    "space_factory",
]

_CONNECTION: pytest.StashKey[RolledBackConnection] = pytest.StashKey()

_TWO_SIDES = (
    "This test used the sync side of db_connection (db_session, Store) and its async side"
    " (db_async_session, db_service). They are two transactions: neither sees the rows of the"
    " other, and where both want the same row or table, the second waits {timeout} and fails with"
    " LockTimeout or LockNotAvailable. Use one of them in a test, or db_fresh, where work is"
    " committed."
)


# --- rolled back after the test ----------------------------------------------------------------


@pytest.fixture(scope="session")
def ragstore_engine(ragstore_database: URL) -> Iterator[RolledBackEngines]:
    """The engines of this worker: a test costs a transaction, not a connection."""
    from ragstore.testing.isolation import RolledBackEngines

    engines = RolledBackEngines(ragstore_database)
    yield engines
    engines.dispose()


@pytest.fixture
def db_connection(
    request: pytest.FixtureRequest, ragstore_engine: RolledBackEngines
) -> Iterator[RolledBackConnection]:
    """A DatabaseConnection whose work is rolled back after the test, even if the test commits.

    What has no transaction stays: sequences have moved on, so do not count on an id.
    """
    from ragstore.testing.isolation import RolledBackConnection

    connection = RolledBackConnection(ragstore_engine)
    request.node.stash[_CONNECTION] = connection
    yield connection
    connection.finish()


@pytest.fixture
def db_session(db_connection: RolledBackConnection) -> Iterator[Session]:
    """A SQLModel session on ``db_connection``: commit and roll back as you like."""
    with db_connection.session() as session:
        yield session


@pytest.fixture
def db_async_session(db_connection: RolledBackConnection) -> AsyncSession:
    """A SQLModel AsyncSession on the async side of ``db_connection``, as ``db_service`` is.

    Its objects stay readable after a commit, as those of ``DatabaseConnection.async_session()``.
    """
    return db_connection.async_session()


@pytest.fixture
def db_service(db_connection: RolledBackConnection) -> AsyncStore:
    """An AsyncStore on the async side of ``db_connection``: all it stores is rolled back."""
    from ragstore.async_store import AsyncStore

    return AsyncStore(db_connection)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell a failed test that used both sides of its connection what that means."""
    report = yield
    connection = item.stash.get(_CONNECTION, None)
    if report.failed and connection is not None and connection.used_both_sides:
        from ragstore.testing.isolation import LOCK_TIMEOUT

        section = "two transactions", _TWO_SIDES.format(timeout=LOCK_TIMEOUT)
        if section not in report.sections:
            report.sections.append(section)
    return report


# --- a database of its own ---------------------------------------------------------------------


@pytest.fixture
def db_fresh(ragstore_new_database: NewDatabase) -> Iterator[DatabaseConnection]:
    """A DatabaseConnection on a migrated database of the test's own, dropped afterwards.

    For what a transaction cannot hold: work that other connections or processes must see, an
    index built concurrently, LISTEN. Its connections are closed for the test, async ones too.
    """
    from ragstore.testing.fresh import FreshConnection

    url = ragstore_new_database()
    connection = FreshConnection(url)
    yield connection
    connection.finish()
    ragstore_new_database.drop(url)


# --- settings ----------------------------------------------------------------------------------


class SettingsOverride:
    """Settings that can be assigned; ``del`` takes what was assigned back."""

    def __init__(self, stack: ExitStack) -> None:
        object.__setattr__(self, "_stack", stack)
        object.__setattr__(self, "_before", {})

    def __getattr__(self, name: str) -> Any:
        from ragstore.conf import settings

        return getattr(settings, name)

    def __setattr__(self, name: str, value: object) -> None:
        from ragstore.conf import override_settings

        inside = ExitStack()
        inside.enter_context(override_settings(**{name: value}))
        self._before.setdefault(name, []).append(inside)
        self._stack.push(inside)

    def __delattr__(self, name: str) -> None:
        if not self._before.get(name):
            raise AttributeError(f"{name} was not assigned in this test: there is nothing to undo")
        while self._before[name]:
            self._before[name].pop().close()

    def __repr__(self) -> str:
        from ragstore.conf import settings

        return repr(settings)


@pytest.fixture
def ragstore_settings() -> Iterator[SettingsOverride]:
    """The settings, to assign: ``ragstore_settings.POOL_SIZE = 2``; restored after the test.

    A wrong value is refused where it is assigned. It holds for the whole process, for what reads
    a setting from then on: an engine that was made before keeps its pool.
    """
    with ExitStack() as stack:
        yield SettingsOverride(stack)


# --- rows --------------------------------------------------------------------------------------


@pytest.fixture
def space_factory() -> factories.Factory[..., Any]:
    """Make embedding spaces: ``space_factory(db_session, dimensions=3)``."""
    from ragstore.testing.factories import make_space

    return make_space


@pytest.fixture
def collection_factory() -> factories.Factory[..., Any]:
    """Make collections: ``collection_factory(db_session, language="german")``."""
    from ragstore.testing.factories import make_collection

    return make_collection


@pytest.fixture
def document_factory() -> factories.Factory[..., Any]:
    """Make documents: ``document_factory(db_session, texts=["a page"])``, ready to be found."""
    from ragstore.testing.factories import make_document

    return make_document


@pytest.fixture
def chunk_factory() -> factories.Factory[..., Any]:
    """Make chunks: ``chunk_factory(db_session, document, text="a passage")``."""
    from ragstore.testing.factories import make_chunk

    return make_chunk


# --- plans -------------------------------------------------------------------------------------


@pytest.fixture
def assert_uses_index(db_connection: RolledBackConnection) -> Callable[..., Any]:
    """Assert that a statement is planned with an index: ``assert_uses_index(statement, "name")``.

    It is planned on ``db_connection``, or on the Session, AsyncSession (then awaited) or SQLAlchemy
    connection given as ``on=``. See ``ragstore.testing.plans``.
    """
    from ragstore.testing import plans

    def check(
        statement: Statement,
        index: str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        on: Session | Connection | AsyncSession | None = None,
    ) -> Any:
        __tracebackhide__ = True
        if on is not None:
            return plans.assert_uses_index(on, statement, index, parameters)
        with db_connection.engine.connect() as connection:
            return plans.assert_uses_index(connection, statement, index, parameters)

    return check
