"""The public names, and what importing ragstore costs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import ragstore

HEAVY = ("alembic", "environs", "numpy", "pgvector", "psycopg", "sqlalchemy", "sqlmodel", "typer")


def imported_by(statement: str) -> set[str]:
    """Return the top-level modules that a new interpreter has imported after a statement."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.rsplit("|", 1) for line in done.stderr.splitlines() if "|" in line]
    return {name.strip().partition(".")[0] for _, name in lines}


@pytest.mark.parametrize(
    "statement",
    [
        "import ragstore",
        "import ragstore; dir(ragstore)",
        "import ragstore.exceptions",
        "import ragstore.conf",
        "import ragstore.migrations",
    ],
)
def test_import_is_light(statement: str) -> None:
    """Importing the package, its errors, settings or migrations loads none of the libraries."""
    imported = imported_by(statement)

    assert "ragstore" in imported
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", ragstore.__all__)
def test_public_names_resolve(name: str) -> None:
    """Each public name can be read, is what its module has, and is then an ordinary attribute."""
    value = getattr(ragstore, name)

    assert vars(ragstore)[name] is value
    assert name in dir(ragstore)


def test_public_names_are_sorted() -> None:
    """The list of public names has each name once, in order, the version last."""
    assert ragstore.__all__ == [*sorted(set(ragstore.__all__) - {"__version__"}), "__version__"]


def test_homes_exist() -> None:
    """Each name is imported from a module of ragstore that exists."""
    assert all(importlib.util.find_spec(home) for home in ragstore._HOME.values())


def test_unknown_name() -> None:
    """A name that does not exist is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="'ragstore' has no attribute 'Storre'"):
        ragstore.Storre  # noqa: B018 - reading it is the test


def test_static_names_are_the_lazy_ones() -> None:
    """A type checker sees the same names as the interpreter."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(ragstore.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]

    assert {node.names[0].asname: node.module for node in imports} == ragstore._HOME
