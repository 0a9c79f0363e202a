"""What the tests of migrations read from revision files, schemas and scripts, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragstore import migrations
from ragstore.exceptions import ImproperlyConfigured
from ragstore.testing.migrations import __all__ as exported
from ragstore.testing.revisions import (
    Revision,
    _statements,
    _without_version_tables,
    differences,
    histories_of,
)

ALEMBICS = "Revision ID: 1a\nRevises: \nCreate Date: 2026-01-01 00:00:00\n"
OURS = "Revision: 0001\nRevises:\nCreated: 2026-01-01\n"


@pytest.fixture
def revision(tmp_path: Path) -> Revision:
    """Return a revision whose file is yet to be written."""
    return Revision("1a", (), tmp_path / "1a.py")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        ('"""empty message\n\n' + ALEMBICS + '"""', ""),
        (f'"""{ALEMBICS}"""', ""),
        (f'"""{OURS}"""', ""),
        ('"""Add notes\n\n' + ALEMBICS + '"""', "Add notes"),
        ('"""\n' + OURS + '\nThis revises: nothing that matters.\n"""', "This revises: nothing *"),
        ("# Add notes\nrevision = '1a'", ""),
    ],
)
def test_docstring(revision: Revision, text: str, said: str) -> None:
    """The ids that Alembic writes, and its "empty message", do not count as a docstring."""
    revision.path.write_text(text)

    found = revision.docstring()
    assert found == said or (said.endswith("*") and found.startswith(said[:-1]))


@pytest.mark.parametrize(
    ("body", "does"),
    [
        ("pass", False),
        ("...", False),
        ("return None", False),
        ("'''Nothing to undo.'''", False),
        ("'''No.'''\n    raise NotImplementedError", False),
        ("op.drop_table('x')", True),
        ("'''Yes.'''\n    op.drop_table('x')", True),
        ("for name in names:\n        op.drop_table(name)", True),
    ],
)
def test_what_a_function_does(revision: Revision, body: str, does: bool) -> None:
    """A function that only passes, explains itself or refuses does nothing."""
    revision.path.write_text(f"def downgrade(engine=None):\n    {body}\n")

    assert revision.does("downgrade") is does
    assert not revision.does("upgrade")


def test_differences_are_told_by_object() -> None:
    """A line for each object; what comes and goes with a table is not told beside it."""
    before = {
        "table note": "plain",
        "column note.id": "bigint",
        "index note_pkey": "CREATE UNIQUE INDEX note_pkey ON note USING btree (id)",
        "column kept.id": "bigint",
        "index kept_idx": "CREATE INDEX kept_idx ON kept USING btree (id)",
        "schema side": "",
    }
    after = {"column kept.id": "integer", "table side.tag": "plain", "column side.tag.id": "int"}

    assert differences(before, before) == []
    assert differences(before, after) == [
        "missing: index kept_idx (CREATE INDEX kept_idx ON kept USING btree (id))",
        "missing: schema side",
        "missing: table note (plain)",
        "too much: table side.tag (plain)",
        "changed: column kept.id: was 'bigint', is 'integer'",
    ]


def test_version_tables_are_left_out() -> None:
    """By what they are and not by their name; a table that has such a column stays."""
    mine = {
        "table release": "plain",
        "column release.version_num": "text",
        "column release.id": "bigint",
        "schema another": "",
    }
    alembics = {
        "schema side": "",
        "table side.my_versions": "plain",
        "column side.my_versions.version_num": "character varying(32) not null",
        "constraint side.my_versions.my_versions_pkc": "PRIMARY KEY (version_num)",
        "index side.my_versions_pkc": "CREATE UNIQUE INDEX x ON side.my_versions USING btree (y)",
    }

    assert _without_version_tables(mine | alembics) == mine


@pytest.mark.parametrize(
    "statements",
    [
        ["SELECT 1"],
        ["BEGIN", "\n\nSELECT 1", "\n\nCOMMIT"],
        ["SELECT ';'", " SELECT 'it''s; '", ' SELECT "a;b"'],
        ["SELECT E'a\\'; b'", "SELECT 'a\\'", "SELECT 3"],
        ["CREATE FUNCTION f() AS $x$ a; $$ ';' $$; b $x$", " SELECT $$;'$$"],
        ["-- it's; a comment\nSELECT 1", " /* one; 'more */ SELECT 2 - 1 / 1"],
        ["SELECT 'é; ü', e_1 - $1"],
        [],
    ],
)
@pytest.mark.parametrize("end", [";", ";\n\n", "\n"])
def test_statements_of_a_script(statements: list[str], end: str) -> None:
    """A semicolon ends a statement, but in no string, name, function body or comment."""
    script = ";".join(statements) + end if statements else "\n"

    found = [statement.decode().rstrip("\n") for statement in _statements(script)]
    assert found == statements


def test_histories_of_the_ini_option(tmp_path: Path) -> None:
    """Each alembic.ini is a history, after ragstore's and what stands before it in the option."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.ini").write_text(f"[alembic]\nscript_location = %(here)s/{name}\n")
    found = histories_of(["one.ini", "json:loads", "two.ini"], tmp_path)

    assert [(history.name, len(history.before)) for history in found] == [
        ("one.ini", 1),
        ("two.ini", 3),
    ]
    assert found[0].before[0] is migrations.upgrade
    assert found[1].ini == tmp_path / "two.ini"
    with pytest.raises(ImproperlyConfigured, match="no file"):
        histories_of(["three.ini"], tmp_path)


@pytest.mark.parametrize("entries", [[], ["json:loads"]])
def test_ours_is_the_history_where_there_is_no_other(entries: list[str], tmp_path: Path) -> None:
    """Without an alembic.ini, ragstore's own history is tested, on a database without tables."""
    (history,) = histories_of(entries, tmp_path)

    assert (history.name, history.ini, history.before) == ("ragstore", None, ())
    assert history.heads() == [migrations.history()[0].id]
    first = history.revisions()[0]
    assert (first.parents, first.parent) == ((), "base")
    assert first.docstring().startswith("Create the tables.")


def test_only_tests_are_imported_with_a_star() -> None:
    """A fixture imported into a test module would hide the one of the host's conftest.py."""
    assert all(name.startswith("test_") for name in exported)
    assert len(exported) == 7
