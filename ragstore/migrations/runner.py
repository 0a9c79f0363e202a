"""All that ``alembic/env.py`` does, in functions that can be tested and run twice."""

from __future__ import annotations

import logging
import logging.config
import math
import re
import secrets
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from alembic.migration import MigrationContext
from alembic.util import CommandError
from psycopg.errors import DuplicateTable
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from ragstore.conf import settings
from ragstore.driver import VERSION_TABLE, resolve_url, session_options, translate_errors
from ragstore.exceptions import (
    ImproperlyConfigured,
    LegacyVariableWarning,
    MigrationError,
    RagstoreError,
    UnknownRevision,
)
from ragstore.migrations.lock import migration_lock
from ragstore.migrations.options import comparison_options, only_ours
from ragstore.url import DRIVER

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

logger = logging.getLogger(__name__)

IDLE_LIMIT = 60
"""Seconds after which the server ends a migration that hangs with a transaction open."""

_NUMBERED = re.compile(r"(\d+)_[0-9a-f]{6}")


def run_env(context: EnvironmentContext) -> None:
    """Run the command that Alembic was asked for: the whole of ``alembic/env.py``.

    Migrates, first wins: ``config.attributes["connection"]``, ``config.attributes["url"]``,
    ``sqlalchemy.url``, the settings MIGRATION_DATABASE_URL and DATABASE_URL. One migrator works at
    a time; each revision is a transaction of its own, under MIGRATION_LOCK_TIMEOUT.

    Raises:
        RagstoreError: what went wrong, and the remedy. On Alembic's own command line it is a
            CommandError with the same text, which Alembic prints without a traceback.
    """
    config = context.config
    by_hand = config.cmd_opts is not None
    if by_hand:
        _prepare_command_line(config)
    try:
        if context.is_offline_mode():
            _run_offline(context)
        else:
            _run_online(context)
    except RagstoreError as exc:
        if by_hand:
            raise CommandError(str(exc)) from exc
        raise


def _prepare_command_line(config: Config) -> None:
    if config.config_file_name and config.file_config.has_section("loggers"):
        logging.config.fileConfig(config.config_file_name, disable_existing_loggers=False)
    if not sys.warnoptions:  # Python hides deprecations outside __main__
        warnings.filterwarnings("default", category=LegacyVariableWarning)


def _run_offline(context: EnvironmentContext) -> None:
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        **_our_options(context.config),
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_online(context: EnvironmentContext) -> None:
    connection = context.config.attributes.get("connection")
    if connection is not None:
        url = connection.engine.url
        with translate_errors(url):
            _run_on(context, connection, url)
        return
    with connected(migration_url(context.config)) as connection:
        _run_on(context, connection, connection.engine.url)


@contextmanager
def connected(url: URL) -> Iterator[Connection]:
    """Open a connection for migrations, and translate the driver's errors while it is open."""
    with translate_errors(url), migration_engine(url).connect() as connection:
        yield connection


def _run_on(context: EnvironmentContext, connection: Connection, url: URL) -> None:
    current = current_heads(connection)
    check_known(context.script, current)
    with _lock_for(context, current, url), _explained(current):
        context.configure(connection=connection, **_our_options(context.config))
        with context.begin_transaction():
            context.run_migrations()


@contextmanager
def _explained(current: tuple[str, ...]) -> Iterator[None]:
    """Say what to do where the first revision meets its own tables."""
    try:
        yield
    except ProgrammingError as exc:
        if current or not isinstance(exc.orig, DuplicateTable):
            raise
        raise MigrationError(
            "The tables of ragstore are there, but no revision is recorded: create_all() made them,"
            f" or {VERSION_TABLE} was lost. If they are as this version has them, record that:"
            " `ragstore migrate stamp`, then `ragstore migrate check`; if not, drop them:"
            " DatabaseConnection().drop_tables()"
        ) from exc


def migration_url(config: Config) -> URL:
    """Return the URL of the database to migrate; an embedded server is started.

    Raises:
        ImproperlyConfigured: no URL is set anywhere, or it leads through a transaction pooler.
    """
    given = config.attributes.get("url") or config.get_main_option("sqlalchemy.url")
    return resolve_url(given or _url_from_settings())


def migration_engine(url: URL) -> Engine:
    """Return an engine for migrations: no pool, and time limits that hold from the first moment.

    The limits are connection options because a ``SET`` before ``context.configure`` opens a
    transaction, which Alembic then takes for somebody else's and does not commit.
    """
    limits = (
        f"-c lock_timeout={math.ceil(settings.MIGRATION_LOCK_TIMEOUT * 1000)}"
        f" -c idle_in_transaction_session_timeout={IDLE_LIMIT}s"
    )
    given = url.normalized_query.get("options", ())
    arguments = {**session_options(url), "options": " ".join([limits, *given])}
    return create_engine(
        url.set(drivername=DRIVER), poolclass=NullPool, hide_parameters=True, connect_args=arguments
    )


def current_heads(connection: Connection) -> tuple[str, ...]:
    """Return the revisions that the database is at; leaves no transaction behind."""
    within = connection.in_transaction()
    there = connection.scalar(text("SELECT to_regclass(:table)"), {"table": VERSION_TABLE})
    versions = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant
    heads = connection.scalars(versions).all() if there is not None else ()
    if not within:
        connection.rollback()
    return tuple(heads)


def _url_from_settings() -> URL:
    url = settings.MIGRATION_DATABASE_URL
    if settings.POOLER == "transaction" and url == settings.DATABASE_URL:
        raise ImproperlyConfigured(
            "DB_POOLER=transaction says that DB_DATABASE_URL leads through a transaction pooler,"
            " where the migration lock does not hold: set DB_MIGRATION_DATABASE_URL to a direct URL"
        )
    return url


def _our_options(config: Config) -> dict[str, Any]:
    hook = _number_revision if _writes_revision(config) else None
    ours = {"version_table": VERSION_TABLE, "process_revision_directives": hook}
    return comparison_options(only_ours, SQLModel.metadata, ours)


def check_known(script: ScriptDirectory, current: tuple[str, ...]) -> None:
    """Refuse a database that a newer version of ragstore has migrated.

    Raises:
        UnknownRevision: it is at a revision that there is no file for.
    """
    known = {step.revision for step in script.walk_revisions()}
    for revision in set(current) - known:
        raise UnknownRevision(
            f"The database is at revision {revision}, which this version of ragstore does not"
            " have: a newer one has migrated it. Upgrade the package: pip install -U ragstore",
            revision=revision,
        )


@contextmanager
def _lock_for(context: EnvironmentContext, current: tuple[str, ...], url: URL) -> Iterator[None]:
    if not _changes_schema(context, current):
        yield
        return
    engine = migration_engine(url)
    with migration_lock(engine, VERSION_TABLE, wait=settings.MIGRATION_WAIT_TIMEOUT):
        yield


def _changes_schema(context: EnvironmentContext, current: tuple[str, ...]) -> bool:
    """Tell upgrade, downgrade and stamp from commands that only look, or have nothing to do."""
    try:
        target = context.get_revision_argument()
    except KeyError:  # check, current, revision: they have no destination
        return False
    except CommandError:  # "-1" is not a revision until the migrations are walked
        return True
    return {target} != set(current) if isinstance(target, str) else True


def _writes_revision(config: Config) -> bool:
    """Tell the command ``revision`` from ``check``, which builds a revision and throws it away."""
    return bool(config.attributes.get("writes_revision")) or hasattr(
        config.cmd_opts, "autogenerate"
    )


def _number_revision(context: MigrationContext, _revision: Any, directives: list[Any]) -> None:
    """Give a new revision the next number; write none if autogenerate found no difference."""
    arguments = context.opts["revision_context"].command_args
    script = directives[0]
    if arguments["autogenerate"] and script.upgrade_ops.is_empty():
        directives.clear()
        logger.info("the models and the database agree: no revision is written")
    elif not arguments["rev_id"]:
        script.rev_id = _next_revision_id(context)


def _next_revision_id(context: MigrationContext) -> str:
    # The number sorts the files for people; the random part keeps two branches from making one id.
    # Other ids, as `alembic merge` makes them, count for nothing.
    ids = [known.revision for known in cast("ScriptDirectory", context.script).walk_revisions()]
    numbers = [int(found[1]) for found in map(_NUMBERED.fullmatch, ids) if found]
    return f"{max(numbers, default=0) + 1:04d}_{secrets.token_hex(3)}"
