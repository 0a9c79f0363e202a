"""Documents in: unchanged ones recognised, the others written by COPY, a batch at a time.

A batch is one transaction. What it does on the database is in the two operations
``find_changed`` and ``write``; between them, outside any transaction, vectors are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from typing import Any

from psycopg import sql

from ragstore.collection import CollectionInfo
from ragstore.content import NewDocument, PreparedChunk, PreparedDocument
from ragstore.exceptions import (
    CollectionNotFound,
    EmbeddingFailed,
    InvalidInput,
    InvalidVector,
    SpaceChanged,
)
from ragstore.execution import Copy, Operation, Query
from ragstore.space import Matrix, Space, check_vectors, pack_vectors

Embed = Callable[[list[str]], Any]
"""Makes one vector for each text: a matrix, or a sequence of vectors. May be a coroutine function
for AsyncStore."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did: documents by fate, chunks written, vectors made, and the time.

    ``inserted + updated + unchanged`` is the number of documents seen.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    chunks: int = 0
    embedded: int = 0
    seconds: float = 0.0

    @property
    def documents(self) -> int:
        """Return the number of documents seen."""
        return self.inserted + self.updated + self.unchanged

    @property
    def chunks_per_second(self) -> float:
        """Return the chunks written per second, 0 if none were."""
        return self.chunks / self.seconds if self.seconds else 0.0

    def __add__(self, other: IngestReport) -> IngestReport:
        """Return both together."""
        names = [each.name for each in fields(self)]
        return IngestReport(*(getattr(self, name) + getattr(other, name) for name in names))


@dataclass(frozen=True)
class Batch:
    """The changed documents of a batch, and the vectors of all their chunks in order."""

    documents: Sequence[PreparedDocument]
    vectors: Matrix | None
    embedded: int


class Batcher:
    """Cuts documents into batches of about ``size`` chunks; a document is never divided.

    Raises:
        InvalidInput: ``size`` is below 1.
    """

    def __init__(self, size: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidInput(f"batch_size is {size!r}: it takes a whole number from 1")
        self._size = size
        self._chunks = 0
        self._batch: list[NewDocument] = []

    def add(self, document: NewDocument) -> list[NewDocument]:
        """Take a document; return the batch it fills, or an empty one."""
        self._batch.append(document)
        chunks = getattr(document, "chunks", ())
        # Anything else is refused, and named, with its batch.
        self._chunks += max(1, len(chunks) if isinstance(chunks, Sequence) else 1)
        return self.rest() if self._chunks >= self._size else []

    def rest(self) -> list[NewDocument]:
        """Return what was taken since the last batch."""
        batch, self._batch, self._chunks = self._batch, [], 0
        return batch


# --- vectors -----------------------------------------------------------------------------------


def texts_to_embed(
    collection: CollectionInfo, documents: Sequence[PreparedDocument], *, can_embed: bool
) -> list[str]:
    """Return the texts of the chunks that need a vector and came without, in order.

    Raises:
        SpaceNotReady: vectors are given or can be made, but the collection has no space for them.
        InvalidVector: a vector is missing, and nothing was given to make it.
    """
    places = _places(documents)
    if can_embed or collection.space or any(chunk.vector is not None for *_, chunk in places):
        collection.require_space()
    else:
        return []
    missing = [place for place in places if place[2].vector is None]
    if missing and not can_embed:
        key, at, _ = missing[0]
        raise InvalidVector(
            f"it has no vector, and the collection {collection.name!r} has a space: give the chunk"
            " a vector, or pass embed= to ingest()",
            key=key,
            chunk=at,
        )
    return [chunk.text for *_, chunk in missing]


def with_vectors(
    collection: CollectionInfo,
    documents: Sequence[PreparedDocument],
    texts: Sequence[str],
    made: Any,
) -> Batch:
    """Return the batch to write: vectors given, and those that ``embed`` made of ``texts``.

    Raises:
        EmbeddingFailed: ``embed`` made something other than one vector for each text.
        InvalidVector: a vector does not fit the space.
    """
    if collection.space is None:
        return Batch(documents, None, 0)
    places = _places(documents)
    supply = iter(_checked(texts, made))
    vectors = [next(supply) if chunk.vector is None else chunk.vector for *_, chunk in places]
    matrix = check_vectors(collection.space, vectors, lambda index: places[index][:2])
    return Batch(documents, matrix, len(texts))


def _checked(texts: Sequence[str], made: Any) -> Sequence[Any]:
    try:
        count = -1 if isinstance(made, str | bytes | Mapping | AbstractSet) else len(made)
    except TypeError:
        count = -1
    if count < 0:
        raise EmbeddingFailed(
            f"embed() returned {type(made).__name__}: it must return a list or matrix with a vector"
            " for each text"
        )
    if count != len(texts):
        raise EmbeddingFailed(
            f"embed() returned {count} vectors for {len(texts)} texts: it must return one for each"
        )
    vectors: Sequence[Any] = made
    return vectors


def _places(documents: Sequence[PreparedDocument]) -> list[tuple[str, int, PreparedChunk]]:
    return [
        (document.key, at, chunk)
        for document in documents
        for at, chunk in enumerate(document.chunks)
    ]


# --- operations --------------------------------------------------------------------------------

# A document is unchanged if its hash is the same and all its chunks are there, in the collection's
# language and with their vectors in its space: a statement past the models may have changed that.
_STORED = sql.SQL("""
SELECT d.key, d.content_hash, (
  SELECT count(*) FROM ragstore_chunk c
  LEFT JOIN ragstore_embedding e ON e.collection_id = c.collection_id AND e.chunk_id = c.id
    AND e.space_id = %(space)s
  WHERE c.collection_id = %(collection)s AND c.document_id = d.id AND c.language = %(language)s
    AND (%(space)s::bigint IS NULL OR e.chunk_id IS NOT NULL))
FROM ragstore_document d
WHERE d.collection_id = %(collection)s AND d.key = ANY (%(keys)s)
""")
_LOCK_COLLECTION = sql.SQL("SELECT space_id FROM ragstore_collection WHERE id = %s FOR SHARE")
# Sorted by key, so that two writers lock in the same order. A new row has no xmax.
_UPSERT = sql.SQL("""
INSERT INTO ragstore_document AS d
  (collection_id, key, title, metadata, content_hash, updated_at)
SELECT %(collection)s, key, title, metadata::jsonb, content_hash, now()
FROM unnest(%(keys)s::text[], %(titles)s::text[], %(metas)s::text[], %(hashes)s::bytea[])
  AS new (key, title, metadata, content_hash)
ORDER BY key
ON CONFLICT (collection_id, key) DO UPDATE SET title = excluded.title,
  metadata = excluded.metadata, content_hash = excluded.content_hash,
  updated_at = excluded.updated_at
RETURNING d.key, d.id, d.xmax = 0
""")
_DELETE_CHUNKS = sql.SQL(
    "DELETE FROM ragstore_chunk WHERE collection_id = %s AND document_id = ANY (%s)"
)
_CHUNK_IDS = sql.SQL(
    "SELECT nextval(pg_get_serial_sequence('ragstore_chunk', 'id')) FROM generate_series(1, %s)"
)
_COPY_CHUNKS = sql.SQL(
    "COPY ragstore_chunk (collection_id, id, document_id, ordinal, text, token_count, metadata,"
    " language, content_hash) FROM STDIN (FORMAT BINARY)"
)
_CHUNK_TYPES = ("int8", "int8", "int8", "int4", "text", "int4", "bytea", "text", "bytea")
_COPY_EMBEDDINGS = sql.SQL(
    "COPY ragstore_embedding (collection_id, chunk_id, space_id, vector) FROM STDIN (FORMAT BINARY)"
)
_EMBEDDING_TYPES = ("int8", "int8", "int8", "bytea")
_JSONB_VERSION = b"\x01"  # what binary jsonb starts with


def find_changed(
    collection: CollectionInfo, documents: Sequence[PreparedDocument]
) -> Operation[list[PreparedDocument]]:
    """Return the documents that are not in the collection as they are, the new ones included."""
    rows = yield Query(
        _STORED,
        {
            "collection": collection.id,
            "space": collection.space and collection.space.id,
            "language": collection.language,
            "keys": [document.key for document in documents],
        },
    )
    stored = {key: (content_hash, whole) for key, content_hash, whole in rows}
    return [
        each for each in documents if stored.get(each.key) != (each.content_hash, len(each.chunks))
    ]


def write(collection: CollectionInfo, batch: Batch) -> Operation[IngestReport]:
    """Write a batch: its documents replace those of the same keys. For one transaction.

    Raises:
        SpaceChanged: the collection has another space than when the vectors were made.
        CollectionNotFound: it was deleted meanwhile.
    """
    yield from _lock_collection(collection)
    rows = yield Query(_UPSERT, _document_columns(collection, batch.documents))
    ids = {key: id_ for key, id_, _ in rows}
    replaced = [id_ for _, id_, is_new in rows if not is_new]
    if replaced:
        yield Query(_DELETE_CHUNKS, [collection.id, replaced])
    places = _places(batch.documents)
    chunk_ids = [id_ for (id_,) in (yield Query(_CHUNK_IDS, [len(places)]))]
    yield Copy(_COPY_CHUNKS, _CHUNK_TYPES, _chunk_rows(collection, places, ids, chunk_ids))
    if batch.vectors is not None:
        space = collection.require_space()
        rows_of_vectors = _embedding_rows(collection, space, chunk_ids, batch.vectors)
        yield Copy(_COPY_EMBEDDINGS, _EMBEDDING_TYPES, rows_of_vectors)
    return IngestReport(
        inserted=len(rows) - len(replaced),
        updated=len(replaced),
        chunks=len(places),
        embedded=batch.embedded,
    )


def _lock_collection(collection: CollectionInfo) -> Operation[None]:
    """Keep the collection's space as it is until the transaction ends."""
    rows = yield Query(_LOCK_COLLECTION, [collection.id])
    if not rows:
        raise CollectionNotFound(
            f"The collection {collection.name!r} was deleted meanwhile", collection=collection.name
        )
    if rows[0][0] != (collection.space and collection.space.id):
        raise SpaceChanged(
            f"The collection {collection.name!r} switched its space after these vectors were made:"
            " ingest the documents again"
        )


def _document_columns(
    collection: CollectionInfo, documents: Sequence[PreparedDocument]
) -> dict[str, Any]:
    return {
        "collection": collection.id,
        "keys": [document.key for document in documents],
        "titles": [document.title for document in documents],
        "metas": [document.meta for document in documents],
        "hashes": [document.content_hash for document in documents],
    }


def _chunk_rows(
    collection: CollectionInfo,
    places: Sequence[tuple[str, int, PreparedChunk]],
    document_ids: dict[str, int],
    chunk_ids: Sequence[int],
) -> Iterator[tuple[Any, ...]]:
    for id_, (key, ordinal, chunk) in zip(chunk_ids, places, strict=True):
        yield (
            collection.id,
            id_,
            document_ids[key],
            ordinal,
            chunk.text,
            chunk.token_count,
            _JSONB_VERSION + chunk.meta.encode(),
            collection.language,
            chunk.content_hash,
        )


def _embedding_rows(
    collection: CollectionInfo, space: Space, chunk_ids: Sequence[int], vectors: Matrix
) -> Iterator[tuple[Any, ...]]:
    for id_, vector in zip(chunk_ids, pack_vectors(vectors), strict=True):
        yield collection.id, id_, space.id, vector
