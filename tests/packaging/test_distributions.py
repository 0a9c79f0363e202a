"""The built wheel and sdist, and every way of installing ragstore, migrate a database."""

from __future__ import annotations

import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from .conftest import run

MIGRATE = """
import sys
from ragstore import DatabaseConnection, migrations
url = sys.argv[1]
migrations.upgrade(url)
migrations.check(url)
print(migrations.script_location())
print(*migrations.current(url))
"""


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_package_and_migrations_and_nothing_else(
    distributions: dict[str, Path],
) -> None:
    """The wheel has the modules, the migrations inside the package, and no other top level."""
    names = _names(distributions["wheel"])
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}

    assert tops == {"ragstore"}
    assert {
        "ragstore/py.typed",
        "ragstore/_alembic/env.py",
        "ragstore/_alembic/script.py.mako",
    } <= names
    assert any(name.startswith("ragstore/_alembic/versions/0001_") for name in names)
    assert not [name for name in names if name.endswith("_alembic/__init__.py")]


def test_wheel_holds_every_module(distributions: dict[str, Path], checkout: Path) -> None:
    """No module of the package is missing: setup.cfg lists the packages by hand."""
    modules = {path.relative_to(checkout).as_posix() for path in checkout.glob("ragstore/**/*.py")}

    assert modules <= _names(distributions["wheel"])


def test_metadata_names_the_extras(distributions: dict[str, Path]) -> None:
    """The wheel offers the extras of the README and asks for Python 3.10 or later."""
    with zipfile.ZipFile(distributions["wheel"]) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())

    assert metadata["Requires-Python"] == ">=3.10"
    assert set(metadata.get_all("Provides-Extra")) == {"embedded", "local", "test", "dev"}


def test_sdist_holds_what_its_tests_need(distributions: dict[str, Path]) -> None:
    """The sdist has the migrations, the tests and the documentation."""
    with tarfile.open(distributions["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"alembic.ini", "alembic/env.py", "tests/conftest.py", "docs/settings.md"} <= names


@pytest.mark.parametrize(
    ("source", "options", "location"),
    [
        ("wheel", [], "site-packages/ragstore/_alembic"),
        ("sdist", [], "site-packages/ragstore/_alembic"),
        ("checkout", ["-e"], "alembic"),
        ("checkout", ["--config-settings", "editable_mode=strict", "-e"], "_alembic"),
    ],
    ids=["wheel", "sdist", "editable", "strict editable"],
)
def test_every_installation_migrates(
    source: str,
    options: list[str],
    location: str,
    distributions: dict[str, Path],
    checkout: Path,
    environment: Path,
    tmp_path: Path,
) -> None:
    """However it is installed, ragstore finds its migrations, runs them and checks clean."""
    target = checkout if source == "checkout" else distributions[source]
    run(environment, "-m", "pip", "install", "-q", "--no-deps", *options, target, cwd=tmp_path)

    printed = run(environment, "-c", MIGRATE, f"embedded://{tmp_path}/data", cwd=tmp_path)

    assert printed.splitlines()[-2].endswith(location)
    assert printed.splitlines()[-1].startswith("0002_")


def test_bare_checkout_migrates(checkout: Path, environment: Path, tmp_path: Path) -> None:
    """Without installation, ragstore works from the root of a clone."""
    printed = run(environment, "-c", MIGRATE, f"embedded://{tmp_path}/data", cwd=checkout)

    assert printed.splitlines()[-2] == str(checkout / "alembic")
