"""The databases of the tests: one real server a run, a migrated template, a clone for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy.engine import URL

from ragstore import migrations
from ragstore.conf import settings
from ragstore.connection import DatabaseConnection
from ragstore.database import clone_database, create_database, drop_database
from ragstore.embedded import EmbeddedServer
from ragstore.url import parse_url


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
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """Yield the URL of a superuser on a real server, database ``postgres``."""
    given = os.environ.get("DB_TEST_DATABASE_URL")
    if given:
        yield parse_url(given).set(database="postgres")
        return
    with EmbeddedServer(tmp_path_factory.mktemp("server") / "data") as server:
        yield server.url("postgres")


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Keep the developer's own variables and .env file out of the tests."""
    for name in list(os.environ):
        if name.startswith(_OF_SETTINGS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RAGSTORE_ENV_FILE", str(_empty_file(tmp_path_factory)))
    settings.reload()
    yield
    settings.reload()


@pytest.fixture
def empty_database(server_url: URL) -> Iterator[URL]:
    """Yield the URL of a new database without tables or extensions."""
    url = server_url.set(database=f"ragstore_test_{uuid4().hex[:12]}")
    create_database(url)
    yield url
    drop_database(url, missing_ok=True)


@pytest.fixture(scope="session")
def template(server_url: URL) -> Iterator[URL]:
    """Yield the URL of a migrated database that is only ever cloned."""
    url = server_url.set(database=f"ragstore_test_template_{uuid4().hex[:12]}")
    create_database(url)
    migrations.upgrade(url)
    yield url
    drop_database(url)


@pytest.fixture
def database(template: URL) -> Iterator[URL]:
    """Yield the URL of a migrated database of the test's own."""
    url = template.set(database=f"ragstore_test_{uuid4().hex[:12]}")
    clone_database(template, url)
    yield url
    drop_database(url, missing_ok=True)


@pytest.fixture
def connection(database: URL) -> Iterator[DatabaseConnection]:
    """Yield a DatabaseConnection to a migrated database of the test's own."""
    with DatabaseConnection(database) as connection:
        yield connection


def _empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.getbasetemp() / "empty.env"
    path.touch()
    return path
