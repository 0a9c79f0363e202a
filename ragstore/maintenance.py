"""What is done to stored documents besides writing them: deleted, renamed, analysed.

Everything is deleted a page at a time, each page a transaction of its own: locks are short, and
what an interrupted call has deleted stays deleted. The chunks and vectors of a document go with it
(foreign keys cascade).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from psycopg import sql
from sqlalchemy import Select, select

from ragstore.analysis import analyze
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
_LOCK_THESE_DOCUMENTS = sql.SQL("""
SELECT FROM ragstore_document WHERE collection_id = %s AND id = ANY (%s) ORDER BY key FOR UPDATE
""")
_LOCK_CHUNKS = sql.SQL("""
SELECT FROM ragstore_chunk WHERE collection_id = %s AND id = ANY (%s) ORDER BY id FOR UPDATE
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


def delete_matching_documents(
    collection: CollectionInfo, ids: Sequence[int], where: Where
) -> Operation[int]:
    """Delete those of some documents that have a chunk which ``where`` matches; return how many.

    That is asked once they are locked: another writer may have changed them since they were found.
    """
    yield from prefer_indexes()
    yield Query(_LOCK_THESE_DOCUMENTS, [collection.id, list(ids)])
    column = CHUNKS.c.document_id
    left = yield from _matching(collection, where, column, column.in_(ids))
    return (yield from delete_documents(collection, left))


def delete_matching_chunks(
    collection: CollectionInfo, ids: Sequence[int], where: Where
) -> Operation[int]:
    """Delete those of some chunks that ``where`` matches, asked once they are locked."""
    yield from prefer_indexes()
    yield Query(_LOCK_DOCUMENTS, [collection.id, collection.id, list(ids)])
    yield Query(_LOCK_CHUNKS, [collection.id, list(ids)])
    left = yield from _matching(collection, where, CHUNKS.c.id, CHUNKS.c.id.in_(ids))
    return (yield from delete_chunks(collection, left))


def _matching(
    collection: CollectionInfo, where: Where, column: Any, which: Any
) -> Operation[list[int]]:
    """Return a page of the values of a column of chunks that ``where`` matches."""
    found: Select[Any] = (
        select(column).where(CHUNKS.c.collection_id == collection.id, which).distinct()
    )
    chosen = filtered(found, where, collection.id, CHUNKS.c.id)
    rows = yield compiled(chosen.order_by(column).limit(PAGE))
    return [id_ for (id_,) in rows]


def checked_keys(keys: Sequence[str]) -> list[str]:
    """Return keys, each once.

    Raises:
        InvalidInput: it is one string, or holds what cannot be a key.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise InvalidInput(f"keys is {type(keys).__name__}, not a list of keys: pass [key]")
    return list(dict.fromkeys(check_text(key, "a key", MAX_KEY_BYTES, field="key") for key in keys))


def checked_ids(ids: Sequence[int]) -> list[int]:
    """Return ids of chunks, each once.

    Raises:
        InvalidInput: one of them is no id.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InvalidInput(f"ids is {type(ids).__name__}, not a list of ids: pass [id]")
    ids = list(ids)
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

Delete = Callable[[CollectionInfo, Sequence[int], Where], Operation[int]]


def documents_deleted(name: str, keys: Sequence[str] | None, where: Where | None) -> Procedure[int]:
    """Delete the documents of these keys, or those with a chunk that ``where`` matches.

    Raises:
        CollectionNotFound: there is no such collection.
        InvalidInput, InvalidFilter: not one of the two was given, or it cannot be sent.
    """
    _check_one("keys", keys, where)
    collection = yield from transact(find_collection(name))
    if where is not None:
        column = CHUNKS.c.document_id
        return (yield from _delete_matching(collection, where, column, delete_matching_documents))
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
        column = CHUNKS.c.id
        return (yield from _delete_matching(collection, where, column, delete_matching_chunks))
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
    collection: CollectionInfo, where: Where, column: Any, delete: Delete
) -> Procedure[int]:
    deleted, after = 0, BELOW_ALL
    while ids := (yield from transact(_matching(collection, where, column, column > after))):
        after = ids[-1]
        deleted += yield from _patiently(delete, collection, ids, where)
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
