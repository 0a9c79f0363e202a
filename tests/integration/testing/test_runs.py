"""Runs of pytest on the databases of the kit: warm, parallel, killed, limited, and with a host."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from psycopg import sql
from sqlalchemy.engine import URL

from ragstore import exceptions
from ragstore.database import create_database
from ragstore.driver import connect
from ragstore.testing import template as template_module
from ragstore.testing.history import plan_of

WAIT = "import pathlib, time\ndef test_it(ragstore_database, ragstore_new_database):\n"


def ask(url: URL, *statements: str) -> Any:
    """Run statements in a database; return the first value of the last, if it gives rows."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row and row[0]


def oid_of(url: URL) -> int:
    """Return the identity of a database, which a new one of its name does not have."""
    return int(ask(url, "SELECT oid FROM pg_database WHERE datname = current_database()"))


def lock_is_held(url: URL) -> bool:
    """Tell whether a session has the lock of a database; one that was killed, for a moment more."""
    key = template_module.lock_key(url.database or "")
    return bool(ask(url.set(database="postgres"), f"SELECT {key} IN ({template_module._HELD})"))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what comes in a moment."""
    deadline = monotonic() + 30
    while not condition():
        assert monotonic() < deadline
        sleep(0.02)


# --- runs of pytest ------------------------------------------------------------------------------


def test_a_warm_run_imports_no_alembic(project: Any) -> None:
    """The first run migrates; the second finds the template, clones it and drops the clone."""
    project.run()
    assert [facts["alembic"] for facts in project.told()] == [True]
    after = project.databases()
    assert len(after) == 2
    assert after[1].startswith("_template_")
    project.run()
    assert sorted(facts["alembic"] for facts in project.told()) == [False, True]
    assert project.databases() == after
    template = project.url.set(database=f"{project.url.database}{after[1]}")
    before = oid_of(template)
    project.run("--ragstore-create-db")
    assert oid_of(template) != before


def test_workers_have_a_clone_each_of_one_template(project: Any) -> None:
    """4 workers of pytest-xdist start at once; the controller makes nothing."""
    project.write(
        "test_it.py",
        "from conftest import tell\nimport pytest\n"
        "@pytest.mark.parametrize('n', range(4))\n"
        "def test_it(n, ragstore_database): tell(database=ragstore_database.database)\n",
    )
    printed = project.run("-n4", "--dist=each", "--ragstore-create-db", passed=16)
    names = {str(facts["database"]) for facts in project.told()}
    workers = {name.removeprefix(f"{project.url.database}_").split("_")[0] for name in names}
    assert workers == {"gw0", "gw1", "gw2", "gw3"}
    assert len(names) == 4
    assert len(project.databases()) == 2
    assert printed.count("ragstore: PostgreSQL ") == 1


def test_runs_that_start_at_the_same_moment_share_a_template(project: Any) -> None:
    """Three processes race; each passes, and one template is there afterwards."""
    processes = [project.start() for _ in range(3)]
    for printed in [process.communicate(timeout=60)[0] for process in processes]:
        assert "1 passed" in printed, printed
    assert len({facts["database"] for facts in project.told()}) == 3
    assert len(project.databases()) == 2


def test_a_killed_run_is_cleaned_up_by_the_next(project: Any) -> None:
    """Its databases stay while it lives, and are gone after the next run."""
    project.write(
        "test_it.py",
        f"{WAIT}    ragstore_new_database(empty=True)\n"
        "    pathlib.Path('started').touch()\n    time.sleep(60)\n",
    )
    process = project.start()
    try:
        wait_until(lambda: (project.root / "started").exists() or process.poll() is not None)
        project.write("test_it.py", "def test_it(ragstore_database): ...\n")
        project.run()
        assert len(project.databases()) == 4
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    left = [project.url.set(database=f"{project.url.database}{end}") for end in project.databases()]
    wait_until(lambda: not any(lock_is_held(url) for url in left))
    project.run()
    assert len(project.databases()) == 2


def test_an_application_adds_its_migrations(project: Any) -> None:
    """Its alembic.ini and its callable run after ours; a changed revision makes a new template."""
    host_history(project, "url = config.get_main_option('sqlalchemy.url')")
    project.write(
        "more/seed.py",
        "from ragstore.driver import connect\n"
        "def seed(url):\n"
        "    with connect(url) as connection:\n"
        "        connection.execute('INSERT INTO host SELECT count(*) FROM ragstore_collection')\n",
    )
    project.write(
        "pytest.ini",
        "[pytest]\naddopts = -p no:cacheprovider\n"
        "ragstore_migrations =\n    host/alembic.ini\n    more.seed:seed\n",
    )
    project.write(
        "test_it.py",
        "from sqlalchemy import text\n"
        "def test_it(db_session):\n"
        "    assert db_session.execute(text('SELECT id FROM host')).all() == [(0,)]\n",
    )
    project.run()
    assert len(project.databases()) == 2
    revision = project.root / "host/migrations/versions/one.py"
    revision.write_text(f"{revision.read_text()}# changed\n")
    project.run()
    assert len(project.databases()) == 3


# --- an application's env.py ---------------------------------------------------------------------


def host_history(project: Any, finds: str) -> Path:
    """Write a history of one table whose env.py finds its URL as the statement says."""
    ini: Path = project.write(
        "host/alembic.ini",
        "[alembic]\nscript_location = migrations\nprepend_sys_path = .\npath_separator = os\n"
        "sqlalchemy.url = postgresql+psycopg://nobody@127.0.0.1:1/nothing\n"
        "[loggers]\nkeys = root\n[handlers]\nkeys =\n[formatters]\nkeys =\n"
        "[logger_root]\nlevel = WARN\nhandlers =\n",
    )
    project.write("host/host_models.py", "NAME = 'host'\n")
    project.write(
        "host/migrations/env.py",
        "from logging.config import fileConfig\n"
        "from alembic import context\nfrom sqlalchemy import create_engine\n"
        "import host_models\n"
        "config = context.config\nfileConfig(config.config_file_name)\n"
        f"{finds}\n"
        "engine = create_engine(url)\n"
        "with engine.connect() as connection:\n"
        "    context.configure(connection=connection)\n"
        "    with context.begin_transaction():\n"
        "        context.run_migrations()\n"
        "engine.dispose()\n",
    )
    project.write(
        "host/migrations/versions/one.py",
        "import sqlalchemy as sa\nfrom alembic import op\n"
        "revision, down_revision = 'host_one', None\n"
        "def upgrade(): op.create_table('host', sa.Column('id', sa.Integer))\n"
        "def downgrade(): op.drop_table('host')\n",
    )
    return ini


@pytest.mark.parametrize(
    "finds",
    [
        "url = config.get_main_option('sqlalchemy.url')",
        "url = config.attributes['url']",
        "from ragstore.conf import settings; url = settings.DATABASE_URL",
        "from ragstore import DatabaseConnection; url = DatabaseConnection().migration_url",
    ],
)
def test_an_env_py_migrates_the_test_database(project: Any, finds: str) -> None:
    """However it finds its URL; what it does to the process is undone."""
    host_history(project, finds)
    odd = project.url.set(database=f"{project.url.database} 100%")
    create_database(odd)
    log = logging.getLogger("kit.of.a.host")
    state = [logging.getLogger().handlers[:], logging.getLogger().level, sys.path[:], Path.cwd()]
    plan_of(["host/alembic.ini"], project.root).upgrade(odd)
    assert ask(odd, "SELECT count(*) FROM host") == 0
    assert ask(odd, "SELECT count(*) FROM ragstore_collection") == 0
    assert not log.disabled
    assert state == [
        logging.getLogger().handlers,
        logging.getLogger().level,
        sys.path,
        Path.cwd(),
    ]


def test_an_env_py_that_migrates_elsewhere_is_found_out(project: Any) -> None:
    """The test database has no table of it, and the message says what env.py must use."""
    elsewhere = project.url.set(database=f"{project.url.database}_elsewhere")
    for url in (elsewhere, project.url):
        create_database(url)
    text = elsewhere.render_as_string(hide_password=False)
    host_history(project, f"url = {text!r}")
    with pytest.raises(exceptions.MigrationNotApplied, match=r"config\.attributes"):
        plan_of(["host/alembic.ini"], project.root).upgrade(project.url)


# --- a role without CREATEDB --------------------------------------------------------------------


def test_a_role_without_createdb_works_on_the_test_database(
    role: Callable[[str], str], project: Any
) -> None:
    """Its tests are rolled back there, and those that need a database of their own are skipped."""
    database, project.url = project.url, project.url.set(username=role("NOCREATEDB"))
    create_database(database)
    owner = sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
        sql.Identifier(database.database), sql.Identifier(project.url.username)
    )
    ask(database, "CREATE EXTENSION vector", owner.as_string(None))
    project.write(
        "test_more.py",
        "from sqlalchemy import text\n"
        "def test_rolled_back(db_session):\n"
        "    insert = text(\"INSERT INTO ragstore_collection (name) VALUES ('x')\")\n"
        "    db_session.execute(insert)\n"
        "    db_session.commit()\n"
        "def test_fresh(ragstore_new_database): ...\n",
    )
    printed = project.run(passed=2, skipped=1)
    assert "grant it CREATEDB" in printed
    assert project.told()[0]["database"] == database.database
    assert ask(database, "SELECT count(*) FROM ragstore_collection") == 0
    assert project.databases() == [""]
