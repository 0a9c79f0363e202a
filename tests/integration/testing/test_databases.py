"""The databases of a test run: made once, reused, refused, and cleaned away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.engine import URL

from ragstore import exceptions
from ragstore.conf import override_settings
from ragstore.database import create_database, database_exists, drop_database
from ragstore.driver import connect
from ragstore.testing import template as template_module
from ragstore.testing.history import MigrationPlan, plan_of
from ragstore.testing.server import TestServer
from ragstore.testing.template import Databases


@dataclass(frozen=True)
class Quick(MigrationPlan):
    """Migrations that make one table, and can be told to fail."""

    fails: bool = False

    def upgrade(self, url: URL) -> None:
        """Make the table, and leave a connection open as a careless migration does."""
        connection = connect(url, autocommit=True)
        connection.execute("CREATE TABLE IF NOT EXISTS version (version_num text)")
        connection.execute("INSERT INTO version VALUES ('1')")
        if self.fails:
            connection.close()
            raise exceptions.MigrationError("told to fail")
        _left_open.append(connection)


_left_open: list[Any] = []
QUICK = Quick("0123456789ab")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _left_open:
        _left_open.pop().close()


@contextmanager
def run_on(
    url: URL, plan: MigrationPlan = QUICK, *, pid: int = 7, run: str = "r", **options: Any
) -> Iterator[Databases]:
    """Make and close the databases of a run."""
    databases = Databases(TestServer.at(url), plan, worker="main", pid=pid, run=run, **options)
    with closing(databases):
        yield databases


def ask(url: URL, *statements: str) -> Any:
    """Run statements in a database; return the first value of the last, if it gives rows."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row and row[0]


def oid_of(url: URL) -> int:
    """Return the identity of a database, which a new one of its name does not have."""
    return int(ask(url, "SELECT oid FROM pg_database WHERE datname = current_database()"))


# --- the test database ---------------------------------------------------------------------------


def test_the_test_database_is_made_migrated_and_kept(rag_test: URL) -> None:
    """It is there after the run, and its rows are there after the next."""
    with run_on(rag_test) as databases:
        assert databases.test_database() == rag_test
    ask(rag_test, "CREATE TABLE mine AS SELECT 1 AS id")
    with run_on(rag_test, Quick("ba9876543210")) as databases:
        databases.test_database()
    assert ask(rag_test, "SELECT count(*) FROM mine") == 1
    assert ask(rag_test, "SELECT count(*) FROM version") == 2


@pytest.mark.parametrize(
    ("fingerprint", "between", "migrations"),
    [
        (QUICK.fingerprint, "SELECT 1", 1),
        ("ba9876543210", "SELECT 1", 2),
        (QUICK.fingerprint, "UPDATE version SET version_num = '0'", 2),
        (QUICK.fingerprint, "COMMENT ON DATABASE {} IS NULL", 2),
        (QUICK.fingerprint, "COMMENT ON DATABASE {} IS 'keep out'", 2),
    ],
)
def test_the_test_database_is_migrated_when_it_may_need_it(
    rag_test: URL, fingerprint: str, between: str, migrations: int
) -> None:
    """Not again for the same migrations; but for others, or where somebody has migrated back."""
    with run_on(rag_test) as databases:
        databases.test_database()
    ask(rag_test, between.format(f'"{rag_test.database}"'))
    with run_on(rag_test, Quick(fingerprint)) as databases:
        databases.test_database()
    assert ask(rag_test, "SELECT count(*) FROM version") == migrations


def test_a_comment_of_somebody_else_is_kept(rag_test: URL) -> None:
    """The kit writes its own only where there is none."""
    create_database(rag_test)
    ask(rag_test, f"COMMENT ON DATABASE \"{rag_test.database}\" IS 'keep out'")
    with run_on(rag_test) as databases:
        databases.test_database()
    query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = "
    assert ask(rag_test, f"{query} '{rag_test.database}'") == "keep out"


def test_a_database_that_does_not_say_test_is_refused(rag_test: URL) -> None:
    """One that the kit did not make is left as it is; one that it made is taken again."""
    precious = rag_test.set(database=(rag_test.database or "").replace("test", "precious"))
    create_database(precious)
    try:
        ask(precious, "CREATE TABLE mine AS SELECT 1 AS id")
        with (
            run_on(precious) as databases,
            pytest.raises(exceptions.UnsafeTestDatabase, match="does not say test"),
        ):
            databases.test_database()
        assert ask(precious, "SELECT to_regclass('version') IS NULL AND count(*) = 1 FROM mine")
        drop_database(precious)
        for _ in range(2):
            with run_on(precious) as databases:
                databases.test_database()
    finally:
        drop_database(precious, missing_ok=True)


def test_the_database_of_the_application_is_refused(rag_test: URL) -> None:
    """However its URL is written: with a user, a port, or another way to the socket."""
    create_database(rag_test)
    socket = rag_test.query.get("host")
    spelled = (
        rag_test,
        rag_test.difference_update_query(["port"]).update_query_dict({"port": "5432"}),
        rag_test.update_query_dict({"host": f"{socket}/../{Path(str(socket)).name}"}),
        f"embedded://{socket}?database={rag_test.database}",
    )
    for url in spelled if socket else spelled[:1]:
        for setting in ("DATABASE_URL", "MIGRATION_DATABASE_URL"):
            others = {"DATABASE_URL": rag_test.set(database="other"), setting: url}
            with (
                override_settings(**others),
                pytest.raises(exceptions.UnsafeTestDatabase, match=f"DB_{setting}"),
                run_on(rag_test) as databases,
            ):
                databases.test_database()
    assert ask(rag_test, "SELECT to_regclass('version') IS NULL")


def test_another_server_may_have_a_database_of_that_name(rag_test: URL) -> None:
    """One that is down, or whose directory is another, is not this server."""
    directory = f"/nowhere/{uuid4().hex}"
    for url in (
        URL.create("postgresql", "bob", "x", "127.0.0.1", 1, rag_test.database),
        f"embedded://{directory}?database={rag_test.database}",
        rag_test.set(database="other"),
    ):
        with override_settings(DATABASE_URL=url), run_on(rag_test) as databases:
            databases.test_database()


def test_a_server_that_cannot_be_asked_may_be_this_one(rag_test: URL) -> None:
    """The application's role is not let in, so nothing says that the databases are two."""
    url = rag_test.set(username=f"nobody_{uuid4().hex[:8]}")
    with (
        override_settings(DATABASE_URL=url),
        run_on(rag_test) as databases,
        pytest.raises(exceptions.UnsafeTestDatabase),
    ):
        databases.test_database()
    assert not database_exists(rag_test)


def test_a_role_that_may_not_ask_is_refused(role: Callable[[str], str], rag_test: URL) -> None:
    """The server does not tell it whether its directory is the application's."""
    url = f"embedded:///nowhere/{uuid4().hex}?database={rag_test.database}"
    with (
        override_settings(DATABASE_URL=url),
        run_on(rag_test.set(username=role("CREATEDB"))) as databases,
        pytest.raises(exceptions.UnsafeTestDatabase),
    ):
        databases.test_database()
    assert not database_exists(rag_test)


def test_a_name_without_room_is_refused(rag_test: URL) -> None:
    """Nothing is made for a name whose clones Postgres would cut off."""
    long = rag_test.set(database=f"{rag_test.database}_{'x' * 30}")
    with run_on(long) as databases, pytest.raises(exceptions.InvalidName, match="at most 41"):
        databases.test_database()
    assert not database_exists(long)


# --- templates -----------------------------------------------------------------------------------


def test_a_template_is_built_once_for_its_migrations(rag_test: URL) -> None:
    """The next run has the same one; another state of the migrations gets another."""
    with run_on(rag_test) as databases:
        first = databases.template()
        identity = oid_of(first)
    with run_on(rag_test, run="second") as databases:
        assert databases.template() == first
    assert oid_of(first) == identity
    with run_on(rag_test, Quick("ba9876543210")) as databases:
        assert databases.template() != first
    assert oid_of(first) == identity


def test_a_renewed_template_is_new_once_in_a_run(rag_test: URL) -> None:
    """Every worker asks for it anew, and the first of the run builds it."""
    with run_on(rag_test) as databases:
        template = databases.template()
        before = oid_of(template)
    with run_on(rag_test, run="second", renew=True) as databases:
        after = oid_of(databases.template())
        with run_on(rag_test, run="second", renew=True, pid=8) as worker:
            assert oid_of(worker.template()) == after
    assert after != before


def test_a_template_whose_migrations_fail_is_built_by_the_next_run(rag_test: URL) -> None:
    """What has the name is whole; the half-made one is gone with its run."""
    with run_on(rag_test, Quick(QUICK.fingerprint, fails=True)) as databases:
        with pytest.raises(exceptions.MigrationError):
            databases.template()
        assert not database_exists(
            databases.server.url.set(database=f"{rag_test.database}_template_0123456789ab")
        )
    with run_on(rag_test) as databases:
        assert ask(databases.template(), "SELECT count(*) FROM version") == 1


def test_the_oldest_templates_go(rag_test: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are kept stay, the youngest of them."""
    monkeypatch.setattr(template_module, "KEPT_TEMPLATES", 2)
    made = []
    for number in range(4):
        with run_on(rag_test, Quick(f"{number:012x}")) as databases:
            made.append(databases.template())
    assert [database_exists(url) for url in made] == [False, False, True, True]


def test_a_template_that_another_run_dropped_is_built_again(rag_test: URL) -> None:
    """A clone that is asked for later finds it missing, and gets it."""
    with run_on(rag_test) as databases:
        template = databases.template()
        drop_database(template)
        assert ask(databases.clone(template), "SELECT count(*) FROM version") == 1
        with pytest.raises(exceptions.DatabaseNotFound):
            databases.clone(rag_test.set(database="no_template_of_ours"))


# --- clones --------------------------------------------------------------------------------------


def test_what_a_run_makes_is_gone_after_it(rag_test: URL) -> None:
    """The worker's clone and further ones have their names, and are dropped with open sessions."""
    with run_on(rag_test) as databases:
        template = databases.template()
        own = databases.clone(template, numbered=False)
        more, empty = databases.clone(template), databases.empty()
        assert own.database == f"{rag_test.database}_main_7"
        assert all((url.database or "").startswith(f"{own.database}_") for url in (more, empty))
        assert ask(more, "SELECT count(*) FROM version") == 1
        assert ask(empty, "SELECT to_regclass('version') IS NULL")
        databases.drop(empty)
        databases.drop(empty)
        assert not database_exists(empty)
        user = connect(own)
    user.close()
    assert not database_exists(own)
    assert not database_exists(more)
    assert database_exists(template)


def test_only_a_database_of_the_run_is_dropped(rag_test: URL) -> None:
    """The test database, the template and another process's clone are refused."""
    with run_on(rag_test) as databases:
        databases.test_database()
        others = [
            rag_test,
            databases.template(),
            rag_test.set(database=f"{rag_test.database}_main_77"),
        ]
        for url in others:
            with pytest.raises(exceptions.InvalidInput, match="not made by this test run"):
                databases.drop(url)
        assert database_exists(rag_test)


def test_a_name_in_use_is_passed_over(rag_test: URL) -> None:
    """Another machine's process with the same id has its own database."""
    with run_on(rag_test) as one, run_on(rag_test) as other:
        template = one.template()
        names = {run.clone(template, numbered=False).database for run in (one, other)}
        assert len(names) == 2
        create_database(rag_test.set(database=f"{rag_test.database}_main_7_2"))
        made = one.empty().database, one.empty().database
        assert f"{rag_test.database}_main_7_2" not in made


def test_a_clone_that_cannot_be_made_leaves_its_name_free(rag_test: URL) -> None:
    """The lock is given back with the error."""
    with run_on(rag_test) as databases, run_on(rag_test) as other:
        with pytest.raises(exceptions.DatabaseNotFound):
            databases.clone(rag_test.set(database="no_template_of_ours"), numbered=False)
        made = other.clone(other.template(), numbered=False)
        assert made.database == f"{rag_test.database}_main_7"


def test_leftovers_are_dropped_and_nothing_else_is(rag_test: URL) -> None:
    """A dead run's clone goes; a living one's, and a database only named so, stay."""
    named = rag_test.set(database=f"{rag_test.database}_main_2024")
    create_database(named)
    dead = Databases(TestServer.at(rag_test), QUICK, worker="gw1", pid=1, run="dead")
    left = dead.clone(dead.template(), numbered=False)
    with run_on(rag_test, pid=8) as alive:
        used = alive.empty()
        with run_on(rag_test, pid=9) as databases:
            databases.empty()
        assert database_exists(left)  # its connection holds the lock
        dead._connection.close()
        with run_on(rag_test, pid=10) as databases:
            wait_until(lambda: not lock_is_held(left))
            databases.empty()
            assert not database_exists(left)
            assert database_exists(used)
    assert database_exists(named)


def lock_is_held(url: URL) -> bool:
    """Tell whether a session has the lock of a database; one that was killed, for a moment more."""
    key = template_module.lock_key(url.database or "")
    return bool(ask(url.set(database="postgres"), f"SELECT {key} IN ({template_module._HELD})"))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what comes in a moment."""
    deadline = monotonic() + 30
    while not condition():
        assert monotonic() < deadline
        sleep(0.02)


def test_a_run_ends_well_on_a_server_that_is_gone(rag_test: URL) -> None:
    """Its databases are the next run's leftovers: closing is no further error."""
    databases = Databases(TestServer.at(rag_test), QUICK, worker="main", pid=7, run="r")
    databases.empty()
    databases._connection.close()
    databases.server = TestServer(
        URL.create("postgresql+psycopg", host="127.0.0.1", port=1), "x", "", True
    )
    databases.close()


def test_a_wait_for_another_run_ends(rag_test: URL) -> None:
    """Who waits too long is told for what, and what to do."""
    with (
        run_on(rag_test) as one,
        run_on(rag_test) as other,
        one._locked(rag_test.database or ""),
        override_settings(MIGRATION_WAIT_TIMEOUT=0.1),
        pytest.raises(exceptions.LockTimeout, match="DB_MIGRATION_WAIT_TIMEOUT"),
    ):
        other.test_database()


def test_a_name_that_needs_quotes_goes_through_the_whole_life(rag_test: URL) -> None:
    """Every statement quotes it."""
    odd = rag_test.set(database=f'{rag_test.database} my-test "db')
    with run_on(odd) as databases:
        assert databases.test_database() == odd
        own = databases.clone(databases.template(), numbered=False)
        assert ask(own, "SELECT current_database()") == f"{odd.database}_main_7"
    assert not database_exists(own)


# --- roles ---------------------------------------------------------------------------------------


def test_a_role_that_may_not_make_the_database_is_told(
    role: Callable[[str], str], rag_test: URL
) -> None:
    """Without CREATEDB a missing test database is an error that says how to grant it."""
    limited = rag_test.set(username=role("NOCREATEDB"))
    with run_on(limited) as databases, pytest.raises(exceptions.PermissionDenied, match="CREATEDB"):
        databases.test_database()


def test_a_role_that_may_not_make_the_extension_is_told(
    role: Callable[[str], str], rag_test: URL, tmp_path: Path
) -> None:
    """A template is a new database: the extension must come from template1."""
    limited = rag_test.set(username=role("CREATEDB"))
    with (
        run_on(limited, plan_of([], tmp_path)) as databases,
        pytest.raises(exceptions.ExtensionNotPermitted, match="in template1"),
    ):
        databases.template()


def test_a_test_database_of_another_role_is_used(role: Callable[[str], str], rag_test: URL) -> None:
    """It cannot be commented on, so it is migrated in each run."""
    create_database(rag_test)
    ask(rag_test, "GRANT CREATE ON SCHEMA public TO public")
    limited = rag_test.set(username=role("NOCREATEDB"))
    for _ in range(2):
        with run_on(limited) as databases:
            databases.test_database()
    assert ask(rag_test, "SELECT count(*) FROM version") == 2


def test_a_role_that_may_not_enter_postgres_uses_the_test_database(
    role: Callable[[str], str], rag_test: URL
) -> None:
    """The locks are then held from there, and the run goes on as elsewhere."""
    create_database(rag_test)
    ask(rag_test, "GRANT CREATE ON SCHEMA public TO public")
    ask(rag_test, "REVOKE CONNECT ON DATABASE postgres FROM public")
    try:
        with run_on(rag_test.set(username=role("NOCREATEDB"))) as databases:
            assert databases.server.url.database == rag_test.database
            databases.test_database()
    finally:
        ask(rag_test, "GRANT CONNECT, TEMPORARY ON DATABASE postgres TO public")
    assert ask(rag_test, "SELECT count(*) FROM version") == 1
