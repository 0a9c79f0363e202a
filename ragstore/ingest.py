"""Documents in: unchanged ones recognised, the others written by COPY, a batch at a time.

A batch is one transaction. What it does on the database is in the two operations ``look_up`` and
``write``; between them, outside any transaction, vectors are made. What ``write`` does to the
chunks of a document it decides anew, once it holds the document's lock: what was looked up only
says which vectors to make.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, NamedTuple

from psycopg import sql

from ragstore.collection import CollectionInfo
from ragstore.content import PreparedChunk, PreparedDocument
from ragstore.copying import NULL, copy_rows, copy_vectors, packed
from ragstore.diff import Change, StoredChunk, diff
from ragstore.exceptions import CollectionNotFound, InvalidVector, SpaceChanged, WriteConflict
from ragstore.execution import Operation, Query, prefer_indexes
from ragstore.report import IngestReport


class Place(NamedTuple):
    """Where a chunk stands: the key of its document, and its number in it."""

    key: str
    ordinal: int


@dataclass(frozen=True)
class Outlook:
    """The documents of a batch beside what is stored, and the chunks that need a vector."""

    changed: Sequence[PreparedDocument]
    unchanged: Sequence[PreparedDocument]
    wanting: Mapping[Place, PreparedChunk]


@dataclass(frozen=True)
class Batch:
    """What a transaction writes: the changed documents, and the packed vectors of their chunks.

    ``unchanged`` are those that must still be so. A vector of None is left out knowingly.
    """

    changed: Sequence[PreparedDocument]
    unchanged: Sequence[PreparedDocument] = ()
    vectors: Mapping[Place, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Circumstances:
    """What is asked once a run: whether row security is in force for the role."""

    is_secured: bool
    may_insert: bool


_CIRCUMSTANCES = sql.SQL("""
SELECT bool_or(row_security_active(name)), bool_and(has_table_privilege(name, 'INSERT'))
FROM unnest(ARRAY['ragstore_document', 'ragstore_chunk', 'ragstore_embedding']) AS name
""")


def find_circumstances() -> Operation[Circumstances]:
    """Ask what holds for a whole run."""
    rows = yield Query(_CIRCUMSTANCES)
    return Circumstances(*rows[0])


# --- looking -----------------------------------------------------------------------------------

# Key by key: in a table that was never analysed the planner takes a collection for a two hundredth
# of what it is, and would read all of it for each batch.
_BY_KEY = sql.SQL("""
unnest(%(keys)s::text[]) AS wanted (key) CROSS JOIN LATERAL (
  SELECT * FROM ragstore_document
  WHERE collection_id = %(collection)s AND key = wanted.key OFFSET 0) AS d
""")
_EMBEDDING = sql.SQL("""(
  SELECT chunk_id FROM ragstore_embedding
  WHERE collection_id = %(collection)s AND chunk_id = c.id AND space_id = %(space)s OFFSET 0)
""")
# A document is unchanged if its hash is the same and all its chunks are there, in the collection's
# language and with their vectors in its space: a statement past the models may have changed that.
_STORED = sql.SQL("""
SELECT d.key, d.id, d.content_hash, (
  SELECT count(*) FROM ragstore_chunk c LEFT JOIN LATERAL {embedding} AS e ON true
  WHERE c.collection_id = %(collection)s AND c.document_id = d.id AND c.language = %(language)s
    AND (%(space)s::bigint IS NULL OR e.chunk_id IS NOT NULL))
FROM {documents}
""").format(documents=_BY_KEY, embedding=_EMBEDDING)
_STORED_CHUNKS = sql.SQL("""
SELECT c.document_id, c.id, c.ordinal, c.content_hash, c.language = %(language)s,
  e.chunk_id IS NOT NULL
FROM unnest(%(documents)s::bigint[]) AS wanted (id) CROSS JOIN LATERAL (
  SELECT * FROM ragstore_chunk
  WHERE collection_id = %(collection)s AND document_id = wanted.id OFFSET 0) AS c
LEFT JOIN LATERAL {} AS e ON true
""").format(_EMBEDDING)


def look_up(
    collection: CollectionInfo, documents: Sequence[PreparedDocument]
) -> Operation[Outlook]:
    """Tell the documents that are not in the collection as they are from those that are."""
    yield from prefer_indexes()
    values = _values(collection, keys=[document.key for document in documents])
    rows = yield Query(_STORED, values)
    stored = {key: (content_hash, whole) for key, _, content_hash, whole in rows}
    ids = {key: id_ for key, id_, *_ in rows}
    changed: list[PreparedDocument] = []
    unchanged: list[PreparedDocument] = []
    for each in documents:
        same = stored.get(each.key) == (each.content_hash, len(each.chunks))
        (unchanged if same else changed).append(each)
    chunks = yield from _stored_chunks(
        collection, [ids[each.key] for each in changed if each.key in ids]
    )
    wanting: dict[Place, PreparedChunk] = {}
    for each in changed:
        change = diff(each, chunks.get(ids.get(each.key, 0), ()))
        wanting.update((Place(each.key, chunk.ordinal), chunk) for chunk in _wanting(change))
    return Outlook(changed, unchanged, wanting)


def missing_vectors(
    collection: CollectionInfo, outlook: Outlook, *, can_embed: bool
) -> list[InvalidVector]:
    """Return what is wrong with documents that need a vector which neither came nor can be made.

    Raises:
        SpaceNotReady: vectors are given or can be made, but the collection has no space for them.
    """
    chunks = [chunk for document in outlook.changed for chunk in document.chunks]
    if can_embed or collection.space or any(chunk.vector is not None for chunk in chunks):
        collection.require_space()
    if can_embed or collection.space is None:
        return []
    problems: dict[str, InvalidVector] = {}
    for place, chunk in outlook.wanting.items():
        if chunk.vector is None and place.key not in problems:
            problems[place.key] = InvalidVector(
                f"it has no vector, and the collection {collection.name!r} has a space: give the"
                " chunk a vector, or pass embed= to ingest()",
                key=place.key,
                chunk=place.ordinal,
            )
    return list(problems.values())


def _stored_chunks(
    collection: CollectionInfo, documents: Sequence[int]
) -> Operation[Mapping[int, list[StoredChunk]]]:
    found: defaultdict[int, list[StoredChunk]] = defaultdict(list)
    if documents:
        values = _values(collection, documents=list(documents))
        rows = yield Query(_STORED_CHUNKS, values)
        for document, *facts in rows:
            found[document].append(StoredChunk(*facts))
    return found


def _values(collection: CollectionInfo, **more: Any) -> dict[str, Any]:
    space = collection.space and collection.space.id
    return {"collection": collection.id, "space": space, "language": collection.language, **more}


def _wanting(change: Change) -> Iterator[PreparedChunk]:
    yield from change.new
    yield from (chunk for _, chunk in change.unembedded)


# --- writing -----------------------------------------------------------------------------------

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
_HASHES = sql.SQL("SELECT d.key, d.content_hash FROM {}").format(_BY_KEY)
_DELETE_CHUNKS = sql.SQL("DELETE FROM ragstore_chunk WHERE collection_id = %s AND id = ANY (%s)")
_MOVE_CHUNKS = sql.SQL("""
UPDATE ragstore_chunk c SET ordinal = moved.ordinal
FROM unnest(%(ids)s::bigint[], %(ordinals)s::int[]) AS moved (id, ordinal)
WHERE c.collection_id = %(collection)s AND c.id = moved.id
""")
_INDEX_CHUNKS = sql.SQL("""
UPDATE ragstore_chunk SET language = %(language)s
WHERE collection_id = %(collection)s AND id = ANY (%(ids)s)
""")
# Materialized, or the name of the sequence would be looked up for each row.
_CHUNK_IDS = sql.SQL("""
WITH ids AS MATERIALIZED (SELECT pg_get_serial_sequence('ragstore_chunk', 'id')::regclass AS source)
SELECT nextval(source) FROM ids, generate_series(1, %s)
""")
_CHUNK_COLUMNS = (
    "collection_id", "id", "document_id", "ordinal", "text", "token_count", "metadata",
    "language", "content_hash",
)  # fmt: skip
_CHUNK_KEYS = Struct(">hiqiqiqii").pack  # the number of columns, and the first four of them
_TOKEN_COUNT = Struct(">ii").pack
_JSONB_VERSION = b"\x01"  # what binary jsonb starts with


def write(
    collection: CollectionInfo, batch: Batch, *, staged: bool = False
) -> Operation[IngestReport]:
    """Write a batch: its documents replace those of the same keys. For one transaction.

    ``staged`` goes through temporary tables, as the server refuses COPY into a table with row
    security.

    Raises:
        SpaceChanged: the collection has another space than when the vectors were made.
        CollectionNotFound: it was deleted meanwhile.
        WriteConflict: another writer changed a document of the batch: look it up again.
    """
    yield from prefer_indexes()
    yield from _lock_collection(collection)
    rows = yield Query(_UPSERT, _document_columns(collection, batch.changed))
    ids = {key: id_ for key, id_, _ in rows}
    old = [id_ for _, id_, is_new in rows if not is_new]
    yield from _check_unchanged(collection, batch)
    stored = yield from _stored_chunks(collection, old)
    changes = [(each.key, diff(each, stored.get(ids[each.key], ()))) for each in batch.changed]
    yield from _rearrange(collection, [change for _, change in changes])
    new = [(key, chunk) for key, change in changes for chunk in change.new]
    chunk_ids = [id_ for (id_,) in (yield Query(_CHUNK_IDS, [len(new)]))] if new else []
    if new:
        chunks = _chunk_rows(collection, new, ids, chunk_ids)
        yield from copy_rows("ragstore_chunk", _CHUNK_COLUMNS, chunks, staged=staged)
    yield from _write_vectors(collection, batch, changes, chunk_ids, staged=staged)
    return IngestReport(inserted=len(rows) - len(old), updated=len(old), chunks=len(new))


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


def _check_unchanged(collection: CollectionInfo, batch: Batch) -> Operation[None]:
    """Refuse the batch if a document of it that needed nothing was changed by another writer.

    It is read once all locks are held: whoever changes it later comes after this batch as a whole.
    """
    if not batch.unchanged:
        return
    keys = [document.key for document in batch.unchanged]
    rows = yield Query(_HASHES, {"collection": collection.id, "keys": keys})
    hashes: dict[Any, Any] = dict(rows)
    if any(hashes.get(each.key) != each.content_hash for each in batch.unchanged):
        raise _conflict(collection)


def _conflict(collection: CollectionInfo) -> WriteConflict:
    return WriteConflict(
        f"Other writers kept changing the same documents of {collection.name!r}: ingest the batch"
        " again"
    )


def _rearrange(collection: CollectionInfo, changes: Sequence[Change]) -> Operation[None]:
    """Delete the chunks that are gone, and move those that are elsewhere now."""
    gone = [chunk.id for change in changes for chunk in change.gone]
    if gone:
        yield Query(_DELETE_CHUNKS, [collection.id, gone])
    moved = [pair for change in changes for pair in change.moved]
    if moved:
        ids, ordinals = (list(column) for column in zip(*moved, strict=True))
        values = {"collection": collection.id, "ids": ids, "ordinals": ordinals}
        yield Query(_MOVE_CHUNKS, values)
    kept = [stored for change in changes for stored, _ in change.kept]
    foreign = [stored.id for stored in kept if not stored.is_indexed]
    if foreign:
        yield Query(_INDEX_CHUNKS, _values(collection, ids=foreign))


def _write_vectors(
    collection: CollectionInfo,
    batch: Batch,
    changes: Sequence[tuple[str, Change]],
    chunk_ids: Sequence[int],
    *,
    staged: bool,
) -> Operation[None]:
    space = collection.space
    if space is None:
        return
    places = [Place(key, chunk.ordinal) for key, change in changes for chunk in change.new]
    ids = list(chunk_ids)
    for key, change in changes:
        for stored, chunk in change.unembedded:
            places.append(Place(key, chunk.ordinal))
            ids.append(stored.id)
    try:
        vectors = [batch.vectors[place] for place in places]
    except KeyError:  # a chunk that was there when vectors were made is gone
        raise _conflict(collection) from None
    made = [(id_, vector) for id_, vector in zip(ids, vectors, strict=True) if vector is not None]
    if made:
        yield from copy_vectors(collection.id, space, made, staged=staged)


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
    chunks: Sequence[tuple[str, PreparedChunk]],
    document_ids: Mapping[str, int],
    chunk_ids: Sequence[int],
) -> Iterator[bytes]:
    own = packed(collection.language.encode())
    for id_, (key, chunk) in zip(chunk_ids, chunks, strict=True):
        keys = (8, collection.id, 8, id_, 8, document_ids[key], 4, chunk.ordinal)
        count, digest = chunk.token_count, chunk.content_hash
        yield b"".join(
            (
                _CHUNK_KEYS(len(_CHUNK_COLUMNS), *keys),
                packed(chunk.text.encode()),
                NULL if count is None else _TOKEN_COUNT(4, count),
                packed(_JSONB_VERSION + chunk.meta.encode()),
                packed(chunk.language.encode()) if chunk.language else own,
                NULL if digest is None else packed(digest),
            )
        )
