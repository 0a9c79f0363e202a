"""The planner's statistics of the tables that a load has made larger."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from psycopg import sql

from ragstore.collection import CollectionInfo
from ragstore.execution import Operation, Query

logger = logging.getLogger(__name__)

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
# Nor a load for a VACUUM or a CREATE INDEX CONCURRENTLY, which may take hours; it is shorter than
# deadlock_timeout, or the build, which waits for the snapshot of whoever waits for it, might end.
_LET_BY = sql.SQL("SELECT set_config('lock_timeout', '500ms', true)")
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

    With ``written``, after a load, only of tables that so many new rows are a large part of, and
    others that have their locks are not waited for. Returns the names of the tables that were
    analysed; those that the role may not analyse are left out. The vectors are passed over while
    an index of theirs is built, which gathers them at its end.
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
    if written is not None:
        yield Query(_LET_BY)
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
    # and the index is left invalid. A build of ours, over vectors, ends with an analysis.
    how = sql.SQL("" if table in _KEY_COLUMNS else "(SKIP_LOCKED) ")
    return sql.SQL("ANALYZE {}{}{}").format(how, sql.Identifier(table), some)
