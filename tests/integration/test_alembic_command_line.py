"""Alembic's own command line, from the root of a checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL

from ragstore import migrations
from ragstore.connection import connect
from ragstore.embedded import is_installed

HEAD, BELOW = (revision.id for revision in migrations.history()[:2])
ROOT = Path(__file__).parents[2]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command, with only these settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DB_")}
    return {**kept, **variables}


def alembic(
    *arguments: str, url: URL | None = None, root: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``alembic`` in a checkout, with only DB_DATABASE_URL set."""
    if url is not None:
        variables["DB_DATABASE_URL"] = url.render_as_string(hide_password=False)
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=root,
        env=environment(variables),
        capture_output=True,
        text=True,
    )


def succeeds(*arguments: str, url: URL | None = None, root: Path = ROOT, **variables: str) -> str:
    """Run ``alembic`` and return what it printed, which is no error."""
    done = alembic(*arguments, url=url, root=root, **variables)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def run(url: URL, *statements: str) -> None:
    """Run statements."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Give a copy of the checkout's alembic.ini and alembic/."""
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic", ignore=ignored)
    (tmp_path / "ragstore").symlink_to(Path(migrations.__file__).parents[1])
    return tmp_path


# What the program `alembic` calls; in one interpreter, which takes a second to start.
PROGRAM = (
    "import sys; from alembic.config import main\nfor line in sys.argv[1:]: main(line.split())"
)


def test_there_and_back(empty_database: URL) -> None:
    """Every command of a working day, with only DB_DATABASE_URL set."""
    said = succeeds("upgrade", "head", url=empty_database)
    assert "Create the tables." in said
    assert f"-> {HEAD}, " in said

    url = empty_database.render_as_string(hide_password=False)
    lines = ["check", "current", "history", "downgrade -1", "upgrade head", "downgrade base"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *lines],
        cwd=ROOT,
        env=environment({"DB_DATABASE_URL": url}),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "No new upgrade operations detected.",
        f"{HEAD} (head)",
        f"{BELOW} -> {HEAD} (head), Choose the index of a space.",
        f"<base> -> {BELOW}, Create the tables.",
    ]
    ran = re.findall(r"Running (\w+)", done.stderr)
    assert ran == ["downgrade", "upgrade", "downgrade", "downgrade"]
    assert migrations.current(empty_database) == ()


def test_sql_without_a_database() -> None:
    """SQL needs no URL, and goes to standard output alone."""
    done = alembic("upgrade", "head", "--sql")

    assert done.returncode == 0
    assert "CREATE EXTENSION IF NOT EXISTS vector;" in done.stdout
    assert "CREATE TABLE ragstore_embedding (" in done.stdout
    assert "PARTITION BY LIST (space_id)" in done.stdout
    assert "INFO" not in done.stdout


def test_revision_when_nothing_changed(checkout: Path, ragstore_database: URL) -> None:
    """``revision --autogenerate`` writes no file if there is nothing to write."""
    said = succeeds("revision", "--autogenerate", "-m", "x", url=ragstore_database, root=checkout)

    assert "no revision is written" in said
    assert len(list((checkout / "alembic/versions").glob("*.py"))) == len(migrations.history())


def test_revision_after_a_change(checkout: Path, database: URL) -> None:
    """What differs becomes a numbered file that runs up and down."""
    run(database, "DROP INDEX ragstore_chunk_tsv_idx")

    succeeds("revision", "--autogenerate", "-m", "Index the words", url=database, root=checkout)

    made = max((checkout / "alembic/versions").glob("*.py"))
    assert re.fullmatch(r"0003_[0-9a-f]{6}_index_the_words\.py", made.name)
    assert made.read_text().startswith('"""Index the words\n')
    config = Config(str(checkout / "alembic.ini"))
    config.attributes["url"] = database
    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "-1")
    assert migrations.current(database) == (HEAD,)


def test_revision_with_an_id(checkout: Path, ragstore_database: URL) -> None:
    """``revision`` works without autogenerate, and ``--rev-id`` is obeyed."""
    succeeds(
        "revision", "-m", "Two", "--rev-id", "0002_ffffff", url=ragstore_database, root=checkout
    )

    assert (checkout / "alembic/versions/0002_ffffff_two.py").is_file()


DEAD = "postgresql://me:s3cr3t@localhost:1/x"
FAILURES: list[tuple[list[str], dict[str, Any], str]] = [
    (["upgrade", "head"], {}, "DATABASE_URL is not set"),
    (["current"], {"DB_DATABASE_URL": DEAD}, "Is the server up"),
    (["upgrade", "head"], {"DB_DATABASE_URL": "mysql://me:s3cr3t@x/y"}, "starts with mysql://"),
]


@pytest.mark.parametrize(("arguments", "variables", "message"), FAILURES)
def test_failures(arguments: list[str], variables: dict[str, Any], message: str) -> None:
    """An error is one line with the remedy: no traceback, no password."""
    done = alembic(*arguments, **variables)

    assert done.returncode != 0
    assert "FAILED: " in done.stdout + done.stderr
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr


def test_database_of_a_newer_version(database: URL) -> None:
    """A revision that the checkout does not have is an error with the remedy."""
    run(database, "UPDATE ragstore_alembic_version SET version_num = '9999_abcdef'")

    done = alembic("upgrade", "head", url=database)

    assert done.returncode != 0
    assert "FAILED: The database is at revision 9999_abcdef" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_legacy_variable(ragstore_database: URL) -> None:
    """An old name works, and says so, though Python hides such warnings."""
    said = succeeds("current", DATABASE_URL=ragstore_database.render_as_string(hide_password=False))

    assert HEAD in said
    assert "LegacyVariableWarning" in said
    assert "DB_DATABASE_URL" in said


@pytest.mark.skipif(not is_installed(), reason="the extra `embedded` is not installed")
def test_embedded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An ``embedded://`` URL starts the server that is then migrated."""
    data = tmp_path_factory.mktemp("embedded") / "data"

    said = succeeds("upgrade", "head", DB_DATABASE_URL=f"embedded://{data}")

    assert f"-> {HEAD}, " in said
