"""What the factories make is complete, valid and searchable."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlmodel import Session, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ragstore import AsyncStore, DatabaseConnection, NewDocument, Store
from ragstore.exceptions import DimensionMismatch, EmptyChunk, InvalidInput
from ragstore.models import Chunk, Collection, Document, Embedding, EmbeddingSpace
from ragstore.testing import factories
from ragstore.testing.factories import TEXTS, embed, make_chunk, make_collection, make_document

Factory = Callable[..., Any]
ANIMALS = ["a cat sleeps on the sofa", "the stock market fell today"]


def test_document_alone_is_complete(db_session: Session, document_factory: Factory) -> None:
    """With nothing but the session: collection, space, chunks and their embeddings."""
    document = document_factory(db_session)
    db_session.commit()

    assert [chunk.text for chunk in document.chunks] == list(TEXTS)
    assert [chunk.ordinal for chunk in document.chunks] == [0, 1, 2]
    space = document.collection.space
    stored = db_session.exec(
        select(func.count()).select_from(Embedding).where(Embedding.space_id == space.id)
    ).one()
    assert stored == len(TEXTS)


def test_document_is_found_in_its_transaction(
    db_connection: DatabaseConnection, db_session: Session, document_factory: Factory
) -> None:
    """Its vectors mean something: the nearer text comes first, by vector and by words."""
    document = document_factory(db_session, texts=ANIMALS, title="Two", meta={"lang": "en"})
    store, name = Store(db_connection), document.collection.name
    [vector] = embed(["a cat on a sofa"], document.collection.space)

    assert store.search(name, vector=vector)[0].text == ANIMALS[0]
    assert [hit.text for hit in store.search(name, text="market")] == [ANIMALS[1]]


def test_ingest_takes_it_for_its_own(
    db_connection: DatabaseConnection, db_session: Session, document_factory: Factory
) -> None:
    """To ingest the same document again changes nothing."""
    document = document_factory(db_session, texts=ANIMALS, key="k", title="t", meta={"a": 1})
    again = NewDocument("k", ANIMALS, title="t", meta={"a": 1})
    report = Store(db_connection).ingest(document.collection.name, [again], embed=embed)

    assert report.unchanged == 1


def test_names_are_unique(
    db_session: Session,
    space_factory: Factory,
    collection_factory: Factory,
    document_factory: Factory,
    chunk_factory: Factory,
) -> None:
    """Two of each do not clash, and a name that is given is used, taken or not."""
    collection = collection_factory(db_session, "mine", space=space_factory(db_session))
    for _ in range(2):
        space_factory(db_session)
        collection_factory(db_session)
        document_factory(db_session, collection)
        chunk_factory(db_session)

    assert collection.name == "mine"
    assert len(collection.documents) == 2
    with pytest.raises(Exception, match="ragstore_collection_name_key"):
        collection_factory(db_session, "mine")


def test_fields_are_passed(db_session: Session, space_factory: Factory) -> None:
    """Every optional field reaches its row."""
    space = space_factory(db_session, "s", model="m", dimensions=3, metric="l2")
    collection = make_collection(
        db_session, "c", space=space, language="german", meta={"owner": "me"}
    )
    document = make_document(
        db_session, collection, texts=["Häuser"], vectors=[[1, 2, 3]], key="k", title="t"
    )
    chunk = make_chunk(db_session, document, text="Haus", meta={"page": 2}, token_count=1)

    assert (space.model, space.metric, collection.meta) == ("m", "l2", {"owner": "me"})
    assert (document.key, document.title, document.content_hash) == ("k", "t", None)
    assert (chunk.ordinal, chunk.language, chunk.token_count) == (1, "german", 1)
    assert chunk.meta == {"page": 2}
    assert list(document.chunks[0].embeddings[0].vector) == [1.0, 2.0, 3.0]
    assert len(chunk.embeddings[0].vector) == 3


def test_collection_without_space(db_session: Session, document_factory: Factory) -> None:
    """A collection may have no space; its documents then have no vectors."""
    collection = make_collection(db_session, space=None)
    document = document_factory(db_session, collection)

    assert collection.space is None
    assert [chunk.embeddings for chunk in document.chunks] == [[], [], []]


@pytest.mark.parametrize("kind", ["db_session", "store", "db_async_session", "db_service"])
async def test_every_target(request: pytest.FixtureRequest, kind: str) -> None:
    """All four make the same rows, readable where they were made."""
    connection = request.getfixturevalue("db_connection")
    target = Store(connection) if kind == "store" else request.getfixturevalue(kind)
    made = make_document(target, texts=ANIMALS)
    document = made if isinstance(made, Document) else await made
    added = make_chunk(target, document, text="third")
    chunk = added if isinstance(added, Chunk) else await added

    assert document.id == chunk.document_id
    assert document.collection is not None
    assert document.collection.space is not None
    assert document.created_at is not None
    assert [chunk.text for chunk in document.chunks][:2] == ANIMALS
    name = document.collection.name
    if "async" in kind or "service" in kind:
        found = await AsyncStore(connection).search(name, text="third")
    else:
        found = Store(connection).search(name, text="third")
    assert [hit.chunk_id for hit in found] == [chunk.id]


def test_store_commits(db_fresh: DatabaseConnection, document_factory: Factory) -> None:
    """Through a store the rows are committed, as the store's own calls do."""
    store = Store(db_fresh)
    info = store.create_collection("c", space=store.create_space("s", model="m", dimensions=3).name)
    document_factory(store, info)
    with DatabaseConnection(db_fresh.url) as other, other.session() as session:
        assert len(session.exec(select(Chunk)).all()) == len(TEXTS)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": [" "]}, EmptyChunk, "no text"),
        ({"vectors": [[1.0]] * 3}, DimensionMismatch, "1 dimensions"),
        ({"vectors": [[1.0]]}, ValueError, "shorter|longer"),
        ({"collection": Collection(id=-1, name="lost")}, InvalidInput, "no Collection -1"),
    ],
)
def test_wrong_fields_are_refused(
    db_session: Session,
    document_factory: Factory,
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """What a store would refuse, a factory refuses."""
    with pytest.raises(error, match=message):
        document_factory(db_session, **arguments)


def test_wrong_target_is_refused(
    db_connection: DatabaseConnection, document_factory: Factory
) -> None:
    """The first argument is what to write with; the message names what fits."""
    with pytest.raises(InvalidInput, match="not with RolledBackConnection"):
        document_factory(db_connection)


@pytest.mark.parametrize("is_installed", [True, False])
def test_vectors_mean_something(monkeypatch: pytest.MonkeyPatch, is_installed: bool) -> None:
    """With wordllama or without, vectors have length 1, are repeatable, and know near from far."""
    if is_installed:
        pytest.importorskip("wordllama")
    else:
        monkeypatch.setattr(factories, "_has_wordllama", lambda: False)
    handlers = logging.getLogger().handlers[:]
    vectors = embed([*ANIMALS, "the cat has a sofa", "!", ANIMALS[0]])
    near, far, cat, odd, again = vectors

    assert vectors.shape == (5, 256)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert (near == again).all()
    assert cat @ near > cat @ far + 0.2
    assert np.isfinite(odd).all()
    assert logging.getLogger().handlers == handlers


def test_space_of_another_size_hashes(db_session: Session, space_factory: Factory) -> None:
    """A space of any dimension has vectors, and says in its model which they are."""
    small = space_factory(db_session, dimensions=32)

    assert embed(["a"], small).shape == (1, 32)
    assert small.model == "ragstore-hashed-words"
    assert isinstance(small, EmbeddingSpace)


async def test_async_session_keeps_rows_readable(
    db_async_session: AsyncSession, document_factory: Factory
) -> None:
    """Relationships of what was made are loaded: no lazy load fails in an async test."""
    document = await document_factory(db_async_session, texts=["one"])
    await db_async_session.commit()

    assert document.chunks[0].embeddings[0].space.dimensions == 256
    assert document.collection.space.name
