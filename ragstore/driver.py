"""One psycopg connection: how it is opened, and what its errors are in ragstore's terms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.rows import TupleRow
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ragstore.exceptions import (
    AuthenticationFailed,
    DatabaseNotFound,
    DatabaseUnavailable,
    LockTimeout,
    PermissionDenied,
    PoolExhausted,
    QueryFailed,
    RagstoreError,
    SchemaMissing,
)
from ragstore.url import display_url, is_embedded, parse_url

VERSION_TABLE = "ragstore_alembic_version"
"""The table in which Alembic keeps the revision of ragstore's own schema."""

_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


class PackedVector(bytes):
    """A vector as pgvector's binary input, sent to the server as it is: a third of the time.

    The statement says its type: ``CAST($1 AS vector)``.
    """


class _PackedVectorDumper(Dumper):
    format = Format.BINARY
    oid = 0  # vector's own is another in each database

    def dump(self, obj: PackedVector) -> bytes:
        return bytes(obj)


# For the connections that are opened from here on; it is a class of our own, so nobody else's.
psycopg.adapters.register_dumper(PackedVector, _PackedVectorDumper)


def resolve_url(value: str | URL) -> URL:
    """Return ``value`` as a URL to connect to, starting the embedded server if it names that.

    A socket directory may stand percent-encoded in the place of the host, as libpq has it.

    Raises:
        ImproperlyConfigured: it is not a database URL.
        EmbeddedServerError: the embedded server does not start.
    """
    url = parse_url(value)
    if is_embedded(url):
        from ragstore import embedded

        started: URL = embedded.start(url)
        return started
    if url.host and url.host.lower().startswith("%2f"):
        return url.set(host="", query={**url.query, "host": unquote(url.host)})
    return url


def connect(url: URL, **options: Any) -> psycopg.Connection[TupleRow]:
    """Open a connection outside every pool; the caller closes it.

    It has no statement timeout. ``options`` are psycopg's, such as ``autocommit=True``.

    Raises:
        DatabaseUnavailable: the server does not answer, or (AuthenticationFailed) refuses.
        DatabaseNotFound: it has no such database.
    """
    arguments, settled = _connect_arguments(url, options)
    with translate_errors(url):
        return psycopg.connect(*arguments, **settled)


async def connect_async(url: URL, **options: Any) -> psycopg.AsyncConnection[TupleRow]:
    """Open an async connection outside every pool, as :func:`connect` does."""
    arguments, settled = _connect_arguments(url, options)
    with translate_errors(url):
        return await psycopg.AsyncConnection.connect(*arguments, **settled)


def _connect_arguments(url: URL, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    arguments, given = url.get_dialect()().create_connect_args(url)
    return arguments, {**given, **session_options(url), "prepare_threshold": None, **options}


def session_options(url: URL) -> dict[str, Any]:
    """Return what every connection is opened with, but for what the URL says itself."""
    from ragstore.conf import settings

    options = {
        "connect_timeout": settings.CONNECT_TIMEOUT,
        "application_name": settings.APPLICATION_NAME,
        "client_encoding": "utf8",  # else PGCLIENTENCODING would decide
        **_KEEPALIVE,
    }
    return {name: value for name, value in options.items() if name not in url.query}


# --- errors ------------------------------------------------------------------------------------

_UNAVAILABLE = frozenset({"25P03", "53300", "57P01", "57P02", "57P03", "57P05"})
# libpq reports a refused connection without an SQLSTATE: there is only the server's text.
_REFUSALS = (
    (
        "28000",
        re.compile(
            r"(password|SASL) authentication failed|no password supplied|no pg_hba\.conf entry"
            r"|role .* does not exist|is not permitted to log in|authentication failed for user"
        ),
    ),
    ("3D000", re.compile(r"database .* does not exist|no such database")),
    (
        "42501",
        re.compile(r"permission denied for database|is not currently accepting connections"),
    ),
)


_IS_IT_UP = "Is the server up, at the URL's host and port?"
_REMEDIES = {
    "53300": "Close connections, or let the role or the server have more of them",
    "25P03": "The transaction did nothing for longer than the server allows: shorten it",
    "57014": "It ran longer than STATEMENT_TIMEOUT allows, or somebody cancelled it:"
    " DB_STATEMENT_TIMEOUT sets the limit",
    "42704": "The database lacks what the statement names, such as a text search configuration",
}


@contextmanager
def translate_errors(url: URL | None = None) -> Iterator[None]:
    """Raise the errors of psycopg, SQLAlchemy's around them and its pool's as ragstore's.

    ``url`` is named in the message, its password masked.

    Raises:
        RagstoreError: what :func:`from_driver` makes of the error.
    """
    try:
        yield
    except (psycopg.Error, DBAPIError, PoolTimeout) as exc:
        raise from_driver(exc, url) from (exc if _showable(_driver_error(exc)) else None)


def from_driver(exc: BaseException, url: URL | None = None) -> RagstoreError:
    """Return the error of ragstore that says what the driver's error says.

    It never holds the server's DETAIL or CONTEXT, which quote rows, nor a parameter or password.
    """
    place = f"{place_of(url)}: " if url is not None else ""
    if isinstance(exc, PoolTimeout):
        return PoolExhausted(
            f"{place}every connection of the pool is in use; close sessions that are no longer"
            " needed, or raise DB_POOL_SIZE, DB_MAX_OVERFLOW or DB_POOL_TIMEOUT"
        )
    driver = _driver_error(exc)
    state = getattr(driver, "sqlstate", None) or _refusal(driver)
    return _translated(driver, state, place, url)


def _translated(
    driver: BaseException, state: str | None, place: str, url: URL | None
) -> RagstoreError:
    text = place + _reason(driver, state)
    if state is None or state.startswith("08") or state in _UNAVAILABLE:
        if state is None and not _is_connection_lost(driver):
            return QueryFailed(text)
        return DatabaseUnavailable(f"{text}. {_REMEDIES.get(state or '', _IS_IT_UP)}")
    if state.startswith("28"):
        return AuthenticationFailed(f"{text}. Check the user and the password of the URL")
    if state == "3D000":
        database = (url.database if url is not None else None) or ""
        return DatabaseNotFound(
            f"{text}. Create it: ragstore.database.create_database(url)", database=database
        )
    if state == "42501":
        return PermissionDenied(f"{text}. GRANT the right to the role, or use one that has it")
    if state == "55P03":
        return LockTimeout(f"{text}. Another session holds the lock; try again", sqlstate=state)
    if state == "42P01" and _names_our_table(text):
        return SchemaMissing(f"{text}. Make the tables: ragstore migrate upgrade")
    return QueryFailed(
        f"{text}. {_REMEDIES[state]}" if state in _REMEDIES else text, sqlstate=state
    )


def place_of(url: URL) -> str:
    """Name the server and database for people, without anything secret.

    The query of a URL may hold a password too, so only host and port are kept of it.
    """
    kept = {name: url.query[name] for name in ("host", "port") if name in url.query}
    return display_url(url.set(query=kept))


def _driver_error(exc: BaseException) -> BaseException:
    return getattr(exc, "orig", None) or exc


def _refusal(driver: BaseException) -> str | None:
    if not isinstance(driver, psycopg.OperationalError):
        return None
    return next((state for state, text in _REFUSALS if text.search(str(driver))), None)


def _is_connection_lost(driver: BaseException) -> bool:
    # The one operational error without SQLSTATE that is not about the connection.
    return isinstance(driver, psycopg.OperationalError) and "number of parameters" not in str(
        driver
    )


def _reason(driver: BaseException, state: str | None) -> str:
    """Give the primary message; those of class 22 quote the value that was refused."""
    diagnosis = getattr(driver, "diag", None)
    # A line that starts with a tab is libpq's advice; ours follows.
    lines = [line for line in str(driver).splitlines() if not line.startswith("\t")]
    text = (diagnosis and diagnosis.message_primary) or " ".join(lines)
    return re.sub(r'".*"', '"…"', text, flags=re.DOTALL) if _quotes_value(state) else text


def _quotes_value(state: str | None) -> bool:
    return state is not None and state.startswith("22")


def _showable(driver: BaseException) -> bool:
    """Tell whether the driver's error may stand in a traceback: it repeats no row."""
    diagnosis = getattr(driver, "diag", None)
    if diagnosis is not None and (diagnosis.message_detail or diagnosis.context):
        return False
    return not _quotes_value(getattr(driver, "sqlstate", None))


def _names_our_table(text: str) -> bool:
    from ragstore.models import TABLES

    ours = {VERSION_TABLE, *(table.name for table in TABLES)}
    return not ours.isdisjoint(re.findall(r"\bragstore_\w+", text))
