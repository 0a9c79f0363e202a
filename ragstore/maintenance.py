"""What is done to stored documents besides writing them: deleted, renamed, analysed.

Everything is deleted a page at a time, each page a transaction of its own: locks are short, and
what an interrupted call has deleted stays deleted. The chunks and vectors of a document go with it
(foreign keys cascade).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from psycopg import sql
from sqlalchemy import Select, select

from ragstore.backfill import BELOW_ALL
from ragstore.collection import CollectionInfo, find_collection
from ragstore.content import check_text
from ragstore.exceptions import CollectionExists, InvalidInput, InvalidName, QueryFailed
from ragstore.execution import Operation, Query, Row, compiled, prefer_indexes
from ragstore.models import CHUNKS, MAX_KEY_BYTES, MAX_NAME_BYTES
from ragstore.procedure import LOCK_PAUSES, Procedure, patiently
from ragstore.retry import TRY_AGAIN
from ragstore.search.filter import Where, filtered
from ragstore.unindexing import own_indexes_dropped
from ragstore.work import Transact, Work, transact

logger = logging.getLogger(__name__)

PAGE = 1_000
"""How many documents or chunks one statement deletes."""

_UNIQUE_VIOLATION = "23505"

_KEYS = sql.SQL("""
SELECT id, key FROM ragstore_document WHERE collection_id = %s AND id > %s ORDER BY id LIMIT %s
""")
_DELETE_BY_KEY = sql.SQL("""
DELETE FROM ragstore_document WHERE collection_id = %s AND id IN (
  SELECT id FROM ragstore_document WHERE collection_id = %s AND key = ANY (%s)
  ORDER BY key FOR UPDATE)
""")
_DELETE_DOCUMENTS = sql.SQL("""
DELETE FROM ragstore_document WHERE collection_id = %s AND id IN (
  SELECT id FROM ragstore_document WHERE collection_id = %s AND id = ANY (%s)
  ORDER BY key FOR UPDATE)
""")
# As ingest locks them: whoever takes chunks first and documents then waits for it in a circle.
_LOCK_DOCUMENTS = sql.SQL("""
SELECT FROM ragstore_document WHERE collection_id = %s AND id IN (
  SELECT document_id FROM ragstore_chunk WHERE collection_id = %s AND id = ANY (%s))
ORDER BY key FOR NO KEY UPDATE
""")
_DELETE_CHUNKS = sql.SQL("DELETE FROM ragstore_chunk WHERE collection_id = %s AND id = ANY (%s)")
_DELETE_COLLECTION = sql.SQL("DELETE FROM ragstore_collection WHERE id = %s")
_RENAME = sql.SQL("""
UPDATE ragstore_collection SET name = %(to)s WHERE id = %(id)s
  AND NOT EXISTS (SELECT FROM ragstore_collection WHERE name = %(to)s AND id <> %(id)s)
""")


def counted(statement: sql.SQL) -> sql.Composed:
    """Return a DELETE or UPDATE as a statement that gives the number of its rows."""
    return sql.SQL("WITH done AS ({} RETURNING 1) SELECT count(*) FROM done").format(statement)


def _count(statement: sql.SQL, values: Any) -> Operation[int]:
    yield from prefer_indexes()
    rows = yield Query(counted(statement), values)
    number: int = rows[0][0]
    return number


# --- documents and chunks ----------------------------------------------------------------------


def page_of_documents(collection: CollectionInfo, after: int, size: int) -> Operation[list[Row]]:
    """Return the ids and keys of the documents that follow an id, in the order of ids."""
    yield from prefer_indexes()
    rows: list[Row] = yield Query(_KEYS, [collection.id, after, size])
    return rows


def delete_by_key(collection: CollectionInfo, keys: Sequence[str]) -> Operation[int]:
    """Delete documents by their keys, and return how many there were."""
    return (yield from _count(_DELETE_BY_KEY, [collection.id, collection.id, list(keys)]))


def delete_documents(collection: CollectionInfo, ids: Sequence[int]) -> Operation[int]:
    """Delete documents by their ids, and return how many there were."""
    return (yield from _count(_DELETE_DOCUMENTS, [collection.id, collection.id, list(ids)]))


def delete_chunks(collection: CollectionInfo, ids: Sequence[int]) -> Operation[int]:
    """Delete chunks by their ids, and return how many there were."""
    yield from prefer_indexes()
    yield Query(_LOCK_DOCUMENTS, [collection.id, collection.id, list(ids)])
    return (yield from _count(_DELETE_CHUNKS, [collection.id, list(ids)]))


def matching_documents(
    collection: CollectionInfo, where: Where, after: int
) -> Operation[list[int]]:
    """Return a page of the ids of documents that have a chunk which ``where`` matches."""
    return (yield from _matching(collection, where, after, CHUNKS.c.document_id))


def matching_chunks(collection: CollectionInfo, where: Where, after: int) -> Operation[list[int]]:
    """Return a page of the ids of chunks that ``where`` matches."""
    return (yield from _matching(collection, where, after, CHUNKS.c.id))


def _matching(
    collection: CollectionInfo, where: Where, after: int, column: Any
) -> Operation[list[int]]:
    found: Select[Any] = (
        select(column).where(CHUNKS.c.collection_id == collection.id, column > after).distinct()
    )
    chosen = filtered(found, where, collection.id, CHUNKS.c.id)
    rows = yield compiled(chosen.order_by(column).limit(PAGE))
    return [id_ for (id_,) in rows]


def checked_keys(keys: Sequence[str]) -> list[str]:
    """Return keys, each once.

    Raises:
        InvalidInput: it is one string, or holds what cannot be a key.
    """
    if isinstance(keys, str):
        raise InvalidInput("keys is str, not a list of keys: pass [key]")
    return list(dict.fromkeys(check_text(key, "a key", MAX_KEY_BYTES, field="key") for key in keys))


def checked_ids(ids: Sequence[int]) -> list[int]:
    """Return ids of chunks, each once.

    Raises:
        InvalidInput: one of them is no id.
    """
    for id_ in ids:
        if isinstance(id_, bool) or not isinstance(id_, int) or not BELOW_ALL <= id_ < 2**63:
            raise InvalidInput(f"{id_!r:.40} is no id of a chunk: they are whole numbers")
    return sorted(set(ids))


# --- collections -------------------------------------------------------------------------------


def drop_collection(collection: CollectionInfo) -> Operation[int]:
    """Delete the row of a collection, and with it what is left in it; return 1, or 0 if gone."""
    return (yield from _count(_DELETE_COLLECTION, [collection.id]))


def rename_collection(name: str, to: str) -> Operation[CollectionInfo]:
    """Give a collection another name.

    Raises:
        CollectionNotFound: there is none of the old name.
        CollectionExists: the new name is taken.
        InvalidName, InvalidText: the new name cannot be one.
    """
    if not check_text(to, "the new name", MAX_NAME_BYTES):
        raise InvalidName("a collection needs a name")
    collection = yield from find_collection(name)
    if not (yield from _count(_RENAME, {"id": collection.id, "to": to})):
        raise _taken(to)
    return (yield from find_collection(to))


def _taken(name: str) -> CollectionExists:
    return CollectionExists(
        f"There is a collection {name!r} already: choose another name", collection=name
    )


# --- whole calls -------------------------------------------------------------------------------

Find = Callable[[CollectionInfo, Where, int], Operation[list[int]]]
Delete = Callable[[CollectionInfo, Sequence[int]], Operation[int]]


def documents_deleted(name: str, keys: Sequence[str] | None, where: Where | None) -> Procedure[int]:
    """Delete the documents of these keys, or those with a chunk that ``where`` matches.

    Raises:
        CollectionNotFound: there is no such collection.
        InvalidInput, InvalidFilter: not one of the two was given, or it cannot be sent.
    """
    _check_one("keys", keys, where)
    collection = yield from transact(find_collection(name))
    if where is not None:
        return (
            yield from _delete_matching(collection, where, matching_documents, delete_documents)
        )
    wanted = checked_keys(keys or ())
    deleted = 0
    for some in _pages(sorted(wanted)):
        deleted += yield from _patiently(delete_by_key, collection, some)
    _log("documents deleted", collection, documents=deleted)
    return deleted


def chunks_deleted(name: str, ids: Sequence[int] | None, where: Where | None) -> Procedure[int]:
    """Delete the chunks of these ids, or those that ``where`` matches.

    Raises:
        CollectionNotFound: there is no such collection.
        InvalidInput, InvalidFilter: not one of the two was given, or it cannot be sent.
    """
    _check_one("ids", ids, where)
    collection = yield from transact(find_collection(name))
    if where is not None:
        return (yield from _delete_matching(collection, where, matching_chunks, delete_chunks))
    deleted = 0
    for some in _pages(checked_ids(ids or ())):
        deleted += yield from _patiently(delete_chunks, collection, some)
    _log("chunks deleted", collection, chunks=deleted)
    return deleted


def collection_deleted(name: str) -> Procedure[int]:
    """Delete a collection with all that is in it; return the number of its documents.

    Its own indexes go first, as the owner of the tables; where that cannot be, they stay.

    Raises:
        CollectionNotFound: there is no such collection.
    """
    collection = yield from transact(find_collection(name))
    yield from own_indexes_dropped(collection)
    deleted, after = 0, BELOW_ALL
    # Onwards, as a policy may let a role see a document that it may not delete.
    while page := (yield from transact(page_of_documents(collection, after, PAGE))):
        ids = [id_ for id_, _ in page]
        after = ids[-1]
        deleted += yield from _patiently(delete_documents, collection, ids)
    yield from _patiently(drop_collection, collection)
    _log("collection deleted", collection, documents=deleted)
    return deleted


def collection_renamed(name: str, to: str) -> Work[CollectionInfo]:
    """Give a collection another name; see ``rename_collection``."""
    try:
        return (yield from transact(rename_collection(name, to)))
    except QueryFailed as exc:
        if exc.sqlstate != _UNIQUE_VIOLATION:
            raise
        raise _taken(to) from None  # by another session, after it was looked for


def tables_analyzed(name: str) -> Work[tuple[str, ...]]:
    """Gather the statistics of a collection's tables; return their names.

    Raises:
        CollectionNotFound: there is no such collection.
    """
    collection = yield from transact(find_collection(name))
    return (yield from transact(analyze(collection)))


def _delete_matching(
    collection: CollectionInfo, where: Where, find: Find, delete: Delete
) -> Procedure[int]:
    deleted, after = 0, BELOW_ALL
    while ids := (yield from transact(find(collection, where, after))):
        after = ids[-1]
        deleted += yield from _patiently(delete, collection, ids)
    _log("rows deleted by a filter", collection, rows=deleted)
    return deleted


def _patiently(
    delete: Callable[..., Operation[int]], collection: CollectionInfo, *arguments: Any
) -> Procedure[int]:
    """Delete in a transaction, once more while other writers stand in the way."""
    number: int = yield from patiently(
        lambda: Transact(delete(collection, *arguments)),
        LOCK_PAUSES,
        TRY_AGAIN,
        {"collection": collection.name},
    )
    return number


def _pages(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[at : at + PAGE] for at in range(0, len(values), PAGE))


def _check_one(name: str, given: object, where: object) -> None:
    if (given is None) == (where is None):
        raise InvalidInput(f"give {name}= or where=, and not both: what is to be deleted")
    if isinstance(where, Mapping) and not where:
        raise InvalidInput(
            "where={} is of everything there is: delete_collection() deletes a whole collection"
        )


def _log(message: str, collection: CollectionInfo, **numbers: int) -> None:
    logger.info(message, extra={"collection": collection.name, **numbers})


# --- statistics --------------------------------------------------------------------------------

_OWNED = sql.SQL("""
SELECT relname, reltuples::bigint, CASE WHEN current_setting('server_version_num')::int < 170000
  THEN pg_has_role(relowner, 'USAGE')
  ELSE pg_has_role(relowner, 'USAGE') OR has_table_privilege(oid, 'MAINTAIN') END
FROM pg_class WHERE oid IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)
ORDER BY relname
""")
# Without these the planner takes one index that starts with the collection for another.
_KEY_COLUMNS = {
    "ragstore_document": ("collection_id", "id", "key"),
    "ragstore_chunk": ("collection_id", "id", "document_id", "ordinal"),
}
_KEY_COLUMNS_OF_EMBEDDINGS = ("collection_id", "chunk_id", "space_id")

# A crash that loses figures loses nothing: the end of their transaction need not wait for the disk.
_HURRY = sql.SQL("SELECT set_config('synchronous_commit', 'off', true)")
# All that a condition or an order may name. What else is wide takes as long as the rest, and comes
# with the next analysis of the whole table.
_SEARCHED_COLUMNS = {
    "ragstore_chunk": (
        "collection_id", "id", "document_id", "ordinal", "token_count", "metadata", "language",
        "tsv",
    ),
}  # fmt: skip

LARGE_LOAD = 0.1
"""The part of a table that a load must have written for the planner to need new figures."""

SMALL_LOAD = 1_000
"""Fewer chunks than this never call for an analysis: autovacuum does it soon enough."""


def analyze_keys(collection: CollectionInfo, written: int) -> Operation[tuple[str, ...]]:
    """Gather the statistics of the keys alone, of tables that have grown much: a quick ``analyze``.

    It also ends the plans that this session's foreign keys made while a table was small. Such a
    plan looks a row up by the wrong index, through all of the collection, and is kept.
    """
    return (yield from _analyze(collection, written, only_keys=True))


def analyze(collection: CollectionInfo, written: int | None = None) -> Operation[tuple[str, ...]]:
    """Gather the planner's statistics of documents, chunks and the collection's vectors.

    With ``written`` only of tables that so many new rows are a large part of. Returns the names of
    the tables that were analysed; those that the role may not analyse are left out. The vectors
    are passed over while an index of theirs is built, which gathers them at its end.
    """
    if written is not None and written < SMALL_LOAD:
        return ()
    return (yield from _analyze(collection, written, only_keys=False))


def _analyze(
    collection: CollectionInfo, written: int | None, *, only_keys: bool
) -> Operation[tuple[str, ...]]:
    tables = ["ragstore_document", "ragstore_chunk"]
    if collection.space is not None:
        tables.append(collection.space.partition)
    done: list[str] = []
    yield Query(_HURRY)
    for name, rows, may_analyze in (yield Query(_OWNED, [tables])):
        if written is not None and written < LARGE_LOAD * rows:
            continue
        if may_analyze:
            columns: Sequence[str] = ()
            if only_keys:
                columns = _KEY_COLUMNS.get(name, _KEY_COLUMNS_OF_EMBEDDINGS)
            elif written is not None:
                columns = _SEARCHED_COLUMNS.get(name, ())
            yield Query(_analysis(name, columns))
            done.append(name)
        else:
            extra = {"collection": collection.name, "table": name}
            logger.info("not analysed: the role does not own the table", extra=extra)
    return tuple(done)


def _analysis(table: str, columns: Sequence[str]) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    some = sql.SQL(" ({})").format(names) if columns else sql.SQL("")
    # One that waits for a build of an index has a snapshot, which the build waits for: a deadlock,
    # and the index is left invalid. Only vectors are indexed so; the build ends with an analysis.
    how = sql.SQL("" if table in _KEY_COLUMNS else "(SKIP_LOCKED) ")
    return sql.SQL("ANALYZE {}{}{}").format(how, sql.Identifier(table), some)
