"""Migrations without a server: their order, what running twice does, and which version is current.

Alembic itself decides these, from the files; here it is asked through its own commands.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from ragstore import migrations
from ragstore.connection import VERSION_TABLE
from ragstore.exceptions import MultipleHeads, UnknownRevision
from ragstore.migrations.runner import _changes_schema

OURS = ScriptDirectory.from_config(migrations.make_config())
FIRST, HEAD = OURS.get_bases()[0], OURS.get_heads()[0]
ROOT = Path(__file__).parents[3]
RUNNING = re.compile(r"^-- Running (?:upgrade|downgrade) (.*)$", re.MULTILINE)
VERSIONS = re.compile(rf"^(?:INSERT INTO|UPDATE|DELETE FROM) {VERSION_TABLE} .*$", re.MULTILINE)
# Written in another order than they run in, and named so that sorting the files would not help.
CHAIN = {"c_last": "a_third", "a_third": "b_second", "b_second": FIRST}
FULL = [FIRST, "b_second", "a_third", "c_last"]


class Project:
    """A copy of our migrations to which revisions are added."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(self, revision: str, parent: object, **more: object) -> None:
        """Write a revision that makes a table of its name."""
        facts = {"revision": revision, "down_revision": parent, **more}
        lines = "".join(f"{name} = {value!r}\n" for name, value in facts.items())
        (self.directory / "versions" / f"{revision}.py").write_text(
            f'"""Make {revision}."""\nfrom alembic import op\n{lines}\n'
            f'def upgrade():\n    op.execute("CREATE TABLE {revision} ()")\n'
            f'def downgrade():\n    op.execute("DROP TABLE {revision}")\n'
        )

    def config(self, output: io.StringIO | None = None) -> Config:
        """Return the configuration of the copy."""
        return migrations.make_config(output=output)

    def script(self) -> ScriptDirectory:
        """Return the revisions as Alembic reads them."""
        return ScriptDirectory.from_config(self.config())

    def sql(self, run: Callable[..., None], revision: str) -> str:
        """Return what a command writes with ``--sql``."""
        output = io.StringIO()
        run(self.config(output), revision, sql=True)
        return output.getvalue()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a copy with three more revisions, which the functions then use."""
    copy = tmp_path / "alembic"
    shutil.copytree(migrations.script_location(), copy, ignore=shutil.ignore_patterns("__pyc*"))
    for path in (copy / "versions").glob("*.py"):
        if not path.name.startswith(str(FIRST)):
            path.unlink()
    monkeypatch.setattr(migrations, "script_location", lambda: copy)
    made = Project(copy)
    for revision, parent in CHAIN.items():
        made.add(revision, parent)
    return made


def steps(script: str) -> list[str]:
    """Return the steps of a script, ``from -> to``, the base being empty."""
    return [step.strip() for step in RUNNING.findall(script)]


# --- execution order ---------------------------------------------------------------------------


def test_our_revisions_are_one_line() -> None:
    """From the first to the newest, each revision of ours follows the one before it."""
    line = [step.revision for step in OURS.walk_revisions()][::-1]

    assert (line[0], line[-1]) == (FIRST, HEAD)
    assert [step.down_revision for step in OURS.walk_revisions()][::-1] == [None, *line[:-1]]


def test_order_is_that_of_the_parents(project: Project) -> None:
    """Revisions run parent first, whatever their files are called."""
    found = [step.revision for step in project.script().iterate_revisions("head", "base")]

    assert found == FULL[::-1]
    assert sorted(FULL) != FULL


def test_upgrade_runs_in_order(project: Project) -> None:
    """An upgrade makes each step once, from the first to the newest."""
    script = project.sql(command.upgrade, "head")

    assert steps(script) == [f"-> {FIRST}", *(f"{a} -> {b}" for a, b in pairwise(FULL))]
    places = [script.index(f"CREATE TABLE {name} ()") for name in FULL[1:]]
    assert places == sorted(places)
    assert script.index("CREATE TABLE ragstore_document") < places[0]


def test_downgrade_runs_backwards(project: Project) -> None:
    """A downgrade makes the same steps, the newest first."""
    script = project.sql(command.downgrade, "head:base")

    back = FULL[::-1]
    assert steps(script) == [*(f"{a} -> {b}" for a, b in pairwise(back)), f"{FIRST} ->"]
    assert "DROP TABLE ragstore_document" in script[script.index("DROP TABLE b_second") :]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("a_third", FULL[:3]),
        ("b_second", FULL[:2]),
        ("b_second:head", FULL[2:]),
        ("a_third:c_last", FULL[3:]),
        (f"{FIRST}:+2", FULL[1:3]),
    ],
)
def test_part_of_the_way(project: Project, span: str, expected: list[str]) -> None:
    """A range runs what is in it and nothing else."""
    reached = [step.rpartition("-> ")[2] for step in steps(project.sql(command.upgrade, span))]

    assert reached == expected


def test_merge_runs_after_both_branches(project: Project) -> None:
    """A merge waits for both of its parents, and what depends on another revision for that."""
    project.add("left", "c_last")
    project.add("right", "c_last", depends_on="left")
    project.add("both", ("left", "right"))

    reached = [step.rpartition("-> ")[2] for step in steps(project.sql(command.upgrade, "head"))]
    assert reached == [*FULL, "left", "right", "both"]


# --- idempotency -------------------------------------------------------------------------------


def test_same_script_every_time(project: Project) -> None:
    """Nothing of the moment is in a script: two runs write the same."""
    assert project.sql(command.upgrade, "head") == project.sql(command.upgrade, "head")
    assert project.sql(command.downgrade, "head:base") == project.sql(
        command.downgrade, "head:base"
    )


@pytest.mark.parametrize("revision", FULL)
def test_no_step_from_a_revision_to_itself(project: Project, revision: str) -> None:
    """Where the database is already, there is nothing to run."""
    script = project.script()

    assert script._upgrade_revs(revision, revision) == []
    assert steps(project.sql(command.upgrade, f"{revision}:{revision}")) == []


def test_nothing_to_do_takes_no_lock(project: Project) -> None:
    """At its target, an upgrade is known to change nothing before any lock is taken."""

    def changes(target: str, *current: str) -> bool:
        context = EnvironmentContext(project.config(), project.script(), destination_rev=target)
        return _changes_schema(context, current)

    assert not changes("head", "c_last")
    assert not changes("b_second", "b_second")
    assert changes("head", "a_third")
    assert changes("head")
    assert changes("-1", "c_last")
    context = EnvironmentContext(project.config(), project.script())  # as for check and current
    assert not _changes_schema(context, ())


# --- the current version -----------------------------------------------------------------------


def test_version_is_written_with_each_step(project: Project) -> None:
    """Each step ends by moving the one row of the version table to its revision."""
    written = VERSIONS.findall(project.sql(command.upgrade, "head"))

    assert len(written) == len(FULL)
    assert written[0].startswith(f"INSERT INTO {VERSION_TABLE} ")
    assert FIRST in written[0]
    for statement, before, after in zip(written[1:], FULL, FULL[1:], strict=False):
        assert statement.startswith(f"UPDATE {VERSION_TABLE} SET version_num='{after}'")
        assert statement.endswith(f"version_num = '{before}';")


def test_version_goes_with_the_last_step(project: Project) -> None:
    """Back at the base there is no version."""
    written = VERSIONS.findall(project.sql(command.downgrade, "head:base"))

    assert written[-1].startswith(f"DELETE FROM {VERSION_TABLE} ")
    assert len(written) == len(FULL)


def test_stamp_writes_the_version_alone(project: Project) -> None:
    """A stamp says where a database is, and changes no table of ours."""
    script = project.sql(command.stamp, "head")

    assert "c_last" in "".join(VERSIONS.findall(script))
    assert "ragstore_document" not in script


def test_current_is_what_was_said(project: Project) -> None:
    """Offline, the current version is the one a script starts from."""
    options = {"as_sql": True, "starting_rev": "b_second", "script": project.script()}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)

    assert context.get_current_revision() == "b_second"
    assert context.get_current_heads() == ("b_second",)


def test_head_of_the_files(project: Project) -> None:
    """The newest version is that of the files, as our functions say too."""
    assert project.script().get_current_head() == "c_last"
    assert [step.id for step in migrations.history()] == FULL[::-1]
    assert [step.is_head for step in migrations.history()] == [True, False, False, False]


def test_two_heads_have_no_newest(project: Project) -> None:
    """With two newest versions Alembic names none, and an upgrade to "head" is refused."""
    project.add("other", "a_third")

    with pytest.raises(CommandError, match="multiple heads"):
        project.script().get_current_head()
    with pytest.raises(MultipleHeads) as caught:
        migrations.upgrade(sql=io.StringIO())
    assert set(caught.value.heads) == {"c_last", "other"}


def test_unknown_version_is_refused(project: Project) -> None:
    """A version that no file has is refused by name."""
    with pytest.raises(UnknownRevision, match="'nowhere'"):
        migrations.upgrade(revision="nowhere", sql=io.StringIO())


def test_commands_that_only_read(project: Project) -> None:
    """``heads`` and ``show`` tell of the files, and need no database."""
    config = project.config()
    config.stdout = io.StringIO()

    command.heads(config)
    command.show(config, "b_second")

    told = config.stdout.getvalue()
    assert "c_last (head)" in told
    assert f"Parent: {FIRST}" in told
    assert "Make b_second." in told


# --- one migration system ----------------------------------------------------------------------


def test_alembic_is_the_only_migration_system() -> None:
    """No class or module of our own manages migrations beside Alembic."""
    words = re.compile("migration[ _]?" + "manager", re.IGNORECASE)
    files = [ROOT / name for name in ("alembic.ini", "setup.cfg", ".env.example")]
    for directory in ("ragstore", "alembic", "tests", "examples"):
        files += [path for path in (ROOT / directory).rglob("*") if path.suffix in {".py", ".mako"}]

    assert len(files) > 60
    assert [path for path in files if path.is_file() and words.search(path.read_text())] == []
