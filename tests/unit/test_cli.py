"""The command line where no server is needed: help, settings, errors, warnings, signals, pipes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ragstore import __version__, cli, exceptions, migrations
from ragstore.conf import settings

REFUSED = "postgresql://ann:geheim@127.0.0.1:1/rag"
LIBRARIES = {
    "alembic",
    "environs",
    "numpy",
    "pgvector",
    "psycopg",
    "rich",
    "sqlalchemy",
    "sqlmodel",
    "wordllama",
}


def run(*arguments: str) -> Result:
    """Run the command in this process; an error that is no exit is raised."""
    return CliRunner().invoke(cli.app, arguments, prog_name="ragstore", catch_exceptions=False)


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    command = [sys.executable, "-m", "ragstore", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **{**pipes, **options})


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_looking_is_light(option: str) -> None:
    """Help and version are shown without importing any of the libraries but typer."""
    code = (
        f"import sys; sys.argv[1:] = [{option!r}]\nfrom ragstore.cli import main\ntry:\n main()\n"
    )
    code += "finally:\n print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    imported = {name.partition(".")[0] for name in done.stderr.split()}

    assert done.returncode == 0
    assert done.stdout
    assert "typer" in imported
    assert imported.isdisjoint(LIBRARIES)


def test_version() -> None:
    """The version is that of the package."""
    done = run("--version")

    assert (done.exit_code, done.stdout) == (0, f"ragstore {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--help"], ["quickstart", "settings", "migrate"]),
        (["-h"], ["quickstart", "settings", "migrate"]),
        (["migrate", "--help"], ["upgrade", "downgrade", "current", "history", "check"]),
        (["quickstart", "--help"], ["[PATH]...", "--ask QUESTION", "Python language reference"]),
        (["migrate", "upgrade", "-h"], ["[REV]", "--sql"]),
        (["migrate", "check", "--help"], ["2 the schema differs"]),
    ],
)
def test_help(arguments: list[str], names: list[str]) -> None:
    """Help names what there is, within 80 columns."""
    done = run(*arguments)

    assert done.exit_code == 0
    assert [name for name in names if name not in done.stdout] == []
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_no_option_takes_a_url() -> None:
    """Where the process list would show a password, there is no way to write one."""
    done = run("migrate", "current", "--database-url", REFUSED)

    assert done.exit_code == 2
    assert "geheim" not in done.output


@pytest.mark.parametrize("arguments", [[], ["migrate"], ["nonsense"], ["quickstart", "--nonsense"]])
def test_wrong_usage(arguments: list[str]) -> None:
    """A command that is missing or unknown shows the usage and ends with 2."""
    done = run(*arguments)

    assert done.exit_code == 2
    assert "Usage:" in done.output


# --- settings ----------------------------------------------------------------------------------


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is shown as it is in effect, passwords masked wherever a URL holds them."""
    monkeypatch.setenv("DB_DATABASE_URL", f"{REFUSED}?sslpassword=heimlich&sslmode=require")
    monkeypatch.setenv("DB_POOL_SIZE", "7")
    done = run("settings")
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())

    assert done.exit_code == 0
    assert set(shown) == {name for name in dir(settings) if name.isupper()}
    assert shown["POOL_SIZE"] == "7"
    assert shown["TEST_DATABASE_URL"] == "(not set)"
    masked = "postgresql://ann:***@127.0.0.1:1/rag?sslmode=require&sslpassword=***"
    assert shown["DATABASE_URL"] == shown["MIGRATION_DATABASE_URL"] == masked
    assert "geheim" not in done.output
    assert "heimlich" not in done.output


def test_settings_without_database() -> None:
    """No database is no error where it is only looked at."""
    done = run("settings")

    assert done.exit_code == 0
    assert "DATABASE_URL            (not set)" in done.stdout


def test_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is wrong with the settings is told at once, on stderr."""
    monkeypatch.setenv("DB_POOL_SIZE", "many")
    monkeypatch.setenv("DB_ECHO", "perhaps")
    done = run("settings")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert "DB_POOL_SIZE" in done.stderr
    assert "DB_ECHO" in done.stderr


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["quickstart"], 1),
        (["migrate", "upgrade"], 1),
        (["migrate", "downgrade", "-1"], 1),
        (["migrate", "current"], 1),
        (["migrate", "check"], cli.UNKNOWN),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_no_server(arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is named in one line, without its password."""
    monkeypatch.setenv("DB_DATABASE_URL", REFUSED)
    done = run(*arguments)

    assert done.exit_code == code
    assert done.stderr.startswith("Error: postgresql://ann:***@127.0.0.1:1/")
    assert done.stderr.count("\n") == 1
    assert "geheim" not in done.output


@pytest.mark.parametrize("url", ["mysql://ann:geheim@host/rag", "ann:geheim@host", "embedded://x"])
@pytest.mark.parametrize("command", ["quickstart", "settings", "migrate check"])
def test_no_url(url: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no URL of a Postgres database is an error of the settings, for every command."""
    monkeypatch.setenv("DB_DATABASE_URL", url)
    done = run(*command.split())

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: DB_DATABASE_URL ")
    assert "geheim" not in done.output


def test_no_database_set() -> None:
    """Migrations need a database: without one the error says what to set, even in a check."""
    for command in ("upgrade", "check"):
        done = run("migrate", command)

        assert done.exit_code == 1
        assert "set DB_DATABASE_URL=" in done.stderr


def test_history_asks_no_database() -> None:
    """The history is in the package; its newest revision comes first and is marked."""
    done = run("migrate", "history")

    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].endswith("(head)")
    assert done.stdout.splitlines()[-1].startswith("0001_")


def test_sql_asks_no_database() -> None:
    """The statements of a migration are printed as they would be run, and nothing else."""
    up = run("migrate", "upgrade", "--sql")
    down = run("migrate", "downgrade", "head:base", "--sql")

    assert (up.exit_code, down.exit_code) == (0, 0)
    assert up.stdout.startswith("BEGIN;")
    assert "CREATE TABLE ragstore_document" in up.stdout
    assert "DROP TABLE ragstore_document" in down.stdout


def test_downgrade_sql_needs_a_range() -> None:
    """Without a database, where a downgrade begins must be said."""
    done = run("migrate", "downgrade", "-1", "--sql")

    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")


def test_unknown_error_keeps_its_traceback() -> None:
    """A defect is shown as one, with the line where it is."""
    code = "from ragstore import cli\n@cli.app.command()\ndef fail():\n    1 / 0\ncli.main()"
    done = subprocess.run([sys.executable, "-c", code, "fail"], capture_output=True, text=True)

    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exceptions.SchemaDrift("other", differences=["one"]), 2),
        (exceptions.SchemaBehind("old", current=[], head=["1"]), 3),
        (exceptions.UnknownRevision("newer", revision="9"), 4),
        (exceptions.MigrationError("not compared"), 4),
        (exceptions.PermissionDenied("no"), 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_codes_of_check(
    error: exceptions.RagstoreError, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script can tell a schema that differs from one that is behind or cannot be read."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(migrations, "check", refuse)
    done = run("migrate", "check")

    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr == f"Error: {error}\n"
    assert run("migrate", "check", "--json").exit_code == code


# --- warnings ----------------------------------------------------------------------------------


def test_legacy_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old name works, and is told of in one plain line, once."""
    monkeypatch.setenv("DATABASE_URL", REFUSED)
    done = start("settings")
    stdout, stderr = done.communicate(timeout=30)

    assert done.returncode == 0
    assert "postgresql://ann:***@127.0.0.1:1/rag" in stdout
    assert stderr.startswith("Warning: the variable DATABASE_URL is an old name")
    assert stderr.count("\n") == 1


def test_legacy_variable_in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both our warnings are shown plainly, others as Python shows them, and all is put back."""
    others: list[str] = []

    def usual(message: Warning | str, *_: object) -> None:
        others.append(str(message))

    monkeypatch.setattr(sys, "warnoptions", [])
    monkeypatch.setattr(warnings, "showwarning", usual)
    with cli._plain_warnings():
        warnings.warn("old name", exceptions.LegacyVariableWarning, stacklevel=1)
        warnings.warn("old pgvector", exceptions.OldExtensionWarning, stacklevel=1)
        warnings.simplefilter("default", UserWarning)
        warnings.warn("of a library", UserWarning, stacklevel=1)

    assert capsys.readouterr().err == "Warning: old name\nWarning: old pgvector\n"
    assert others == ["of a library"]
    assert warnings.showwarning is usual


def test_warnings_as_python_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs Python with -W decides what becomes of our warnings."""
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    with cli._plain_warnings(), pytest.raises(exceptions.LegacyVariableWarning):
        warnings.warn("old name", exceptions.LegacyVariableWarning, stacklevel=1)


# --- signals, pipes, terminals -----------------------------------------------------------------


# What a shell has put into the background ignores SIGINT, and so do its children.
_HEEDING_CTRL_C = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[1:] = ["migrate", "current"]
runpy.run_module("ragstore", run_name="__main__")
"""


def test_interrupt() -> None:
    """Ctrl-C ends a command that waits for a server, with 130 and without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/rag"
        waiting = subprocess.Popen(
            [sys.executable, "-c", _HEEDING_CTRL_C],
            env={**os.environ, "DB_DATABASE_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.settimeout(30)
        talk, _ = silent.accept()
        with talk:
            talk.recv(1)
            waiting.send_signal(signal.SIGINT)
            _, stderr = waiting.communicate(timeout=30)

    assert waiting.returncode == 130, stderr
    assert "Traceback" not in stderr


def test_interrupt_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever Ctrl-C comes, the exit code is the shell's for it."""

    def interrupted(_: list[Path], __: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ragstore.quickstart.terminal.run", interrupted)

    assert run("quickstart").exit_code == 130


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["settings"], ["migrate", "history"], ["migrate", "upgrade", "--sql"]],
    ids=" ".join,
)
def test_closed_pipe(arguments: list[str]) -> None:
    """A reader that goes away, as head does, is no reason to complain."""
    reading, writing = os.pipe()
    os.close(reading)
    done = start(*arguments, stdout=writing)
    os.close(writing)
    _, stderr = done.communicate(timeout=30)

    assert stderr == ""
    assert done.returncode in {0, 1}
