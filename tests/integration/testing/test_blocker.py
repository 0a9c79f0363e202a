"""Tests that ask for no database cannot open one."""

from __future__ import annotations

import pytest
from sqlalchemy import URL

pytest_plugins = ["pytester"]

OPTIONS = ("--tb=line", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:hypothesispytest")

CONFTEST = """
import pytest
from sqlalchemy import make_url
from ragstore import DatabaseConnection
from ragstore.testing.blocker import Blocker
from ragstore.testing.fixtures import *

URL = make_url({url!r})

def pytest_configure(config):
    if config.getoption("block"):
        config.pluginmanager.register(Blocker())

def pytest_addoption(parser):
    parser.addoption("--block", action="store_true")

@pytest.fixture(scope="session")
def ragstore_database():
    return URL

@pytest.fixture
def opened():
    with DatabaseConnection(URL) as connection:
        yield connection

@pytest.fixture
def of_the_host(ragstore_database):
    with DatabaseConnection(ragstore_database) as connection:
        connection.ping()
        yield connection
"""

TESTS = """
import asyncio
import psycopg
import pytest
import sqlalchemy
from ragstore import DatabaseConnection, Store

kept = DatabaseConnection("postgresql://nobody@127.0.0.1:1/nothing")

# --- blocked ---

def test_blocked_ping(opened): opened.ping()
def test_blocked_session(opened): opened.session().connection()
def test_blocked_async(opened): asyncio.run(opened.aping())
def test_blocked_drop(opened): opened.drop_tables()
def test_blocked_owner(opened):
    other = DatabaseConnection(opened.url, migration_url=opened.url.set(username="other"))
    with other.owner_transaction(): pass
def test_blocked_async_owner(opened):
    other = DatabaseConnection(opened.url, migration_url=opened.url.set(username="other"))
    async def work():
        async with other.async_owner_transaction(): pass
    asyncio.run(work())
def test_blocked_though_caught(opened):
    try:
        opened.ping()
    except Exception:
        pass
def test_blocked_made_on_import():
    kept.ping()

# --- not blocked ---

def test_open_engine_unused(opened):
    assert opened.engine.dialect.name == "postgresql"
def test_open_session(db_session):
    db_session.connection()
def test_open_host_fixture(of_the_host, opened):
    opened.ping()
def test_open_dynamic(request, opened):
    request.getfixturevalue("db_connection").ping()
    opened.ping()
def test_open_foreign_engine(pytestconfig):
    from conftest import URL
    engine = sqlalchemy.create_engine(URL)
    with engine.connect(): pass
    engine.dispose()

class TestPool:
    connection = None

    def test_open_fills_the_pool(self, ragstore_database):
        TestPool.connection = DatabaseConnection(ragstore_database)
        self.connection.ping()

    def test_blocked_full_pool(self):
        self.connection.ping()

    def test_open_empties_it(self, ragstore_database):
        self.connection.close()

def test_blocked_last(opened): opened.ping()
"""


@pytest.fixture
def project(pytester: pytest.Pytester, ragstore_database: URL) -> pytest.Pytester:
    """Return a project with tests that do and do not ask for a database."""
    url = ragstore_database.render_as_string(hide_password=False)
    pytester.makeconftest(CONFTEST.format(url=url))
    return pytester


def test_blocks_those_that_did_not_ask(project: pytest.Pytester) -> None:
    """Whatever opens a DatabaseConnection fails, unless the test asked, by whatever way."""
    project.makepyfile(TESTS)
    result = project.runpytest_inprocess("--block", *OPTIONS)

    reports = [line.split()[1] for line in result.outlines if line.startswith("FAILED ")]
    failed = {name.rpartition("::")[2] for name in reports}
    result.assert_outcomes(passed=7, failed=10)
    assert all(name.startswith("test_blocked") for name in failed), failed
    assert result.stdout.str().count("Failed: this test opens a DatabaseConnection but") >= 10
    result.stdout.fnmatch_lines(["*db_session*db_fresh*"])


def test_blocks_nothing_without_the_option(project: pytest.Pytester) -> None:
    """Where it is off, and after a run in which it was on, everything opens."""
    project.makepyfile("def test_ping(opened): opened.ping()")
    for arguments, outcome in ((["--block"], {"failed": 1}), ([], {"passed": 1})):
        result = project.runpytest_inprocess(*arguments, *OPTIONS)
        result.assert_outcomes(**outcome)
