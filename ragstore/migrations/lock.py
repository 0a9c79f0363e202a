"""One migrator at a time.

The lock is a session-level advisory lock on a connection of its own in autocommit, and those who
wait *poll* it. Everything else that was tried fails: a blocking ``pg_advisory_lock`` keeps a
snapshot that ``CREATE INDEX CONCURRENTLY`` of the holder waits for, and neither is ever told; a
lock on the migrating connection, or one that ends with the transaction, is released by the commit
inside ``autocommit_block()``.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from ragstore.exceptions import MigrationLockTimeout

logger = logging.getLogger(__name__)

POLL_INTERVAL = 0.2
"""Seconds between two attempts, give or take half of it so that waiters do not march in step."""

_TRY = text("SELECT pg_try_advisory_lock(:key)")
_RELEASE = text("SELECT pg_advisory_unlock(:key)")
# A bigint key stands in pg_locks as its two halves.
_HOLDER = text(
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid::bigint = (:key >> 32) & 4294967295 AND objid::bigint = :key & 4294967295"
)


def lock_key(version_table: str) -> int:
    """Return the advisory lock's key for a history; Postgres keeps the databases apart itself."""
    digest = hashlib.sha256(f"ragstore migration {version_table}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@contextmanager
def migration_lock(engine: Engine, version_table: str, *, wait: float) -> Iterator[None]:
    """Hold the migration lock of the engine's database, for at most ``wait`` seconds of waiting.

    Opens a connection of its own and closes it, which releases the lock whatever happens.

    Raises:
        MigrationLockTimeout: another migrator held the lock all that time.
    """
    key = lock_key(version_table)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        _acquire(connection, key, wait)
        try:
            yield
        finally:
            connection.execute(_RELEASE, {"key": key})


def _acquire(connection: Connection, key: int, wait: float) -> None:
    deadline = time.monotonic() + wait
    told = False
    while not connection.scalar(_TRY, {"key": key}):
        holder = connection.scalar(_HOLDER, {"key": key})
        if time.monotonic() >= deadline:
            raise MigrationLockTimeout(
                f"Another migrator (backend {holder}) has held the migration lock for {wait:g} s."
                " Wait for it, raise DB_MIGRATION_WAIT_TIMEOUT, or, if its client is dead, end it:"
                f" SELECT pg_terminate_backend({holder});",
                holder=holder,
            )
        if not told:
            logger.info("waiting for the migrator of backend %s", holder)
            told = True
        time.sleep(POLL_INTERVAL * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
