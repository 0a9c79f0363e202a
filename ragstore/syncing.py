"""Which documents may go at the end of a run with ``sync``: those that were there when it began.

Not by time: ``updated_at`` is that of a transaction's start, or of somebody's own clock, and a
transaction that began before the run may end after it. A row version carries the number of the
transaction that wrote it, and the server knows which of them had not ended yet. A savepoint has a
number of its own, which the server knows too, though no snapshot tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from psycopg import sql

from ragstore.collection import CollectionInfo
from ragstore.execution import Operation, Query, prefer_indexes

ASKED = 50_000
"""Of how many numbers at most, the latest, the server is asked if they have ended.

That takes 15 ms. They are as many only beside a transaction that has been writing for long.
"""


@dataclass(frozen=True)
class Beginning:
    """The numbers that had not ended when a run began, and the next number then.

    They are those in rows, of 32 bits. Of ``unsure`` numbers, from ``oldest`` on, it is not known
    whether they had ended.
    """

    under_way: Sequence[int]
    next: int
    oldest: int = 0
    unsure: int = 0


_BEGINNING = sql.SQL("""
WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS seen),
numbers AS MATERIALIZED (
  SELECT seen, pg_snapshot_xmin(seen)::text::bigint AS oldest,
    pg_snapshot_xmax(seen)::text::bigint AS next FROM now)
SELECT
  ARRAY(SELECT number %% 4294967296
    FROM generate_series(greatest(oldest, next - %(asked)s), next - 1) AS number
    WHERE NOT pg_visible_in_snapshot(number::text::xid8, seen)
      OR pg_xact_status(number::text::xid8) = 'in progress'),
  next %% 4294967296, oldest %% 4294967296, greatest(next - %(asked)s - oldest, 0)
FROM numbers
""")
# The number of a transaction counts as later up to 2^28 after that of the beginning: numbers come
# round, and a document that nobody has written since 4 thousand million transactions is old.
_DELETE = sql.SQL("""
WITH done AS (
  DELETE FROM ragstore_document WHERE collection_id = %(collection)s AND id IN (
    SELECT id FROM ragstore_document WHERE collection_id = %(collection)s AND id = ANY (%(ids)s)
      AND xmin::text::bigint <> ALL (%(under_way)s)
      AND (xmin::text::bigint - %(next)s + 4294967296) %% 4294967296 >= 268435456
      AND (xmin::text::bigint - %(oldest)s + 4294967296) %% 4294967296 >= %(unsure)s
    ORDER BY key FOR UPDATE)
  RETURNING 1)
SELECT count(*) FROM done
""")


def find_beginning() -> Operation[Beginning]:
    """Note what is under way, before anything is looked up."""
    rows = yield Query(_BEGINNING, {"asked": ASKED})
    return Beginning(*rows[0])


def delete_since(
    collection: CollectionInfo, ids: Sequence[int], beginning: Beginning
) -> Operation[int]:
    """Delete documents by their ids, but for those written after a beginning; return how many.

    One of which it is not known stays: it is old for the next run, or the one after it.
    """
    yield from prefer_indexes()
    values = {"collection": collection.id, "ids": list(ids), **asdict(beginning)}
    rows = yield Query(_DELETE, values)
    number: int = rows[0][0]
    return number
