"""What a run costs that never uses the plugin."""

from __future__ import annotations

import subprocess
import sys

LIMIT = 0.010  # seconds over pytest itself


def python(*arguments: str) -> str:
    """Run Python and return what it wrote to its error output."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stderr


def test_the_plugin_imports_nothing_but_pytest() -> None:
    """No module of ragstore beyond the plugin's own, and no library of theirs."""
    code = (
        "import sys, pytest; before = set(sys.modules); import ragstore.testing.plugin;"
        "print(*sorted({name for name in set(sys.modules) - before if 'stash' not in name}),"
        " file=sys.stderr)"
    )
    loaded = set(python("-c", code).split())
    ours = {
        "ragstore",
        "ragstore.testing",
        "ragstore.testing.plugin",
        "ragstore.testing.fixtures",
        "ragstore.testing.migrations",
    }
    assert {name for name in loaded if name.partition(".")[0] == "ragstore"} == ours
    assert not loaded & {"sqlalchemy", "psycopg", "alembic", "sqlmodel", "environs", "numpy"}


def test_the_plugin_is_imported_within_its_limit() -> None:
    """The best of five, as other programs may run beside."""
    code = "import pytest; import ragstore.testing.plugin"
    times = []
    for _ in range(5):
        lines = python("-X", "importtime", "-c", code).splitlines()
        line = next(line for line in lines if line.endswith("| ragstore.testing.plugin"))
        times.append(int(line.split("|")[1]) / 1e6)
    assert min(times) <= LIMIT
