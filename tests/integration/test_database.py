"""Databases made, asked for, cloned and dropped on a real server."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from time import monotonic
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import URL

from ragstore import exceptions
from ragstore.connection import connect
from ragstore.database import clone_database, create_database, database_exists, drop_database

DEAD = URL.create("postgresql", "bob", "s3cret", "127.0.0.1", 1, "app")


@pytest.fixture
def url(server_url: URL) -> Iterator[URL]:
    """Give the URL of a database that does not exist, and drop what a test made of it."""
    own = server_url.set(database=f"ragstore_database_{uuid4().hex[:8]}")
    yield own
    drop_database(own, missing_ok=True)


@pytest.fixture
def admin(server_url: URL) -> Iterator[psycopg.Connection]:
    """Give a superuser's connection in autocommit."""
    with closing(connect(server_url, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def role(admin: psycopg.Connection) -> Iterator[str]:
    """Give a role that may nothing but log in, with a name that needs quotes."""
    name = f'ragstore "role" {uuid4().hex[:8]}'
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield name
    admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def run(url: URL, *statements: str) -> object:
    """Run statements in a database; return the first value of the last, if it gives rows."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row and row[0]


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        'my-db"x',
        "Größe 数据库 🐘",
        "x" * 54,
        "é" * 27,
        "a b'c;--%s{}\\",
        "postgresql:",
        "dbname=postgres",
        "select",
    ],
)
def test_any_name_goes_through_the_whole_life(server_url: URL, name: str) -> None:
    """Not there, created, there, cloned, dropped, not there; the name is kept to the letter."""
    name = f"{name}-{uuid4().hex[:8]}"
    url = server_url.set(database=name)
    assert database_exists(url) is False
    assert create_database(url) is True
    try:
        assert database_exists(url) is True
        assert run(url, "SELECT current_database()") == name
        copy = clone_database(url, name[:-1] + "z")
        assert copy == url.set(database=name[:-1] + "z")
        assert drop_database(copy) is True
    finally:
        assert drop_database(url) is True
    assert database_exists(url) is False


def test_the_longest_name_has_63_bytes(server_url: URL) -> None:
    """A name of exactly 63 bytes is not cut."""
    name = f"é{uuid4().hex}".ljust(62, "x")
    assert len(name.encode()) == 63
    url = server_url.set(database=name)
    create_database(url)
    try:
        assert run(url, "SELECT current_database()") == name
    finally:
        drop_database(url)


@pytest.mark.parametrize("name", ["", "x" * 64, "é" * 32, "a\0b", "a\ud800b"])
def test_a_name_that_postgres_would_change_is_refused(server_url: URL, name: str) -> None:
    """Empty, longer than 63 bytes, NUL, a lone surrogate: refused before anything is asked."""
    url = DEAD.set(database=name)
    for verb in (database_exists, create_database, drop_database):
        with pytest.raises(exceptions.InvalidName):
            verb(url)
    for target in (name, url):
        with pytest.raises(exceptions.InvalidName):
            clone_database(DEAD, target)
    if name:
        with pytest.raises(exceptions.InvalidName):
            create_database(server_url.set(database="x"), template=name)
        with pytest.raises(exceptions.InvalidName):
            database_exists(DEAD, maintenance_database=name)


def test_a_url_without_database_is_refused() -> None:
    """There is no default for the name of the database to drop."""
    with pytest.raises(exceptions.InvalidName, match="names no database"):
        drop_database("postgresql://127.0.0.1:1")


# --- servers that do not answer, or refuse -------------------------------------------------------

VERBS = [
    database_exists,
    create_database,
    drop_database,
    lambda url: clone_database(url, "ragstore_copy"),
]


@pytest.mark.parametrize("verb", VERBS)
def test_a_dead_server_is_an_error(verb: Callable[[Any], object]) -> None:
    """No verb takes "could not ask" for an answer, nor shows the password."""
    with pytest.raises(exceptions.DatabaseUnavailable) as caught:
        verb(DEAD.render_as_string(hide_password=False))
    assert "127.0.0.1:1/" in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("verb", VERBS)
def test_a_refused_role_is_an_error(server_url: URL, verb: Callable[[Any], object]) -> None:
    """A role that does not exist is AuthenticationFailed for every verb."""
    with pytest.raises(exceptions.AuthenticationFailed):
        verb(server_url.set(username="ragstore_nobody", database="ragstore_none"))


def test_a_url_of_something_else_is_refused() -> None:
    """The URL is checked as everywhere."""
    with pytest.raises(exceptions.ImproperlyConfigured):
        database_exists("mysql://host/db")


# --- create -------------------------------------------------------------------------------------


def test_create_refuses_a_name_that_is_taken(url: URL) -> None:
    """DatabaseExists names it; with exists_ok the answer is False and the database untouched."""
    create_database(url)
    run(url, "CREATE TABLE kept (id int)")
    with pytest.raises(exceptions.DatabaseExists) as caught:
        create_database(url)
    assert caught.value.database == url.database
    assert create_database(url, exists_ok=True) is False
    assert run(url, "SELECT to_regclass('kept')::text") == "kept"


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
def test_create_honours_the_encoding(url: URL, encoding: str) -> None:
    """The encoding is the one asked for, whichever template1 has."""
    create_database(url, encoding=encoding)
    assert run(url, "SHOW server_encoding") == encoding


def test_create_copies_the_template(url: URL) -> None:
    """What is in the template is in the new database."""
    create_database(url)
    run(url, "CREATE TABLE mine AS SELECT 7 AS id")
    copy = url.set(database=f"{url.database}_copy")
    create_database(copy, template=url.database)
    assert run(copy, "SELECT id FROM mine") == 7
    drop_database(copy)


def test_create_from_a_missing_template_names_it(url: URL) -> None:
    """DatabaseNotFound carries the template's name, not the target's."""
    with pytest.raises(exceptions.DatabaseNotFound) as caught:
        create_database(url, template="ragstore_no_template")
    assert caught.value.database == "ragstore_no_template"


def test_create_passes_on_what_else_the_server_says(url: URL) -> None:
    """An encoding that does not exist is the server's error, as ours."""
    with pytest.raises(exceptions.QueryFailed, match="nonsense"):
        create_database(url, encoding="nonsense")


def test_create_without_the_right_names_the_statement(url: URL, role: str) -> None:
    """The message is what a superuser must run, quoted."""
    with pytest.raises(exceptions.PermissionDenied) as caught:
        create_database(url.set(username=role))
    quoted = role.replace('"', '""')
    assert f'ALTER ROLE "{quoted}" CREATEDB' in str(caught.value)


def test_clone_of_a_database_one_may_not_copy_names_the_statement(
    url: URL, role: str, admin: psycopg.Connection
) -> None:
    """A role that may create databases still needs a template it may copy."""
    create_database(url)
    admin.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(role)))
    with pytest.raises(exceptions.PermissionDenied, match=f'"{url.database}" IS_TEMPLATE true'):
        clone_database(url.set(username=role), f"{url.database}_copy")


_RACER = """
import sys
from ragstore.database import create_database

for url in sys.argv[1:]:
    sys.stdin.readline()
    print(create_database(url, exists_ok=True), flush=True)
"""


def test_one_of_many_processes_creates_the_database(url: URL) -> None:
    """Processes that create one database at once all succeed, and one of them made it."""
    urls = [url.set(database=f"{url.database}_{number}") for number in range(4)]
    command = [sys.executable, "-c", _RACER]
    command += [each.render_as_string(hide_password=False) for each in urls]
    racers: list[Any] = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        for _ in urls:
            for racer in racers:
                racer.stdin.write("\n")
                racer.stdin.flush()
            assert sorted(racer.stdout.readline() for racer in racers) == [
                *("False\n", "False\n"),
                "True\n",
            ]
        assert [racer.wait(10) for racer in racers] == [0, 0, 0]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
        for each in urls:
            drop_database(each, missing_ok=True)


def test_threads_create_and_drop_one_database_at_once(url: URL) -> None:
    """Whoever comes second gets its answer, never an error of the catalog."""
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: create_database(url, exists_ok=True), range(4)))
        gone = list(threads.map(lambda _: drop_database(url, missing_ok=True), range(4)))
    assert (sorted(made), sorted(gone)) == ([False, False, False, True],) * 2


# --- drop ---------------------------------------------------------------------------------------


def test_drop_of_a_missing_database(url: URL) -> None:
    """DatabaseNotFound names it; with missing_ok the answer is False."""
    with pytest.raises(exceptions.DatabaseNotFound) as caught:
        drop_database(url)
    assert caught.value.database == url.database
    assert drop_database(url, missing_ok=True) is False


@pytest.mark.parametrize("name", ["postgres", "template0", "template1"])
def test_drop_refuses_what_every_server_has(name: str) -> None:
    """postgres and the templates are refused before the server is asked."""  # noqa: D403 - a name
    with pytest.raises(exceptions.DatabaseProtected) as caught:
        drop_database(DEAD.set(database=name))
    assert caught.value.database == name


def test_drop_refuses_the_maintenance_database(url: URL) -> None:
    """The database that others are dropped from is not dropped."""
    create_database(url)
    with pytest.raises(exceptions.DatabaseProtected):
        drop_database(url, maintenance_database=url.database)
    assert database_exists(url)


def test_drop_refuses_a_template(url: URL, admin: psycopg.Connection) -> None:
    """A database marked as a template is kept, and the statement that unmarks it is named."""
    create_database(url)
    mark = sql.SQL("ALTER DATABASE {} IS_TEMPLATE {}")
    name = sql.Identifier(str(url.database))
    admin.execute(mark.format(name, sql.SQL("true")))
    try:
        with pytest.raises(exceptions.DatabaseProtected, match="IS_TEMPLATE false"):
            drop_database(url)
    finally:
        admin.execute(mark.format(name, sql.SQL("false")))


def test_drop_of_what_one_does_not_own_is_denied(url: URL, role: str) -> None:
    """Only the owner drops."""
    create_database(url)
    with pytest.raises(exceptions.PermissionDenied):
        drop_database(url.set(username=role))
    assert database_exists(url)


@pytest.mark.parametrize("statement", ["SELECT 1", "BEGIN", "SELECT pg_advisory_lock(1)"])
def test_drop_ends_the_sessions_on_the_database(url: URL, statement: str) -> None:
    """An idle session, or one in a transaction, does not keep the database alive."""
    create_database(url)
    with closing(connect(url, autocommit=True)) as session:
        session.execute(statement)
        began = monotonic()
        assert drop_database(url) is True
        assert monotonic() - began < 1
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def test_drop_without_force_names_the_sessions(url: URL) -> None:
    """Without force a session is waited for, then named, and nothing happens to it."""
    create_database(url)
    with closing(connect(url, autocommit=True, application_name="holder")) as session:
        with pytest.raises(exceptions.LockTimeout, match="holder") as caught:
            drop_database(url, force=False, wait=0.05)
        assert caught.value.sqlstate == "55006"
        session.execute("SELECT 1")
        with ThreadPoolExecutor(1) as thread:
            dropping = thread.submit(drop_database, url, force=False)
            session.close()
            assert dropping.result() is True


def test_drop_of_a_pool_that_reconnects(url: URL) -> None:
    """Clients that come back at once do not keep the database alive."""
    create_database(url)
    stop = monotonic() + 20

    def reconnect() -> None:
        while monotonic() < stop:
            try:
                with connect(url, autocommit=True) as session:
                    while True:
                        session.execute("SELECT pg_sleep(0.001)")
            except (exceptions.DatabaseUnavailable, psycopg.Error):  # noqa: PERF203 - a client
                continue

    with ThreadPoolExecutor(3) as threads:
        clients = [threads.submit(reconnect) for _ in range(3)]
        assert drop_database(url) is True
        for client in clients:
            assert isinstance(client.exception(), exceptions.DatabaseNotFound)


def test_nothing_is_left_open(url: URL, admin: psycopg.Connection) -> None:
    """No verb leaves a session behind."""
    tagged = url.update_query_dict({"application_name": str(url.database)})
    create_database(tagged)
    copy = clone_database(tagged, f"{url.database}_copy")
    database_exists(copy)
    drop_database(copy)
    with suppress(exceptions.DatabaseExists):
        create_database(tagged)
    deadline = monotonic() + 2
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    while admin.execute(query, (url.database,)).fetchone() != (0,):
        assert monotonic() < deadline
