"""Migrators in each other's way, roles without rights, servers that are not there."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from ragstore import exceptions, migrations
from ragstore.conf import override_settings
from ragstore.connection import VERSION_TABLE, connect
from ragstore.exceptions import (
    AuthenticationFailed,
    DatabaseNotFound,
    DatabaseUnavailable,
    ExtensionMissing,
    ExtensionNotPermitted,
    ExtensionTooOld,
    ImproperlyConfigured,
    LockTimeout,
    MigrationLockTimeout,
    OldExtensionWarning,
    PermissionDenied,
    RagstoreError,
)
from ragstore.migrations import lock
from ragstore.migrations.operations import check_extension_version

HEAD = migrations.history()[0].id
KEY = lock.lock_key(VERSION_TABLE)


def run(url: URL, *statements: str) -> list[Any]:
    """Run statements and return the last one's rows."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def tables(url: URL) -> set[str]:
    """Return the names of the tables of a database."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return {name for (name,) in run(url, query)}


@contextmanager
def held(url: URL, statement: str) -> Iterator[int]:
    """Run a statement in a transaction that stays open; give the backend's pid."""
    with connect(url) as connection:
        connection.execute(statement)
        yield connection.info.backend_pid
        connection.rollback()


def locks(url: URL) -> list[Any]:
    """Return the advisory locks that are held in a database."""
    return run(
        url,
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())",
    )


# --- one migrator at a time -------------------------------------------------------------------

UPGRADE = "import sys; from ragstore import migrations; migrations.upgrade(sys.argv[1])"


def test_four_processes_at_once(empty_database: URL) -> None:
    """Of four processes that upgrade an empty database, one does and all succeed."""
    url = empty_database.render_as_string(hide_password=False)
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", UPGRADE, url], stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    endings = [process.communicate()[1].decode() for process in started]

    assert [process.returncode for process in started] == [0] * 4, endings
    migrations.check(empty_database)


def test_two_threads(empty_database: URL, server_url: URL, ragstore_database: URL) -> None:
    """Threads of one process take turns: each database arrives, and each error is its own."""
    missing = server_url.set(database="ragstore_no_such_database")
    caught: list[Exception] = []

    def attempt(url: URL) -> None:
        try:
            migrations.upgrade(url)
        except RagstoreError as exc:
            caught.append(exc)

    threads = [
        threading.Thread(target=attempt, args=(url,))
        for url in (empty_database, missing, ragstore_database, empty_database)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [type(error) for error in caught] == [DatabaseNotFound]
    migrations.check(empty_database)


def test_lock_is_held_by_another(empty_database: URL) -> None:
    """Who waits in vain is told which backend holds the lock, and changes nothing."""
    with (
        held(empty_database, f"SELECT pg_advisory_lock({KEY})") as pid,
        override_settings(MIGRATION_WAIT_TIMEOUT=0.5),
        pytest.raises(MigrationLockTimeout, match=rf"pg_terminate_backend\({pid}\);") as caught,
    ):
        migrations.upgrade(empty_database)

    assert caught.value.holder == pid
    assert tables(empty_database) == set()


def test_waiting_ends_with_the_holder(
    empty_database: URL, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits says for whom, once, and goes on when the lock is free."""
    caplog.set_level("INFO", logger="ragstore")
    with held(empty_database, f"SELECT pg_advisory_lock({KEY})") as pid:
        thread = threading.Thread(target=migrations.upgrade, args=(empty_database,))
        thread.start()
        time.sleep(1)
        assert thread.is_alive()
    thread.join()

    assert migrations.current(empty_database) == (HEAD,)
    said = [record.message for record in caplog.records if "waiting" in record.message]
    assert said == [f"waiting for the migrator of backend {pid}"]


LOOKS: list[Callable[[URL], object]] = [migrations.upgrade, migrations.check, migrations.current]


@pytest.mark.parametrize("function", LOOKS)
def test_no_lock_for_looking(ragstore_database: URL, function: Callable[[URL], object]) -> None:
    """A database at its head is upgraded, checked and asked without the lock."""
    with (
        held(ragstore_database, f"SELECT pg_advisory_lock({KEY})"),
        override_settings(MIGRATION_WAIT_TIMEOUT=0),
    ):
        function(ragstore_database)


@pytest.mark.parametrize(
    ("function", "target"),
    [(migrations.downgrade, "-1"), (migrations.downgrade, "base"), (migrations.upgrade, "+0")],
)
def test_lock_for_changing(ragstore_database: URL, function: Any, target: str) -> None:
    """What changes the schema, or may, takes the lock."""
    with (
        held(ragstore_database, f"SELECT pg_advisory_lock({KEY})"),
        override_settings(MIGRATION_WAIT_TIMEOUT=0),
        pytest.raises(MigrationLockTimeout),
    ):
        function(ragstore_database, target)


def test_lock_is_released(database: URL) -> None:
    """After a success and after a failure the lock is free."""
    migrations.downgrade(database, "base")
    assert locks(database) == []
    run(database, "CREATE TABLE ragstore_document (id int)")

    with pytest.raises(exceptions.MigrationError, match="no revision is recorded"):
        migrations.upgrade(database)

    assert locks(database) == []
    assert migrations.current(database) == ()


def test_locks_of_histories_differ() -> None:
    """Each version table has a lock of its own, the same in every process."""
    assert lock.lock_key(VERSION_TABLE) == KEY != lock.lock_key("alembic_version")
    assert -(2**63) <= KEY < 2**63


# --- other sessions ---------------------------------------------------------------------------


def downgrade_on_connection(url: URL) -> None:
    """Downgrade on a connection of the caller's, with a limit of his."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        connection.execute(text("SET lock_timeout = '200ms'"))
        migrations.downgrade(connection=connection)


@pytest.mark.parametrize("downgrade", [migrations.downgrade, downgrade_on_connection])
def test_reader_in_the_way(database: URL, downgrade: Callable[[URL], None]) -> None:
    """A table in use is waited for no longer than the limit; nothing is changed."""
    before = tables(database)
    started = time.monotonic()

    with (
        held(database, "LOCK ragstore_embedding_space IN ACCESS SHARE MODE"),
        override_settings(MIGRATION_LOCK_TIMEOUT=0.2),
        pytest.raises(LockTimeout, match="Another session holds the lock"),
    ):
        downgrade(database)

    assert time.monotonic() - started < 5
    assert tables(database) == before
    migrations.check(database)


# --- servers ----------------------------------------------------------------------------------

FUNCTIONS: list[Callable[..., object]] = [
    migrations.upgrade,
    migrations.downgrade,
    migrations.current,
    migrations.check,
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_server(function: Callable[..., object]) -> None:
    """A dead server is unavailable, and the password is not shown."""
    with pytest.raises(DatabaseUnavailable) as caught:
        function("postgresql://me:s3cr3t@localhost:1/x")

    assert "localhost" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_database(server_url: URL, function: Callable[..., object]) -> None:
    """A database that does not exist is named, with the way to make it."""
    with pytest.raises(DatabaseNotFound, match=r"ragstore_no_such.*create_database") as caught:
        function(server_url.set(database="ragstore_no_such"))

    assert caught.value.database == "ragstore_no_such"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_role(ragstore_database: URL, function: Callable[..., object]) -> None:
    """A role that the server refuses is an error of its own."""
    with pytest.raises(AuthenticationFailed):
        function(ragstore_database.set(username="ragstore_no_such", password="s3cr3t"))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_url(function: Callable[..., object]) -> None:
    """Without any URL the two ways out are named."""
    with pytest.raises(ImproperlyConfigured, match=r"DB_DATABASE_URL.*embedded://"):
        function()


def test_pooler_needs_a_direct_url(ragstore_database: URL) -> None:
    """Behind a transaction pooler the lock does not hold: a direct URL is asked for."""
    with override_settings(DATABASE_URL=ragstore_database, POOLER="transaction"):
        with pytest.raises(ImproperlyConfigured, match="set DB_MIGRATION_DATABASE_URL"):
            migrations.upgrade()
        direct = ragstore_database.update_query_dict({"application_name": "direct"})
        with override_settings(MIGRATION_DATABASE_URL=direct):
            migrations.upgrade()
        migrations.upgrade(ragstore_database)


# --- rights and the extension -----------------------------------------------------------------


@pytest.fixture
def role(empty_database: URL) -> Iterator[URL]:
    """Give the URL of a role that may create tables in the empty database, and no more."""
    name = f"ragstore_plain_{uuid4().hex[:8]}"
    run(
        empty_database,
        f"CREATE ROLE {name} LOGIN PASSWORD '{name}'",
        f"GRANT CREATE ON SCHEMA public TO {name}",
    )
    yield empty_database.set(username=name, password=name)
    run(empty_database, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def test_extension_not_permitted(empty_database: URL, role: URL) -> None:
    """A plain role is told what a superuser must run; after that it needs nothing more."""
    with pytest.raises(ExtensionNotPermitted, match=r"CREATE EXTENSION vector;$") as caught:
        migrations.upgrade(role)

    assert caught.value.statement == "CREATE EXTENSION vector;"
    assert str(role.username) in str(caught.value)
    assert tables(empty_database) == set()
    run(empty_database, caught.value.statement)
    migrations.upgrade(role)
    migrations.check(role)
    migrations.downgrade(role, "base")


def test_no_right_to_create_tables(empty_database: URL, role: URL) -> None:
    """A role that may not create tables is told so."""
    run(
        empty_database,
        "CREATE EXTENSION vector",
        f"REVOKE CREATE ON SCHEMA public FROM {role.username}",
    )

    with pytest.raises(PermissionDenied, match="permission denied for schema public"):
        migrations.upgrade(role)


def test_extension_versions(ragstore_database: URL) -> None:
    """An old extension is refused, a middling one warned of, a new one named."""
    with create_engine(ragstore_database, poolclass=NullPool).connect() as connection:
        found = check_extension_version(connection)
        assert found == check_extension_version(connection, minimum=found, warn_below=found)
        with pytest.raises(ExtensionTooOld, match="older than 99") as caught:
            check_extension_version(connection, minimum="99")
        assert (caught.value.found, caught.value.needed) == (found, "99")
        with pytest.warns(
            OldExtensionWarning, match=r"0\.99\.1 mends.*ALTER EXTENSION vector UPDATE"
        ):
            check_extension_version(connection, warn_below="0.99.1")
        with pytest.raises(ExtensionMissing, match="ragstore migrate upgrade"):
            check_extension_version(connection, "hstore")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": "ragstore_no_such"}, ExtensionMissing),
        ({"name": "pg_trgm", "minimum": "99"}, ExtensionTooOld),
    ],
)
def test_ensure_extension_refuses(
    ragstore_database: URL, arguments: dict[str, str], error: type[Exception]
) -> None:
    """The operation refuses an extension that the server has not, or not new enough."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    with create_engine(ragstore_database, poolclass=NullPool).connect() as connection:
        operations: Any = Operations(MigrationContext.configure(connection))
        with pytest.raises(error):
            operations.ensure_extension(**arguments)
        connection.rollback()
    assert (
        run(ragstore_database, "SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'") == []
    )


def test_extension_in_a_schema_of_its_own(empty_database: URL) -> None:
    """An extension out of sight is refused with the remedy, and works once it is searched."""
    run(empty_database, "CREATE SCHEMA extensions", "CREATE EXTENSION vector SCHEMA extensions")

    with pytest.raises(ExtensionMissing, match="SET search_path = public, extensions"):
        migrations.upgrade(empty_database)

    assert tables(empty_database) == set()
    seeing = empty_database.update_query_dict({"options": "-c search_path=public,extensions"})
    migrations.upgrade(seeing)
    migrations.check(seeing)


def test_other_errors_of_create_extension_pass(empty_database: URL) -> None:
    """A failure that is no missing right keeps its own message."""
    run(empty_database, "CREATE TYPE vector AS (a int)")

    with pytest.raises(exceptions.QueryFailed, match='"vector" already exists'):
        migrations.upgrade(empty_database)
