"""The databases of these tests: those of the test kit, on a server of their own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from ragstore.conf import settings
from ragstore.connection import DatabaseConnection
from ragstore.embedded import EmbeddedServer
from ragstore.testing.plugin import NewDatabase
from ragstore.testing.server import TestServer


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give this run a temporary directory that no other run of pytest touches.

    All runs of a user share one, and each new run closes it to others: to the account, too, that
    runs the servers of root's tests. ``--basetemp`` names one that is kept.
    """
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        config.option.basetemp = tempfile.mkdtemp(prefix="ragstore-tests-")
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


_OF_SETTINGS = ("DB_", "RAGSTORE_", "DATABASE_URL", "DATABASE_TEST_URL", "TEST_DATABASE_URL")


@pytest.fixture(scope="session")
def ragstore_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    """Yield a server of this run's own; the one of DB_TEST_DATABASE_URL if that is set.

    The kit would share one between runs; these tests do things to a server that others would feel.
    """
    given = os.environ.get("DB_TEST_DATABASE_URL")
    if given:
        yield TestServer.at(given)
        return
    with EmbeddedServer(tmp_path_factory.mktemp("server") / "data") as server:
        yield TestServer.at(server.url("ragstore_test"))


@pytest.fixture(scope="session")
def server_url(ragstore_server: TestServer) -> URL:
    """Return the URL of a superuser on a real server, database ``postgres``."""
    return ragstore_server.url


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Keep the developer's own variables and .env file out of the tests, and sys.path as it is.

    Alembic puts the directory of an alembic.ini there, and leaves it.
    """
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in list(os.environ):
        if name.startswith(_OF_SETTINGS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RAGSTORE_ENV_FILE", str(_empty_file(tmp_path_factory)))
    settings.reload()
    yield
    settings.reload()


@pytest.fixture
def empty_database(ragstore_new_database: NewDatabase) -> Iterator[URL]:
    """Yield the URL of a new database without tables or extensions."""
    url = ragstore_new_database(empty=True)
    yield url
    ragstore_new_database.drop(url)


@pytest.fixture
def database(ragstore_new_database: NewDatabase) -> Iterator[URL]:
    """Yield the URL of a migrated database of the test's own."""
    url = ragstore_new_database()
    yield url
    ragstore_new_database.drop(url)


@pytest.fixture
def connection(database: URL) -> Iterator[DatabaseConnection]:
    """Yield a DatabaseConnection to a migrated database of the test's own."""
    with DatabaseConnection(database) as connection:
        yield connection


def _empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.getbasetemp() / "empty.env"
    path.touch()
    return path
