"""Statistics that a load gathers for the planner."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

import pytest

from ragstore import DatabaseConnection, NewDocument, Store, retry


def rows(connection: DatabaseConnection, statement: str) -> list[tuple[Any, ...]]:
    """Return what the database holds."""
    with connection.transaction() as driver:
        return driver.execute(statement.encode()).fetchall()


def test_load_is_analysed_as_far_as_it_is_large(
    either: Any, connection: DatabaseConnection
) -> None:
    """A growing table has its keys analysed, and after a large load all of it, unless declined."""
    either.create_collection("c")
    known = "SELECT attname FROM pg_stats WHERE tablename = 'ragstore_chunk' ORDER BY attname"

    def load(start: int, count: int, **options: Any) -> set[str]:
        documents = [NewDocument(f"k{at}", ["x"] * 50) for at in range(start, start + count // 50)]
        either.ingest("c", documents, **options)
        return {name for (name,) in rows(connection, known)}

    keys = {"collection_id", "id", "document_id", "ordinal"}
    assert load(0, 50) == set()
    assert load(100, 500) == keys
    assert load(1_000, 2_000, build_index="never") == keys
    assert load(2_000, 2_000) == {*keys, "token_count", "metadata", "language", "tsv"}
    size = "SELECT reltuples::int FROM pg_class WHERE relname = 'ragstore_chunk'"
    assert rows(connection, size) == [(4_550,)]
    with connection.transaction() as driver:
        driver.execute("UPDATE pg_class SET reltuples = 1e6 WHERE relname = 'ragstore_chunk'")
    load(3_000, 1_000)
    assert rows(connection, size) == [(1_000_000,)]


def test_load_goes_on_while_its_tables_cannot_be_analysed(
    either: Any,
    connection: DatabaseConnection,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A VACUUM, or the build of an index, may keep its lock for hours: it is not waited for."""
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    either.create_collection("c")
    documents = [NewDocument(f"k{at}", ["x"] * 100) for at in range(12)]
    reports: list[Any] = []
    load = threading.Thread(
        target=lambda: reports.append(either.ingest("c", documents, batch_size=500))
    )
    with DatabaseConnection(connection.url) as other, other.transaction() as driver:
        driver.execute("LOCK ragstore_chunk IN SHARE UPDATE EXCLUSIVE MODE")
        load.start()
        load.join(20)
        assert [each.inserted for each in reports] == [12]
    load.join()
    assert "The statistics were not gathered" in caplog.text


# Each look has a snapshot of its own, so what another session committed meanwhile is seen.
SLOW_LAST = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE until timestamptz := clock_timestamp() + '{} s';
BEGIN
  WHILE clock_timestamp() < until AND NOT EXISTS (
    SELECT FROM pg_stats WHERE tablename = 'ragstore_chunk' AND attname = 'tsv'
  ) LOOP PERFORM pg_sleep(0.01); END LOOP;
  RETURN NEW;
END $$;
CREATE TRIGGER wait BEFORE INSERT ON ragstore_document FOR EACH ROW
  WHEN (NEW.key = 'last') EXECUTE FUNCTION wait();
"""


@pytest.mark.parametrize(
    ("last", "sync", "wait", "known"),
    [(100, False, 30, 1_100), (500, False, 0.3, 1_600), (100, True, 0.3, 1_200)],
    ids=["small", "large", "sync"],
)
def test_load_is_analysed_beside_its_last_batch(
    either: Any, connection: DatabaseConnection, last: int, sync: bool, wait: float, known: int
) -> None:
    """While the last batch is stored, if that is a small one; or after it, and after deletions.

    The last batch waits until all columns have statistics, or for ``wait`` seconds.
    """
    either.create_collection("c")
    documents = [NewDocument(f"k{at}", ["x"] * 100) for at in range(11)]
    documents.append(NewDocument("last", ["x"] * last))
    with connection.transaction() as driver:
        driver.execute(SLOW_LAST.format(wait).encode())
    either.ingest("c", documents, batch_size=100, sync=sync)
    size = "SELECT reltuples::int FROM pg_class WHERE relname = 'ragstore_chunk'"
    assert rows(connection, size) == [(known,)]


def test_role_without_the_right_analyses_nothing(
    store: Store, connection: DatabaseConnection, caplog: Any
) -> None:
    """A load by a role that does not own the tables ends well, and says so in the log."""
    caplog.set_level("INFO", logger="ragstore")
    store.create_collection("c")
    role = f"guest_{uuid4().hex[:8]}"
    with connection.transaction() as driver:
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
        ):
            driver.execute(statement.encode())
    with DatabaseConnection(connection.url.set(username=role, password="x")) as guest:
        assert Store(guest).ingest("c", [NewDocument("a", ["x"] * 1_000)]).chunks == 1_000
        assert Store(guest).analyze("c") == ()
    assert "does not own the table" in caplog.text
    with connection.transaction() as driver:
        driver.execute(f"DROP OWNED BY {role}".encode())
        driver.execute(f"DROP ROLE {role}".encode())
