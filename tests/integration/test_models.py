"""The models on a real server: what SQLModel code does with them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, func, text
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import selectinload, undefer
from sqlmodel import Session, col, select

from ragstore.connection import DatabaseConnection
from ragstore.models import Chunk, Collection, Document, Embedding, EmbeddingSpace


@pytest.fixture
def session(connection: DatabaseConnection) -> Iterator[Session]:
    """Give a session in a database of the test's own."""
    with connection.session() as session:
        yield session


@pytest.fixture
def statements(connection: DatabaseConnection) -> Iterator[list[str]]:
    """Collect the statements that the test sends."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    event.listen(connection.engine, "before_cursor_execute", note)
    yield seen
    event.remove(connection.engine, "before_cursor_execute", note)


@pytest.fixture
def document(session: Session) -> Document:
    """Give a stored document of three chunks."""
    made = Document(
        key="a.md",
        collection=Collection(name="handbook"),
        chunks=[Chunk(text="the first"), Chunk(text="the second"), Chunk(text="the third")],
    )
    session.add(made)
    session.commit()
    return made


@pytest.fixture
def space(session: Session) -> EmbeddingSpace:
    """Give a space with a partition."""
    made = EmbeddingSpace(id=7, name="toy", model="toy", dimensions=3)
    session.add(made)
    session.flush()
    session.execute(
        text("CREATE TABLE ragstore_embedding_7 PARTITION OF ragstore_embedding FOR VALUES IN (7)")
    )
    session.commit()
    return made


def texts(session: Session) -> list[tuple[int | None, str]]:
    """Return the ordinals and texts that are stored."""
    return list(session.exec(select(Chunk.ordinal, Chunk.text).order_by(col(Chunk.ordinal))).all())


def count(session: Session, model: type) -> int:
    """Return the number of rows."""
    return session.exec(select(func.count()).select_from(model)).one()


def test_one_expression_makes_a_document(session: Session, document: Document) -> None:
    """Collection, document and chunks are stored together; ids and ordinals are given."""
    session.expire_all()

    assert document.collection is not None
    assert document.collection_id == document.collection.id
    assert [chunk.ordinal for chunk in document.chunks] == [0, 1, 2]
    assert {chunk.collection_id for chunk in document.chunks} == {document.collection_id}
    assert len({chunk.id for chunk in document.chunks}) == 3


def test_defaults_of_the_database(session: Session) -> None:
    """A name alone is a valid collection: the rest has defaults, read back in UTC."""
    session.add(Collection(name="x"))
    session.commit()

    stored = session.exec(select(Collection)).one()

    assert (stored.language, stored.meta, stored.space_id) == ("english", {}, None)
    assert stored.created_at is not None
    assert abs(stored.created_at - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert stored.created_at.tzinfo is timezone.utc


def test_many_chunks_are_one_insert(
    session: Session, document: Document, statements: list[str]
) -> None:
    """Chunks of one document are inserted in one statement, not row by row."""
    collection = document.collection
    statements.clear()

    session.add(
        Document(key="b", collection=collection, chunks=[Chunk(text=f"{n}") for n in range(50)])
    )
    session.commit()

    assert sum("INSERT INTO ragstore_chunk" in statement for statement in statements) == 1


def test_relationships_each_way(
    session: Session, document: Document, space: EmbeddingSpace
) -> None:
    """Each end of each relationship leads to the other."""
    collection = document.collection
    assert collection is not None
    collection.space, collection.next_space = space, space
    chunk = document.chunks[1]
    chunk.embeddings.append(Embedding(space_id=space.id, vector=[1, 0, 0]))
    session.commit()
    session.expire_all()

    assert collection.documents == [document]
    assert [c.text for c in collection.chunks] == ["the first", "the second", "the third"]
    assert chunk.document is document
    assert chunk.collection is collection
    assert chunk.embeddings[0].chunk is chunk
    assert chunk.embeddings[0].space is space
    assert (collection.space, collection.next_space, space.collections) == (
        space,
        space,
        [collection],
    )


def test_vectors(session: Session, document: Document, space: EmbeddingSpace) -> None:
    """Vectors are given as lists or arrays, and read as lists of floats."""
    for chunk, vector in zip(
        document.chunks, ([1, 0, 0], np.array([0, 1, 0]), (0, 0, 1)), strict=True
    ):
        chunk.embeddings = [Embedding(space=space, vector=vector)]  # type: ignore[arg-type]  # the case
    session.commit()
    distance = col(Embedding.vector).cosine_distance(np.array([0.0, 1.0, 0.1]))  # type: ignore[attr-defined]  # pgvector's
    query = select(Embedding).where(Embedding.space_id == space.id).order_by(distance)

    nearest = session.exec(query).all()

    assert [found.vector for found in nearest[:2]] == [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert all(type(number) is float for number in nearest[0].vector)
    nearest[0].vector = np.array([0, 1, 0])  # type: ignore[assignment]  # the case
    assert not session.is_modified(nearest[0])
    nearest[0].vector = [0.0, 0.5, 0.0]
    session.commit()
    assert session.exec(query).all()[0].vector == [0.0, 0.5, 0.0]


CHANGES: list[tuple[Any, list[tuple[int, str]]]] = [
    (lambda d: d.chunks.pop(0), [(0, "the second"), (1, "the third")]),
    (
        lambda d: d.chunks.insert(1, Chunk(text="new")),
        [(0, "the first"), (1, "new"), (2, "the second"), (3, "the third")],
    ),
    (lambda d: setattr(d, "chunks", [Chunk(text="a"), Chunk(text="b")]), [(0, "a"), (1, "b")]),
    (lambda d: setattr(d, "chunks", []), []),
    (
        lambda d: d.chunks.__setitem__(0, Chunk(text="z")),
        [(0, "z"), (1, "the second"), (2, "the third")],
    ),
    (
        lambda d: d.chunks.append(Chunk(text="end")),
        [(0, "the first"), (1, "the second"), (2, "the third"), (3, "end")],
    ),
    (
        lambda d: setattr(d, "chunks", d.chunks[::-1]),
        [(0, "the first"), (1, "the second"), (2, "the third")],
    ),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_chunk_list(
    session: Session, document: Document, change: Any, expected: list[tuple[int, str]]
) -> None:
    """The list of chunks can be changed at will; chunks taken out of it are deleted."""
    change(document)
    session.commit()

    assert sorted(text for _, text in texts(session)) == sorted(text for _, text in expected)
    assert [ordinal for ordinal, _ in texts(session)] == list(range(len(expected)))


def test_changes(session: Session, document: Document) -> None:
    """In-place changes of meta are saved, and an update moves updated_at on."""
    before = document.updated_at
    assert before is not None
    document.meta["lang"] = "en"
    document.chunks[0].meta.update(lang="en", tags=["a"])
    document.title = "A"
    session.commit()

    assert document.meta == {"lang": "en"}
    assert (
        session.exec(select(Chunk).where(col(Chunk.meta)["lang"].astext == "en")).one()
        == (document.chunks[0])
    )
    assert document.updated_at is not None
    assert document.updated_at > before
    assert document.created_at == before


@pytest.mark.parametrize("made_by", [Collection, Collection.model_validate])
def test_meta_is_watched_from_the_start(session: Session, made_by: Any) -> None:
    """An in-place change is saved in a row that was made, flushed or assigned a moment ago."""
    row = made_by({"name": "c"}) if made_by != Collection else Collection(name="c")
    row.meta["first"] = 1
    session.add(row)
    session.flush()
    row.meta["second"] = 2
    session.commit()
    assert row.meta == {"first": 1, "second": 2}

    row.meta = {"third": 3}
    session.flush()
    row.meta["fourth"] = 4
    session.commit()
    assert row.meta == {"third": 3, "fourth": 4}


def test_joins(session: Session, document: Document) -> None:
    """Ordinary joins work, along relationships and with eager loading."""
    query = (
        select(Document.key, func.count(col(Chunk.id)))
        .join(Document.chunks)  # type: ignore[arg-type]  # a relationship is a join target
        .join(Document.collection)  # type: ignore[arg-type]  # the same
        .where(Collection.name == "handbook")
        .group_by(Document.key)
    )

    assert session.exec(query).all() == [("a.md", 3)]
    session.expunge_all()
    eager = select(Collection).options(
        selectinload(Collection.documents).selectinload(Document.chunks)  # type: ignore[arg-type]  # relationships
    )
    loaded = session.exec(eager).one()
    session.close()
    assert len(loaded.documents[0].chunks) == 3


@pytest.mark.parametrize("by", ["orm", "database"])
@pytest.mark.parametrize("victim", [Collection, Document, Chunk])
def test_cascades(
    session: Session, document: Document, space: EmbeddingSpace, by: str, victim: Any
) -> None:
    """What is deleted takes with it what hangs on it, through the ORM and by plain SQL."""
    document.chunks[0].embeddings = [Embedding(space=space, vector=[1, 2, 3])]
    session.commit()
    row = {Collection: document.collection, Document: document, Chunk: document.chunks[0]}[victim]
    if by == "orm":
        session.delete(row)
    else:
        session.execute(text(f"DELETE FROM {victim.__tablename__} WHERE id = :id"), {"id": row.id})  # type: ignore[union-attr]  # it is there
    session.commit()

    left = [count(session, model) for model in (Collection, Document, Chunk, Embedding)]
    assert left == {Collection: [0, 0, 0, 0], Document: [1, 0, 0, 0], Chunk: [1, 1, 2, 0]}[victim]
    assert count(session, EmbeddingSpace) == 1


def test_cascade_reads_no_children(
    session: Session, document: Document, statements: list[str]
) -> None:
    """Deleting a collection leaves its rows to the database: no chunk is loaded for it."""
    collection = session.get(Collection, document.collection_id)
    session.expunge(document)
    session.expire_all()
    statements.clear()

    session.delete(collection)
    session.commit()

    assert not [one for one in statements if "ragstore_chunk" in one or "ragstore_document" in one]


def test_space_in_use(session: Session, document: Document, space: EmbeddingSpace) -> None:
    """A space that a collection uses cannot be deleted."""
    assert document.collection is not None
    document.collection.space = space
    session.commit()
    session.delete(space)

    with pytest.raises(IntegrityError, match="ragstore_collection_space_id_fkey"):
        session.commit()


GERMAN: dict[str, Any] = {"text": "Häuser"}
LANGUAGES: dict[str, Any] = {
    "both new": lambda _: {"collection": Collection(name="n", language="german")},
    "loaded": lambda stored: {"collection": stored},
    "by id": lambda stored: {"collection_id": stored.id},
}


@pytest.mark.parametrize("of", LANGUAGES)
def test_language(session: Session, of: str) -> None:
    """A chunk takes its collection's language, loaded or not, and is indexed in it."""
    collection = Collection(name="deutsch", language="german")
    session.add(collection)
    session.commit()
    session.add(Document(key="k", chunks=[Chunk(**GERMAN)], **LANGUAGES[of](collection)))
    session.commit()

    query = select(Chunk.language, Chunk.tsv)  # type: ignore[attr-defined]  # the ORM's
    assert session.exec(query).all() == [("german", "'haus':1")]


def test_language_of_one_chunk(session: Session, document: Document) -> None:
    """A chunk added by ids alone takes the language too; an unknown one is refused."""
    document.collection.language = "german"  # type: ignore[union-attr]  # it has one
    session.commit()
    ids: dict[str, Any] = {"collection_id": document.collection_id, "document_id": document.id}
    session.add(Chunk(**ids, ordinal=3, text="Häuser"))
    session.commit()
    assert session.exec(select(Chunk.tsv).where(Chunk.ordinal == 3)).one() == "'haus':1"  # type: ignore[attr-defined]  # the ORM's

    session.add(Chunk(**ids, ordinal=4, text="x", language="klingon"))
    with pytest.raises(ProgrammingError, match='text search configuration "klingon"'):
        session.commit()


def test_tsv_is_not_carried(session: Session, document: Document, statements: list[str]) -> None:
    """The words are made by the database and stand in no INSERT, SELECT, dump or schema."""
    session.expunge_all()
    statements.clear()
    collection = session.exec(select(Collection)).one()
    session.add(Document(key="b", collection=collection, chunks=[Chunk(text="more words")]))
    session.commit()
    chunks = session.exec(select(Chunk)).all()

    assert "tsv" not in " ".join(statements)
    assert "tsv" not in chunks[0].model_dump()
    assert "tsv" not in Chunk.model_json_schema()["properties"]
    assert session.exec(select(Chunk).options(undefer(Chunk.tsv))).all()[-1].tsv  # type: ignore[attr-defined]  # the ORM's
    found = select(Chunk.text).where(Chunk.tsv.bool_op("@@")(func.websearch_to_tsquery("words")))  # type: ignore[attr-defined]  # the same
    assert session.exec(found).all() == ["more words"]
