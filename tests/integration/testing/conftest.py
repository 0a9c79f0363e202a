"""Runs of pytest inside the tests: projects that use the plugin, each with its own database."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import sql
from sqlalchemy.engine import URL

import ragstore
from ragstore.driver import connect
from ragstore.testing.isolation import RolledBackConnection, RolledBackEngines

# The plugin by its module, whether or not ragstore is installed with its entry point.
_PLUGIN = ("-p", "no:ragstore", "-p", "ragstore.testing.plugin")
# Kept out of the runs because they only take time there.
_QUIET = ("-p", "no:asyncio", "-p", "no:anyio", "-p", "no:hypothesispytest", "-p", "no:cov")


class Project:
    """An application whose tests use the plugin, in a directory of its own."""

    def __init__(self, root: Path, url: URL) -> None:
        self.root, self.url = root, url
        self.write("pytest.ini", "[pytest]\naddopts = -p no:cacheprovider -rA\n")

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, *arguments: str, given: bool = True) -> subprocess.Popen[str]:
        """Start pytest on the project, its test database being given unless said otherwise."""
        text = self.url.render_as_string(hide_password=False)
        database = [f"--ragstore-db={text}"] if given else []
        command = [sys.executable, "-m", "pytest", *_PLUGIN, *_QUIET]
        return subprocess.Popen(
            [*command, *database, *arguments],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(Path(ragstore.__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, given: bool = True, **expected: int) -> str:
        """Run pytest, check the numbers of results, and return what it printed."""
        return self.finish(self.start(*arguments, given=given), **expected)

    @staticmethod
    def finish(process: subprocess.Popen[str], **expected: int) -> str:
        """Wait for pytest, check the numbers of results, and return what it printed."""
        printed, _ = process.communicate(timeout=60)
        last = printed.strip().splitlines()[-1].strip("= ")
        counts = {word: int(number) for number, word in _pairs(last)}
        counts.pop("warning", None), counts.pop("warnings", None)
        assert counts == (expected or {"passed": 1}), printed
        return printed

    def told(self) -> list[dict[str, object]]:
        """Return what the tests of all runs wrote with ``tell()``, in no certain order."""
        return [json.loads(path.read_text()) for path in sorted(self.root.glob("told-*"))]

    def databases(self) -> list[str]:
        """Return what stands on the server after the test database's name, sorted."""
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
        name = self.url.database or ""
        with closing(connect(self.url.set(database="postgres"))) as connection:
            rows = connection.execute(query, (name,)).fetchall()
        return sorted(found.removeprefix(name) for (found,) in rows)


def _pairs(summary: str) -> Iterator[tuple[str, str]]:
    for part in summary.partition(" in ")[0].split(","):
        number, _, word = part.strip().partition(" ")
        if number.isdigit():
            yield number, word.rstrip("s") if word.startswith("error") else word


@pytest.fixture
def rag_test(server_url: URL) -> Iterator[URL]:
    """Yield the URL of a test database that does not exist; drop all that was made of it."""
    url = server_url.set(database=f"kit_{uuid4().hex[:8]}_test")
    yield url
    with closing(connect(server_url, autocommit=True)) as connection:
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
        for (name,) in connection.execute(query, (url.database,)).fetchall():
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))


@pytest.fixture
def role(server_url: URL) -> Iterator[Callable[[str], str]]:
    """Return a function that makes a role; asked for first, it goes after what the role owns."""
    made: list[str] = []
    with closing(connect(server_url, autocommit=True)) as connection:

        def make(right: str) -> str:
            made.append(f"kit_role_{uuid4().hex[:8]}")
            name = sql.Identifier(made[-1])
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN {}").format(name, sql.SQL(right)))
            return made[-1]

        yield make
        for name in made:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def project(tmp_path: Path, rag_test: URL) -> Project:
    """Return an application with one test, which tells where it ran."""
    made = Project(tmp_path, rag_test)
    made.write(
        "conftest.py",
        "import json, os, sys, uuid\n"
        "def tell(**facts):\n"
        "    with open(f'told-{uuid.uuid4().hex}', 'w') as file:\n"
        "        json.dump(facts, file)\n",
    )
    made.write(
        "test_it.py",
        "from conftest import tell\n"
        "import sys\n"
        "def test_it(ragstore_database):\n"
        "    tell(database=ragstore_database.database, alembic='alembic' in sys.modules)\n",
    )
    return made


# --- rolled-back connections of the test's own making -------------------------------------------


@pytest.fixture(scope="module")
def engines(ragstore_database: URL) -> Iterator[RolledBackEngines]:
    """Yield engines for one connection after another."""
    engines = RolledBackEngines(ragstore_database)
    yield engines
    engines.dispose()
    gc.collect()


@pytest.fixture
def begin(engines: RolledBackEngines) -> Iterator[Callable[[], RolledBackConnection]]:
    """Yield what begins a connection, after finishing the one before."""
    begun: list[RolledBackConnection] = []

    def begin() -> RolledBackConnection:
        while begun:
            begun.pop().finish()
        begun.append(RolledBackConnection(engines))
        return begun[-1]

    yield begin
    while begun:
        begun.pop().finish()
