"""What the tables and the API schemas refuse, and the longest that they take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DataError, IntegrityError, StatementError
from sqlmodel import Session, SQLModel, select

from ragstore.connection import DatabaseConnection
from ragstore.models import (
    Chunk,
    ChunkBase,
    Collection,
    CollectionBase,
    Document,
    DocumentBase,
    Embedding,
    EmbeddingBase,
    EmbeddingSpace,
    EmbeddingSpaceBase,
)
from ragstore.testing.plugin import NewDatabase

# Words of this kind fill a tsvector the fastest.
HOSTILE = " ".join(f"h{n}.com/p{n}" for n in range(20_000))


@pytest.fixture(scope="module")
def connection(ragstore_new_database: NewDatabase) -> Iterator[DatabaseConnection]:
    """Give one database to the tests here: what they store, they roll back or may keep."""
    url = ragstore_new_database()
    with DatabaseConnection(url) as opened:
        yield opened
    ragstore_new_database.drop(url)


@pytest.fixture
def session(connection: DatabaseConnection) -> Iterator[Session]:
    """Give a session, and delete what it stored."""
    with connection.session() as session:
        yield session
        session.rollback()
        session.execute(text("DELETE FROM ragstore_collection"))
        session.commit()


def test_naive_datetime(session: Session) -> None:
    """A datetime without a time zone is refused before it is sent."""
    session.add(Collection(name="x", created_at=datetime(2026, 1, 1)))  # noqa: DTZ001 - the case

    with pytest.raises(StatementError, match="naive datetime"):
        session.commit()


def with_document(**chunk: Any) -> Document:
    """Return a document of one chunk."""
    return Document(key="k", collection=Collection(name="c"), chunks=[Chunk(**chunk)])


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: Collection(name=""), IntegrityError, "ragstore_collection_name_check"),
    (lambda: Collection(name="é" * 128), IntegrityError, "ragstore_collection_name_check"),
    (lambda: Collection(name="c", space_id=99), IntegrityError, "space_id_fkey"),
    (lambda: Document(key="k", collection_id=99), IntegrityError, "collection_id_fkey"),
    (lambda: with_document(text=""), IntegrityError, "ragstore_chunk_text_check"),
    (lambda: with_document(text="é" * 131_073), IntegrityError, "ragstore_chunk_text_check"),
    (lambda: with_document(text="x\0"), DataError, "NUL"),
    (lambda: with_document(text="x", ordinal=2**31), DataError, "out of range"),
]
SPACES: list[tuple[dict[str, Any], str]] = [
    ({"dimensions": 0}, "dimensions_check"),
    ({"dimensions": 16_001}, "dimensions_check"),
    ({"metric": "hamming"}, "metric_check"),
    ({"name": ""}, "name_check"),
    ({"model": ""}, "model_check"),
    ({"model": "m" * 256}, "model_check"),
]
BAD += [
    (
        lambda data=data: EmbeddingSpace(**{"name": "s", "model": "m", "dimensions": 3, **data}),
        IntegrityError,
        f"ragstore_embedding_space_{name}",
    )
    for data, name in SPACES
]
DOCUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"key": ""}, "key_check"),
    ({"key": "k" * 1025}, "key_check"),
    ({"title": "t" * 1025}, "title_check"),
]
BAD += [
    (
        lambda data=data: Document(**{"key": "k", "collection": Collection(name="c"), **data}),
        IntegrityError,
        f"ragstore_document_{name}",
    )
    for data, name in DOCUMENTS
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_rows(session: Session, make: Any, error: type[Exception], message: str) -> None:
    """SQLModel validates no table class: the database refuses what is over a limit."""
    session.add(make())

    with pytest.raises(error, match=message):
        session.commit()
    session.rollback()
    assert session.exec(select(Collection)).all() == []


def test_at_the_limits(session: Session) -> None:
    """The longest name, key, title and text are stored."""
    session.add(
        Document(
            key="k" * 1024,
            title="t" * 1024,
            collection=Collection(name="é" * 127 + "x"),
            chunks=[Chunk(text=HOSTILE[:262_144])],
        )
    )
    session.commit()


def test_oversized_text_is_refused_by_name(session: Session) -> None:
    """A text whose words overflow a tsvector is refused for its length, not by a server limit."""
    session.add(with_document(text=HOSTILE * 4))

    with pytest.raises(IntegrityError, match="ragstore_chunk_text_check"):
        session.commit()


@pytest.mark.parametrize("value", [[1], "text", 7], ids=str)
def test_meta_is_an_object(session: Session, value: Any) -> None:
    """Metadata is a JSON object, for the ORM and in the database."""
    with pytest.raises(ValueError, match="meta"):
        Collection(name="c", meta=value)
    insert = text(
        "INSERT INTO ragstore_collection (name, metadata) VALUES ('c', cast(:v AS jsonb))"
    )
    with pytest.raises(IntegrityError, match="ragstore_collection_metadata_check"):
        session.execute(insert, {"v": json.dumps(value)})


SCHEMAS: list[tuple[type[SQLModel], dict[str, Any], str]] = [
    (CollectionBase, {"name": ""}, "name"),
    (CollectionBase, {"name": "n" * 256}, "name"),
    (CollectionBase, {"name": "n", "meta": [1]}, "meta"),
    (DocumentBase, {"key": ""}, "key"),
    (DocumentBase, {"key": "k" * 1025}, "key"),
    (DocumentBase, {"key": "k", "title": "t" * 1025}, "title"),
    (ChunkBase, {"text": ""}, "text"),
    (ChunkBase, {"text": "t" * 262_145}, "text"),
    (ChunkBase, {"text": "t", "token_count": "many"}, "token_count"),
    (EmbeddingSpaceBase, {"name": "s", "model": "m", "dimensions": 0}, "dimensions"),
    (EmbeddingSpaceBase, {"name": "s", "model": "m", "dimensions": 16_001}, "dimensions"),
    (EmbeddingSpaceBase, {"name": "s", "model": "", "dimensions": 3}, "model"),
    (EmbeddingSpaceBase, {"name": "s", "model": "m", "dimensions": 3, "metric": "x"}, "metric"),
    (EmbeddingBase, {"vector": ["a"]}, "vector"),
]


@pytest.mark.parametrize(("base", "data", "field"), SCHEMAS)
def test_api_schemas_validate(base: type[SQLModel], data: dict[str, Any], field: str) -> None:
    """A schema built on a base refuses what the database would refuse, naming the field."""
    schema: Any = type("Create", (base,), {"__doc__": "What a client sends."})

    with pytest.raises(ValidationError) as caught:
        schema.model_validate(data)
    assert [error["loc"][0] for error in caught.value.errors()] == [field]


@pytest.mark.parametrize(
    ("base", "model", "data"),
    [
        (CollectionBase, Collection, {"name": "c", "language": "german", "meta": {"a": 1}}),
        (DocumentBase, Document, {"key": "k", "title": None, "meta": {}}),
        (ChunkBase, Chunk, {"text": "t", "token_count": 3, "meta": {"lang": "en"}}),
        (EmbeddingBase, Embedding, {"vector": [1.0, 2.0]}),
        (
            EmbeddingSpaceBase,
            EmbeddingSpace,
            {
                "name": "s",
                "model": "m",
                "dimensions": 3,
                "metric": "l2",
                "index_type": "vector",
                "exact_limit": 7,
            },
        ),
    ],
)
def test_api_schemas_make_rows(
    base: type[SQLModel], model: type[SQLModel], data: dict[str, Any]
) -> None:
    """A base has the fields that a writer chooses, and its dump makes a row."""
    sent = base.model_validate(data)

    assert sent.model_dump() == data
    assert base.model_json_schema()["properties"].keys() == data.keys()
    assert model(**sent.model_dump()).model_dump(include=set(data)) == data
    assert not hasattr(base, "__table__")


def test_stored_rows_are_json(session: Session) -> None:
    """A row can be sent as JSON, its hash in hexadecimal."""
    document = Document(key="k", collection=Collection(name="c"), content_hash=b"\xff\x00")
    session.add(document)
    session.commit()
    session.refresh(document)

    sent = json.loads(document.model_dump_json())

    assert (sent["key"], sent["content_hash"]) == ("k", "ff00")
