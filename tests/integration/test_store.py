"""Spaces and collections: what is made, repaired, refused, and waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import product
from typing import Any, get_args
from uuid import uuid4

import pytest
from psycopg import sql
from sqlalchemy.engine import URL

from ragstore import (
    DatabaseConnection,
    NewChunk,
    NewDocument,
    Store,
    exceptions,
    migrations,
    space_lifecycle,
)
from ragstore import space as spaces
from ragstore.database import clone_database, drop_database
from ragstore.driver import connect
from ragstore.types import Metric

PARTITIONS = """
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), a.attstorage, c.reloptions,
  (SELECT string_agg(pg_get_constraintdef(k.oid), ' ' ORDER BY k.contype)
   FROM pg_constraint k WHERE k.conrelid = c.oid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'vector'
WHERE c.relispartition AND c.relkind = 'r' ORDER BY c.oid
"""


def rows(connection: DatabaseConnection, statement: str) -> list[tuple[Any, ...]]:
    """Return what the database holds."""
    with connection.transaction() as cursor:
        return cursor.execute(statement.encode()).fetchall()


def execute(connection: DatabaseConnection, *statements: str) -> None:
    """Run statements, each in a transaction."""
    for statement in statements:
        with connection.transaction() as cursor:
            cursor.execute(statement.encode())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for locks for less time than an application would."""
    monkeypatch.setattr(spaces, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(space_lifecycle, "LOCK_PAUSES", (0.01, 0.1))


def test_space_is_a_row_and_a_partition(either: Any, connection: DatabaseConnection) -> None:
    """Up to 2,000 dimensions vectors are kept inline, beyond them where Postgres likes."""
    small = either.create_space("small", model="m", dimensions=2_000, metric="l2")
    large = either.create_space("large", model="m", dimensions=2_001)
    assert (small.name, small.model, small.dimensions, small.metric) == ("small", "m", 2_000, "l2")
    (name1, bound1, storage1, options1, keys1), (name2, bound2, storage2, options2, keys2) = rows(
        connection, PARTITIONS
    )
    assert (name1, name2) == (small.partition, large.partition)
    assert (bound1, bound2) == (f"FOR VALUES IN ('{small.id}')", f"FOR VALUES IN ('{large.id}')")
    assert (storage1, options1) == ("p", ["toast_tuple_target=8160"])
    assert (storage2, options2) == ("e", None)
    assert "(vector_dims(vector) = 2000)" in keys1
    assert "(vector_dims(vector) = 2001)" in keys2
    assert "ON DELETE CASCADE" in keys1


def test_every_metric_and_dimension_is_stored_and_found(store: Store) -> None:
    """The smallest and the largest space work, under each metric."""
    for metric, dimensions in product(get_args(Metric), (1, 16_000)):
        name = f"{metric} {dimensions}"
        store.create_space(name, model="m", dimensions=dimensions, metric=metric, index="none")
        store.create_collection(name, space=name)
        near, far = [1.0] * dimensions, [-1.0] * dimensions
        store.ingest(name, [NewDocument("a", [NewChunk("near", near), NewChunk("far", far)])])
        first, second = store.search(name, vector=near, k=2)
        assert (first.text, second.text, first.score > second.score) == ("near", "far", True)


def test_space_of_the_same_definition_is_returned(store: Store) -> None:
    """With exists_ok the same definition is the same space; another is refused by its facts."""
    made = store.create_space("s", model="m", dimensions=2)
    assert store.create_space("s", model="m", dimensions=2, exists_ok=True) == made
    changes: list[dict[str, Any]] = [{"model": "n"}, {"dimensions": 3}, {"metric": "l1"}]
    for change in changes:
        with pytest.raises(exceptions.SpaceExists, match=r"'s' already .*'m', 2 dim.*cosine"):
            store.create_space("s", **{"model": "m", "dimensions": 2, **change}, exists_ok=True)
    with pytest.raises(exceptions.SpaceExists, match="exists_ok=True"):
        store.create_space("s", model="m", dimensions=2)


def test_missing_partition_is_named_and_repaired(
    either: Any, connection: DatabaseConnection
) -> None:
    """A space whose making was cut short holds no vectors until it is made again."""
    made = either.create_space("s", model="m", dimensions=2)
    either.create_collection("c", space="s")
    execute(connection, f"DROP TABLE {made.partition}")
    assert either.collection("c").is_ready is False
    document = NewDocument("a", [NewChunk("x", [1, 0])])
    remedy = r"'s' has no partition.*create_space\('s', …, exists_ok=True\)"
    with pytest.raises(exceptions.SpaceNotReady, match=remedy):
        either.ingest("c", [document])
    with pytest.raises(exceptions.SpaceNotReady, match=remedy):
        either.search("c", vector=[1, 0])
    assert rows(connection, "SELECT FROM ragstore_document") == []
    either.create_space("s", model="m", dimensions=2, exists_ok=True)
    assert either.collection("c").is_ready is True
    either.ingest("c", [document])
    assert len(either.search("c", vector=[1, 0])) == 1


def test_spaces_of_two_dimensions_live_side_by_side(
    store: Store, connection: DatabaseConnection
) -> None:
    """A search in one space reads its partition alone, whatever the other's dimension."""
    for name, dimensions in (("two", 2), ("three", 3)):
        store.create_space(name, model="m", dimensions=dimensions)
        store.create_collection(name, space=name)
        chunks = [NewChunk(f"{name} {at}", [1.0] * dimensions) for at in range(3)]
        store.ingest(name, [NewDocument("a", chunks)])
    # A lock on the other partition proves that it is not read.
    other = store.collection("three").space
    assert other is not None
    lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE")
    options: dict[str, Any] = {"connect_args": {"options": "-c lock_timeout=2s"}}
    with (
        connect(connection.url) as holder,
        DatabaseConnection(connection.url, **options) as impatient,
    ):
        holder.execute(lock.format(sql.Identifier(other.partition)))
        hits = Store(impatient).search("two", vector=[1, 1])
    assert [hit.text for hit in hits] == ["two 0", "two 1", "two 2"]
    assert len(store.search("three", vector=[1, 1, 1])) == 3


def test_space_is_made_behind_a_long_reader(
    store: Store, connection: DatabaseConnection, impatient: None
) -> None:
    """A transaction that has read the embeddings holds up nobody."""
    store.create_space("first", model="m", dimensions=2)
    with connect(connection.url) as reader:
        reader.execute("SELECT count(*) FROM ragstore_embedding, ragstore_chunk")
        made = store.create_space("s", model="m", dimensions=2)
    assert made.partition in [name for name, *_ in rows(connection, PARTITIONS)]


def test_lock_of_another_session_times_out(
    either: Any, connection: DatabaseConnection, impatient: None
) -> None:
    """After a few attempts the caller is told, and can finish the space later."""
    with connect(connection.url) as holder:
        holder.execute("LOCK TABLE ragstore_embedding IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(exceptions.LockTimeout, match="try again"):
            either.create_space("s", model="m", dimensions=2)
    assert rows(connection, PARTITIONS) == []
    either.create_space("s", model="m", dimensions=2, exists_ok=True)
    assert len(rows(connection, PARTITIONS)) == 1


def test_lock_that_is_let_go_is_waited_for(
    store: Store, connection: DatabaseConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short lock costs an attempt, not the call."""
    monkeypatch.setattr(spaces, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(space_lifecycle, "LOCK_PAUSES", (0.1,) * 30)
    with connect(connection.url) as holder:
        holder.execute("LOCK TABLE ragstore_embedding IN ACCESS EXCLUSIVE MODE")
        timer = threading.Timer(0.3, holder.rollback)
        timer.start()
        store.create_space("s", model="m", dimensions=2)
        timer.join()
    assert len(rows(connection, PARTITIONS)) == 1


def test_space_is_made_once_by_many(store: Store, connection: DatabaseConnection) -> None:
    """Processes that start together may all ask for the space they need."""
    errors: list[BaseException] = []

    def make() -> None:
        try:
            store.create_space("s", model="m", dimensions=2, exists_ok=True)
        except BaseException as exc:  # noqa: BLE001 - told to the test's own thread
            errors.append(exc)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(rows(connection, PARTITIONS)) == 1


@pytest.fixture
def guest(connection: DatabaseConnection) -> Iterator[URL]:
    """Yield the URL of a role that may use the tables, but does not own them."""
    name = f"guest_{uuid4().hex[:8]}"
    password = "guest"  # the embedded server asks for none
    tables = "ON ALL TABLES IN SCHEMA public"
    execute(
        connection,
        f"CREATE ROLE {name} LOGIN PASSWORD '{password}'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE {tables} TO {name}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}",
    )
    yield connection.url.set(username=name, password=password)
    execute(connection, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def test_role_that_does_not_own_the_tables_is_told_what_to_do(guest: URL) -> None:
    """Making a partition takes the owner, and the message says how to name one."""
    from ragstore import AsyncStore

    remedy = r"Role 'guest_\w+' does not own .*'s'.*DB_MIGRATION_DATABASE_URL.*exists_ok=True"
    async with DatabaseConnection(guest) as connection:
        with pytest.raises(exceptions.PermissionDenied, match=remedy):
            Store(connection).create_space("s", model="m", dimensions=2)
        with pytest.raises(exceptions.PermissionDenied, match=remedy):
            await AsyncStore(connection).create_space("s", model="m", dimensions=2, exists_ok=True)


async def test_space_that_is_there_is_returned_to_a_role_that_only_reads(
    guest: URL, connection: DatabaseConnection
) -> None:
    """With exists_ok a program that may write nothing begins as the one that makes the space."""
    from ragstore import AsyncStore

    made = Store(connection).create_space("s", model="m", dimensions=2)
    Store(connection).create_collection("c", space="s")
    revoke = "REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM"
    execute(connection, f"{revoke} {guest.username}")
    given: dict[str, Any] = {"model": "m", "dimensions": 2, "exists_ok": True}
    async with DatabaseConnection(guest) as reader:
        assert Store(reader).create_space("s", **given) == made
        assert await AsyncStore(reader).create_space("s", **given) == made
        assert Store(reader).create_collection("c", space="s", exists_ok=True).space == made
        with pytest.raises(exceptions.CollectionExists, match="'c' already"):
            Store(reader).create_collection("c", exists_ok=True)
        with pytest.raises(exceptions.SpaceExists, match="'s' already"):
            Store(reader).create_space("s", **{**given, "model": "n"})
        with pytest.raises(exceptions.PermissionDenied):
            Store(reader).create_space("t", **given)


async def test_partition_is_made_as_the_role_of_the_migration_url(
    guest: URL, connection: DatabaseConnection
) -> None:
    """With the owner's URL beside its own, a role makes spaces, and uses them by itself."""
    from ragstore import AsyncStore

    async with DatabaseConnection(guest, migration_url=connection.url) as both:
        store = Store(both)
        store.create_space("s", model="m", dimensions=2)
        await AsyncStore(both).create_space("t", model="m", dimensions=2)
        store.create_collection("c", space="s")
        store.ingest("c", [NewDocument("a", [NewChunk("x", [1, 0])])])
        store.ingest("c", [NewDocument("a", [NewChunk("y", [0, 1])])])
        assert [hit.text for hit in store.search("c", text="y", vector=[1, 0])] == ["y"]
    owners = "SELECT pg_get_userbyid(relowner) = current_user FROM pg_class WHERE relispartition"
    assert {is_owner for (is_owner,) in rows(connection, owners)} == {True}


def test_partitions_are_no_drift(store: Store, connection: DatabaseConnection) -> None:
    """The schema check does not see the partitions that spaces have."""
    store.create_space("s", model="m", dimensions=2)
    store.create_space("large", model="m", dimensions=3_000)
    migrations.check(connection.url)


def test_collection_is_made_and_looked_up(either: Any) -> None:
    """A collection remembers its space and language."""
    space = either.create_space("s", model="m", dimensions=2)
    made = either.create_collection("c", space="s", language="german", meta={"a": "é"})
    assert (made.name, made.language, made.space, made.is_ready) == ("c", "german", space, True)
    assert either.collection("c") == made
    assert either.create_collection("plain").space is None


def test_collection_of_the_same_definition_is_returned(
    store: Store, connection: DatabaseConnection
) -> None:
    """With exists_ok the same definition is the same collection, its metadata untouched."""
    store.create_space("s", model="m", dimensions=2)
    made = store.create_collection("c", space="s", meta={"a": 1})
    again = store.create_collection("c", space="s", meta={"a": 2}, exists_ok=True)
    assert again == made
    assert rows(connection, "SELECT metadata FROM ragstore_collection") == [({"a": 1},)]
    changes: list[dict[str, Any]] = [{"space": None}, {"language": "german"}]
    for change in changes:
        with pytest.raises(exceptions.CollectionExists, match=r"'c' already .space 's'.*english"):
            store.create_collection("c", **{"space": "s", **change}, exists_ok=True)
    with pytest.raises(exceptions.CollectionExists, match="exists_ok=True"):
        store.create_collection("c", space="s")
    store.create_collection("plain")
    with pytest.raises(exceptions.CollectionExists, match="no space"):
        store.create_collection("plain")


def test_language_of_ones_own_needs_schema(store: Store, connection: DatabaseConnection) -> None:
    """A dump is restored with an empty search path: a bare name would not be found then."""
    execute(
        connection,
        "CREATE TEXT SEARCH CONFIGURATION public.medical (COPY = german)",
        'CREATE TEXT SEARCH CONFIGURATION public."My Words" (COPY = german)',
    )
    with pytest.raises(exceptions.InvalidName, match=r"'medical', only .*public\.medical"):
        store.create_collection("c", language="medical")
    for number, language in enumerate(["public.medical", 'public."My Words"', "pg_catalog.german"]):
        name = f"c{number}"
        store.create_collection(name, language=language)
        store.ingest(name, [NewDocument("a", ["die Häuser"])])
        assert [hit.text for hit in store.search(name, text="Haus")] == ["die Häuser"]


def test_detached_partition_is_not_ready_and_is_attached_again(store: Store) -> None:
    """A partition that was detached takes no vectors; create_space() attaches it, rows and all."""
    space = store.create_space("s", model="m", dimensions=2)
    store.create_collection("c", space="s")
    store.ingest("c", [NewDocument("a", ["one"])], embed=lambda texts: [[1.0, 2.0]] * len(texts))
    execute(store.connection, f"ALTER TABLE ragstore_embedding DETACH PARTITION {space.partition}")

    assert not store.collection("c").is_ready
    with pytest.raises(exceptions.SpaceNotReady):
        store.search("c", vector=[1.0, 2.0])
    store.create_space("s", model="m", dimensions=2, exists_ok=True)

    assert [hit.document_key for hit in store.search("c", vector=[1.0, 2.0])] == ["a"]


def test_space_is_made_in_its_own_database_only(
    store: Store, database: URL, server_url: URL
) -> None:
    """A migration URL of another database is refused, and nothing is changed in that one."""
    other = server_url.set(database=f"{database.database}_o")
    clone_database(database, other)
    try:
        mixed = DatabaseConnection(database, migration_url=other)
        with mixed, pytest.raises(exceptions.ImproperlyConfigured, match="MIGRATION_DATABASE_URL"):
            Store(mixed).create_space("s", model="m", dimensions=2)
        with DatabaseConnection(other) as there, there.transaction() as driver:
            count = "SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass"
            assert driver.execute(count, ["ragstore_embedding"]).fetchall() == [(0,)]
    finally:
        drop_database(other)
