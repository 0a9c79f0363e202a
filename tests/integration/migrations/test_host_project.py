"""A host application's project through two releases: real files, real commands, ragstore beside.

It has tables and a history of its own, a naming convention on the metadata that it shares with
ragstore, and a foreign key to one of ragstore's tables.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from ragstore import migrations
from ragstore.driver import connect
from ragstore.testing.plugin import NewDatabase
from tests.matrix import reading

CONVENTION = """
from datetime import datetime
from typing import Any, Optional

from sqlalchemy import CheckConstraint, Column, Computed, Enum, Index, func
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlmodel import Field, SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

import ragstore.models
from ragstore.types import Vector, function, hnsw
"""
FIRST = (
    CONVENTION
    + """
class Customer(SQLModel, table=True):
    __tablename__ = "shop_customer"
    __table_args__ = (CheckConstraint("length(name) > 0", name="named"),)
    id: Optional[int] = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    joined_at: datetime


class Document(SQLModel, table=True):
    __tablename__ = "shop_document"
    id: Optional[int] = Field(default=None, primary_key=True)
    collection_id: int = Field(foreign_key="ragstore_collection.id", ondelete="CASCADE")
    customer_id: int = Field(foreign_key="shop_customer.id", index=True)
    body: str
    state: str = Field(sa_column=Column(Enum("new", "ready", name="shop_state"), nullable=False))
    vector: Optional[list[float]] = Field(default=None, sa_type=Vector(3))


hnsw("shop_near", Document.__table__.c.vector, dimensions=3)
"""
)
SECOND = (
    CONVENTION
    + """
class Customer(SQLModel, table=True):
    __tablename__ = "shop_customer"
    __table_args__ = (CheckConstraint("length(name) > 1", name="named"),)
    id: Optional[int] = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    joined_at: datetime
    extra: Optional[dict[str, Any]] = Field(default=None, sa_type=JSONB)


class Document(SQLModel, table=True):
    __tablename__ = "shop_document"
    __table_args__ = (
        Column("words", TSVECTOR, Computed("shop_words(text)", persisted=True)),
        Index("shop_words", "words", postgresql_using="gin"),
        CheckConstraint("length(text) < 10000", name="short"),
    )
    id: Optional[int] = Field(default=None, primary_key=True)
    collection_id: int = Field(foreign_key="ragstore_collection.id", ondelete="CASCADE")
    customer_id: int = Field(foreign_key="shop_customer.id", ondelete="CASCADE", index=True)
    text: str = Field(sa_column_kwargs={"info": {"renamed_from": "body"}})
    state: str = Field(
        sa_column=Column(Enum("new", "ready", "failed", name="shop_state"), nullable=False)
    )
    vector: Optional[list[float]] = Field(default=None, sa_type=Vector(3))


class Order(SQLModel, table=True):
    __tablename__ = "shop_order"
    id: Optional[int] = Field(default=None, primary_key=True)
    customer_id: int = Field(foreign_key="shop_customer.id", index=True)
    number: str = Field(max_length=20, unique=True)


function(Document.__table__, "shop_words", [("body", "text")], "tsvector",
         "SELECT to_tsvector('english', body)")
hnsw("shop_near", Document.__table__.c.vector, dimensions=3, metric="l2", m=8)
"""
)
ENV = """
from alembic import context
from sqlalchemy import create_engine
from sqlmodel import SQLModel

import models
from ragstore.migrations import configure_options

engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(
        connection=connection,
        version_table="shop_alembic_version",
        **configure_options(SQLModel.metadata),
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""
PROGRAM = """
import sys
sys.path.insert(0, ".")
from alembic import command
from alembic.config import Config
from ragstore import migrations
url = sys.argv[1]
config = Config("alembic.ini")
config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
"""
CREATE = """
from sqlalchemy import create_engine
from sqlmodel import SQLModel
import models
engine = create_engine(url)
SQLModel.metadata.create_all(engine)
engine.dispose()
"""
SEED = """
INSERT INTO ragstore_collection (name) VALUES ('handbook');
INSERT INTO shop_customer (name, joined_at) VALUES ('Ann', now()), ('Bob', now()), ('Cy', now());
INSERT INTO shop_document (collection_id, customer_id, body, state, vector)
SELECT c.id, s.id, 'the words of ' || s.name, 'ready', '[1,2,3]'
FROM shop_customer s, ragstore_collection c;
"""
BESIDE = """
CREATE INDEX dba_index ON shop_document (state);
CREATE TABLE dba_table (id int PRIMARY KEY);
"""


class Project:
    """The host's project, and the database it is deployed to."""

    def __init__(self, directory: Path, url: URL) -> None:
        self.url = url
        self._directory = directory
        (directory / "migrations" / "versions").mkdir(parents=True)
        template = Path(reading.__file__).parent / "project" / "script.py.mako"
        plain = (
            template.read_text().partition("% if")[0]
            + template.read_text().partition("% endif\n")[2]
        )
        self.write("alembic.ini", "[alembic]\nscript_location = %(here)s/migrations\n")
        self.write("migrations/env.py", ENV)
        self.write("migrations/script.py.mako", plain)

    def write(self, name: str, content: str) -> None:
        """Write a file of the project."""
        (self._directory / name).write_text(content)

    def run(self, commands: str, url: URL | None = None) -> None:
        """Run commands in an interpreter of their own; a warning is an error."""
        target = (url or self.url).render_as_string(hide_password=False)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM + commands, target],
            cwd=self._directory,
            env={**os.environ, "PYTHONPATH": str(Path(migrations.__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout

    def source(self, name: str) -> str:
        """Return the revision file of that message."""
        (path,) = (self._directory / "migrations" / "versions").glob(f"*_{name}.py")
        return path.read_text()


def execute(url: URL, statements: str) -> list[tuple[object, ...]]:
    """Run statements, and return the rows of the last one."""
    with connect(url, autocommit=True) as connection:
        cursor = connection.execute(statements.encode())
        return cursor.fetchall() if cursor.description else []


def catalog(url: URL) -> reading.Catalog:
    """Return what a database consists of."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return reading.read(connection)


def assert_reads_well(source: str) -> None:
    """Assert that a revision needs no SQLModel, doubles no name, and loses nothing."""
    forward = source.partition("def downgrade")[0]
    for absent in ("sqlmodel", "ck_shop_customer_ck_", "'ragstore_document'", "dba_"):
        assert absent not in source
    for absent in ("op.drop_table", "op.drop_column", "op.create_table('ragstore_"):
        assert absent not in forward
    assert "import pgvector.sqlalchemy" in source or "Vector" not in source


@pytest.fixture
def project(tmp_path: Path, database: URL) -> Project:
    """Return the project, with ragstore's own tables in its database."""
    return Project(tmp_path, database)


@pytest.fixture
def other(ragstore_new_database: NewDatabase) -> Iterator[URL]:
    """Yield the URL of a second database with ragstore's tables."""
    url = ragstore_new_database()
    yield url
    ragstore_new_database.drop(url)


def test_host_project(project: Project, other: URL) -> None:
    """Two releases go forward with rows, and one back; ragstore's and the DBA's objects stay."""
    project.write("models.py", FIRST)
    project.run(
        "command.revision(config, 'first', autogenerate=True); command.upgrade(config, 'head');"
        " command.check(config); migrations.check(url)"
    )
    execute(project.url, SEED + BESIDE)
    before = catalog(project.url)

    project.write("models.py", SECOND)
    project.run(
        "command.revision(config, 'second', autogenerate=True); command.upgrade(config, 'head');"
        " command.check(config); migrations.check(url)"
    )
    project.run(CREATE, other)
    execute(other, BESIDE)

    engine = create_engine(project.url, poolclass=NullPool)
    assert reading.compare(catalog(other), catalog(project.url), engine) == []
    rows = "SELECT text, state::text, words IS NOT NULL FROM shop_document ORDER BY id"
    names = ("Ann", "Bob", "Cy")
    assert execute(project.url, rows) == [(f"the words of {n}", "ready", True) for n in names]

    assert_reads_well(project.source("first"))
    assert_reads_well(project.source("second"))
    project.run("command.downgrade(config, '-1')")
    assert reading.compare(before, catalog(project.url), engine) == []
    assert execute(project.url, "SELECT count(*) FROM shop_document WHERE body <> ''") == [(3,)]
