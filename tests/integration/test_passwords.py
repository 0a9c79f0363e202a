"""Passwords with every awkward character reach a server that asks for them, from a .env file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg import sql
from sqlalchemy.engine import URL

from ragstore import DatabaseConnection
from ragstore.conf import settings
from ragstore.driver import connect
from ragstore.embedded import EmbeddedServer
from ragstore.exceptions import AuthenticationFailed
from ragstore.migrations import current, upgrade

# They open connections to a server that the test kit does not know.
pytestmark = pytest.mark.usefixtures("ragstore_server")

ROLE = "rag_user"
CHARACTERS = "@:/%$=# &?+\"'\\ü"
PASSWORDS = [*(f"a{character}z" for character in CHARACTERS), f"all {CHARACTERS}", "${HOME}"]


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """Yield the superuser's URL of a server that asks ``rag_user`` for a password."""
    with EmbeddedServer(tmp_path_factory.mktemp("strict") / "data") as server:
        rules = server.data_directory / "pg_hba.conf"
        rules.write_text(f"local all {ROLE} scram-sha-256\nlocal all all trust\n")
        url = server.url("postgres")
        with connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f"CREATE ROLE {ROLE} LOGIN SUPERUSER")
        yield url


def _set_password(server: URL, password: str) -> None:
    statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
    with connect(server, autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(ROLE), sql.Literal(password)))


def _write_env(path: Path, server: URL, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"host={server.query['host']}&port={server.query['port']}"
    path.write_text(f'DB_DATABASE_URL="postgresql://{ROLE}:{written}@/postgres?{place}"\n')
    monkeypatch.setenv("RAGSTORE_ENV_FILE", str(path))
    settings.reload()


@pytest.mark.parametrize("password", PASSWORDS)
def test_encoded_password_connects(
    password: str, strict_server: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A percent-encoded password in .env is the one that the server is given."""
    _set_password(strict_server, password)
    _write_env(tmp_path / ".env", strict_server, quote(password, safe=""), monkeypatch)

    with DatabaseConnection() as connection, connection.session() as session:
        connection.ping()
        assert session.connection().exec_driver_sql("SELECT current_user").scalar() == ROLE


@pytest.mark.parametrize("password", ["a@z", "a:z", "a/z", "a%z", "a$z", "a=z", "a#z", "a z"])
def test_raw_password_connects(
    password: str, strict_server: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password written as it is, in a quoted value of .env, is the one that is given too."""
    _set_password(strict_server, password)
    _write_env(tmp_path / ".env", strict_server, password, monkeypatch)

    with DatabaseConnection() as connection:
        connection.ping()


def test_wrong_password_is_refused_and_not_shown(
    strict_server: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does ask: another password is AuthenticationFailed, and no message has it."""
    _set_password(strict_server, "right")
    _write_env(tmp_path / ".env", strict_server, "wr0ng-secret", monkeypatch)

    with DatabaseConnection() as connection, pytest.raises(AuthenticationFailed) as caught:
        connection.ping()

    assert "wr0ng-secret" not in f"{caught.value} {caught.value.__cause__} {connection!r}"


def test_migrations_take_the_password(
    strict_server: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alembic is given the same URL, ``%`` and all, and migrates with it."""
    password = f"all {CHARACTERS}"
    _set_password(strict_server, password)
    _write_env(tmp_path / ".env", strict_server, quote(password, safe=""), monkeypatch)

    upgrade()

    assert current()
