"""The layers of the package: a module imports only what stands before it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ragstore

PACKAGE = Path(ragstore.__file__).parent

# Each line may import the lines above it, and itself. A module that is not listed, and in no
# listed package, is refused.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("ragstore",),  # the lazy names: their homes are checked in test_exports.py
    ("exceptions", "types"),
    ("url", "models"),
    ("conf",),
    ("cluster",),
    ("watcher",),
    ("embedded",),
    ("driver",),
    ("connection",),
    ("database",),
    ("migrations.facts", "migrations.sqltext"),
    ("migrations.facts", "migrations.sqltext", "migrations.lock", "migrations.rewriting"),
    ("migrations.conversions", "migrations.fillers", "migrations.renames"),
    ("migrations.objects", "migrations.queries", "migrations.parts", "migrations.spelling"),
    ("migrations.catalog",),
    ("migrations.rebuild", "migrations.statements"),
    ("migrations.diagnosis",),
    ("migrations.making", "migrations.scratch"),
    ("migrations.operations",),
    ("migrations.render",),
    ("migrations.made", "migrations.recorder"),
    ("migrations.effects",),
    ("migrations.owned", "migrations.remarks"),
    ("migrations.plan",),
    ("migrations.compare",),
    ("migrations.revise",),
    ("migrations.options",),
    ("migrations.runner", "migrations"),
    ("execution", "content", "embedding"),
    ("diff", "report", "work", "seen"),
    ("procedure", "retry"),
    ("packing",),
    ("space",),
    ("ann", "copying", "tuning"),
    ("collection",),
    ("indexing",),
    ("backfill", "unindexing"),
    ("ingest", "syncing", "analysis"),
    ("search",),
    ("searcher",),
    ("recall",),
    ("reembed",),
    ("space_lifecycle", "stats"),
    ("maintenance",),
    ("vector",),
    ("load", "transfer"),
    ("writer",),
    ("store", "async_store"),
    ("testing",),
    ("quickstart",),
    ("cli",),
    ("__main__",),
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}

# What a layer keeps out besides: (modules, what they never import, why).
FORBIDDEN = (
    ("models", {"url", "conf"}, "the tables need no settings"),
    ("models", {"driver", "connection", "database"}, "the tables need no engine"),
    ("exceptions", {"types"}, "the errors need nothing"),
    ("execution", {"connection", "conf", "database"}, "statements open no connection"),
    ("ingest", {"connection", "conf", "database"}, "ingest takes a connection"),
    ("load", {"connection", "conf", "database"}, "a run of ingest takes a connection"),
    ("maintenance", {"connection", "conf", "database"}, "maintenance takes a connection"),
    ("search", {"connection", "conf", "database", "migrations"}, "search takes a connection"),
    ("space", {"connection", "conf", "database", "migrations"}, "spaces take a connection"),
    ("ann", {"connection", "conf", "database", "migrations"}, "indexes take a connection"),
)


def rank_of(module: str) -> int:
    """Return the place of a module, or of the package it is in."""
    listed = module if module in RANK else module.rpartition(".")[0]
    assert listed in RANK, f"{module} stands in no layer: put it into the table"
    return RANK[listed]


def name_of(path: Path) -> str:
    """Return a module's dotted name inside the package; the package itself is ``ragstore``."""
    parts = [part for part in path.relative_to(PACKAGE).with_suffix("").parts if part != "__init__"]
    return ".".join(parts) or "ragstore"


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(path: Path) -> set[str]:
    """Return every module of ragstore that a file imports, inside functions and for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {inner for name in found if (inner := _inner(name))}


def _inner(name: str) -> str | None:
    """Return the module of ragstore that an imported name is or is in."""
    if name.partition(".")[0] != "ragstore":
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "ragstore"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_layer(module: str) -> None:
    """A new module is put into the table."""
    assert rank_of(module) >= 0


@pytest.mark.parametrize("module", [name for name in MODULES if name != "ragstore"])
def test_imports_only_what_stands_before(module: str) -> None:
    """No module imports one of a later layer, not even inside a function."""
    rank = rank_of(module)
    later = {name for name in imports_of(MODULES[module]) if rank_of(name) > rank}

    assert later == set()


@pytest.mark.parametrize(("layer", "never", "why"), FORBIDDEN, ids=[row[2] for row in FORBIDDEN])
def test_keeps_out(layer: str, never: set[str], why: str) -> None:
    """A layer does not import what it has no business with."""
    inside = [path for name, path in MODULES.items() if name.split(".")[0] == layer]
    imported = {name.split(".")[0] for path in inside for name in imports_of(path)}

    assert imported & never == set(), why


def test_models_import_no_engine() -> None:
    """The tables are described with SQLAlchemy and SQLModel; they connect to nothing."""
    source = MODULES["models"].read_text()

    assert "create_engine" not in source
    assert "psycopg" not in source


@pytest.mark.parametrize("module", ["connection", "driver", "database", "models"])
def test_first_uses_are_found(module: str) -> None:
    """The reader of imports sees those inside functions."""
    expected = {"connection": "conf", "driver": "models", "database": "driver", "models": "types"}

    assert expected[module] in imports_of(MODULES[module])
