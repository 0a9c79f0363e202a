"""A host application's own Alembic project, with ragstore's tables in its database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import MetaData
from sqlalchemy.engine import URL
from sqlmodel import SQLModel

from ragstore import migrations
from ragstore.connection import VERSION_TABLE, connect
from ragstore.exceptions import MigrationError
from ragstore.migrations import configure_options
from ragstore.models import TABLES

MODELS = """
from typing import Any, Optional

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

import ragstore.models
from ragstore.types import UtcDateTime, Vector, hnsw, ivfflat
from datetime import datetime


class Document(SQLModel, table=True):
    __tablename__ = "host_document"
    id: Optional[int] = Field(default=None, primary_key=True)
    collection_id: int = Field(foreign_key="ragstore_collection.id", ondelete="CASCADE")
    title: str
    code: str = Field(max_length=20, unique=True)
    extra: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    vector: list[float] = Field(sa_type=Vector(3))
    seen_at: datetime = Field(sa_type=UtcDateTime)
    made_at: datetime


table = Document.__table__
hnsw("host_hnsw", table.c.vector, dimensions=3, m=8, ef_construction=32)
hnsw("host_hnsw_l2", table.c.vector, dimensions=3, metric="l2", storage="vector")
hnsw("host_partial", table.c.vector, dimensions=3, where=table.c.collection_id == 1)
ivfflat("host_ivfflat", table.c.vector, dimensions=3, lists=1, metric="inner_product")
"""
ENV = """
from alembic import context
from sqlalchemy import create_engine
from sqlmodel import SQLModel

import models
from ragstore.migrations import configure_options

engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection, **configure_options(target_metadata=SQLModel.metadata))
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""
TEMPLATE = '''
"""${message}"""
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''
# All commands of a test in one interpreter: each would import the same for a second.
PROGRAM = """
import sys
sys.path.insert(0, ".")
from alembic import command
from alembic.config import Config
config = Config("alembic.ini")
config.set_main_option("sqlalchemy.url", sys.argv[1].replace("%", "%%"))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a host application's directory."""
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    files = {
        "alembic.ini": "[alembic]\nscript_location = %(here)s/migrations\npath_separator = os\n",
        "models.py": MODELS,
        "migrations/env.py": ENV,
        "migrations/script.py.mako": TEMPLATE,
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def run(project: Path, url: URL, commands: str) -> str:
    """Run Alembic commands in the project and return what they print."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            PROGRAM + commands,
            url.render_as_string(hide_password=False),
        ],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def environment() -> dict[str, str]:
    """Return the environment, ragstore's checkout on the path."""
    return {**os.environ, "PYTHONPATH": str(Path(migrations.__file__).parents[2])}


def execute(url: URL, *statements: str) -> list[str]:
    """Run statements and return the first column of the last one's rows."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return sorted(row[0] for row in cursor.fetchall()) if cursor.description else []


def tables(url: URL) -> list[str]:
    """Return the names of the tables of a database."""
    return execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")


OTHERS = (
    "CREATE TABLE ragstore_embedding_7 PARTITION OF ragstore_embedding FOR VALUES IN (7)",
    "CREATE INDEX ON ragstore_embedding_7 USING hnsw ((vector::halfvec(3)) halfvec_cosine_ops)",
    "CREATE TABLE events (day int) PARTITION BY RANGE (day)",
    "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (2)",
    "CREATE INDEX events_day ON events (day)",
    # Stands for PostGIS's spatial_ref_sys: a table that belongs to an extension.
    "CREATE TABLE of_extension (id int)",
    "ALTER EXTENSION vector ADD TABLE of_extension",
    "CREATE TABLE forgotten (id int)",
)


def test_host_project(project: Path, database: URL) -> None:
    """A host's first revision makes its tables and touches no other, whoever made that."""
    execute(database, *OTHERS)
    before = tables(database)

    run(
        project,
        database,
        """
command.revision(config, "First", autogenerate=True)
command.upgrade(config, "head")
command.check(config)
from ragstore import migrations
migrations.check(sys.argv[1])  # with the host's models in SQLModel.metadata
""",
    )

    (path,) = (project / "migrations/versions").glob("*.py")
    source = path.read_text()
    for name in (
        "ragstore_document",
        "ragstore_embedding",
        "events_1",
        "of_extension",
        "forgotten",
        "sqlmodel.",
    ):
        assert name not in source
    assert "op.create_table('ragstore" not in source
    assert "import pgvector.sqlalchemy" in source
    assert "op.drop_table('events')" not in source
    assert set(tables(database)) == {*before, "alembic_version", "host_document"}
    migrations.check(database)
    run(project, database, "command.downgrade(config, 'base')")
    assert set(tables(database)) == {*before, "alembic_version"}


def test_histories_are_apart(project: Path, empty_database: URL) -> None:
    """A host may autogenerate before our tables exist; the two version tables do not meet."""
    run(project, empty_database, "command.revision(config, 'First', autogenerate=True)")
    (path,) = (project / "migrations/versions").glob("*.py")
    assert "op.create_table('host_document'" in path.read_text()
    assert "op.create_table('ragstore" not in path.read_text()

    migrations.upgrade(empty_database)
    run(project, empty_database, "command.upgrade(config, 'head'); command.check(config)")
    assert {"alembic_version", VERSION_TABLE} < set(tables(empty_database))


@pytest.mark.parametrize("target", [MetaData(), [], [MetaData(), MetaData()]])
def test_empty_metadata_is_refused(target: object) -> None:
    """Without tables autogenerate would drop the whole database: it is refused."""
    with pytest.raises(MigrationError, match="import the models before"):
        configure_options(target)  # type: ignore[arg-type]  # cases of both forms


def test_options() -> None:
    """The options leave the version table to the host, and take overrides."""
    options = configure_options([MetaData(), SQLModel.metadata], compare_type=False, as_sql=True)

    assert "version_table" not in options
    assert "version_table_schema" not in options
    assert (options["compare_type"], options["as_sql"]) == (False, True)


OURS = [*(table.name for table in TABLES), VERSION_TABLE, "ragstore_embedding_12"]


@pytest.mark.parametrize("name", OURS)
def test_filters_of_the_host_only_add(name: str) -> None:
    """A filter of the host's leaves out more; ours stay out whatever it says."""
    options = configure_options(
        SQLModel.metadata,
        include_name=lambda name, *_: name != "private",
        include_object=lambda _item, name, *_: name != "private",
    )

    def accepted(table: str) -> tuple[bool, bool]:
        by_name = options["include_name"](table, "table", {})
        return by_name, options["include_object"](None, table, "table", False, None)

    assert accepted(name) == (False, False)
    assert accepted("private") == (False, False)
    assert accepted("ragstore_embedding_x") == (True, True)
    assert accepted("host") == (True, True)
    assert options["include_name"](name, "index", {})
    assert options["include_name"](None, "schema", {})


def test_hooks_of_the_host_run_after_ours(database: URL) -> None:
    """A process_revision_directives of the host's sees what ours has left."""
    from alembic.autogenerate import produce_migrations
    from alembic.migration import MigrationContext
    from sqlalchemy import Column, Integer, Table, create_engine
    from sqlalchemy.pool import NullPool

    seen: list[object] = []
    own = MetaData()
    Table("host", own, Column("id", Integer, primary_key=True))
    options = configure_options(own, process_revision_directives=lambda *args: seen.append(args))
    execute(database, *OTHERS)

    with create_engine(database, poolclass=NullPool).connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        script = produce_migrations(context, own)
        options["process_revision_directives"](context, None, [script])

    assert len(seen) == 1
    assert script.upgrade_ops is not None
    changed = {getattr(step, "table_name", "") for step in script.upgrade_ops.ops}
    assert changed == {"host"}
