"""Ingest as a role under row security, where the server refuses COPY."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import URL

from ragstore import AsyncStore, DatabaseConnection, NewChunk, NewDocument, Store, exceptions
from ragstore.driver import connect

TABLES = ("ragstore_document", "ragstore_chunk", "ragstore_embedding")


@pytest.fixture
def tenant(store: Store) -> Iterator[URL]:
    """Yield the URL of a role that a policy lets into collection ``mine``, and no other."""
    store.create_space("s", model="m", dimensions=2)
    mine = store.create_collection("mine", space="s")
    store.create_collection("theirs", space="s")
    store.ingest("theirs", [NewDocument("a", [NewChunk("theirs", [1, 0])])])
    role = f"tenant_{uuid4().hex[:8]}"
    with store.connection.transaction() as driver:
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
            f"GRANT INSERT, UPDATE, DELETE ON {', '.join(TABLES)} TO {role}",
            f"GRANT UPDATE (metadata) ON ragstore_collection TO {role}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
        ):
            driver.execute(statement.encode())
        for table in TABLES:
            driver.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY".encode())
            policy = f"CREATE POLICY own ON {table} USING (collection_id = {mine.id})"
            driver.execute(policy.encode())
    yield store.connection.url.set(username=role, password="x")
    with store.connection.transaction() as driver:
        driver.execute(f"DROP OWNED BY {role}".encode())
        driver.execute(f"DROP ROLE {role}".encode())


def texts(store: Store, name: str) -> list[str]:
    """Return the texts of a collection, as its owner sees them."""
    return sorted(hit.text or "" for hit in store.search(name, vector=[1, 1], k=50))


def test_copy_is_refused_under_row_security(tenant: URL) -> None:
    """The server's own words, for which there is a way around."""
    with connect(tenant) as driver, pytest.raises(psycopg.errors.FeatureNotSupported):
        driver.execute("COPY ragstore_chunk (text) FROM STDIN")


async def test_documents_are_written_as_without(tenant: URL, store: Store) -> None:
    """New, changed and unchanged documents end as they do for the owner, sync and async."""
    documents = [NewDocument(f"k{at}", [NewChunk(f"t{at}", [1, at])]) for at in range(20)]
    async with DatabaseConnection(tenant) as connection:
        report = Store(connection).ingest("mine", documents, batch_size=7)
        assert (report.inserted, report.chunks) == (20, 20)
        documents[3] = NewDocument("k3", [NewChunk("new", [5, 5]), NewChunk("t3", [1, 3])])
        report = await AsyncStore(connection).ingest("mine", documents, batch_size=7)
        assert (report.updated, report.unchanged, report.chunks) == (1, 19, 1)
        report = Store(connection).ingest("mine", documents[:2], sync=True)
        assert report.deleted == 18
        assert sorted(hit.text for hit in Store(connection).search("mine", vector=[1, 1])) == [
            "t0",
            "t1",
        ]
    assert texts(store, "mine") == ["t0", "t1"]
    assert texts(store, "theirs") == ["theirs"]


async def test_collection_is_moved_as_without(tenant: URL, store: Store) -> None:
    """A role that may also set the two spaces of a collection can move its own, sync and async."""
    store.create_space("new", model="n", dimensions=2)
    grant = "GRANT UPDATE (space_id, next_space_id) ON ragstore_collection TO"
    with store.connection.transaction() as driver:
        driver.execute(f"{grant} {tenant.username}".encode())
    async with DatabaseConnection(tenant) as connection:
        chunks = [NewChunk(f"t{at}", [1, at]) for at in range(20)]
        Store(connection).ingest("mine", [NewDocument("a", chunks)])
        there = Store(connection).reembed(
            "mine", to="new", embed=lambda texts: [[1, 1]] * len(texts), batch_size=7, last=0
        )
        store.delete_documents("mine", ["a"])
        Store(connection).ingest("mine", [NewDocument("a", chunks)])
        calls = iter(range(3))

        def embed(texts: list[str]) -> list[list[int]]:
            if (call := next(calls)) < 2:  # in a pass; what it finds in the last one is the last
                late = NewDocument(f"late {call}", [NewChunk("late", [1, call])])
                Store(connection).ingest("mine", [late])
            return [[1, 1]] * len(texts)

        back = await AsyncStore(connection).reembed("mine", to="s", embed=embed)
    assert (there.embedded, there.last, back.embedded, back.last) == (20, 0, 22, 1)
    assert len(texts(store, "mine")) == 22


def test_no_temporary_table_is_left(tenant: URL) -> None:
    """What a batch goes through is gone with it: behind a pooler the session is somebody else's."""
    with DatabaseConnection(tenant, pool_size=1, max_overflow=0) as connection:
        Store(connection).ingest("mine", [NewDocument("a", [NewChunk("x", [1, 0])])])
        with connection.transaction() as driver:
            found = driver.execute("SELECT relname FROM pg_class WHERE relpersistence = 't'")
            assert found.fetchall() == []


def test_collection_of_another_is_closed(tenant: URL, store: Store) -> None:
    """What the policy forbids is an error, or told for each document; nothing is written."""
    documents = [
        NewDocument("b", [NewChunk("x", [1, 0])]),
        NewDocument("c", [NewChunk("y", [1, 1])]),
    ]
    with DatabaseConnection(tenant) as connection:
        with pytest.raises(exceptions.PermissionDenied):
            Store(connection).ingest("theirs", documents)
        report = Store(connection).ingest("theirs", documents, on_error="skip")
    assert (report.skipped, report.inserted) == (2, 0)
    assert [problem.key for problem in report.problems] == ["b", "c"]
    assert texts(store, "theirs") == ["theirs"]


def test_missing_right_is_no_bad_document(tenant: URL, store: Store) -> None:
    """A role that may not write at all is told so once, skip or not."""
    with store.connection.transaction() as driver:
        driver.execute(f"REVOKE INSERT ON ragstore_chunk FROM {tenant.username}".encode())
    document = NewDocument("b", [NewChunk("x", [1, 0])])
    with DatabaseConnection(tenant) as connection, pytest.raises(exceptions.PermissionDenied):
        Store(connection).ingest("mine", [document], on_error="skip")


def test_owner_copies_as_ever(tenant: URL, store: Store, caplog: Any) -> None:
    """Row security that is not in force for the role changes nothing for it."""
    store.ingest("theirs", [NewDocument("b", [NewChunk("more", [1, 0])])])
    assert texts(store, "theirs") == ["more", "theirs"]
