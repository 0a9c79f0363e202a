"""The chunks of a collection that have no vector in a space, and the vectors made for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from ragstore.collection import CollectionInfo
from ragstore.copying import copy_vectors, is_secured
from ragstore.exceptions import CollectionNotFound, SpaceChanged
from ragstore.execution import Operation, Query
from ragstore.indexing import has_index
from ragstore.packing import Matrix, pack_vectors
from ragstore.space import Space

BELOW_ALL = -(2**63)
"""What every id is above: one of the user's may be negative."""


@dataclass(frozen=True)
class Chunk:
    """A chunk to embed; ``mark`` tells whether its text is still the same.

    ``key`` is its document's: with ``ordinal`` it names the chunk in an error.
    """

    id: int
    text: str
    mark: int
    key: str
    ordinal: int


_LOCK_FOR_BATCH = sql.SQL(
    "SELECT space_id, next_space_id FROM ragstore_collection WHERE id = %s FOR SHARE"
)
_LACKING = sql.SQL("""
FROM ragstore_chunk c WHERE c.collection_id = %(collection)s AND c.id > %(after)s
AND NOT EXISTS (SELECT FROM ragstore_embedding e WHERE e.collection_id = %(collection)s
  AND e.space_id = %(space)s AND e.chunk_id = c.id AND e.chunk_id > %(after)s)
""")
# A page is read in the order of both primary keys, from where the last one ended. A planner that
# knows the tables badly, as just after a load, would read and sort all that is left for each page.
_IN_ORDER = sql.SQL(
    "SELECT set_config(name, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan',"
    " 'enable_hashjoin', 'enable_sort']) AS name"
)
# The ids are found in the two primary keys alone, and only then is anything of a chunk read: while
# writers wait for the last look next to none is found. OFFSET keeps the planner from joining.
_LACKING_CHUNKS = sql.SQL("""
SELECT c.id, c.text, hashtextextended(c.text, 0), (SELECT key FROM ragstore_document d
  WHERE d.collection_id = %(collection)s AND d.id = c.document_id), c.ordinal
FROM (SELECT c.id {} ORDER BY c.id LIMIT %(size)s) AS found, LATERAL (
  SELECT id, text, document_id, ordinal FROM ragstore_chunk
  WHERE collection_id = %(collection)s AND id = found.id OFFSET 0
) AS c ORDER BY found.id
""").format(_LACKING)
_MEASURE_LACKING = sql.SQL("SELECT count(*), coalesce(max(c.id), 0) {}").format(_LACKING)
# One batch at a time of two runs; a batch of ingest does not wait for it.
_TAKE_TURNS = sql.SQL(
    "SELECT pg_advisory_xact_lock(hashtext('ragstore.reembed'), (%s %% 2147483648)::int)"
)
# What is being deleted or changed is left to the next pass: waiting could be a deadlock.
_STILL_THERE = sql.SQL("""
SELECT id, hashtextextended(text, 0) FROM ragstore_chunk
WHERE collection_id = %(collection)s AND id = ANY (%(ids)s)
ORDER BY id FOR KEY SHARE SKIP LOCKED
""")
_MADE_ALREADY = sql.SQL("""
SELECT chunk_id FROM ragstore_embedding
WHERE collection_id = %(collection)s AND space_id = %(space)s AND chunk_id = ANY (%(ids)s)
""")


def look(collection_id: int, space: Space) -> Operation[tuple[int, int, bool]]:
    """Return how many chunks have no vector, the highest id of them, and if there is an index."""
    values = {"collection": collection_id, "space": space.id, "after": BELOW_ALL}
    rows = yield Query(_MEASURE_LACKING, values)
    count, upto = rows[0]
    is_indexed = yield from has_index(space, collection_id)
    return count, upto, is_indexed or (yield from has_index(space))


def lacking(collection_id: int, space: Space, after: int, size: int) -> Operation[list[Chunk]]:
    """Return the next chunks, by id, that have no vector in a space."""
    values = {"collection": collection_id, "space": space.id, "after": after, "size": size}
    yield Query(_IN_ORDER)
    rows = yield Query(_LACKING_CHUNKS, values)
    return [Chunk(*row) for row in rows]


def store(
    source: CollectionInfo, target: Space, page: Sequence[Chunk], vectors: Matrix
) -> Operation[int]:
    """Store the vectors of those chunks that are still there as they were; return how many.

    Raises:
        CollectionNotFound, SpaceChanged: see ``check_on_the_way``.
    """
    yield Query(sql.SQL("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
    rows = yield Query(_LOCK_FOR_BATCH, [source.id])
    check_on_the_way(source, target, rows)
    yield Query(_TAKE_TURNS, [source.id])
    ids = [chunk.id for chunk in page]
    values = {"collection": source.id, "space": target.id, "ids": ids}
    yield Query(_IN_ORDER)
    there = dict((yield Query(_STILL_THERE, values)))
    made = {id_ for (id_,) in (yield Query(_MADE_ALREADY, values))}
    kept = [
        at
        for at, chunk in enumerate(page)
        if there.get(chunk.id) == chunk.mark and chunk.id not in made
    ]
    if kept:
        yield from copy(source.id, target, [ids[at] for at in kept], vectors[kept])
    return len(kept)


def copy(collection_id: int, space: Space, ids: Sequence[int], vectors: Matrix) -> Operation[None]:
    """Store vectors of chunks that have none; for a transaction that keeps the chunks there."""
    staged = yield from is_secured()
    packed = zip(ids, pack_vectors(vectors), strict=True)
    yield from copy_vectors(collection_id, space, packed, staged=staged)


def check_exists(collection: CollectionInfo, rows: Sequence[Any]) -> None:
    """Refuse to go on if the collection was not found again.

    Raises:
        CollectionNotFound: it was deleted.
    """
    if not rows:
        raise CollectionNotFound(
            f"The collection {collection.name!r} was deleted meanwhile", collection=collection.name
        )


def check_on_the_way(source: CollectionInfo, target: Space, rows: Sequence[Any]) -> None:
    """Refuse to go on if the collection is no longer on its way to the target.

    Raises:
        CollectionNotFound: it was deleted.
        SpaceChanged: another run has finished the move, or it was given up.
    """
    check_exists(source, rows)
    if rows[0] != (source.space and source.space.id, target.id):
        raise SpaceChanged(
            f"The collection {source.name!r} is no longer on its way to space {target.name!r}:"
            " another run has finished the move, or it was given up; reembed() again tells which"
        )
