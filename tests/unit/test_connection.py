"""DatabaseConnection and the driver's errors, as far as they need no server."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy.exc
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from ragstore import exceptions
from ragstore.conf import override_settings
from ragstore.connection import DatabaseConnection, from_driver, resolve_url, translate_errors
from ragstore.exceptions import ImproperlyConfigured

URL_TEXT = "postgresql://bob:s3cret@db.example:5433/app"
URL = resolve_url(URL_TEXT)


def failure(text: str) -> psycopg.OperationalError:
    """Return a connection failure as libpq reports it: text, and no SQLSTATE."""
    return psycopg.OperationalError(f"connection failed: {text}")


def state(code: str, text: str = "the reason") -> psycopg.Error:
    """Return the driver's error of an SQLSTATE."""
    return psycopg.errors.lookup(code)(text)


# --- nothing happens early ----------------------------------------------------------------------


@pytest.mark.parametrize("module", ["connection", "database"])
def test_importing_the_module_leaves_the_heavy_packages_out(module: str) -> None:
    """Neither module costs the import of SQLModel, Alembic or the tables."""
    heavy = "{'sqlmodel', 'alembic', 'ragstore.models', 'ragstore.embedded'}"
    code = f"import ragstore.{module}, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@override_settings(DATABASE_URL=None)
def test_construction_reads_no_settings() -> None:
    """A connection without URL is made, shown and closed where no URL is configured."""
    connection = DatabaseConnection()
    assert repr(connection) == "<DatabaseConnection of the settings>"
    connection.close()
    with pytest.raises(ImproperlyConfigured, match="DB_DATABASE_URL"):
        connection.url  # noqa: B018 - reading it is what is tested


def test_construction_does_not_start_the_embedded_server(tmp_path: Path) -> None:
    """An embedded URL is shown as it is, and its directory stays empty."""
    connection = DatabaseConnection(f"embedded://{tmp_path}/data")
    assert repr(connection) == f"<DatabaseConnection embedded://{tmp_path}/data>"
    assert not list(tmp_path.iterdir())


def test_construction_refuses_what_is_no_url() -> None:
    """A wrong URL is reported at once, without being repeated."""
    with pytest.raises(ImproperlyConfigured) as caught:
        DatabaseConnection("mysql://bob:s3cret@host/db")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [URL_TEXT, "postgresql://bob@db.example:5433/app?password=s3cret&host=other"],
)
def test_repr_masks_the_password(url: str) -> None:
    """The password is not shown, also where it stands in the query."""
    shown = repr(DatabaseConnection(url))
    assert "s3cret" not in shown
    assert "db.example:5433/app" in shown


# --- URLs ---------------------------------------------------------------------------------------


def test_socket_directory_in_the_place_of_the_host() -> None:
    """The way libpq writes a socket directory means the directory."""
    url = resolve_url("postgresql://bob@%2Frun%2Fpostgres:5433/app")
    _, options = url.get_dialect()().create_connect_args(url)
    assert options == {
        "user": "bob",
        "dbname": "app",
        "host": "/run/postgres",
        "port": 5433,
    }


@pytest.mark.parametrize(
    ("given", "settings", "expected"),
    [
        ({}, {"MIGRATION_DATABASE_URL": None}, "postgresql+psycopg://settings/runtime"),
        (
            {},
            {"MIGRATION_DATABASE_URL": "postgresql://settings/owner"},
            "postgresql+psycopg://settings/owner",
        ),
        (
            {"url": "postgresql://given/runtime"},
            {"MIGRATION_DATABASE_URL": "postgresql://settings/owner"},
            "postgresql+psycopg://given/runtime",
        ),
        (
            {"url": "postgresql://given/runtime", "migration_url": "postgresql://given/owner"},
            {},
            "postgresql+psycopg://given/owner",
        ),
        ({"migration_url": "postgresql://given/owner"}, {}, "postgresql+psycopg://given/owner"),
    ],
)
def test_migration_url(given: Any, settings: Any, expected: str) -> None:
    """The migration URL is the given one, or goes with where the URL comes from."""
    with override_settings(DATABASE_URL="postgresql://settings/runtime", **settings):
        connection = DatabaseConnection(**given)
        assert connection.migration_url == make_url(expected)
        assert connection.migration_url == make_url(expected)  # kept


def test_a_closed_connection_reads_the_settings_again() -> None:
    """After close() the object is as new."""
    with override_settings(DATABASE_URL="postgresql://one/db"):
        connection = DatabaseConnection()
        assert connection.url.host == "one"
    with override_settings(DATABASE_URL="postgresql://two/db"):
        assert connection.url.host == "one"
        connection.close()
        assert connection.url.host == "two"


# --- engines ------------------------------------------------------------------------------------


@override_settings(
    POOL_SIZE=3, MAX_OVERFLOW=4, POOL_TIMEOUT=0.5, POOL_RECYCLE=60, ECHO=False, POOLER="none"
)
@pytest.mark.parametrize("name", ["engine", "async_engine"])
def test_pool_settings_are_honoured(name: str) -> None:
    """Both engines have the pool that the settings describe, tested before each use."""
    connection = DatabaseConnection(URL)
    engine = getattr(connection, name)
    assert engine is getattr(connection, name)
    pool = engine.pool
    assert (pool.size(), pool._max_overflow, pool._timeout, pool._recycle, pool._pre_ping) == (
        *(3, 4, 0.5, 60),
        True,
    )
    assert getattr(engine, "sync_engine", engine).hide_parameters


def test_the_two_engines_share_nothing() -> None:
    """Sync and async use have a pool each."""
    connection = DatabaseConnection(URL)
    assert connection.engine.pool is not connection.async_engine.pool


def test_engine_options_win_over_the_settings() -> None:
    """What the caller says is what the engine gets, also a pool that takes no size."""
    sized: Any = DatabaseConnection(URL, pool_size=9).engine.pool
    assert sized.size() == 9
    engine = DatabaseConnection(URL, poolclass=NullPool, echo="debug").engine
    assert isinstance(engine.pool, NullPool)
    assert engine.echo == "debug"


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected", "says"),
    [
        (state("28P01"), exceptions.AuthenticationFailed, "password of the URL"),
        (state("28000"), exceptions.AuthenticationFailed, "user"),
        (state("3D000"), exceptions.DatabaseNotFound, "create_database"),
        (state("42501"), exceptions.PermissionDenied, "GRANT"),
        (state("55P03"), exceptions.LockTimeout, "try again"),
        (
            state("42P01", 'relation "ragstore_chunk" does not exist'),
            exceptions.SchemaMissing,
            "ragstore migrate upgrade",
        ),
        (
            state("42P01", 'relation "public.ragstore_alembic_version" does not exist'),
            exceptions.SchemaMissing,
            "ragstore migrate upgrade",
        ),
        (
            state("42P01", 'relation "ragstore_notes" does not exist'),
            exceptions.QueryFailed,
            "ragstore_notes",
        ),
        (state("08006"), exceptions.DatabaseUnavailable, "Is the server up"),
        (state("57P01"), exceptions.DatabaseUnavailable, "Is the server up"),
        (state("57P02"), exceptions.DatabaseUnavailable, "Is the server up"),
        (state("57P03"), exceptions.DatabaseUnavailable, "Is the server up"),
        (state("53300"), exceptions.DatabaseUnavailable, "Close connections"),
        (state("25P03"), exceptions.DatabaseUnavailable, "longer than the server allows"),
        (state("57014"), exceptions.QueryFailed, "DB_STATEMENT_TIMEOUT"),
        (state("40P01"), exceptions.QueryFailed, "the reason"),
        (psycopg.OperationalError("the connection is closed"), exceptions.DatabaseUnavailable, ""),
        (
            psycopg.OperationalError("number of parameters must be between 0 and 65535"),
            exceptions.QueryFailed,
            "65535",
        ),
        (psycopg.ProgrammingError("cannot adapt type"), exceptions.QueryFailed, "cannot adapt"),
        (sqlalchemy.exc.TimeoutError(), exceptions.PoolExhausted, "DB_POOL_SIZE"),
        # What a connection fails with has no SQLSTATE.
        (failure("FATAL:  database x does not exist"), exceptions.DatabaseNotFound, ""),
        (failure("FATAL:  no such database: x"), exceptions.DatabaseNotFound, ""),
        (failure("FATAL:  SASL authentication failed"), exceptions.AuthenticationFailed, ""),
        (failure("fe_sendauth: no password supplied"), exceptions.AuthenticationFailed, ""),
        (failure("FATAL:  no pg_hba.conf entry for host"), exceptions.AuthenticationFailed, ""),
        (failure("FATAL:  sorry, too many clients already"), exceptions.DatabaseUnavailable, ""),
        (failure("Connection refused\n\tIs it up?"), exceptions.DatabaseUnavailable, "refused. Is"),
    ],
)
def test_each_driver_error_is_one_of_ours(error: Exception, expected: type, says: str) -> None:
    """SQLSTATE, or the refusal's text, decides; the message names the place and the remedy."""
    translated = from_driver(error, URL)
    assert type(translated) is expected
    assert says in str(translated)
    assert str(translated).startswith("postgresql://bob:***@db.example:5433/app: ")
    if isinstance(translated, exceptions.QueryFailed):
        assert translated.sqlstate == getattr(error, "sqlstate", None)
    if isinstance(translated, exceptions.DatabaseNotFound):
        assert translated.database == "app"


def test_an_error_without_url_names_none() -> None:
    """Where the URL is not known the message is the reason alone."""
    assert str(from_driver(state("40P01"))) == "the reason"
    missing = from_driver(state("3D000"))
    assert isinstance(missing, exceptions.DatabaseNotFound)
    assert missing.database == ""


def test_an_error_around_the_drivers_is_opened() -> None:
    """SQLAlchemy's error is judged by psycopg's inside it."""
    wrapped = sqlalchemy.exc.OperationalError("SELECT 1", {}, state("55P03"))
    with pytest.raises(exceptions.LockTimeout) as caught, translate_errors():
        raise wrapped
    assert caught.value.__cause__ is wrapped


def test_a_value_is_kept_out_of_message_and_traceback() -> None:
    """A data exception quotes the value in its message, so neither message nor cause shows it."""
    error = state("22P02", 'invalid input syntax for type integer: "row "text""')
    with pytest.raises(exceptions.QueryFailed) as caught, translate_errors(URL):
        raise error
    assert str(caught.value).endswith('invalid input syntax for type integer: "…"')
    assert 'row "text' not in "".join(traceback.format_exception(caught.value))


def test_other_errors_pass_untouched() -> None:
    """Only the driver's errors are translated."""
    with pytest.raises(KeyError), translate_errors(URL):
        raise KeyError("mine")
