"""What a whole comparison leaves behind, holds, and locks: nothing, no longer, and nobody."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from ragstore import migrations
from ragstore.exceptions import DatabaseUnavailable, SchemaDrift
from tests.integration.migrations.support import connected, role

# A difference, so that tables are built once more from their text.
DRIFT = "ALTER TABLE ragstore_chunk ALTER COLUMN language DROP NOT NULL"

# Stops before the nth reading of a catalog: of the models, of the database, of both once more.
PROGRAM = """
import sys, time
from ragstore import migrations
from ragstore.migrations import catalog
read, left = catalog.read, int(sys.argv[2])
def slow(*arguments, **options):
    global left
    left -= 1
    if not left:
        print("half-way", flush=True)
        sys.stdin.read()
    return read(*arguments, **options)
catalog.read = slow
migrations.check(sys.argv[1])
"""
STAGES = [1, 2, 3, 4]

OTHERS = """
SELECT DISTINCT l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = {pid} AND l.locktype = 'relation'
  AND n.nspname = 'public'
"""
BACKEND = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND backend_type = 'client backend'
"""
EVERYTHING = """
SELECT 'namespace', nspname::text FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
UNION ALL SELECT 'relation', relnamespace::regnamespace::text || '.' || relname FROM pg_class
UNION ALL SELECT 'type', typnamespace::regnamespace::text || '.' || typname FROM pg_type
UNION ALL SELECT 'function', oid::regprocedure::text FROM pg_proc
UNION ALL SELECT 'constraint', conrelid::regclass::text || '.' || conname FROM pg_constraint
UNION ALL SELECT 'extension', extname::text FROM pg_extension
"""


def everything(connection: sa.Connection) -> list[tuple[str, str]]:
    """Return the name of every object of the database."""
    rows = connection.exec_driver_sql(EVERYTHING).all()
    connection.rollback()
    return sorted((kind, name) for kind, name in rows)


def scalars(connection: sa.Connection, query: str) -> list[object]:
    """Return the first column of a query, and end the transaction."""
    found = list(connection.exec_driver_sql(query).scalars())
    connection.rollback()
    return found


@contextmanager
def half_way(url: URL, stage: int) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that compares, stopped at a stage."""
    text = url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, text, str(stage)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "half-way\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def gone(connection: sa.Connection) -> None:
    """Wait until the server has noticed that a process is dead."""
    deadline = time.monotonic() + 20
    while scalars(connection, BACKEND):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("stage", STAGES)
def test_locks_half_way(database: URL, stage: int) -> None:
    """At every stage the user's tables are locked as by a SELECT, and others write to them."""
    with connected(database, DRIFT) as other, half_way(database, stage):
        (pid,) = scalars(other, BACKEND)

        assert set(scalars(other, OTHERS.format(pid=pid))) <= {"AccessShareLock"}
        other.exec_driver_sql("SET LOCAL lock_timeout = '1ms'")
        other.exec_driver_sql("INSERT INTO ragstore_collection (name) VALUES ('meanwhile')")
        other.exec_driver_sql("LOCK TABLE ragstore_chunk IN EXCLUSIVE MODE")
        other.rollback()


@pytest.mark.parametrize("stage", [2, 4])
def test_killed_half_way(database: URL, stage: int) -> None:
    """Killed with kill -9, it leaves no object and no lock, and the next comparison works."""
    with connected(database, DRIFT) as other:
        before = everything(other)
        with half_way(database, stage) as process:
            assert everything(other) == before  # nobody else sees any of it
            process.send_signal(signal.SIGKILL)
            process.wait()
            gone(other)

        assert everything(other) == before
        other.exec_driver_sql("SET lock_timeout = '1ms'")
        other.exec_driver_sql("LOCK TABLE ragstore_chunk IN ACCESS EXCLUSIVE MODE")
        other.rollback()
        with pytest.raises(SchemaDrift):
            migrations.check(database)
        assert everything(other) == before


@pytest.mark.parametrize("stage", [2, 4])
def test_backend_ended_half_way(database: URL, stage: int) -> None:
    """If the server ends the session, that is said, and nothing is left."""
    with connected(database, DRIFT) as other:
        before = everything(other)
        with half_way(database, stage) as process:
            (pid,) = scalars(other, BACKEND)
            scalars(other, f"SELECT pg_terminate_backend({pid}, 5000)")
            _, said = process.communicate(input="")

        assert DatabaseUnavailable.__name__ in said
        assert everything(other) == before


@pytest.mark.parametrize("rights", [("CREATE",), ()], ids=["its own schema", "the temporary one"])
def test_nothing_is_left(database: URL, rights: tuple[str, ...]) -> None:
    """Afterwards every object is the one it was, for roles that may create schemas or may not."""
    with connected(database) as other, role(database, "TEMPORARY", *rights) as url:
        other.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {url.username}")
        other.exec_driver_sql(DRIFT)
        other.commit()
        before = everything(other)

        with pytest.raises(SchemaDrift):
            migrations.check(url)

        assert everything(other) == before


def test_locks_of_a_transaction_of_the_callers(database: URL) -> None:
    """In the caller's transaction, too, the locks of a comparison end with it."""
    with connected(database, DRIFT) as connection, connected(database) as other:
        (pid,) = connection.exec_driver_sql("SELECT pg_backend_pid()").scalars().all()
        with pytest.raises(SchemaDrift):
            migrations.check(connection=connection)

        assert connection.in_transaction()
        held = f"SELECT DISTINCT relation::regclass::text FROM pg_locks WHERE pid = {pid}"
        tables = scalars(other, f"{held} AND relation::regclass::text LIKE 'ragstore%%'")
        assert tables in (["ragstore_alembic_version", "ragstore_alembic_version_pkc"], [])
