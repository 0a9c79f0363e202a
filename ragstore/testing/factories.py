"""Spaces, collections, documents and chunks for tests: complete, valid, and searchable.

Each function takes what it writes with. To a Session it adds and flushes, and the test commits or
not; through a Store it commits, as the store's own calls do. With an AsyncSession or an AsyncStore
it is awaited. All return rows of ``ragstore.models``, whatever they were written with.

The vectors are real embeddings: those of wordllama where it is installed (``ragstore[local]``),
else, and in a space of another dimension than its 256, hashed words, which numpy alone can make.
Either way the same text has the same vector, and texts that share words are near each other.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ragstore import packing
from ragstore import space as spaces
from ragstore.async_store import AsyncStore
from ragstore.content import NewChunk, NewDocument, PreparedChunk, prepare
from ragstore.exceptions import InvalidInput
from ragstore.execution import Operation
from ragstore.models import Chunk, Collection, Document, Embedding, EmbeddingSpace
from ragstore.store import Store
from ragstore.types import Metric

DIMENSIONS = 256
"""The dimensions of a space that names none."""

TEXTS = (
    "Postgres stores rows in pages of eight kilobytes.",
    "An index finds a row without reading the whole table.",
    "A transaction is stored as a whole, or not at all.",
)
"""The chunks of a document that names none."""

_WORDLLAMA, _HASHING = "wordllama-l2-supercat-256", "ragstore-hashed-words"

Vectors = npt.NDArray[np.float32]
P = ParamSpec("P")
R = TypeVar("R")
Row = TypeVar("Row")


class HasId(Protocol):
    """A row, or what a store returned for one."""

    @property
    def id(self) -> int | None:
        """Return its id."""


class Factory(Generic[P, R]):
    """A function of a session that may be called with a store, or with the async ones, too."""

    def __init__(self, build: Callable[Concatenate[Session, P], R]) -> None:
        self._build = build
        functools.update_wrapper(self, build)

    @overload
    def __call__(self, target: Session | Store, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __call__(
        self, target: AsyncSession | AsyncStore, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[R]: ...

    def __call__(self, target: Any, *args: P.args, **kwargs: P.kwargs) -> R | Awaitable[R]:
        """Write with ``target``; the others are the fields."""
        if isinstance(target, Session):
            return self._build(target, *args, **kwargs)
        if isinstance(target, AsyncSession):
            return target.run_sync(self._build, *args, **kwargs)
        if isinstance(target, Store):
            with target.connection.session(expire_on_commit=False) as session:
                made = self._build(session, *args, **kwargs)
                session.commit()
                return made
        if isinstance(target, AsyncStore):
            return self._through(target, *args, **kwargs)
        raise InvalidInput(
            f"a factory writes with a Session, AsyncSession, Store or AsyncStore, not with"
            f" {type(target).__name__}: pass one first, as document_factory(db_session)"
        )

    async def _through(self, store: AsyncStore, *args: P.args, **kwargs: P.kwargs) -> R:
        async with store.connection.async_session() as session:
            made = await session.run_sync(self._build, *args, **kwargs)
            await session.commit()
            return made


# --- what they make ----------------------------------------------------------------------------


@Factory
def make_space(
    session: Session,
    name: str | None = None,
    *,
    model: str | None = None,
    dimensions: int = DIMENSIONS,
    metric: Metric = "cosine",
) -> EmbeddingSpace:
    """Make an embedding space with its partition."""
    made = EmbeddingSpace(
        name=_unique("space") if name is None else name,
        model=_model_for(dimensions) if model is None else model,
        dimensions=dimensions,
        metric=metric,
    )
    session.add(made)
    session.flush()
    _run(session, spaces.create_partition(spaces.space_of(made)))
    return made


@Factory
def make_collection(
    session: Session,
    name: str | None = None,
    *,
    space: HasId | Literal["new"] | None = "new",
    language: str = "english",
    meta: Mapping[str, Any] | None = None,
) -> Collection:
    """Make a collection, with a space of its own unless one is given, or None."""
    given = make_space(session) if space == "new" else space
    made = Collection(
        name=_unique("collection") if name is None else name,
        space=None if given is None else _own(session, EmbeddingSpace, given),
        language=language,
        meta=dict(meta or {}),
    )
    session.add(made)
    session.flush()
    return made


@Factory
def make_document(
    session: Session,
    collection: HasId | None = None,
    *,
    texts: Sequence[str] = TEXTS,
    vectors: Sequence[Any] | None = None,
    key: str | None = None,
    title: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Document:
    """Make a document of ``texts``, each a chunk with its embedding.

    It is as ``Store.ingest`` would have written it: to ingest it again changes nothing.
    """
    owner = _own(session, Collection, collection or make_collection(session))
    # A vector that is given counts in the content hash, as it does for an ingest.
    given = vectors if vectors is not None else [None] * len(texts)
    chunks = [NewChunk(text, vector) for text, vector in zip(texts, given, strict=True)]
    new = NewDocument(_unique("document") if key is None else key, chunks, title, meta or {})
    prepared = prepare(new)
    made = Document(collection=owner, key=new.key, title=title, meta=dict(new.meta))
    _add_chunks(session, made, prepared.chunks)
    made.content_hash = prepared.content_hash  # last: each chunk that is added takes it away
    session.flush()
    return made


@Factory
def make_chunk(
    session: Session,
    document: HasId | None = None,
    *,
    text: str = TEXTS[0],
    vector: Any = None,
    meta: Mapping[str, Any] | None = None,
    token_count: int | None = None,
) -> Chunk:
    """Add a chunk with its embedding to a document, by default one of its own."""
    new = NewDocument(_unique("document"), [NewChunk(text, vector, meta or {}, token_count)])
    prepared = prepare(new)
    if document is None:
        owner = Document(collection=make_collection(session), key=new.key)
    else:
        owner = _own(session, Document, document)
        owner.content_hash = None  # it is no longer what was ingested
    _add_chunks(session, owner, prepared.chunks)
    return owner.chunks[-1]


def embed(texts: Sequence[str], space: EmbeddingSpace | spaces.Space | None = None) -> Vectors:
    """Return a vector for each text, as the factories make them for ``space``.

    Without a space, for one of the default dimensions.
    """
    dimensions = DIMENSIONS if space is None else space.dimensions
    if _model_for(dimensions) == _WORDLLAMA:
        return cast("Vectors", _wordllama().embed(list(texts), norm=True))
    return np.stack([_hashed(text, dimensions) for text in texts])


# --- how ---------------------------------------------------------------------------------------


def _unique(what: str) -> str:
    # Workers may share one database, where they would wait for each other's names.
    return f"{what}-{uuid4().hex[:10]}"


def _own(session: Session, kind: type[Row], given: HasId) -> Row:
    """Return the row in this session: ``given`` may come from another, or from a store."""
    if isinstance(given, kind) and given in session:
        return given
    key = (given.collection_id, given.id) if isinstance(given, Document) else given.id
    found = session.get(kind, key)
    if found is None:
        raise InvalidInput(
            f"there is no {kind.__name__} {key} where this factory writes: pass one that was made"
            " with the same session or store (the sync and the async side do not see each other)"
        )
    return found


def _add_chunks(session: Session, document: Document, prepared: Sequence[PreparedChunk]) -> None:
    added = [_chunk(each) for each in prepared]
    document.chunks.extend(added)
    session.add(document)
    session.flush()
    owner = session.get_one(Collection, document.collection_id)
    space = session.get(EmbeddingSpace, owner.space_id) if owner.space_id else None
    if space is None:
        return
    made = embed([each.text for each in prepared], space)
    given = [made[at] if each.vector is None else each.vector for at, each in enumerate(prepared)]
    checked = packing.check_vectors(spaces.space_of(space), given)
    for chunk, vector in zip(added, checked.tolist(), strict=True):
        chunk.embeddings.append(Embedding(space=space, vector=vector))
    session.flush()


def _chunk(prepared: PreparedChunk) -> Chunk:
    return Chunk(
        text=prepared.text,
        meta=json.loads(prepared.meta),
        token_count=prepared.token_count,
        content_hash=prepared.content_hash,
    )


def _run(session: Session, operation: Operation[R]) -> R:
    """Run an operation through the session: its driver's connection may be an async one."""
    connection, rows = session.connection(), None
    try:
        while True:
            step: Any = operation.send(rows)
            statement = step.statement.as_string(None)
            given = step.parameters
            parameters = given if isinstance(given, dict) else tuple(given)
            result = connection.exec_driver_sql(statement, parameters or None)
            rows = [tuple(row) for row in result] if result.returns_rows else []
    except StopIteration as done:
        return cast("R", done.value)


def _model_for(dimensions: int) -> str:
    return _WORDLLAMA if dimensions == DIMENSIONS and _has_wordllama() else _HASHING


def _has_wordllama() -> bool:
    return importlib.util.find_spec("wordllama") is not None


@functools.cache
def _wordllama() -> Any:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import wordllama
    finally:  # importing it puts a handler on the root logger
        root.handlers[:] = handlers
        root.setLevel(level)
    directory = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=directory, disable_download=True)


def _hashed(text: str, dimensions: int) -> Vectors:
    """Add up a direction for each word, the same in every process, and normalise."""
    total = np.zeros(dimensions)
    for word in [text, *re.findall(r"\w+", text.lower())]:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        # The whole text counts a little: no two texts are equal, and none is without direction.
        weight = 0.05 if word is text else 1.0
        total += weight * np.random.default_rng(seed).standard_normal(dimensions)
    return (total / np.linalg.norm(total)).astype(np.float32)
