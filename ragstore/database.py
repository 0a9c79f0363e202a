"""Whole databases: ask whether one exists, create, drop and clone it.

Each function takes a URL whose database is the one meant (``embedded://`` too), connects to
another database of that server, the maintenance database, and closes what it opened. That is
``maintenance_database`` if given, else ``postgres`` or, where that is missing or closed to the
role, ``template1``. The URL must reach the server itself, not a transaction pooler. There is no
async twin: these statements take the server tens of milliseconds and stand outside of any request.

Every function raises ``DatabaseUnavailable`` when the server does not answer,
``AuthenticationFailed`` when it refuses the role, and ``InvalidName`` for a name that Postgres
would cut off or cannot store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Literal, NoReturn

from psycopg import Connection, errors, sql
from psycopg.rows import TupleRow
from sqlalchemy.engine import URL

from ragstore.driver import connect, resolve_url, translate_errors
from ragstore.exceptions import (
    DatabaseExists,
    DatabaseNotFound,
    DatabaseProtected,
    InvalidInput,
    InvalidName,
    LockTimeout,
    PermissionDenied,
)
from ragstore.url import is_embedded, parse_url

PROTECTED = frozenset({"postgres", "template0", "template1"})
"""The databases that :func:`drop_database` never drops."""

MAX_NAME_BYTES = 63
"""The longest name Postgres keeps, in bytes of UTF-8; it silently cuts off the rest."""

_MAINTENANCE = ("postgres", "template1")

_LEAVE = 1.0  # seconds for a session to be gone after it was told to go

_SESSIONS = """
SELECT pid, usename, application_name FROM pg_stat_activity
WHERE datname = %s AND pid <> pg_backend_pid()
  AND backend_type IS DISTINCT FROM 'autovacuum worker'
ORDER BY pid
"""
_TERMINATE = "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid"


def database_exists(url: str | URL, *, maintenance_database: str | None = None) -> bool:
    """Tell whether the server has the URL's database; False means that the server said so.

    Where neither ``postgres`` nor ``template1`` lets the role in, the database itself is tried.
    """
    target = _resolve(url)
    name = _database_of(target)
    candidates = _candidates(maintenance_database) or (*_MAINTENANCE, name)
    try:
        with _maintenance(target, candidates) as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            return connection.execute(query, (name,)).fetchone() is not None
    except DatabaseNotFound as exc:
        if exc.database != name:
            raise
        return False
    except PermissionDenied:
        if candidates[-1] != name:
            raise
        return True  # only a database that exists can be closed to a role


def create_database(
    url: str | URL,
    *,
    template: str | None = None,
    encoding: str = "UTF8",
    exists_ok: bool = False,
    wait: float = 5.0,
    maintenance_database: str | None = None,
) -> bool:
    """Create the URL's database, and return True; with ``exists_ok``, False if it was there.

    Any number of processes may do this at once: one creates it. Without ``template`` it is a copy
    of template1, or of template0 when template1 has another encoding. Sessions on the template
    are waited for, ``wait`` seconds.

    Raises:
        DatabaseExists: the name is taken.
        DatabaseNotFound: there is no such template.
        PermissionDenied: the role may not create databases.
        LockTimeout: the template was in use all the time.
    """
    target = _resolve(url)
    name = _database_of(target)
    with _maintenance(target, _candidates(maintenance_database) or _MAINTENANCE) as connection:
        source = _checked(template) if template else _template_for(connection, encoding)
        options = sql.SQL("ENCODING {}").format(sql.Literal(encoding))
        try:
            _copy(connection, source, name, options, wait=wait, terminate=False)
        except DatabaseExists:
            if not exists_ok:
                raise
            return False
    return True


def drop_database(
    url: str | URL,
    *,
    missing_ok: bool = False,
    force: bool = True,
    wait: float = 5.0,
    maintenance_database: str | None = None,
) -> bool:
    """Drop the URL's database, and return True; with ``missing_ok``, False if there was none.

    With ``force`` the sessions on it are ended, otherwise they are waited for, ``wait`` seconds.

    Raises:
        DatabaseProtected: it is postgres, a template, or the maintenance database.
        DatabaseNotFound: there is no such database.
        PermissionDenied: the role does not own it, or may not end the sessions of others.
        LockTimeout: it was in use all the time.
    """
    target = _resolve(url)
    name = _database_of(target)
    if name in PROTECTED or name == maintenance_database:
        raise DatabaseProtected(
            f"ragstore never drops {name!r}: databases are made and dropped from it", database=name
        )
    with _maintenance(target, _candidates(maintenance_database) or _MAINTENANCE) as connection:
        try:
            _drop(connection, name, force=force, wait=wait)
        except DatabaseNotFound:
            if not missing_ok:
                raise
            return False
    return True


def clone_database(
    source_url: str | URL,
    target: str | URL,
    *,
    strategy: Literal["file_copy", "wal_log"] | None = None,
    terminate: bool = False,
    wait: float = 5.0,
    maintenance_database: str | None = None,
) -> URL:
    """Copy a database within its server, and return the URL of the copy.

    ``target`` is a name, or a URL on the same server. No session may be on the source: they are
    waited for, ``wait`` seconds, or ended if you ask for that with ``terminate``. ``strategy`` is
    how the server copies: ``wal_log`` costs WAL, ``file_copy`` two checkpoints, so it wins where
    those are cheap: by default it is used when the server runs without fsync, as for tests, and
    worth asking for when the source is large. Settings and grants of the database itself (ALTER
    DATABASE … SET, GRANT … ON DATABASE) are not copied, by Postgres.

    Raises:
        DatabaseExists: the target's name is taken.
        DatabaseNotFound: there is no such source.
        PermissionDenied: the role may not create databases, or not copy this one.
        LockTimeout: the source was in use all the time.
    """
    if strategy not in {None, "file_copy", "wal_log"}:
        raise InvalidInput(f"there is no strategy {strategy!r}: use 'file_copy' or 'wal_log'")
    source = _resolve(source_url)
    copy = _clone_url(source, target)
    names = _database_of(source), _database_of(copy)
    with _maintenance(source, _candidates(maintenance_database) or _MAINTENANCE) as connection:
        options = sql.SQL("STRATEGY {}").format(sql.Identifier(strategy or _fastest(connection)))
        _copy(connection, *names, options, wait=wait, terminate=terminate)
    return copy


# --- names and URLs ----------------------------------------------------------------------------


def _resolve(value: str | URL) -> URL:
    """Return the URL to connect to; the embedded server is started, but no database made."""
    url = parse_url(value)
    if not is_embedded(url):
        return resolve_url(url)
    name = url.query.get("database", "ragstore")
    return resolve_url(url.update_query_dict({"database": "postgres"})).set(database=str(name))


def _database_of(url: URL) -> str:
    return _checked(url.database or "")


def _checked(name: str) -> str:
    """Return the name.

    Raises:
        InvalidName: Postgres would not keep it as it is.
    """
    if not name:
        raise InvalidName("the URL names no database: end it with /name")
    if "\0" in name:
        raise InvalidName(f"the database name {name!r} has the character U+0000")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"the database name {name!r} is not valid Unicode") from None
    if size > MAX_NAME_BYTES:
        raise InvalidName(
            f"the database name {name!r} has {size} bytes: Postgres would cut it off after"
            f" {MAX_NAME_BYTES}"
        )
    return name


def _clone_url(source: URL, target: str | URL) -> URL:
    """Return the source's URL with the target's database."""
    if isinstance(target, str) and "://" not in target:
        return source.set(database=_checked(target))
    url = _resolve(target)
    if _server_of(url) != _server_of(source):
        raise InvalidInput("a database is cloned within its server, but the URLs name two servers")
    return url


def _server_of(url: URL) -> tuple[object, ...]:
    return url.host or None, url.port, url.query.get("host"), url.query.get("port")


# --- the maintenance connection ----------------------------------------------------------------


def _candidates(maintenance_database: str | None) -> tuple[str, ...]:
    return () if maintenance_database is None else (_checked(maintenance_database),)


@contextmanager
def _maintenance(target: URL, candidates: Sequence[str]) -> Iterator[Connection[TupleRow]]:
    """Lend a connection, in autocommit, to the first of the databases that lets the role in."""
    connection = _first_open(target, candidates)
    try:
        with translate_errors(target):
            yield connection
    finally:
        connection.close()


def _first_open(target: URL, candidates: Sequence[str]) -> Connection[TupleRow]:
    *others, last = candidates
    for database in others:
        try:
            return connect(target.set(database=database), autocommit=True)
        except (DatabaseNotFound, PermissionDenied):  # noqa: PERF203 - at most two rounds
            continue
    return connect(target.set(database=last), autocommit=True)


# --- statements --------------------------------------------------------------------------------


def _template_for(connection: Connection[TupleRow], encoding: str) -> str:
    """Prefer template1, which holds what the administrator put there for new databases."""
    query = """
        SELECT 1 FROM pg_database
        WHERE datname = 'template1' AND encoding = pg_char_to_encoding(%s)
    """
    return "template1" if connection.execute(query, (encoding,)).fetchone() else "template0"


def _fastest(connection: Connection[TupleRow]) -> Literal["file_copy", "wal_log"]:
    # Median ms, file_copy : wal_log. Without fsync 157 : 182 on disk and 18 : 28 in memory,
    # with it 235 : 169 (limits of a small schema; the copy includes the first connection).
    row = connection.execute("SELECT current_setting('fsync')").fetchone()
    return "file_copy" if row == ("off",) else "wal_log"


def _copy(
    connection: Connection[TupleRow],
    source: str,
    name: str,
    options: sql.Composable,
    *,
    wait: float,
    terminate: bool,
) -> None:
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} {}").format(
        sql.Identifier(name), sql.Identifier(source), options
    )
    deadline = monotonic() + max(wait, _LEAVE if terminate else 0.0)
    while True:
        if not _is_unused(connection, source, deadline, terminate=terminate):
            raise _in_use(connection, source, wait)
        try:
            connection.execute(statement)
        except errors.ObjectInUse as exc:  # a session came in between, or a prepared transaction
            if monotonic() >= deadline:
                raise _in_use(connection, source, wait, exc) from exc
        except errors.Error as exc:
            _raise_copy_error(connection, exc, source, name)
        else:
            return


def _raise_copy_error(
    connection: Connection[TupleRow], exc: errors.Error, source: str, name: str
) -> NoReturn:
    # Two processes at once: the slower one meets the name in the catalog's unique index.
    if isinstance(exc, errors.DuplicateDatabase | errors.UniqueViolation):
        raise DatabaseExists(f"the database {name!r} exists already", database=name) from exc
    if isinstance(exc, errors.InvalidCatalogName):
        raise DatabaseNotFound(f"there is no database {source!r} to copy", database=source) from exc
    if isinstance(exc, errors.InsufficientPrivilege):
        raise PermissionDenied(_missing_right(connection, source, exc)) from exc
    raise exc


def _missing_right(connection: Connection[TupleRow], source: str, exc: errors.Error) -> str:
    query = "SELECT rolname, rolcreatedb FROM pg_roles WHERE rolname = current_user"
    role, may_create = connection.execute(query).fetchall()[0]
    statement = sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(role))
    if may_create:  # then it is the source that it may not copy
        statement = sql.SQL("ALTER DATABASE {} IS_TEMPLATE true").format(sql.Identifier(source))
    return f"{exc.diag.message_primary}. A superuser allows it: {statement.as_string(connection)}"


def _drop(connection: Connection[TupleRow], name: str, *, force: bool, wait: float) -> None:
    """Drop the database, once its sessions are gone.

    A session that is just leaving makes the server itself sleep for 100 ms before it looks again;
    waiting here takes the millisecond it needs. WITH (FORCE) ends those that came in between.
    """
    deadline = monotonic() + (_LEAVE if force else wait)
    if not _is_unused(connection, name, deadline, terminate=force) and not force:
        raise _in_use(connection, name, wait)
    statement = sql.SQL("DROP DATABASE {} {}").format(
        sql.Identifier(name), sql.SQL("WITH (FORCE)" if force else "")
    )
    try:
        connection.execute(statement)
    except errors.ObjectInUse as exc:
        raise _in_use(connection, name, wait, exc) from exc
    except errors.InvalidCatalogName as exc:
        raise DatabaseNotFound(f"there is no database {name!r} to drop", database=name) from exc
    except errors.WrongObjectType as exc:
        remedy = sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name))
        raise DatabaseProtected(
            f"{name!r} is marked as a template. If it may go: {remedy.as_string(connection)}",
            database=name,
        ) from exc


# --- sessions on a database --------------------------------------------------------------------


def _is_unused(
    connection: Connection[TupleRow], name: str, deadline: float, *, terminate: bool
) -> bool:
    """Wait until no session is on the database, or the deadline has passed."""
    pause = 0.002
    while sessions := connection.execute(_SESSIONS, (name,)).fetchall():
        if terminate:
            connection.execute(_TERMINATE, ([pid for pid, _, _ in sessions],))
        if monotonic() >= deadline:
            return False
        sleep(pause)
        pause = min(2 * pause, 0.05)
    return True


def _in_use(
    connection: Connection[TupleRow], name: str, wait: float, exc: errors.Error | None = None
) -> LockTimeout:
    sessions = connection.execute(_SESSIONS, (name,)).fetchall()
    users = [f"pid {pid} ({user}, {app or 'unnamed'})" for pid, user, app in sessions]
    if exc is not None and exc.diag.message_detail:  # it counts sessions and transactions
        users.append(exc.diag.message_detail)
    return LockTimeout(
        f"the database {name!r} was in use for {wait:g} s: {', '.join(users)}. Close what uses it"
        " (engine.dispose()), or have sessions ended: drop_database(force=True),"
        " clone_database(terminate=True)",
        sqlstate="55006",
    )
