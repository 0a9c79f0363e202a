"""Alembic migrations: the commands as functions, and what a host's own env.py needs.

The functions migrate the database of ``url``, of ``connection`` or, with neither, of the setting
MIGRATION_DATABASE_URL. They are the same as the commands ``alembic ...`` in a checkout of ragstore
and ``ragstore migrate ...`` anywhere. Alembic is imported when one of them is called.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ragstore.exceptions import (
    CouldNotCompare,
    MigrationError,
    MigrationNotApplied,
    MultipleHeads,
    SchemaBehind,
    SchemaDrift,
    UnknownRevision,
)

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from sqlalchemy import URL, Connection, MetaData

# Alembic keeps the running command in module globals: two threads would mix them up.
_one_command = threading.RLock()


@dataclass(frozen=True)
class Revision:
    """One step of the history."""

    id: str
    parents: tuple[str, ...]
    description: str
    is_head: bool


def script_location() -> Path:
    """Return the directory of the migrations: in the installed package, or in the checkout."""
    package = Path(__file__).parent.parent
    # In site-packages the sibling "alembic" is the library, which has no env.py of its own.
    for directory in (package / "_alembic", package.parent / "alembic"):
        if (directory / "env.py").is_file():
            return directory
    raise MigrationError(f"ragstore is installed without its migrations: reinstall it ({package})")


def make_config(
    url: str | URL | None = None,
    *,
    connection: Connection | None = None,
    output: TextIO | None = None,
) -> Config:
    """Return an Alembic Config of our migrations, for use with ``alembic.command``.

    A URL is passed as an attribute, never through ini text, where a ``%`` in a password breaks.
    With ``connection`` the caller ends the transaction.
    """
    from alembic.config import Config

    config = Config(output_buffer=output) if output else Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.set_main_option("revision_environment", "true")
    config.attributes["url"] = url
    config.attributes["connection"] = connection
    return config


def upgrade(
    url: str | URL | None = None,
    revision: str = "head",
    *,
    connection: Connection | None = None,
    sql: TextIO | None = None,
) -> None:
    """Migrate forward to ``revision``, one transaction for each; do nothing if it is there.

    With ``connection`` the caller ends the transaction; the migration lock is taken through a
    connection of its own, to the URL of the connection's engine, and let go when this returns.

    ``sql`` takes the statements instead of the database.

    Raises:
        DatabaseUnavailable, DatabaseNotFound: the database cannot be asked.
        ExtensionNotPermitted, ExtensionMissing, ExtensionTooOld: pgvector is not usable.
        UnknownRevision, MultipleHeads: there is no such target, or more than one.
        MigrationLockTimeout, LockTimeout: another migrator, or another session, was in the way.
        MigrationNotApplied: the database is not at the target afterwards.
    """
    config = make_config(url, connection=connection, output=sql)
    with _running():
        from alembic import command

        command.upgrade(config, revision, sql=sql is not None)
        if sql is None and revision in ("head", "heads"):
            _check_arrived(config)


def downgrade(
    url: str | URL | None = None,
    revision: str = "-1",
    *,
    connection: Connection | None = None,
    sql: TextIO | None = None,
) -> None:
    """Migrate back to ``revision``, one step if none is given; the extension stays.

    Going to ``base`` drops every ragstore table and what is in it. ``sql`` takes the statements
    instead of the database; then ``revision`` is a range, ``from:to``.

    Raises:
        RagstoreError: as in ``upgrade``.
    """
    config = make_config(url, connection=connection, output=sql)
    with _running():
        from alembic import command

        command.downgrade(config, revision, sql=sql is not None)


def stamp(
    url: str | URL | None = None,
    revision: str = "head",
    *,
    connection: Connection | None = None,
) -> None:
    """Record that the database is at ``revision``, and change nothing else.

    For tables that ``create_all`` made, or a version table that was lost. Let ``check`` follow.

    Raises:
        RagstoreError: as in ``upgrade``.
    """
    config = make_config(url, connection=connection)
    with _running():
        from alembic import command

        command.stamp(config, revision)


def current(
    url: str | URL | None = None, *, connection: Connection | None = None
) -> tuple[str, ...]:
    """Return the revisions that the database is at: none, one, or one for each branch."""
    with _running():
        return _current(make_config(url, connection=connection))


def history() -> list[Revision]:
    """Return every revision, the newest first. Asks no database."""
    with _running():
        script = _script(make_config())
        heads = set(script.get_heads())
        return [
            Revision(step.revision, _tuple(step.down_revision), step.doc, step.revision in heads)
            for step in script.walk_revisions()
        ]


def check(url: str | URL | None = None, *, connection: Connection | None = None) -> tuple[str, ...]:
    """Return if the database is at the newest revision and its schema is the models'.

    What the server says of both is compared: every column, constraint, index, type and function.
    The result names what stands beside the models, was made by no revision of ours, and is left
    alone: a DBA's index, say.

    Raises:
        SchemaBehind: it is at an older revision, or at none.
        UnknownRevision: it is at one that this version of ragstore does not have.
        SchemaDrift: it has the newest revision and another schema.
        CouldNotCompare: a part of it could not be compared.
    """
    config = make_config(url, connection=connection)
    with _running():
        from alembic import command
        from alembic.util import AutogenerateDiffsDetected

        _check_not_behind(config)
        config.stdout = io.StringIO()  # Alembic would print that all is well
        try:
            command.check(config)
        except AutogenerateDiffsDetected as exc:
            differences = [str(difference) for difference in exc.diffs]
            lines = "\n".join(f"  - {difference}" for difference in differences)
            raise SchemaDrift(
                "The database is at the newest revision, but its schema is not the models'."
                " Undo by hand what was changed by hand; what ragstore's developers changed in the"
                f" models needs a revision:\n{lines}",
                differences=differences,
                foreign=_foreign(config),
            ) from exc
        return _foreign(config)


def revision(
    message: str,
    *,
    autogenerate: bool = True,
    url: str | URL | None = None,
    connection: Connection | None = None,
) -> Path | None:
    """Write a revision of ragstore's own history and return its file; none if nothing changed.

    For developers of ragstore: an application's tables belong in its own history.
    """
    config = make_config(url, connection=connection)
    config.attributes["writes_revision"] = True
    with _running():
        from alembic import command

        script = command.revision(config, message, autogenerate=autogenerate)
        return Path(script.path) if script and not isinstance(script, list) else None


def configure_options(
    target_metadata: MetaData | Sequence[MetaData], **overrides: Any
) -> dict[str, Any]:
    """Return the arguments for ``context.configure`` in an application's own env.py.

    They make autogenerate compare everything that the catalog has, write revisions that run, and
    leave alone what none of your revisions made: the tables of ragstore, partitions, extensions'
    tables, a DBA's index. ``overrides`` replace single arguments; but an ``include_name`` or
    ``include_object`` of yours can only leave out more, and a ``process_revision_directives`` of
    yours runs after ours. No ``version_table`` is set: your history keeps its own.

    Raises:
        MigrationError: the metadata has no tables: the models were not imported.
    """
    from ragstore.migrations.compare import metadatas
    from ragstore.migrations.options import comparison_options, never_ours

    if not any(metadata.tables for metadata in metadatas(target_metadata)):
        raise MigrationError(
            "The target metadata has no tables, so autogenerate would drop every table of the"
            " database: import the models before env.py calls configure_options()"
        )
    return comparison_options(never_ours, target_metadata, overrides)


def _script(config: Config) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config)


def _current(config: Config) -> tuple[str, ...]:
    from ragstore.migrations import runner

    given = config.attributes["connection"]
    if given is not None:
        return runner.current_heads(given)
    with runner.connected(runner.migration_url(config)) as connection:
        return runner.current_heads(connection)


def _check_arrived(config: Config) -> None:
    found, heads = _current(config), _script(config).get_heads()
    if set(found) != set(heads):
        raise MigrationNotApplied(
            f"The upgrade ended, but the database is at {_listed(found)} and not at"
            f" {_listed(heads)}: was its transaction rolled back?"
        )


def _check_not_behind(config: Config) -> None:
    from ragstore.migrations import runner

    script = _script(config)
    found, heads = _current(config), script.get_heads()
    runner.check_known(script, found)
    if set(found) != set(heads):
        raise SchemaBehind(
            f"The database is at revision {_listed(found)}, the newest is {_listed(heads)}:"
            " run `ragstore migrate upgrade`",
            current=found,
            head=heads,
        )


def _foreign(config: Config) -> tuple[str, ...]:
    """Return what the comparison left alone, but for the partitions that ``Store`` makes."""
    from ragstore.migrations.compare import FOREIGN
    from ragstore.migrations.options import is_ours

    found = [name.partition(" ") for name in config.attributes.get(FOREIGN, ())]
    made = {"table", "partition"}
    return tuple("".join(each) for each in found if each[0] not in made or not is_ours(each[2]))


def _listed(revisions: Sequence[str]) -> str:
    return ", ".join(revisions) or "none"


def _tuple(value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


@contextmanager
def _running() -> Iterator[None]:
    """Let one thread at a time use Alembic, and turn its errors into ours."""
    from alembic.script.revision import MultipleHeads as AlembicMultipleHeads
    from alembic.script.revision import ResolutionError
    from alembic.util import CommandError

    with _one_command:
        try:
            yield
        except CommandError as exc:
            cause = exc.__cause__
            if isinstance(cause, CouldNotCompare):
                raise cause from None
            if isinstance(cause, AlembicMultipleHeads):
                raise MultipleHeads(
                    f"There is more than one newest revision ({', '.join(cause.heads)}):"
                    " merge them with `alembic merge heads`, or name the one you mean",
                    heads=cause.heads,
                ) from exc
            if isinstance(cause, ResolutionError):
                raise UnknownRevision(
                    f"There is no revision {cause.argument!r}: see `ragstore migrate history`",
                    revision=str(cause.argument),
                ) from exc
            raise MigrationError(str(exc)) from exc
