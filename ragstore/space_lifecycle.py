"""Making a space, its row and then its partition; and removing it, in the other order."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from psycopg import sql

from ragstore.exceptions import PermissionDenied, SpaceInUse
from ragstore.execution import Operation, Query
from ragstore.procedure import LOCK_PAUSES, AsOwner, Outside, Procedure, patiently
from ragstore.space import Space, create_partition, find_space, insert_space
from ragstore.types import IndexType, Metric
from ragstore.work import transact

logger = logging.getLogger(__name__)

LOCK_TIMEOUT = "2s"
"""How long a step waits for a lock, before it lets others by."""

DROP_LOCK_TIMEOUT = "150ms"
"""How long the drop of a table waits: every search waits behind it.

It locks the chunks, to which the table's vectors refer, against readers too.
"""

DROP_PAUSES = (0.1, 0.3, *(1.0,) * 20)
"""Seconds between two attempts at that: many, as each is so short."""

_TRY_AGAIN = frozenset({"55P03", "40P01"})  # a lock timeout, a deadlock


def create_space(
    name: str,
    model: str,
    dimensions: int,
    metric: Metric,
    index: IndexType,
    exact_limit: int,
    *,
    exists_ok: bool,
) -> Procedure[Space]:
    """Make a space and its partition; see ``Store.create_space``."""
    row = insert_space(name, model, dimensions, metric, index, exact_limit, exists_ok=exists_ok)
    made = yield from transact(row)
    yield from patiently(
        lambda: AsOwner(create_partition(made)), LOCK_PAUSES, _TRY_AGAIN, {"space": name}
    )
    return made


def drop_space(name: str) -> Procedure[None]:
    """Remove a space that no collection is in; see ``Store.drop_space``."""
    started = time.perf_counter()
    told: dict[str, Any] = {"space": name}
    space = yield from transact(_unused(name))
    limit = {"lock_timeout": LOCK_TIMEOUT}
    yield from patiently(lambda: Outside(_detached(space), limit), LOCK_PAUSES, _TRY_AGAIN, told)
    users = yield from patiently(lambda: AsOwner(_dropped(space)), DROP_PAUSES, _TRY_AGAIN, told)
    if users:
        raise _in_use(space, users)
    told["seconds"] = time.perf_counter() - started
    logger.info("The space %r was dropped", space.name, extra=told)


# --- operations --------------------------------------------------------------------------------

_USERS = sql.SQL(
    "SELECT name FROM ragstore_collection WHERE space_id = %s OR next_space_id = %s"
    " ORDER BY name LIMIT 9"
)
_STATE = sql.SQL("""
SELECT i.inhdetachpending, pg_has_role(c.relowner, 'USAGE'), current_user,
  pg_get_userbyid(c.relowner)
FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
  AND i.inhparent = 'ragstore_embedding'::regclass
WHERE c.oid = to_regclass(%s)
""")
_LOCK_SPACE = sql.SQL("SELECT FROM ragstore_embedding_space WHERE id = %s FOR UPDATE")
_DELETE_SPACE = sql.SQL("DELETE FROM ragstore_embedding_space WHERE id = %s")


def _unused(name: str) -> Operation[Space]:
    space = yield from find_space(name)
    users = yield from _users(space)
    if users:
        raise _in_use(space, users)
    return space


def _users(space: Space) -> Operation[list[str]]:
    return [name for (name,) in (yield Query(_USERS, [space.id, space.id]))]


def _in_use(space: Space, users: Sequence[str]) -> SpaceInUse:
    return SpaceInUse(
        f"The space {space.name!r} has the collections {', '.join(map(repr, users))}, in it or on"
        " the way to it: move them with reembed(), give a move up with cancel_reembed(), or delete"
        " them",
        space=space.name,
        collections=users,
    )


def _detached(space: Space) -> Operation[None]:
    """Detach the partition, outside of transactions: readers and writers of others go on.

    A detach that was cut short, as by its lock timeout, is pending, and is finished.
    """
    rows = yield Query(_STATE, [space.partition])
    if not rows:
        return
    is_pending, is_owner, role, owner = rows[0]
    if not is_owner:
        raise PermissionDenied(
            f"Role {role!r} does not own the table {space.partition}, and cannot drop it: set"
            f" DB_MIGRATION_DATABASE_URL (or migration_url=) to the URL of {owner!r}"
        )
    if is_pending is None:
        return
    how = "FINALIZE" if is_pending else "CONCURRENTLY"
    partition = sql.Identifier(space.partition)
    yield Query(
        sql.SQL("ALTER TABLE ragstore_embedding DETACH PARTITION {} {}").format(
            partition, sql.SQL(how)
        )
    )


def _dropped(space: Space) -> Operation[list[str]]:
    """Drop the table that was the partition, and the row; or return the collections in the space.

    The row is locked first: a collection that refers to it waits, or is seen here. Then the
    partition is attached again.
    """
    yield Query(sql.SQL("SELECT set_config('lock_timeout', %s, true)"), [DROP_LOCK_TIMEOUT])
    yield Query(_LOCK_SPACE, [space.id])
    users = yield from _users(space)
    if users:
        yield from create_partition(space)
        return users
    yield Query(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(space.partition)))
    yield Query(_DELETE_SPACE, [space.id])
    return []
