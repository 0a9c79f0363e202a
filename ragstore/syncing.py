"""Which documents may go at the end of a run with ``sync``: those that were there when it began.

Not by time: ``updated_at`` is that of a transaction's start, or of somebody's own clock, and a
transaction that began before the run may end after it. A row version carries the number of the
transaction that wrote it, and a snapshot knows which of them had not ended yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from ragstore.collection import CollectionInfo
from ragstore.execution import Operation, Query, prefer_indexes


@dataclass(frozen=True)
class Beginning:
    """The numbers of the transactions under way when a run began, and the next number then.

    They are those in rows, of 32 bits.
    """

    under_way: Sequence[int]
    next: int


_BEGINNING = sql.SQL("""
WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS seen)
SELECT
  ARRAY(SELECT number::text::numeric % 2^32::numeric FROM now, pg_snapshot_xip(seen) AS number)
    ::bigint[],
  (pg_snapshot_xmax(seen)::text::numeric % 2^32::numeric)::bigint
FROM now
""")
# The number of a transaction counts as later up to 2^28 after that of the beginning: numbers come
# round, and a document that nobody has written since 4 thousand million transactions is old.
_DELETE = sql.SQL("""
WITH done AS (
  DELETE FROM ragstore_document WHERE collection_id = %(collection)s AND id IN (
    SELECT id FROM ragstore_document WHERE collection_id = %(collection)s AND id = ANY (%(ids)s)
      AND xmin::text::bigint <> ALL (%(under_way)s)
      AND (xmin::text::bigint - %(next)s + 4294967296) %% 4294967296 >= 268435456
    ORDER BY key FOR UPDATE)
  RETURNING 1)
SELECT count(*) FROM done
""")


def find_beginning() -> Operation[Beginning]:
    """Note what is under way, before anything is looked up."""
    rows = yield Query(_BEGINNING)
    return Beginning(*rows[0])


def delete_since(
    collection: CollectionInfo, ids: Sequence[int], beginning: Beginning
) -> Operation[int]:
    """Delete documents by their ids, but for those written after a beginning; return how many.

    One that a savepoint wrote whose transaction was under way at the beginning is taken for old:
    a savepoint has a number of its own, which the snapshot does not tell.
    """
    yield from prefer_indexes()
    values = {"under_way": list(beginning.under_way), "next": beginning.next}
    rows = yield Query(_DELETE, {"collection": collection.id, "ids": list(ids), **values})
    number: int = rows[0][0]
    return number
