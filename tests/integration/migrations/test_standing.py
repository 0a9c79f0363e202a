"""``ragstore migrate check`` and ``alembic check``: one answer to where a database stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.engine import URL
from typer.testing import CliRunner, Result

from ragstore import cli, migrations
from ragstore.conf import settings
from ragstore.driver import connect
from ragstore.exceptions import CouldNotCompare, SchemaDrift
from tests.matrix.databases import Bench
from tests.matrix.harness import Project

HEAD = migrations.history()[0].id
KEYS = ["status", "revision", "differences", "foreign", "problems"]
AT_HEAD = {"current": [HEAD], "head": [HEAD]}
DRIFT = """
ALTER TABLE ragstore_document DROP COLUMN title;
ALTER TABLE ragstore_chunk ALTER COLUMN language DROP NOT NULL;
"""
SAID = [
    "check constraint ragstore_document.ragstore_document_title_check is not in the database",
    "column ragstore_chunk.language nullable is yes, the models have no",
    "column ragstore_document.title is not in the database",
]
BESIDE = """
CREATE TABLE host (id int PRIMARY KEY);
CREATE VIEW words AS SELECT text FROM ragstore_chunk;
CREATE INDEX dba_index ON ragstore_chunk (language);
CREATE TABLE ragstore_embedding_7 PARTITION OF ragstore_embedding FOR VALUES IN (7);
COMMENT ON TABLE ragstore_chunk IS 'of a DBA';
"""
FOREIGN = [
    "comment on ragstore_chunk",
    "index ragstore_chunk.dba_index",
    "table host",
    "view words",
]
UNREADABLE = "ALTER TABLE ragstore_document ADD COLUMN embedding unheard_of"


def text_of(url: URL) -> str:
    """Return a URL as a variable holds it."""
    return url.render_as_string(hide_password=False)


def execute(url: URL, statements: str) -> None:
    """Run statements."""
    with connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


def check(url: URL, monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    """Run ``ragstore migrate check`` in this process, on that database."""
    monkeypatch.setenv("DB_DATABASE_URL", text_of(url))
    settings.reload()  # making the database has read them
    return CliRunner().invoke(cli.app, ["migrate", "check", *options], catch_exceptions=False)


def answer(url: URL, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the one object on standard output; nothing else is said."""
    done = check(url, monkeypatch, "--json")
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert list(found) == KEYS
    return done.exit_code, found


def test_clean(ragstore_database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is as the models say is clean, at the newest revision."""
    assert answer(ragstore_database, monkeypatch) == (
        0,
        {
            "status": "clean",
            "revision": AT_HEAD,
            "differences": [],
            "foreign": [],
            "problems": [],
        },
    )


def test_foreign_objects(database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no revision made is no drift; it is listed on request, partitions of ours are not."""
    execute(database, BESIDE)

    assert answer(database, monkeypatch)[1]["foreign"] == FOREIGN
    silent, told = check(database, monkeypatch), check(database, monkeypatch, "--foreign")
    assert (silent.exit_code, silent.stdout.count("\n")) == (0, 1)
    assert told.stdout.splitlines()[1:] == [f"left alone: {name}" for name in FOREIGN]
    assert told.exit_code == 0


def test_drift(database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each difference is a sentence, and what is foreign is told beside them: code 2."""
    execute(database, DRIFT + BESIDE)
    code, found = answer(database, monkeypatch)

    assert (code, found["status"], found["revision"]) == (cli.DRIFT, "drift", AT_HEAD)
    assert sorted(found["differences"]) == SAID
    assert found["foreign"] == FOREIGN
    assert found["problems"] == []


def test_behind(empty_database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that was not migrated is behind, and is not compared: code 3."""
    code, found = answer(empty_database, monkeypatch)

    assert (code, found["status"]) == (cli.BEHIND, "behind")
    assert found["revision"] == {"current": [], "head": [HEAD]}
    assert found["differences"] == []


def test_of_a_newer_version(database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a revision that this version does not have, it cannot be told: code 4, and why."""
    execute(database, "UPDATE ragstore_alembic_version SET version_num = '9999_ffffff'")
    code, found = answer(database, monkeypatch)

    assert (code, found["status"]) == (cli.UNKNOWN, "unknown")
    assert found["revision"] == {"current": ["9999_ffffff"], "head": [HEAD]}
    assert "Upgrade the package" in found["problems"][0]


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is a problem, not an empty answer: code 4."""
    url = URL.create("postgresql", "ann", "geheim", "127.0.0.1", 1, "rag")
    code, found = answer(url, monkeypatch)

    assert (code, found["status"]) == (cli.UNKNOWN, "unknown")
    assert found["revision"] == {"current": None, "head": [HEAD]}
    assert "127.0.0.1" in found["problems"][0]
    assert "geheim" not in found["problems"][0]


def test_role_that_may_not_compare(database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role that may make no copy of the models gets the reason and the remedy: code 4."""
    role = f"reader_of_{database.database}"
    execute(
        database,
        f"REVOKE ALL ON DATABASE {database.database} FROM PUBLIC; CREATE ROLE {role} LOGIN;"
        f" GRANT CONNECT ON DATABASE {database.database} TO {role};"
        f" GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    )
    try:
        code, found = answer(database.set(username=role, password=None), monkeypatch)
    finally:
        execute(database, f"DROP OWNED BY {role}; DROP ROLE {role}")

    assert (code, found["status"], found["revision"]) == (cli.UNKNOWN, "unknown", AT_HEAD)
    assert [problem for problem in found["problems"] if "GRANT TEMPORARY" in problem]


# --- alembic's own -----------------------------------------------------------------------------


def alembic(url: URL, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``alembic`` in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "DB_DATABASE_URL": text_of(url)},
        capture_output=True,
        text=True,
    )


def test_alembic_check(database: URL) -> None:
    """``alembic check`` ends as it always does, and says each difference in a line of its own."""
    clean = alembic(database, "check")
    execute(database, DRIFT + BESIDE)
    differs = alembic(database, "-x", "foreign", "check")

    assert (clean.returncode, clean.stdout) == (0, "No new upgrade operations detected.\n")
    assert differs.returncode == 255
    foreign, _, found = differs.stdout.partition("FAILED: New upgrade operations detected: ")
    assert foreign.splitlines() == [
        f"left alone: {name}" for name in sorted([*FOREIGN, "partition ragstore_embedding_7"])
    ]
    assert sorted(line.strip("[], ") for line in found.splitlines()[1:]) == SAID
    # On a terminal Alembic wraps all of it into one paragraph; what it logs stays in lines.
    logged = [line.partition("Detected: ")[2] for line in differs.stderr.splitlines()]
    assert sorted(filter(None, logged)) == SAID
    with pytest.raises(SchemaDrift) as caught:
        migrations.check(database)
    assert sorted(caught.value.differences) == SAID


# --- what a history made -----------------------------------------------------------------------


def test_revision_that_cannot_be_read(
    database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a revision made is not known if it cannot be replayed: then check does not say clean."""
    versions = tmp_path / "versions"
    versions.mkdir()
    for path in (migrations.script_location() / "versions").glob("0*.py"):
        (versions / path.name).write_text(path.read_text())
    script = f"""
from alembic import op
revision = '0002_aaaaaa'
down_revision = '{HEAD}'
def upgrade():
    assert op.get_bind().engine.name == 'a database', 'it wants one'
def downgrade():
    pass
"""
    (versions / "0002_aaaaaa_want.py").write_text(script)
    for name in ("env.py", "script.py.mako"):
        (tmp_path / name).write_text((migrations.script_location() / name).read_text())
    monkeypatch.setattr(migrations, "script_location", lambda: tmp_path)
    execute(database, "UPDATE ragstore_alembic_version SET version_num = '0002_aaaaaa'")
    assert migrations.check(database) == ()
    execute(database, "CREATE INDEX some_index ON ragstore_chunk (language)")

    with pytest.raises(CouldNotCompare, match="some_index") as caught:
        migrations.check(database)

    (problem,) = caught.value.problems
    assert problem.startswith("revision 0002_aaaaaa cannot be run without a database")
    assert migrations.revision("x", url=database) is None


def worded(
    kind: sa.types.TypeEngine[Any], check: str | None = None, *, many: bool = False
) -> sa.MetaData:
    """Return items with one or many words of a domain."""
    metadata = sa.MetaData()
    word = DOMAIN("word", kind, check=check)
    sa.Table("item", metadata, sa.Column("word", sa.ARRAY(word) if many else word))
    return metadata


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (worded(sa.Text()), worded(sa.Integer()), "type is text, the models have integer, which"),
        (
            worded(sa.Text(), many=True),
            worded(sa.Text(), "VALUE <> ''", many=True),
            "and item.word is an array of it, which",
        ),
    ],
    ids=["another type", "an array"],
)
def test_domain_that_cannot_change(
    before: sa.MetaData, after: sa.MetaData, problem: str, bench: Bench, tmp_path: Path
) -> None:
    """What no statement changes is refused with the way out, by check and by autogenerate."""
    with bench.database() as url:
        project = Project(tmp_path, url)
        project.revision(before, "ours", "0001")
        project.upgrade(before, "ours")
        for compare in (project.check, lambda *given: project.revision(*given, "0002")):
            with pytest.raises(CouldNotCompare, match="give the new one another name") as caught:
                compare(after, "ours")
            assert problem in caught.value.problems[0]
        project.engine.dispose()
