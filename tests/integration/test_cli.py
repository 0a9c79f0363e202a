"""``ragstore migrate`` on a real server."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel
from typer.testing import CliRunner, Result

from ragstore import cli, migrations
from ragstore.conf import settings
from ragstore.connection import DatabaseConnection
from ragstore.driver import connect
from ragstore.models import TABLES

HEAD = migrations.history()[0].id
USAGE = 2  # what click exits with when the words of a command are wrong


def text_of(url: URL) -> str:
    """Return a URL as a variable holds it."""
    return url.render_as_string(hide_password=False)


@pytest.fixture
def empty(empty_database: URL, monkeypatch: pytest.MonkeyPatch) -> URL:
    """Make an empty database the one of the settings, and return its URL."""
    monkeypatch.setenv("DB_DATABASE_URL", text_of(empty_database))
    settings.reload()  # making the database has read them
    return empty_database


@pytest.fixture
def migrated(database: URL, monkeypatch: pytest.MonkeyPatch) -> URL:
    """Make a migrated database the one of the settings, and return its URL."""
    monkeypatch.setenv("DB_DATABASE_URL", text_of(database))
    settings.reload()  # making the database has read them
    return database


def run(*arguments: str) -> Result:
    """Run ``ragstore migrate`` in this process."""
    return CliRunner().invoke(cli.app, ["migrate", *arguments], catch_exceptions=False)


def test_up_and_down(empty: URL) -> None:
    """Upgrade and downgrade say from where to where; current and check agree."""
    steps = [
        (["current"], 0, "none\n"),
        (["upgrade"], 0, f"from none to {HEAD}\n"),
        (["upgrade"], 0, f"at {HEAD} already\n"),
        (["current"], 0, f"{HEAD} (head)\n"),
        (["check"], 0, "The database is at the newest revision, and its schema is the models'.\n"),
        (["downgrade", "base"], 0, f"from {HEAD} to none\n"),
        (["upgrade", HEAD], 0, f"from none to {HEAD}\n"),
    ]
    for arguments, code, output in steps:
        done = run(*arguments)

        assert (arguments, done.exit_code, done.stdout) == (arguments, code, output)


def test_downgrade_by_one(migrated: URL) -> None:
    """``-1`` is a revision, not an option."""
    below = next(iter(migrations.history()[0].parents), "none")

    assert run("downgrade", "-1").stdout == f"from {HEAD} to {below}\n"


def test_tables_of_create_all_are_stamped(empty: URL) -> None:
    """Tables without a revision are not made again; what to do is said, and works."""
    SQLModel.metadata.create_all(create_engine(empty, poolclass=NullPool), tables=TABLES)

    refused = run("upgrade")
    stamped = run("stamp")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "`ragstore migrate stamp`" in refused.stderr
    assert stamped.stdout == f"from none to {HEAD}\n"
    assert run("check").exit_code == 0
    assert run("upgrade").stdout == f"at {HEAD} already\n"


def test_downgrade_asks_where_to(migrated: URL) -> None:
    """A downgrade drops tables, so it goes nowhere that was not named."""
    assert run("downgrade").exit_code == USAGE
    assert migrations.current() == (HEAD,)


def test_current_of_an_older_database(migrated: URL) -> None:
    """A revision that is not the newest stands alone."""
    with connect(migrated) as connection:
        connection.execute("UPDATE ragstore_alembic_version SET version_num = 'elsewhere'")

    assert run("current").stdout == "elsewhere\n"


def test_check_finds_drift(migrated: URL) -> None:
    """A schema that differs is told with the differences, and code 2."""
    with connect(migrated) as connection:
        connection.execute("ALTER TABLE ragstore_document DROP COLUMN title")
    done = run("check")

    assert (done.exit_code, done.stdout) == (cli.DRIFT, "")
    assert "title" in done.stderr


def test_check_finds_old_revision(empty: URL) -> None:
    """A database that was never migrated is behind: code 3, and what to run."""
    done = run("check")

    assert done.exit_code == cli.BEHIND
    assert "`ragstore migrate upgrade`" in done.stderr


def test_check_cannot_tell(migrated: URL) -> None:
    """A database of a newer ragstore cannot be compared: code 4."""
    with connect(migrated) as connection:
        connection.execute("UPDATE ragstore_alembic_version SET version_num = '9999_ffffff'")
    done = run("check")

    assert done.exit_code == cli.UNKNOWN
    assert "9999_ffffff" in done.stderr


@pytest.mark.parametrize("command", ["upgrade", "downgrade"])
def test_unknown_revision(migrated: URL, command: str) -> None:
    """A revision that does not exist is named, and nothing happens."""
    done = run(command, "nonsense")

    assert done.exit_code == 1
    assert done.stderr.startswith("Error: There is no revision 'nonsense'")
    assert run("current").stdout == f"{HEAD} (head)\n"


def test_missing_database(server_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that does not exist is an error with the remedy."""
    monkeypatch.setenv("DB_DATABASE_URL", text_of(server_url.set(database="ragstore_no_such")))
    done = run("upgrade")

    assert done.exit_code == 1
    assert "create_database" in done.stderr


def test_printed_sql_is_the_migration(empty: URL) -> None:
    """What ``--sql`` prints makes a schema that check finds nothing wrong with."""
    done = run("upgrade", "--sql")
    with connect(empty, autocommit=True) as connection:
        connection.execute(done.stdout.encode())

    assert run("check").exit_code == 0


def test_migration_url_migrates(
    empty: URL, server_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role that migrates is that of DB_MIGRATION_DATABASE_URL."""
    monkeypatch.setenv("DB_MIGRATION_DATABASE_URL", text_of(empty))
    monkeypatch.setenv("DB_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/rag")
    settings.reload()

    assert run("upgrade").exit_code == 0
    with DatabaseConnection(empty) as connection, connection.transaction() as transaction:
        assert transaction.execute("SELECT count(*) FROM ragstore_document").fetchone() == (0,)


def test_as_a_process(empty: URL) -> None:
    """As a process: one clean line, the exit code, and nothing on stderr."""
    lines = []
    for command in ("check", "upgrade", "check"):
        done = subprocess.run(
            [sys.executable, "-m", "ragstore", "migrate", command],
            capture_output=True,
            text=True,
            env=dict(os.environ),
        )
        lines.append((done.returncode, done.stdout.count("\n"), done.stderr.count("\n")))

    assert lines == [(cli.BEHIND, 0, 1), (0, 1, 0), (0, 1, 0)]
