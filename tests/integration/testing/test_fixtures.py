"""The fixtures of one test, used as a host application uses them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ragstore import AsyncStore, DatabaseConnection, NewDocument, Store
from ragstore.conf import settings
from ragstore.database import database_exists
from ragstore.exceptions import ImproperlyConfigured
from ragstore.models import Chunk, Collection
from ragstore.testing import isolation

pytest_plugins = ["pytester"]

# Hypothesis is imported anew for the summary of each run in this process: a second.
OPTIONS = ("-W", "error", "--tb=short", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")

CONFTEST = """
import gc
import pytest
from sqlalchemy import make_url
from ragstore.database import clone_database, drop_database
from ragstore.models import Collection

from ragstore.testing.fixtures import *

URL = make_url({url!r})

@pytest.fixture(scope="session")
def ragstore_database():
    yield URL
    gc.collect()  # what was left open would warn now

@pytest.fixture(scope="session")
def ragstore_new_database():
    class Clones:
        made = 0
        def __call__(self):
            Clones.made += 1
            url = URL.set(database=f"{{URL.database}}_fresh{{Clones.made}}")
            clone_database(make_url({template!r}), url)
            return url
        def drop(self, url):
            drop_database(url)
    return Clones()
"""


@pytest.fixture
def project(
    pytester: pytest.Pytester, ragstore_database: URL, ragstore_template: URL
) -> pytest.Pytester:
    """Return a project of a host that uses the kit, on this run's databases."""
    urls = (
        url.render_as_string(hide_password=False) for url in (ragstore_database, ragstore_template)
    )
    pytester.makeconftest(CONFTEST.format(**dict(zip(("url", "template"), urls, strict=True))))
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the project's tests, every warning an error."""
    scope = () if "no:asyncio" in arguments else ("-o", f"{SCOPE}=function")
    return project.runpytest_inprocess(*OPTIONS, *scope, *arguments)


# --- sessions and stores -----------------------------------------------------------------------


class TestInClasses:
    """Fixtures work in methods, one test after another."""

    @pytest.mark.parametrize("time", [1, 2])
    def test_sync(self, db_session: Session, db_connection: DatabaseConnection, time: int) -> None:
        """A committed row is visible through the connection, and gone the second time."""
        db_session.add(Collection(name="here"))
        db_session.commit()
        with db_connection.transaction() as driver:
            rows = driver.execute("SELECT name FROM ragstore_collection").fetchall()

        assert rows == [("here",)]

    @pytest.mark.parametrize("time", [1, 2])
    async def test_async(self, db_async_session: AsyncSession, time: int) -> None:
        """The async session does as the sync one, and keeps its objects readable."""
        row = Collection(name="here")
        db_async_session.add(row)
        await db_async_session.commit()

        assert row.name == "here"
        assert (await db_async_session.exec(select(Collection.name))).all() == ["here"]

    @pytest.mark.parametrize("time", [1, 2])
    async def test_service(
        self, db_service: AsyncStore, db_async_session: AsyncSession, time: int
    ) -> None:
        """The service ingests and finds, in one transaction with the async session."""
        await db_service.create_space("tiny", model="test", dimensions=2)
        await db_service.create_collection("book", space="tiny")
        await db_service.ingest("book", [NewDocument("page", ["text"])], embed=lambda _: [[1, 0]])
        found = await db_service.search("book", vector=[1.0, 0.0])

        assert [hit.document_key for hit in found] == ["page"]
        assert (await db_async_session.exec(select(Chunk.text))).all() == ["text"]


def test_sequences_go_on(db_session: Session) -> None:
    """An id is never given twice, although its row is rolled back: do not count on ids."""
    first = Collection(name="one")
    db_session.add(first)
    db_session.flush()
    before = first.id
    db_session.rollback()
    second = Collection(name="one")
    db_session.add(second)
    db_session.flush()

    assert before is not None
    assert second.id is not None
    assert second.id > before


SCOPE = "asyncio_default_fixture_loop_scope"  # pytest-asyncio warns where it is not set
ONE_LOOP = "loop_scope='session'"

ASYNC_TESTS = """
import asyncio
import pytest
from sqlmodel import select
from ragstore.models import Collection
{mark}
class TestAsync:
    @pytest.mark.parametrize("time", [1, 2])
    async def test_session_left_open(self, db_async_session, time):
        db_async_session.add(Collection(name="x"))
        await db_async_session.flush()
        assert len((await db_async_session.exec(select(Collection))).all()) == 1

    @pytest.mark.parametrize("time", [1, 2])
    async def test_service(self, db_service, host_fixture, time):
        await asyncio.gather(db_service.create_collection("x"), db_service.create_collection("y"))

    async def test_fresh(self, db_fresh):
        async with db_fresh.async_session() as session:
            assert (await session.exec(select(Collection))).all() == []
        await db_fresh.async_session().connection()

    async def test_failing(self, db_async_session):
        db_async_session.add(Collection(name="x"))
        await db_async_session.flush()
        assert False

def test_sync(db_session):
    assert db_session.exec(select(Collection)).all() == []

def test_loops_of_its_own(db_connection):
    async def work():
        async with db_connection.async_session() as session:
            return (await session.exec(select(Collection))).all()
    assert asyncio.run(work()) == asyncio.run(work()) == []
"""


@pytest.mark.parametrize(
    ("mode", "mark", "fixture"),
    [
        ("auto", "", "pytest.fixture"),
        ("strict", "@pytest.mark.asyncio", "pytest_asyncio.fixture"),
        ("strict", f"@pytest.mark.asyncio({ONE_LOOP})", f"pytest_asyncio.fixture({ONE_LOOP})"),
        ("strict", "@pytest.mark.anyio", "pytest.fixture"),
    ],
    ids=["auto", "strict", "one loop", "anyio"],
)
def test_async_plugins(project: pytest.Pytester, mode: str, mark: str, fixture: str) -> None:
    """The same fixtures serve every mode, plugin and loop, without a warning of any kind."""
    host = f"""
import pytest
import pytest_asyncio
from ragstore.models import Collection

@pytest.fixture
def anyio_backend():
    return "asyncio"

@{fixture}
async def host_fixture(db_async_session):
    db_async_session.add(Collection(name="by the host"))
    await db_async_session.commit()
"""
    project.makepyfile(host + ASYNC_TESTS.format(mark=mark))
    result = run(project, "-o", f"asyncio_mode={mode}")

    result.assert_outcomes(passed=7, failed=1)
    assert "ResourceWarning" not in result.stdout.str() + result.stderr.str()


def test_works_without_async_plugins(project: pytest.Pytester) -> None:
    """Neither pytest-asyncio nor anyio is needed, and pytest-asyncio is not imported."""
    project.makepyfile(
        """
        import asyncio
        from ragstore.models import Collection

        def test_it(db_service, db_async_session, db_session):
            asyncio.run(db_service.create_collection("x"))
        """
    )
    result = run(project, "-p", "no:asyncio", "-p", "no:anyio")

    result.assert_outcomes(passed=1)


def test_isolation_survives_what_a_test_does(project: pytest.Pytester) -> None:
    """A test that fails, dies in setup, or loses its connection does not reach the next one."""
    project.makepyfile(
        """
        import pytest
        from sqlmodel import select
        from ragstore.models import Collection

        @pytest.fixture
        def row(db_session):
            db_session.add(Collection(name="x"))
            db_session.commit()

        @pytest.fixture
        def broken(row):
            raise RuntimeError("in setup")

        def test_fails(row): assert False
        def test_dies(broken): pass
        def test_clean_1(db_session): assert db_session.exec(select(Collection)).all() == []
        def test_loses(row, db_connection):
            db_connection.engine.raw_connection().driver_connection.pgconn.finish()
        def test_clean_2(db_session): assert db_session.exec(select(Collection)).all() == []
        def test_commits_itself(db_connection):
            with db_connection.engine.connect() as connection:
                connection.exec_driver_sql("COMMIT")
        def test_clean_3(db_session): assert db_session.exec(select(Collection)).all() == []
        """
    )
    result = run(project)

    result.assert_outcomes(passed=4, failed=2, errors=2)
    result.stdout.fnmatch_lines(["*QueryFailed: the test sent a COMMIT or ROLLBACK of its own*"])


MIXING = """
import pytest
from sqlalchemy.exc import OperationalError
from ragstore.models import Collection

@pytest.mark.asyncio
async def test_waits(db_session, db_async_session):
    db_session.add(Collection(name="x"))
    db_session.flush()
    db_async_session.add(Collection(name="x"))
    await db_async_session.flush()

@pytest.mark.asyncio
async def test_waits_in_the_service(db_session, db_service):
    db_session.add(Collection(name="x"))
    db_session.flush()
    await db_service.create_collection("x")

def test_one_side(db_session):
    assert False
"""


def test_mixing_both_sides_is_told(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that both sides want is an error after the lock timeout; the report says why."""
    monkeypatch.setattr(isolation, "LOCK_TIMEOUT", "150ms")
    project.makepyfile(MIXING)
    result = run(project, "-o", "asyncio_mode=strict")

    result.assert_outcomes(failed=3)
    output = result.stdout.str()
    assert output.count("This test used the sync side of db_connection") == 2
    result.stdout.fnmatch_lines(["*LockNotAvailable*", "*LockTimeout*"])


# --- db_fresh ----------------------------------------------------------------------------------


def test_fresh_commits_for_others(db_fresh: DatabaseConnection) -> None:
    """Work on db_fresh is seen by other connections, and an index may be built concurrently."""
    with db_fresh.session() as session:
        session.add(Collection(name="seen"))
        session.commit()
    with DatabaseConnection(db_fresh.url) as other, other.session() as session:
        assert session.exec(select(Collection.name)).all() == ["seen"]
    engine = db_fresh.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE INDEX CONCURRENTLY ON ragstore_document (title)"))


async def test_fresh_serves_tasks_at_once(db_fresh: DatabaseConnection) -> None:
    """Each task has a connection of its own, and LISTEN hears what another one sends."""
    async with db_fresh.async_engine.connect() as pooled:
        driver: Any = (await pooled.get_raw_connection()).driver_connection
        await driver.set_autocommit(True)
        await driver.execute("LISTEN news")
        async with db_fresh.async_transaction() as other:
            await other.execute("NOTIFY news, 'hello'")
        heard = [notice.payload async for notice in driver.notifies(timeout=5, stop_after=1)]
        await driver.set_autocommit(False)

    assert heard == ["hello"]


def test_fresh_is_new_each_time(
    db_fresh: DatabaseConnection, ragstore_database: URL, db_session: Session
) -> None:
    """It is a database of its own, beside the one that the other fixtures share."""
    Store(db_fresh).create_collection("only there")

    assert db_fresh.url.database != ragstore_database.database
    assert database_exists(db_fresh.url)
    assert db_session.exec(select(Collection)).all() == []


# --- settings ----------------------------------------------------------------------------------


def test_settings_are_assigned(ragstore_settings: Any) -> None:
    """An assigned setting holds for everybody; the last assignment wins; del undoes them."""
    before = settings.POOL_SIZE
    ragstore_settings.POOL_SIZE = before + 1
    ragstore_settings.POOL_SIZE = str(before + 2)

    assert settings.POOL_SIZE == ragstore_settings.POOL_SIZE == before + 2
    assert f"POOL_SIZE={before + 2}" in repr(ragstore_settings)
    del ragstore_settings.POOL_SIZE
    assert before == settings.POOL_SIZE
    with pytest.raises(AttributeError, match="POOL_SIZE was not assigned"):
        del ragstore_settings.POOL_SIZE


@pytest.mark.parametrize(("name", "value"), [("POOL_SIZE", 0), ("POOL_SIZES", 1)])
def test_wrong_settings_are_refused(ragstore_settings: Any, name: str, value: object) -> None:
    """A wrong value or name is refused where it is assigned."""
    before = settings.POOL_SIZE
    with pytest.raises(ImproperlyConfigured, match=name):
        setattr(ragstore_settings, name, value)

    assert before == settings.POOL_SIZE


def test_settings_are_restored(project: pytest.Pytester) -> None:
    """After the test, passed or failed, every setting is as before."""
    project.makepyfile(
        """
        from ragstore.conf import settings

        def test_assigns(ragstore_settings):
            ragstore_settings.POOL_SIZE = 41
            ragstore_settings.ECHO = True
            assert False

        def test_finds(ragstore_settings):
            assert settings.POOL_SIZE != 41 and not ragstore_settings.ECHO
        """
    )

    run(project).assert_outcomes(passed=1, failed=1)


# --- the text of the fixtures ------------------------------------------------------------------


def test_fixtures_import_nothing_but_pytest(pytester: pytest.Pytester) -> None:
    """Loading the module, as every pytest run of a host does, imports neither SQLAlchemy nor us."""
    script = pytester.makepyfile(
        """
        import sys
        import ragstore.testing.fixtures, ragstore.testing.blocker
        heavy = {"sqlalchemy", "sqlmodel", "psycopg", "numpy", "alembic", "pydantic"}
        loaded = {name.partition(".")[0] for name in sys.modules}
        print(sorted(heavy & loaded), "ragstore.connection" in sys.modules)
        """
    )

    assert pytester.runpython(script).outlines == ["[] False"]
