"""Which server the tests use, and whether it is safe to."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy.engine import URL

from ragstore import embedded
from ragstore.driver import connect, place_of, resolve_url, translate_errors
from ragstore.exceptions import (
    AuthenticationFailed,
    DatabaseNotFound,
    DatabaseUnavailable,
    ImproperlyConfigured,
    PermissionDenied,
    QueryFailed,
    UnsafeTestDatabase,
)
from ragstore.url import EMBEDDED, is_embedded, parse_url

if TYPE_CHECKING:
    import psycopg
    from psycopg.rows import TupleRow

OPTION = "--ragstore-db"
"""The option of pytest that names the server."""

DEFAULT_DATABASE = "ragstore_test"
"""The test database where the URL names none."""

REMEDY = (
    "no database for the tests: set DB_TEST_DATABASE_URL=postgresql://user:password@host/name_test,"
    f' use {OPTION}=URL, or pip install "ragstore[embedded]"'
)
"""Why a test is skipped where there is no server."""

_MAINTENANCE = "postgres"
_EMBEDDED_DATABASE = "ragstore"  # of an embedded:// URL that names none

_ASK = """
SELECT rolsuper OR rolcreatedb, current_setting('server_version'),
  (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')
FROM pg_roles WHERE rolname = current_user
"""
# Of a running server there is one; a copy of its files, or a replica, was started at another time.
_IDENTITY = "SELECT system_identifier, pg_postmaster_start_time() FROM pg_control_system()"


@dataclass(frozen=True)
class TestServer:
    """The server of a test run.

    ``url`` is that of its maintenance database, ``database`` the test database's name, ``origin``
    says for people where it was found. :meth:`at` makes one, as an override of the fixture
    ``ragstore_server`` needs it.
    """

    __test__: ClassVar[bool] = False  # pytest collects what is called Test

    url: URL
    database: str
    origin: str
    can_create_databases: bool
    versions: str = field(default="", compare=False)

    @property
    def test_url(self) -> URL:
        """Return the URL of the test database, whether or not it exists."""
        return self.url.set(database=self.database)

    @classmethod
    def at(cls, url: str | URL, *, origin: str | None = None) -> TestServer:
        """Ask the server of a test database's URL; an embedded one is started.

        Raises:
            UnsafeTestDatabase: the URL is that of the application.
            DatabaseUnavailable: the server does not answer, or (AuthenticationFailed) refuses.
        """
        given = _with_own_directory(parse_url(url))
        _refuse_equal(given)
        database = _database_of(given) or DEFAULT_DATABASE
        reached = resolve_url(_maintenance_url(given))
        with closing(_open(reached, database)) as connection, translate_errors(reached):
            may_create, postgres, pgvector = connection.execute(_ASK).fetchall()[0]
            found = reached.set(database=connection.info.dbname)
        versions = f"PostgreSQL {postgres.split()[0]}, pgvector {pgvector or 'not installed'}"
        return cls(found, database, origin or _place(given), may_create, versions)


def find(option: str | None) -> TestServer | None:
    """Return the server of ``--ragstore-db``, of the settings, or the embedded one; None if none.

    Raises:
        ImproperlyConfigured: the URL, or another setting, is wrong.
        DependencyMissing: the embedded server is asked for, but not installed.
        UnsafeTestDatabase: the URL is that of the application.
        DatabaseUnavailable: the server does not answer, or cannot be started.
    """
    from ragstore.conf import settings

    configured = None if option else settings.TEST_DATABASE_URL
    if configured is not None:
        _refuse_equal(configured)  # embedded:// too, though the kit would not take its directory
        url, source = configured, " (DB_TEST_DATABASE_URL)"
    elif option:
        text = f"{EMBEDDED}://" if option == EMBEDDED else option
        url, source = parse_url(text, name=OPTION), f" ({OPTION})"
    elif embedded.is_installed():
        url, source = parse_url(f"{EMBEDDED}://"), ""
    else:
        return None
    return TestServer.at(url, origin=_place(_with_own_directory(url)) + source)


def data_directory() -> Path:
    """Return the data directory of the embedded server for tests, shared by all runs."""
    return embedded.default_data_directory().parent / "tests"


def _place(url: URL) -> str:
    return f"the embedded server in {_directory(url)}" if is_embedded(url) else place_of(url)


def _open(url: URL, database: str) -> psycopg.Connection[TupleRow]:
    """Connect to ``postgres``, or to the test database where that is closed.

    Never to template1: nobody can create a database while somebody is on it.
    """
    try:
        return connect(url.set(database=_MAINTENANCE), autocommit=True)
    except (DatabaseNotFound, PermissionDenied):
        return connect(url.set(database=database), autocommit=True)


# --- embedded:// URLs --------------------------------------------------------------------------


def _with_own_directory(url: URL) -> URL:
    """Give ``embedded://`` the directory for tests: it is not the developer's data."""
    if not is_embedded(url) or url.database:
        return url
    return url.set(database=str(data_directory()).lstrip("/"))


def _directory(url: URL) -> Path:
    return Path("/" + url.database).resolve() if url.database else embedded.default_data_directory()


def _database_of(url: URL) -> str | None:
    if not is_embedded(url):
        return url.database or None
    name = url.query.get("database")
    return name if isinstance(name, str) else None


def _maintenance_url(url: URL) -> URL:
    if is_embedded(url):
        return url.update_query_dict({"database": _MAINTENANCE})
    return url.set(database=_MAINTENANCE)


# --- safety ------------------------------------------------------------------------------------


def refuse_application_database(
    server: TestServer, connection: psycopg.Connection[TupleRow]
) -> None:
    """Refuse a test database that is the application's, however its URL is written.

    The servers of two URLs that name the same database are asked who they are; a server that
    does not answer is not this one, and one that lets nobody ask may be.

    Raises:
        UnsafeTestDatabase: it is.
    """
    for setting, url in _application_urls():
        if _application_name(url) == server.database and _is_same_server(url, connection):
            raise _unsafe(setting, place_of(server.test_url))


def _refuse_equal(url: URL) -> None:
    for setting, theirs in _application_urls():
        if url == theirs:
            raise _unsafe(setting, _place(url))


def _application_urls() -> list[tuple[str, URL]]:
    """Return the URLs of the application that are set.

    Raises:
        ImproperlyConfigured: a setting is wrong.
    """
    from ragstore.conf import settings

    found: list[tuple[str, URL]] = []
    _ = settings.POOL_SIZE  # reading any setting reports what is wrong with the others
    for setting in ("DATABASE_URL", "MIGRATION_DATABASE_URL"):
        with suppress(ImproperlyConfigured):  # it is not set
            found.append((f"DB_{setting}", getattr(settings, setting)))
    return found


def _application_name(url: URL) -> str | None:
    name = _database_of(url)
    return (name or _EMBEDDED_DATABASE) if is_embedded(url) else (name or url.username)


def _is_same_server(url: URL, connection: psycopg.Connection[TupleRow]) -> bool:
    if is_embedded(url):
        return _ask(connection, "SHOW data_directory") in (None, (str(_directory(url)),))
    try:
        other = _open(resolve_url(url), _application_name(url) or "")
    except (AuthenticationFailed, PermissionDenied):
        return True
    except (DatabaseUnavailable, DatabaseNotFound):
        return False
    with closing(other):
        theirs = _ask(other, _IDENTITY)
    return theirs is None or theirs == _ask(connection, _IDENTITY)


def _ask(connection: psycopg.Connection[TupleRow], query: Any) -> TupleRow | None:
    """Return a row; None where the role may not ask."""
    try:
        with translate_errors():
            return connection.execute(query).fetchone()
    except (PermissionDenied, QueryFailed):
        return None


def _unsafe(setting: str, place: str) -> UnsafeTestDatabase:
    return UnsafeTestDatabase(
        f"the test database {place} is the one of {setting}, and tests change its schema: name"
        f" another one in DB_TEST_DATABASE_URL or {OPTION}, such as .../name_test"
    )
