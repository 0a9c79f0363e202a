"""Taking away the indexes of a collection that is about to be deleted.

Nothing else drops them: an index over one collection stays in the partition of the space when the
collection's rows are gone, and its HNSW graph would be repaired by every vacuum after the deletes.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from psycopg import sql

from ragstore import ann
from ragstore.collection import CollectionInfo
from ragstore.exceptions import ImproperlyConfigured, LockTimeout, PermissionDenied, QueryFailed
from ragstore.execution import Operation, Query
from ragstore.indexing import TRY_TURN
from ragstore.procedure import LOCK_PAUSES, Outside, Procedure, patiently
from ragstore.space import Space, columns
from ragstore.work import transact

logger = logging.getLogger(__name__)

LOCK_TIMEOUT = "2s"
"""How long a drop waits for the transactions that use the index, before it is tried again."""

_SETTINGS = {"lock_timeout": LOCK_TIMEOUT, "statement_timeout": "0"}
_TRY_AGAIN = frozenset({"55P03", "40P01"})  # a lock timeout, a deadlock

# In every space: a collection that was moved has one in the space it came from, too.
_INDEXED = sql.SQL("""
SELECT {} FROM ragstore_embedding_space s
JOIN pg_index x ON x.indrelid = to_regclass('ragstore_embedding_' || s.id)
JOIN pg_class i ON i.oid = x.indexrelid
WHERE i.relname = 'ragstore_embedding_' || s.id || '_ann_' || %s::bigint ORDER BY s.id
""").format(columns("s"))


def own_indexes_dropped(collection: CollectionInfo) -> Procedure[None]:
    """Drop the indexes over one collection, as the owner, beside readers and writers.

    One that cannot be dropped is named in a warning, and stays: the collection can be deleted all
    the same.
    """
    for space in (yield from transact(_indexed(collection))):
        name = ann.index_name(space, collection.id)
        told = {"collection": collection.name, "space": space.name, "index": name}
        started = time.perf_counter()
        try:
            yield from patiently(partial(_drop, space, name), LOCK_PAUSES, _TRY_AGAIN, told)
        except (PermissionDenied, ImproperlyConfigured, QueryFailed) as exc:
            if isinstance(exc, QueryFailed) and exc.sqlstate not in _TRY_AGAIN:
                raise
            logger.warning(
                "The index %s of a deleted collection stays: %s. Run DROP INDEX CONCURRENTLY %s as"
                " the owner of the tables",
                name,
                exc,
                name,
                extra=told,
            )
        else:
            logger.info(
                "The index %s was dropped",
                name,
                extra={**told, "seconds": time.perf_counter() - started},
            )


def _indexed(collection: CollectionInfo) -> Operation[list[Space]]:
    """Return the spaces that have an index over the collection, also one that is not valid."""
    return [Space(*row) for row in (yield Query(_INDEXED, [collection.id]))]


def _drop(space: Space, name: str) -> Outside:
    return Outside(_dropped(space, name), _SETTINGS)


def _dropped(space: Space, name: str) -> Operation[None]:
    # A build and a drop on one table would wait for each other's snapshots.
    if not (yield Query(TRY_TURN, [space.id % 2**31]))[0][0]:
        raise LockTimeout(
            f"Another session builds an index in the space {space.name!r}", sqlstate="55P03"
        )
    yield Query(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(name)))
