"""The pytest plugin: options, what the report says, and the fixtures of a whole run.

Each fixture can be overridden on its own in a conftest.py; those after it use what it returns.
pytest imports this module in every run, so it imports nothing but pytest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from ragstore.testing.fixtures import (  # noqa: F401 - pytest finds them here
    assert_uses_index,
    chunk_factory,
    collection_factory,
    db_async_session,
    db_connection,
    db_fresh,
    db_service,
    db_session,
    document_factory,
    pytest_runtest_makereport,
    ragstore_engine,
    ragstore_settings,
    space_factory,
)
from ragstore.testing.migrations import (  # noqa: F401 - likewise
    migration_histories,
    migration_seed,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from ragstore.testing.history import MigrationPlan
    from ragstore.testing.server import TestServer
    from ragstore.testing.template import Databases

_server = pytest.StashKey["TestServer | Exception | None"]()
_report = pytest.StashKey["dict[str, None]"]()
_IN_WORKER = "ragstore_server"  # the key in what a worker of pytest-xdist sends home

_ONE_DATABASE = (
    "the role may not make databases on the test server: grant it CREATEDB, or use db_connection,"
    " which works on the test database itself"
)


# --- options -----------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and ini options of the test kit."""
    group = parser.getgroup("ragstore", "ragstore: databases for tests")
    group.addoption(
        "--ragstore-db",
        metavar="URL",
        help="the test database: a URL, or 'embedded' for the embedded server"
        " (default: DB_TEST_DATABASE_URL, else the embedded server if it is installed)",
    )
    group.addoption(
        "--ragstore-create-db",
        action="store_true",
        help="build the template database anew, even if one of these migrations exists",
    )
    parser.addini(
        "ragstore_migrations",
        "the application's migrations, run after ragstore's own: alembic.ini or module:callable",
        type="linelist",
        default=[],
    )
    parser.addini(
        "ragstore_block_database",
        "fail a test that opens a DatabaseConnection without asking for a database fixture",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Keep tests that ask for no database from opening one, where the ini option says so."""
    if config.getini("ragstore_block_database"):
        from ragstore.testing.blocker import Blocker

        config.pluginmanager.register(Blocker(), "ragstore_blocker")


# --- the report --------------------------------------------------------------------------------


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> str | None:
    """Say which server is used; ask it only if a test will."""
    if config.option.collectonly or not any(map(_uses_our_server, items)):
        return None
    found = _find_server(config)
    if isinstance(found, Exception):
        return f"ragstore: {str(found).splitlines()[0]}"
    return _described(found) if found else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take from a worker of pytest-xdist which server it used."""
    line = getattr(node, "workeroutput", {}).get(_IN_WORKER)
    if line:
        node.config.stash.setdefault(_report, {})[line] = None


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say which server the workers of pytest-xdist used: they have no header."""
    for line in config.stash.get(_report, {}):
        terminalreporter.write_line(line)


def _uses_our_server(item: pytest.Item) -> bool:
    """Tell whether a test asks for the server, and no conftest.py has replaced the fixture."""
    info = getattr(item, "_fixtureinfo", None)  # there is no public way to the definitions
    found = info.name2fixturedefs.get("ragstore_server") if info else None
    return bool(found and found[-1].func.__module__ == __name__)


def _described(server: TestServer) -> str:
    return f"ragstore: {server.versions}: {server.origin}"


# --- the fixtures ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ragstore_server(pytestconfig: pytest.Config) -> TestServer:
    """Return the server that the tests use.

    ``--ragstore-db``, else DB_TEST_DATABASE_URL, else the embedded server if it is installed;
    with none of them the test is skipped. To override it, return ``TestServer.at(url)``.
    """
    found = _find_server(pytestconfig)
    with _told_plainly():
        if isinstance(found, Exception):
            raise found
    if found is None:
        from ragstore.testing.server import REMEDY

        pytest.skip(REMEDY)
    if hasattr(pytestconfig, "workeroutput"):
        pytestconfig.workeroutput[_IN_WORKER] = _described(found)
    return found


@pytest.fixture(scope="session")
def ragstore_migrations(pytestconfig: pytest.Config) -> MigrationPlan:
    """Return the migrations of the test databases: ragstore's, then those of the ini option."""
    from ragstore.testing.history import plan_of

    with _told_plainly():
        return plan_of(pytestconfig.getini("ragstore_migrations"), pytestconfig.rootpath)


@pytest.fixture(scope="session")
def _ragstore_databases(
    pytestconfig: pytest.Config, ragstore_server: TestServer, ragstore_migrations: MigrationPlan
) -> Iterator[Databases]:
    """Yield the maker of databases; what it made is dropped at the end."""
    from ragstore.testing.template import Databases

    worker: dict[str, Any] = getattr(pytestconfig, "workerinput", {})
    with _told_plainly():
        databases = Databases(
            ragstore_server,
            ragstore_migrations,
            worker=worker.get("workerid", "main"),
            pid=os.getpid(),
            run=worker.get("testrunuid", uuid4().hex),
            renew=pytestconfig.getoption("ragstore_create_db"),
        )
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def ragstore_test_database(_ragstore_databases: Databases) -> URL:
    """Return the URL of the test database, made if missing and migrated, never emptied."""
    with _told_plainly():
        return _ragstore_databases.test_database()


@pytest.fixture(scope="session")
def ragstore_template(
    ragstore_server: TestServer,
    ragstore_test_database: URL,  # noqa: ARG001 - it is checked before anything else is made
    _ragstore_databases: Databases,
) -> URL:
    """Return the URL of a migrated database without rows, which is only ever cloned."""
    if not ragstore_server.can_create_databases:
        pytest.skip(_ONE_DATABASE)
    with _told_plainly():
        return _ragstore_databases.template()


@pytest.fixture(scope="session")
def ragstore_database(
    request: pytest.FixtureRequest,
    ragstore_server: TestServer,
    ragstore_test_database: URL,
    _ragstore_databases: Databases,
) -> URL:
    """Return the URL of this worker's database, in which tests are rolled back.

    It is a clone of the template; the test database itself if the role may make no others.
    """
    if not ragstore_server.can_create_databases:
        return ragstore_test_database
    template: URL = request.getfixturevalue("ragstore_template")
    with _told_plainly():
        return _ragstore_databases.clone(template, numbered=False)


class NewDatabase:
    """Makes databases for single tests, and drops them; all of them at the end of the run."""

    def __init__(self, databases: Databases, template: URL) -> None:
        self._databases, self._template = databases, template

    def __call__(self, *, empty: bool = False) -> URL:
        """Return the URL of a new database: migrated, or without tables."""
        return self._databases.empty() if empty else self._databases.clone(self._template)

    def drop(self, url: URL) -> None:
        """Drop a database that was made by this, now."""
        self._databases.drop(url)


@pytest.fixture(scope="session")
def ragstore_new_database(ragstore_template: URL, _ragstore_databases: Databases) -> NewDatabase:
    """Return a function that makes a further database: ``make()``, ``make(empty=True)``.

    ``make.drop(url)`` drops one before the end of the run. Skipped where the role may not.
    """
    return NewDatabase(_ragstore_databases, ragstore_template)


def _find_server(config: pytest.Config) -> TestServer | Exception | None:
    """Look for the server once; whoever needs it raises what went wrong."""
    if _server not in config.stash:
        from ragstore.testing.server import find

        try:
            config.stash[_server] = find(config.getoption("ragstore_db"))
        except Exception as exc:  # noqa: BLE001 - also a warning that was made an error
            config.stash[_server] = exc
    return config.stash[_server]


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Fail with the message of our own errors alone: a traceback for each test would bury it.

    An error in a migration keeps its traceback.
    """
    from ragstore.exceptions import MigrationError, RagstoreError

    try:
        yield
    except MigrationError:
        raise
    except RagstoreError as exc:
        pytest.fail(f"{type(exc).__name__}: {exc}", pytrace=False)
