"""Stores on the test's own database, the async one called as if it were sync."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from ragstore import AsyncStore, DatabaseConnection, Store
from ragstore.testing.plugin import NewDatabase


class Awaited:
    """An AsyncStore whose calls are awaited on a loop of its own, one after another."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self.connection = connection
        self._store = AsyncStore(connection)
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return lambda *args, **options: self._loop.run_until_complete(method(*args, **options))

    def close(self) -> None:
        """Close the async pool on the loop that it belongs to."""
        self._loop.run_until_complete(self.connection.aclose())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@pytest.fixture(scope="module")
def shared(ragstore_new_database: NewDatabase) -> Iterator[Store]:
    """Yield a Store on a migrated database that the tests of a module share."""
    url = ragstore_new_database()
    with DatabaseConnection(url) as connection:
        yield Store(connection)
    ragstore_new_database.drop(url)


@pytest.fixture
def store(connection: DatabaseConnection) -> Store:
    """Return a Store on a migrated database of the test's own."""
    return Store(connection)


@pytest.fixture(params=["sync", "async"])
def either(request: pytest.FixtureRequest, connection: DatabaseConnection) -> Iterator[Any]:
    """Yield a Store, then an AsyncStore that looks like one."""
    if request.param == "sync":
        yield Store(connection)
        return
    store = Awaited(connection)
    yield store
    store.close()
