"""What a session changes in an ingested document, the next ingest of its source puts right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlmodel import Session, select

from ragstore import DatabaseConnection, NewDocument, Store
from ragstore.models import Chunk, Document

SOURCE = NewDocument("a", ["one", "two"], title="A", meta={"n": 1})

Change = Callable[[Session, Document], None]


def _text(_session: Session, document: Document) -> None:
    document.chunks[0].text = "changed"


def _chunk_meta(_session: Session, document: Document) -> None:
    document.chunks[1].meta["more"] = True


def _chunk_alone(session: Session, _document: Document) -> None:
    session.exec(select(Chunk).where(Chunk.ordinal == 1)).one().text = "changed"


def _removal(_session: Session, document: Document) -> None:
    document.chunks.pop()


def _addition(_session: Session, document: Document) -> None:
    document.chunks.append(Chunk(text="three"))


def _addition_by_key(session: Session, document: Document) -> None:
    key = {"collection_id": document.collection_id, "document_id": document.id}
    session.add(Chunk(**key, ordinal=2, text="three"))


def _title(_session: Session, document: Document) -> None:
    document.title = "B"


def _meta(_session: Session, document: Document) -> None:
    document.meta["n"] = 2


CHANGES = [_text, _chunk_meta, _chunk_alone, _removal, _addition, _addition_by_key, _title, _meta]


@pytest.mark.parametrize("change", CHANGES)
def test_ingest_restores_its_source(connection: DatabaseConnection, change: Change) -> None:
    """A document changed through a session is written again, as its source has it."""
    store = Store(connection)
    store.create_collection("c")
    store.ingest("c", [SOURCE, NewDocument("b", ["untouched"])])
    with connection.session() as session:
        change(session, session.exec(select(Document).where(Document.key == "a")).one())
        session.commit()

    report = store.ingest("c", [SOURCE, NewDocument("b", ["untouched"])])

    with connection.session() as session:
        document = session.exec(select(Document).where(Document.key == "a")).one()
        assert (document.title, document.meta) == ("A", {"n": 1})
        assert [(chunk.text, chunk.meta) for chunk in document.chunks] == [("one", {}), ("two", {})]
    assert (report.updated, report.unchanged) == (1, 1)


def test_other_columns_leave_the_document_recognised(connection: DatabaseConnection) -> None:
    """Reading a document, or writing what is not its source's, changes nothing for ingest."""
    store = Store(connection)
    store.create_collection("c")
    store.ingest("c", [SOURCE])
    with connection.session() as session:
        document = session.exec(select(Document)).one()
        assert [chunk.text for chunk in document.chunks] == ["one", "two"]
        document.title = "A"  # the same again
        session.commit()

    assert store.ingest("c", [SOURCE]).unchanged == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ragstore_chunk WHERE ordinal = 1",
        "UPDATE ragstore_chunk SET language = 'simple' WHERE ordinal = 0",
        "UPDATE ragstore_collection SET language = 'german'",
    ],
)
def test_ingest_restores_what_sql_changed(connection: DatabaseConnection, statement: str) -> None:
    """Chunks that are gone, or indexed in another language than the collection's, are rewritten."""
    store = Store(connection)
    store.create_collection("c")
    store.ingest("c", [SOURCE])
    with connection.transaction() as driver:
        driver.execute(statement.encode())

    assert store.ingest("c", [SOURCE]).updated == 1
    assert store.ingest("c", [SOURCE]).unchanged == 1
    with connection.session() as session:
        chunks = session.exec(select(Chunk).order_by(Chunk.ordinal)).all()
    assert [chunk.text for chunk in chunks] == ["one", "two"]
    assert {chunk.language for chunk in chunks} == {store.collection("c").language}
