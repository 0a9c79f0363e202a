"""Building the indexes of a space while it is used.

Every build is CREATE INDEX CONCURRENTLY in a session of its own, as the owner of the tables. One
at a time for each space: two at once on one table would wait for each other's snapshots.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from psycopg import sql

from ragstore import ann
from ragstore.collection import CollectionInfo, find_collection
from ragstore.exceptions import (
    ImproperlyConfigured,
    InvalidInput,
    OldExtensionWarning,
    PermissionDenied,
    QueryFailed,
    SpaceNotReady,
)
from ragstore.execution import Call, Operation, Query
from ragstore.procedure import LOCK_PAUSES, Outside, Procedure, patiently
from ragstore.retry import insist
from ragstore.space import Space, check_index, find_space, is_attached
from ragstore.tuning import IndexOptions
from ragstore.work import transact

logger = logging.getLogger(__name__)

IVFFLAT_WARNED_BELOW = (0, 8, 7)
"""pgvector's build of an IVFFlat index could write past its memory before."""

POLL_INTERVAL = 0.2
"""Seconds between two looks at whether another session still builds."""

_TRY_AGAIN = frozenset({"40P01"})  # a deadlock: with a transaction that the build waits for
_DISK_FULL = "53100"  # also of shared memory, in which parallel workers build

IndexState = Literal["built", "present", "due", "not needed"]


@dataclass(frozen=True)
class IndexReport:
    """What became of an index.

    - ``state``: ``built`` now, ``present`` already, ``due`` (this role may not build it), or
      ``not needed``
    - ``name``: the index; ``collection`` is the one that it is over, or none for the whole space
    - ``reason``: why it is not built, if it is not
    - ``seconds``: what building it took
    """

    state: IndexState
    name: str
    space: str
    collection: str | None = None
    reason: str = ""
    seconds: float = 0.0

    @property
    def named(self) -> dict[str, Any]:
        """Return what it is over, for log records."""
        return {"collection": self.collection, "space": self.space, "index": self.name}


# --- what is asked for -------------------------------------------------------------------------


def build_index(
    space_name: str, collection_name: str | None, options: IndexOptions
) -> Procedure[IndexReport]:
    """Build the index over a space, or over one collection in it.

    Raises:
        SpaceNotFound, CollectionNotFound: there is none of that name.
        InvalidInput: the space is one without index.
        SpaceNotReady: it has no partition.
        PermissionDenied: the role of ``migration_url`` does not own the tables.
    """
    space, collection, count = yield from transact(_target(space_name, collection_name))
    if space.index_type == "none":
        raise InvalidInput(
            f"the space {space.name!r} was made with index='none': make another space to have one"
        )
    check_index(space.index_type, space.dimensions, space.metric)
    if collection is not None and count <= space.exact_limit:
        return _not_needed(space, collection)
    return (yield from _build(space, collection, options))


def ensure_indexes(
    space_name: str, options: IndexOptions, *, whole: bool = False
) -> Procedure[list[IndexReport]]:
    """Build what is due: the index of each large collection, and with ``whole`` the space's.

    Raises:
        SpaceNotFound, SpaceNotReady, PermissionDenied: as ``build_index``.
    """
    space, collections = yield from transact(_large_collections(space_name))
    if not space.can_have_index:
        return []
    targets: list[CollectionInfo | None] = [None] if whole else []
    reports = []
    for target in [*targets, *collections]:
        report = yield from _build(space, target, options)
        reports.append(report)
    return reports


def index_after_load(
    collection: CollectionInfo, options: IndexOptions | None = None
) -> Procedure[IndexReport | None]:
    """Build the index that a collection has become large enough for; for the end of a load.

    A role that may not build it, or a pooler that it cannot be built through, is no error: the
    report says that the index is due, and why. None for a collection without space.
    """
    space = collection.space
    if space is None:
        return None
    told = {"collection": collection.name, "space": space.name}
    count, is_valid = yield from insist(partial(_state, space, collection), told)
    if not space.can_have_index or count <= space.exact_limit:
        return _not_needed(space, collection)
    if is_valid:
        return _report("present", space, collection)
    try:
        return (yield from _build(space, collection, options or IndexOptions()))
    except (PermissionDenied, ImproperlyConfigured) as exc:
        report = _report("due", space, collection, str(exc))
        logger.warning("The index %s is due: %s", report.name, exc, extra=report.named)
        return report


def _not_needed(space: Space, collection: CollectionInfo) -> IndexReport:
    reason = (
        f"a space of {space.dimensions:,} dimensions and metric {space.metric!r} with"
        f" index={space.index_type!r} has no index"
        if not space.can_have_index
        else f"the collection has no more than {space.exact_limit:,} vectors in the space, and is"
        " searched without index (exact_limit)"
    )
    return _report("not needed", space, collection, reason)


def _report(
    state: IndexState, space: Space, collection: CollectionInfo | None, reason: str = ""
) -> IndexReport:
    if collection is None:
        return IndexReport(state, ann.index_name(space), space.name, None, reason)
    name = ann.index_name(space, collection.id)
    return IndexReport(state, name, space.name, collection.name, reason)


def _target(
    space_name: str, collection_name: str | None
) -> Operation[tuple[Space, CollectionInfo | None, int]]:
    space = yield from find_space(space_name)
    if collection_name is None:
        return space, None, 0
    collection = yield from find_collection(collection_name)
    return space, collection, (yield from count_vectors(space, collection.id))


def _large_collections(space_name: str) -> Operation[tuple[Space, list[CollectionInfo]]]:
    space = yield from find_space(space_name)
    names = yield Query(_COLLECTIONS, [space.id, space.id])
    large = []
    for (name,) in names:
        collection = yield from find_collection(name)
        if (yield from count_vectors(space, collection.id)) > space.exact_limit:
            large.append(collection)
    return space, large


def _state(space: Space, collection: CollectionInfo) -> Operation[tuple[int, bool]]:
    count = yield from count_vectors(space, collection.id)
    return count, (yield from has_index(space, collection.id))


_COLLECTIONS = sql.SQL(
    "SELECT name FROM ragstore_collection WHERE space_id = %s OR next_space_id = %s ORDER BY id"
)
_COUNT = sql.SQL(
    "SELECT count(*) FROM (SELECT FROM ragstore_embedding"
    " WHERE collection_id = %s AND space_id = %s LIMIT %s) AS counted"
)


def count_vectors(space: Space, collection_id: int) -> Operation[int]:
    """Return how many vectors a collection has in a space, counted up to one over its limit."""
    rows = yield Query(_COUNT, [collection_id, space.id, space.exact_limit + 1])
    count: int = rows[0][0]
    return count


# --- building ----------------------------------------------------------------------------------


def _build(
    space: Space, collection: CollectionInfo | None, options: IndexOptions
) -> Procedure[IndexReport]:
    """Build an index; once more without parallel workers if the server has no room for them."""
    try:
        return (yield from _attempts(space, collection, options))
    except QueryFailed as exc:
        if exc.sqlstate != _DISK_FULL or options.workers == 0:
            raise
        due = _report("due", space, collection)
        logger.warning(
            "There is no room to build %s with parallel workers (shared memory or disk); it is"
            " built without: %s",
            due.name,
            exc,
            extra=due.named,
        )
    return (yield from _attempts(space, collection, replace(options, workers=0)))


def _attempts(
    space: Space, collection: CollectionInfo | None, options: IndexOptions
) -> Procedure[IndexReport]:
    """Build an index, anew where the build was the one that ended a deadlock."""
    report: IndexReport = yield from patiently(
        lambda: Outside(_built(space, collection, options), options.settings),
        LOCK_PAUSES,
        _TRY_AGAIN,
        _report("due", space, collection).named,
    )
    return report


def _built(
    space: Space, collection: CollectionInfo | None, options: IndexOptions
) -> Operation[IndexReport]:
    """Build an index in an autocommit session, unless a valid one is there."""
    started = time.perf_counter()
    target = None if collection is None else collection.id
    report = _report("present", space, collection)
    name = report.name
    yield from _check_owner(space)
    yield from _wait_for_turn(space)
    found = yield Query(_VALIDITY, [space.partition, name])
    if found and found[0][0]:
        return report
    if space.index_type == "ivfflat":  # first: where warnings are errors nothing is dropped
        yield from _warn_of_old_ivfflat()
    if found:
        logger.warning(
            "The index %s is left from a build that failed: it is built again",
            name,
            extra=report.named,
        )
        yield Query(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(name)))
    yield Query(
        sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} {}").format(
            sql.Identifier(name),
            sql.Identifier(space.partition),
            ann.definition(space, target, options.of(space, (yield from _rows(space, target)))),
        )
    )
    if not (yield Query(_VALIDITY, [space.partition, name]))[0][0]:
        raise QueryFailed(f"The index {name} is not valid after it was built: build it again")
    # Vacuumed, so that vectors are counted in the primary key alone: a move does so while writers
    # wait. The indexes are left out, or deleted vectors would be taken from each.
    vacuum = sql.SQL("VACUUM (ANALYZE, INDEX_CLEANUP OFF, TRUNCATE OFF) {}")
    yield Query(vacuum.format(sql.Identifier(space.partition)))
    seconds = time.perf_counter() - started
    logger.info(
        "The index %s was built in %.1f s",
        name,
        seconds,
        extra={**report.named, "seconds": seconds},
    )
    return replace(report, state="built", seconds=seconds)


_VALIDITY = sql.SQL("""
SELECT x.indisvalid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass(%s) AND i.relname = %s
""")


def has_index(space: Space, collection_id: int | None = None) -> Operation[bool]:
    """Tell whether the index over a space, or over one collection in it, is there and valid."""
    found = yield Query(_VALIDITY, [space.partition, ann.index_name(space, collection_id)])
    return bool(found and found[0][0])


_OWNER = sql.SQL("""
SELECT {}, coalesce(pg_has_role(relowner, 'USAGE'), false), current_user, pg_get_userbyid(relowner)
FROM (SELECT to_regclass(%(partition)s) AS oid) AS named LEFT JOIN pg_class USING (oid)
""").format(is_attached(sql.Placeholder("partition")))


def _check_owner(space: Space) -> Operation[None]:
    rows = yield Query(_OWNER, {"partition": space.partition})
    attached, is_owner, role, owner = rows[0]
    if not attached:
        raise SpaceNotReady(
            f"The space {space.name!r} has no partition to index: run"
            f" store.create_space({space.name!r}, …, exists_ok=True) as the owner of the tables"
        )
    if not is_owner:
        raise PermissionDenied(
            f"Role {role!r} does not own the table {space.partition}, and cannot build an index on"
            f" it: set DB_MIGRATION_DATABASE_URL (or migration_url=) to the URL of {owner!r}, and"
            f" run store.ensure_indexes({space.name!r})"
        )


# The session holds it until it ends, so also one whose client is gone is waited for.
TRY_TURN = sql.SQL("SELECT pg_try_advisory_lock(hashtext('ragstore.ann'), %s::int)")


def _wait_for_turn(space: Space) -> Operation[None]:
    """Wait until no other session builds in the space, with a statement that ends each time.

    A session that waited inside a statement would hold a snapshot, which the other waits for.
    """
    is_waiting = False
    while not (yield Query(TRY_TURN, [space.id % 2**31]))[0][0]:
        if not is_waiting:
            extra = {"space": space.name}
            logger.info(
                "Waiting for another session to build in the space %r", space.name, extra=extra
            )
            is_waiting = True
        yield Call(time.sleep, [POLL_INTERVAL])


def _rows(space: Space, collection_id: int | None) -> Operation[int]:
    """Count what IVFFlat chooses its lists by; HNSW needs no count."""
    if space.index_type != "ivfflat":
        return 0
    statement = "SELECT count(*) FROM ragstore_embedding WHERE space_id = %s"
    values: Sequence[Any] = [space.id]
    if collection_id is not None:
        statement, values = f"{statement} AND collection_id = %s", [space.id, collection_id]
    rows = yield Query(statement.encode(), values)
    count: int = rows[0][0]
    return count


def _warn_of_old_ivfflat() -> Operation[None]:
    rows = yield Query(sql.SQL("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    version = rows[0][0]
    if tuple(int(part) for part in version.split(".") if part.isdigit()) < IVFFLAT_WARNED_BELOW:
        needed = ".".join(map(str, IVFFLAT_WARNED_BELOW))
        warnings.warn(
            f"pgvector {version} can write past its memory while it builds an IVFFlat index:"
            f" update to {needed}, or choose another index",
            OldExtensionWarning,
            stacklevel=2,
        )
