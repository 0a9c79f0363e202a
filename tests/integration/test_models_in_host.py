"""The models beside an application's own, and under asyncio.

What changes the global metadata runs in an interpreter of its own, with warnings as errors.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.orm import selectinload
from sqlmodel import col, select

from ragstore.connection import DatabaseConnection
from ragstore.models import Chunk, Collection, Document


def run(program: str, url: URL | None = None) -> str:
    """Run a program in a new interpreter and return what it printed."""
    arguments = [url.render_as_string(hide_password=False)] if url is not None else []
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mappers_are_configured_without_warning() -> None:
    """Importing the models and configuring the mappers warns of nothing."""
    run("import ragstore.models; from sqlalchemy.orm import configure_mappers; configure_mappers()")


HOST = """
import sys
from typing import Optional
from sqlalchemy import create_engine
from sqlmodel import Field, Relationship, Session, SQLModel, select
from ragstore import models

class Document(SQLModel, table=True):
    id: Optional[int] = Field(default=None, primary_key=True)
    collection_id: int = Field(foreign_key="ragstore_collection.id", ondelete="CASCADE")
    chunks: list["Chunk"] = Relationship(back_populates="document")

class Chunk(SQLModel, table=True):
    id: Optional[int] = Field(default=None, primary_key=True)
    document_id: int = Field(foreign_key="document.id", ondelete="CASCADE")
    document: Document = Relationship(back_populates="chunks")

engine = create_engine(sys.argv[1])
SQLModel.metadata.create_all(engine)
with Session(engine) as session:
    ours = models.Collection(name="c", documents=[models.Document(key="k")])
    session.add(ours)
    session.flush()
    session.add(Document(collection_id=ours.id, chunks=[Chunk()]))
    session.commit()
    assert session.exec(select(Document)).one().chunks[0].document.collection_id == ours.id
    assert session.exec(select(models.Document)).one().chunks == []
    session.delete(ours)
    session.commit()
    assert session.exec(select(Document)).all() == []
engine.dispose()
print("done")
"""


def test_host_classes_of_the_same_names(empty_database: URL) -> None:
    """An application's own Document and Chunk refer to our tables and clash with nothing."""
    assert run(HOST, empty_database) == "done\n"


def test_create_all_makes_everything(empty_database: URL) -> None:
    """A plain create_all brings the extension and the function, and drop_all takes the function."""
    run(
        """
        import sys
        from sqlalchemy import create_engine, text
        from sqlmodel import SQLModel
        import ragstore.models

        functions = text("SELECT count(*) FROM pg_proc WHERE proname = 'ragstore_tsvector'")
        engine = create_engine(sys.argv[1])
        for _ in range(2):
            SQLModel.metadata.create_all(engine)
            with engine.begin() as connection:
                assert connection.scalar(functions) == 1
            SQLModel.metadata.drop_all(engine)
            with engine.begin() as connection:
                assert connection.scalar(functions) == 0
        engine.dispose()
        """,
        empty_database,
    )


def test_naming_convention_of_the_host() -> None:
    """A naming convention on SQLModel.metadata renames none of our constraints and indexes."""
    names = """
        from sqlalchemy.dialects import postgresql
        from sqlalchemy.schema import CreateIndex, CreateTable
        from ragstore.models import TABLES
        for table in TABLES:
            print(CreateTable(table).compile(dialect=postgresql.dialect()))
            for index in sorted(table.indexes, key=lambda index: index.name):
                print(CreateIndex(index).compile(dialect=postgresql.dialect()))
    """
    convention = """
        from sqlmodel import SQLModel
        SQLModel.metadata.naming_convention = {
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    """

    assert run(textwrap.dedent(convention) + textwrap.dedent(names)) == run(names)


async def test_async_sessions(database: URL) -> None:
    """The same code runs in an async session: store, load, change, delete."""
    async with DatabaseConnection(database) as connection, connection.async_session() as session:
        collection = Collection(name="c", language="german")
        session.add(collection)
        await session.commit()
        document = Document(
            key="k", collection_id=collection.id, chunks=[Chunk(text="Häuser", meta={"lang": "de"})]
        )
        session.add(document)
        await session.commit()

        query = select(Chunk).where(col(Chunk.meta)["lang"].astext == "de")
        chunk = (await session.exec(query)).one()
        assert (chunk.ordinal, chunk.language) == (0, "german")
        chunk.meta["checked"] = True
        await session.commit()
        session.expunge_all()

        eager = select(Document).options(selectinload(Document.chunks))  # type: ignore[arg-type]  # a relationship
        loaded = (await session.exec(eager)).one()
        assert loaded.chunks[0].meta == {"lang": "de", "checked": True}
        loaded.chunks = [Chunk(text="neu"), Chunk(text="zwei")]
        await session.commit()
        await session.delete(loaded)
        await session.commit()
        assert (await session.exec(select(Chunk))).all() == []


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_defaults_are_loaded_when_asked(database: URL, kind: str) -> None:
    """What the database gave is there after a refresh."""
    async with DatabaseConnection(database) as connection:
        if kind == "sync":
            with connection.session() as session:
                session.add(row := Collection(name="c"))
                session.commit()
                assert row.created_at is not None
        else:
            async with connection.async_session() as session:
                session.add(row := Collection(name="c"))
                await session.commit()
                await session.refresh(row)
                assert row.created_at is not None
