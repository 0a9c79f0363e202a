"""The directory of the migrations: one history, and files that run for ever."""

from __future__ import annotations

import ast
import re
from configparser import ConfigParser
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from ragstore import migrations
from ragstore.exceptions import MigrationError

ALEMBIC = migrations.script_location()
ROOT = Path(__file__).parents[2]
SCRIPT = ScriptDirectory.from_config(migrations.make_config())
REVISIONS = list(SCRIPT.walk_revisions())
FILES = sorted((ALEMBIC / "versions").glob("*.py"))
ALLOWED_IMPORTS = {
    "__future__",
    "alembic",
    "pgvector.sqlalchemy",
    "ragstore.migrations.operations",
    "sqlalchemy",
    "sqlalchemy.dialects",
}
revisions = pytest.mark.parametrize("revision", REVISIONS, ids=lambda revision: revision.revision)
files = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def test_is_no_package() -> None:
    """Without __init__.py: with one, ``import alembic`` in the checkout would find it."""
    assert list(ALEMBIC.rglob("__init__.py")) == []


def test_one_head_and_one_base() -> None:
    """The history is one line: one first revision, one newest, and no file outside it."""
    assert len(SCRIPT.get_heads()) == 1
    assert len(SCRIPT.get_bases()) == 1
    assert [Path(revision.path) for revision in reversed(REVISIONS)] == FILES


@files
def test_file_name(path: Path) -> None:
    """A file is called by its number, six hex digits and its subject; its id is the first two."""
    match = re.fullmatch(r"(\d{4}_[0-9a-f]{6})_[a-z0-9_]+\.py", path.name)

    assert match
    assert f'revision = "{match[1]}"' in path.read_text()


def test_numbers_ascend() -> None:
    """Each revision's number follows its parent's."""
    numbers = [int(revision.revision[:4]) for revision in reversed(REVISIONS)]

    assert numbers == list(range(1, len(REVISIONS) + 1))


@revisions
def test_docstring(revision: object) -> None:
    """A revision says in its first line what it does, and which it revises."""
    text = getattr(revision, "longdoc", "")

    assert text.splitlines()[0].endswith(".")
    assert f"Revision: {getattr(revision, 'revision', '')}" in text
    assert "Revises:" in text


@files
def test_runs_both_ways(path: Path) -> None:
    """Each revision has an upgrade and a downgrade that do something."""
    functions = {
        node.name: node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }

    assert set(functions) >= {"upgrade", "downgrade"}
    for name in ("upgrade", "downgrade"):
        assert not any(isinstance(step, ast.Pass) for step in functions[name].body)


@files
def test_imports(path: Path) -> None:
    """A revision imports no model and no setting, so that later changes cannot break it."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))

    assert imported <= ALLOWED_IMPORTS


def test_extension_stays() -> None:
    """No downgrade drops the extension, which others may use."""
    assert not [path for path in FILES if "DROP EXTENSION" in path.read_text().upper()]


def test_ini() -> None:
    """alembic.ini has no URL, and says of the history what make_config() says."""
    ini = ConfigParser()
    ini.read(ROOT / "alembic.ini")
    section = ini["alembic"]
    made = migrations.make_config()

    assert "sqlalchemy.url" not in section
    assert "://" not in (ROOT / "alembic.ini").read_text()
    for option in ("file_template", "revision_environment", "path_separator"):
        assert Config(str(ROOT / "alembic.ini")).get_main_option(option) == made.get_main_option(
            option
        )


def test_config_for_a_path_with_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``%`` in the path of the installation does not break the configuration."""
    monkeypatch.setattr(migrations, "script_location", lambda: Path("/opt/100%/alembic"))

    assert migrations.make_config().get_main_option("script_location") == "/opt/100%/alembic"


def test_installed_without_migrations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package without its migrations says so; a library called alembic beside it is not one."""
    (tmp_path / "alembic").mkdir()
    (tmp_path / "alembic" / "__init__.py").touch()
    monkeypatch.setattr(migrations, "__file__", str(tmp_path / "ragstore/migrations/__init__.py"))

    with pytest.raises(MigrationError, match="without its migrations"):
        migrations.script_location()


def test_packaged_directory_is_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The directory inside the package wins over one beside it."""
    for directory in (tmp_path / "ragstore/_alembic", tmp_path / "alembic"):
        directory.mkdir(parents=True)
        (directory / "env.py").touch()
    monkeypatch.setattr(migrations, "__file__", str(tmp_path / "ragstore/migrations/__init__.py"))

    assert migrations.script_location() == tmp_path / "ragstore/_alembic"


def test_history() -> None:
    """The history lists every revision, the newest first, one of them the head."""
    history = migrations.history()

    assert [step.id for step in history] == [revision.revision for revision in REVISIONS]
    assert [step.is_head for step in history] == [True] + [False] * (len(REVISIONS) - 1)
    assert history[-1].parents == ()
    assert history[-1].description == "Create the tables."
