"""The fingerprint of the migrations, and what of an application's configuration it reads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ragstore.exceptions import ImproperlyConfigured
from ragstore.testing.history import plan_of

INI = "[alembic]\nscript_location = %(here)s/alembic\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return the directory of an application with a history of one revision."""
    write(tmp_path, "alembic.ini", INI)
    write(tmp_path, "alembic/env.py", "environment = 1\n")
    write(tmp_path, "alembic/versions/1.py", "revision = '1'\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    """Write a file, its directory too."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def fingerprint(root: Path, *entries: str) -> str:
    """Return the fingerprint of the entries."""
    return plan_of(entries or ["alembic.ini"], root).fingerprint


def test_the_fingerprint_is_of_all_histories(project: Path) -> None:
    """12 hexadecimal digits; with an application's history they are others."""
    ours = plan_of([], project)
    assert len(ours.fingerprint) == 12
    assert int(ours.fingerprint, 16) >= 0
    assert ours.steps == ()
    both = plan_of(["alembic.ini"], project)
    assert both.fingerprint != ours.fingerprint
    assert len(both.steps) == 1


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda root: write(root, "alembic/versions/1.py", "revision = '2'\n"), True),
        (lambda root: write(root, "alembic/versions/2.py", ""), True),
        (lambda root: write(root, "alembic/versions/old/0.py", ""), True),
        (lambda root: write(root, "alembic/env.py", "environment = 2\n"), True),
        (lambda root: write(root, "alembic/views.sql", "SELECT 1"), True),
        (
            lambda root: (root / "alembic/versions/1.py").rename(root / "alembic/versions/3.py"),
            True,
        ),
        (lambda root: write(root, "alembic/script.py.mako", "# template"), False),
        (lambda root: write(root, "alembic/versions/__pycache__/1.cpython-311.pyc", "x"), False),
        (lambda root: write(root, "alembic.ini", f"{INI}timezone = utc\n"), False),
        (lambda root: (root / "alembic/versions/1.py").touch(), False),
    ],
)
def test_what_changes_the_fingerprint(
    project: Path, change: Callable[[Path], object], *, differs: bool
) -> None:
    """Names and contents of migration files do; caches, templates and times do not."""
    before = fingerprint(project)
    change(project)
    assert (fingerprint(project) != before) is differs


def test_another_checkout_has_the_same_fingerprint(project: Path, tmp_path: Path) -> None:
    """Where the files lie does not count."""
    before = fingerprint(project)
    moved = project.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert fingerprint(moved) == before


@pytest.mark.parametrize(
    "ini",
    [
        "[alembic]\nscript_location = alembic\n",
        "[alembic]\nscript_location = application:migrations\n",
        f"{INI}version_locations = %(here)s/more, more2\n",
        f"{INI}path_separator = os\nversion_locations = %(here)s/more:more2\n",
        f"{INI}version_path_separator = space\nversion_locations = more more2\n",
        f"{INI}path_separator = newline\nversion_locations =\n  more\n  more2\n",
    ],
)
def test_the_files_are_found_where_alembic_finds_them(project: Path, ini: str) -> None:
    """A relative path, a package, and further directories of revisions."""
    write(project, "application/__init__.py", "raise SystemExit('imported')")
    for name in ("application/migrations", "more", "more2"):
        write(project, f"{name}/a.py", "")
    write(project, "alembic.ini", ini)
    watched = (
        ["application/migrations"]
        if "application" in ini
        else ["more", "more2"]
        if "more" in ini
        else ["alembic"]
    )
    for name in watched:
        before = fingerprint(project)
        write(project, f"{name}/new.py", "")
        assert fingerprint(project) != before


@pytest.mark.parametrize(
    ("entry", "ini", "problem"),
    [
        ("missing.ini", INI, "no file 'missing.ini'"),
        ("alembic.ini", "[alembic]\n", "no usable script_location"),
        ("alembic.ini", "no section", "no usable script_location"),
        ("alembic.ini", "[alembic]\nscript_location = %(nothing)s\n", "no usable script_location"),
        ("alembic.ini", "[alembic]\nscript_location = elsewhere\n", "'elsewhere'"),
        ("alembic.ini", "[alembic]\nscript_location = no_package:there\n", "'no_package:there'"),
        ("no_module_of_ours:migrate", INI, "cannot be imported"),
        ("json:no_such_name", INI, "cannot be imported"),
        ("json:__name__", INI, "is not callable"),
    ],
)
def test_an_entry_that_names_nothing_is_refused(
    project: Path, entry: str, ini: str, problem: str
) -> None:
    """The message names the ini option of pytest and what is wrong."""
    write(project, "alembic.ini", ini)
    with pytest.raises(ImproperlyConfigured, match=problem) as caught:
        plan_of([entry], project)
    assert "ragstore_migrations" in str(caught.value)


def test_a_callable_is_found_beside_the_configuration(project: Path) -> None:
    """Its module's source joins the fingerprint, and the search path is as before."""
    write(project, "kit_callable_a.py", "def migrate(url): pass\n")
    before, path = fingerprint(project, "kit_callable_a:migrate"), sys.path[:]
    write(project, "kit_callable_a.py", "def migrate(url): return 1\n")
    assert fingerprint(project, "kit_callable_a:migrate") != before
    assert sys.path == path


def test_a_callable_may_bring_its_own_fingerprint(project: Path) -> None:
    """The attribute counts, and the source of the module then does not."""
    source = "def migrate(url): pass\nmigrate.fingerprint = 7\n"
    write(project, "kit_callable_b.py", source)
    before = fingerprint(project, "kit_callable_b:migrate")
    write(project, "kit_callable_b.py", f"{source}# more\n")
    assert fingerprint(project, "kit_callable_b:migrate") == before
    sys.modules["kit_callable_b"].migrate.fingerprint = 8
    assert fingerprint(project, "kit_callable_b:migrate") != before


def test_a_callable_without_source_is_taken(project: Path) -> None:
    """A builtin has no file to read."""
    assert plan_of(["builtins:print"], project).steps == (print,)


def test_the_order_of_the_entries_counts(project: Path) -> None:
    """Migrations that are run in another order may give another schema."""
    one, two = ["alembic.ini", "json:loads"], ["json:loads", "alembic.ini"]
    assert plan_of(one, project).fingerprint != plan_of(two, project).fingerprint


def test_no_migration_tool_is_imported_for_a_fingerprint(project: Path) -> None:
    """Neither Alembic nor a file of the history."""
    write(project, "alembic/env.py", "raise SystemExit('imported')")
    code = (
        "import sys, pathlib; from ragstore.testing.history import plan_of;"
        "plan_of(['alembic.ini'], pathlib.Path(sys.argv[1]));"
        "sys.exit('alembic' in sys.modules or 'sqlmodel' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(project)], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
