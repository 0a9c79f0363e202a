"""The ``ragstore`` command: thin over the library.

Nothing is imported before a command runs but typer and the errors. An error of ragstore ends a
command with exit code 1 and ``Error: …`` on stderr, Ctrl-C with 130; any other error is a defect
and keeps its traceback.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from ragstore import __version__
from ragstore.exceptions import (
    ImproperlyConfigured,
    LegacyVariableWarning,
    OldExtensionWarning,
    RagstoreError,
)

DRIFT, BEHIND, UNKNOWN = 2, 3, 4
CODES = {"clean": 0, "drift": DRIFT, "behind": BEHIND, "unknown": UNKNOWN}
"""Exit codes of ``migrate check``, by what it finds."""


def main() -> None:
    """Run the command line; the console script.

    A character that the terminal cannot show becomes a question mark.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a text file's method
    app()


# --- errors and warnings for people ------------------------------------------------------------


class _Commands(TyperGroup):
    """The commands, their errors and warnings told in plain lines."""

    def invoke(self, ctx: Any) -> Any:
        with _plain_warnings():
            try:
                return super().invoke(ctx)
            except RagstoreError as exc:
                _tell("Error:", str(exc), "red")
                raise typer.Exit(1) from exc
            except KeyboardInterrupt as exc:
                raise typer.Exit(130) from exc


def _tell(label: str, text: str, color: str) -> None:
    typer.echo(f"{typer.style(label, fg=color, bold=True)} {text}", err=True)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show our warnings, which Python hides or decorates, unless its ``-W`` says otherwise."""
    ours = (LegacyVariableWarning, OldExtensionWarning)
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, ours):
                _tell("Warning:", str(message), "yellow")
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        if not sys.warnoptions:
            for category in ours:
                warnings.simplefilter("default", category)
        yield


# --- the command -------------------------------------------------------------------------------

_TYPER: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,  # rich would triple the time of --help
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

app = typer.Typer(
    name="ragstore",
    cls=_Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    **_TYPER,
)


def _show_version(*, value: bool) -> None:
    if value:
        typer.echo(f"ragstore {__version__}")
        raise typer.Exit


@app.callback()
def ragstore(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """The Postgres storage layer of a retrieval-augmented application."""


@app.command()
def quickstart(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Files, or directories of files: .md, .markdown, .txt, .rst.",
            show_default="the Python language reference",
        ),
    ] = None,
    *,
    ask: Annotated[
        list[str] | None,
        typer.Option(metavar="QUESTION", help="Ask this; may be repeated.", show_default=False),
    ] = None,
) -> None:
    """Load real text and search it, from nothing to an answer.

    Works on the database of DB_DATABASE_URL or, without that, on the embedded server. It can be
    run again at once: documents that did not change are recognised.
    """
    from ragstore.quickstart.terminal import run

    run(paths or [], ask or [])


@app.command(name="settings")
def show_settings() -> None:
    """Show every setting as it is in effect; passwords are masked.

    A setting NAME is set as the variable DB_NAME; docs/settings.md says what each one means.
    """
    from ragstore.conf import Settings, settings

    _ = settings.LEGACY_NAMES  # raises what is wrong with any of them
    for name in Settings.__annotations__:
        typer.echo(f"{name:<23} {_setting(name)}")


def _setting(name: str) -> str:
    from ragstore.conf import settings
    from ragstore.url import display_url

    try:
        value = getattr(settings, name)
    except ImproperlyConfigured:  # only a URL that is not set
        value = None
    if value is None:
        return "(not set)"
    return display_url(value) if hasattr(value, "render_as_string") else str(value)


# --- migrations --------------------------------------------------------------------------------

migrate = typer.Typer(
    help="Migrate the database of DB_MIGRATION_DATABASE_URL or DB_DATABASE_URL.",
    short_help="Migrate the database up or down; look where it is.",
    **_TYPER,
)
app.add_typer(migrate, name="migrate")

_TAKES_MINUS_ONE = {"ignore_unknown_options": True}  # "-1" is a revision, not an option

SqlOption = Annotated[bool, typer.Option("--sql", help="Print the SQL; ask no database.")]


@migrate.command(context_settings=_TAKES_MINUS_ONE)
def upgrade(
    revision: Annotated[str, typer.Argument(metavar="[REV]", help="Where to go.")] = "head",
    *,
    sql: SqlOption = False,
) -> None:
    """Migrate forward: to the newest revision, or to REV."""
    from ragstore import migrations

    if sql:
        migrations.upgrade(revision=revision, sql=sys.stdout)
        return
    before = migrations.current()
    migrations.upgrade(revision=revision)
    _tell_move(before, migrations.current())


@migrate.command(context_settings=_TAKES_MINUS_ONE)
def downgrade(
    revision: Annotated[
        str, typer.Argument(metavar="REV", help="Where to go: -1, base, …; with --sql, FROM:TO.")
    ],
    *,
    sql: SqlOption = False,
) -> None:
    """Migrate back to REV: -1 is one step; "base" drops every ragstore table."""
    from ragstore import migrations

    if sql:
        migrations.downgrade(revision=revision, sql=sys.stdout)
        return
    before = migrations.current()
    migrations.downgrade(revision=revision)
    _tell_move(before, migrations.current())


@migrate.command()
def stamp(
    revision: Annotated[str, typer.Argument(metavar="[REV]", help="What to record.")] = "head",
) -> None:
    """Record a revision and change nothing: for tables that create_all() made."""
    from ragstore import migrations

    before = migrations.current()
    migrations.stamp(revision=revision)
    _tell_move(before, migrations.current())


@migrate.command()
def current() -> None:
    """Show the revision that the database is at."""
    from ragstore import migrations

    heads = {step.id for step in migrations.history() if step.is_head}
    found = migrations.current()
    for revision in found:
        typer.echo(f"{revision} (head)" if revision in heads else revision)
    if not found:
        typer.echo("none")


@migrate.command()
def history() -> None:
    """List every revision, the newest first."""
    from ragstore import migrations

    for step in migrations.history():
        typer.echo(f"{step.id}  {step.description}{' (head)' if step.is_head else ''}")


@migrate.command()
def check(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, whatever is found.")
    ] = False,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="List what no revision made: it is left alone.")
    ] = False,
) -> None:
    """Check that the database is at the newest revision and has the models' schema.

    Exit codes: 0 it is, 2 the schema differs, 3 the revision is older, 4 it cannot be told.
    """
    from ragstore.migrations.standing import standing

    found = standing()
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
    elif found.status == "clean":
        typer.echo(found.message)
    else:
        _tell("Error:", found.message, "red")
    if foreign and not as_json:
        for name in found.foreign:
            typer.echo(f"left alone: {name}")
    if found.status != "clean":
        raise typer.Exit(CODES[found.status])


def _tell_move(before: Sequence[str], after: Sequence[str]) -> None:
    was, now = (", ".join(revisions) or "none" for revisions in (before, after))
    typer.echo(f"at {now} already" if was == now else f"from {was} to {now}")
