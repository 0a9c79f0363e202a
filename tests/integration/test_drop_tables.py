"""``DatabaseConnection.drop_tables`` on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy.engine import URL
from sqlmodel import SQLModel

from ragstore import exceptions
from ragstore.conf import override_settings
from ragstore.connection import VERSION_TABLE, DatabaseConnection, connect
from ragstore.database import create_database, drop_database
from ragstore.models import TABLES, EmbeddingSpace

OUR_TABLES = {table.name for table in TABLES} | {VERSION_TABLE}
HOSTS = {"ragstore_notes", "ragstore_embedding_99", "host.ragstore_chunk"}


@pytest.fixture(scope="module")
def url(server_url: URL) -> Iterator[URL]:
    """Give a database of this module's own."""
    own = server_url.set(database=f"ragstore_drop_{uuid4().hex[:8]}")
    create_database(own)
    yield own
    drop_database(own)


@pytest.fixture
def connection(url: URL) -> Iterator[DatabaseConnection]:
    """Give a connection to it."""
    with DatabaseConnection(url) as opened:
        yield opened


@pytest.fixture
def unprivileged(url: URL) -> Iterator[URL]:
    """Give the URL of a role that may nothing but log in."""
    role = f"ragstore_reader_{uuid4().hex[:8]}"
    with connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN")
        yield url.set(username=role)
        admin.execute(f"DROP ROLE {role}")


def one(connection: DatabaseConnection, query: str) -> object:
    """Return the first value of a query."""
    with connection.transaction() as driver:
        row = driver.execute(query).fetchone()
    assert row is not None
    return row[0]


def run(connection: DatabaseConnection, *statements: str) -> None:
    """Run statements in one transaction."""
    with connection.transaction() as driver:
        for statement in statements:
            driver.execute(statement)


@pytest.fixture
def tables(connection: DatabaseConnection) -> Iterator[None]:
    """Make ragstore's tables with a partition, and a host's beside them; drop the host's."""
    SQLModel.metadata.create_all(connection.engine, tables=list(TABLES))
    run(
        connection,
        f"CREATE TABLE {VERSION_TABLE} (version_num text PRIMARY KEY)",
        "CREATE TABLE ragstore_embedding_1 PARTITION OF ragstore_embedding FOR VALUES IN (1)",
        "CREATE TABLE other_name PARTITION OF ragstore_embedding FOR VALUES IN (2)",
        "CREATE TABLE ragstore_notes (id int)",
        "CREATE TABLE ragstore_embedding_99 (id int)",
        "CREATE SCHEMA host CREATE TABLE ragstore_chunk (id int)",
    )
    yield
    run(
        connection,
        "DROP TABLE ragstore_notes, ragstore_embedding_99",
        "DROP SCHEMA host CASCADE",
    )
    connection.drop_tables()


def relations(connection: DatabaseConnection) -> set[str]:
    """Name the tables and views of the database."""
    query = """
        SELECT coalesce(array_agg(CASE nspname WHEN 'public' THEN '' ELSE nspname || '.' END
                                  || relname), '{}')
        FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'v') AND nspname IN ('public', 'host')
    """
    found: list[str] = one(connection, query)  # type: ignore[assignment]  # an array
    return set(found)


def test_drop_tables_drops_ours_and_nothing_else(
    connection: DatabaseConnection, tables: None
) -> None:
    """Tables, partitions by any name, function and version table go; a host's stay; again is ok."""
    assert relations(connection) > OUR_TABLES
    connection.drop_tables()
    assert relations(connection) == HOSTS
    function = "SELECT count(*) FROM pg_proc WHERE proname = 'ragstore_tsvector'"
    assert one(connection, function) == 0
    assert one(connection, "SELECT count(*) FROM pg_extension WHERE extname = 'vector'") == 1
    connection.drop_tables()
    assert relations(connection) == HOSTS


def test_drop_tables_leaves_the_rest_of_the_shared_metadata(
    connection: DatabaseConnection, tables: None
) -> None:
    """A host's model in SQLModel.metadata keeps its table."""
    from sqlalchemy import Column, Integer, Table

    metadata = EmbeddingSpace.metadata
    assert metadata is SQLModel.metadata
    host = Table("host_setting", metadata, Column("id", Integer, primary_key=True))
    try:
        host.create(connection.engine)
        connection.drop_tables()
        assert relations(connection) == HOSTS | {"host_setting"}
    finally:
        host.drop(connection.engine)
        metadata.remove(host)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE host.note (id bigint REFERENCES ragstore_collection (id))",
        "CREATE VIEW host.note AS SELECT id FROM ragstore_document",
        "CREATE TABLE host.note (t tsvector DEFAULT ragstore_tsvector('simple', 'x'))",
    ],
    ids=["foreign key", "view", "default"],
)
def test_drop_tables_refuses_while_a_host_depends_on_them(
    connection: DatabaseConnection, tables: None, statement: str
) -> None:
    """Nothing is dropped, and the error names what stands in the way."""
    run(connection, statement)
    before = relations(connection)
    with pytest.raises(exceptions.QueryFailed, match=r"host\.note") as caught:
        connection.drop_tables()
    assert caught.value.sqlstate == "2BP01"
    assert relations(connection) == before


def test_drop_tables_with_cascade_drops_the_constraint_only(
    connection: DatabaseConnection, tables: None
) -> None:
    """The host's tables keep their rows and lose their keys to ours, to a partition too."""
    run(
        connection,
        "INSERT INTO ragstore_collection (name) VALUES ('x')",
        """
        CREATE TABLE host.note (
          c bigint CONSTRAINT "to x" REFERENCES ragstore_collection (id),
          p bigint, q bigint, r bigint,
          FOREIGN KEY (p, q, r) REFERENCES ragstore_embedding,
          FOREIGN KEY (p, q, r) REFERENCES ragstore_embedding_1
        )
        """,
        """
        CREATE TABLE host.parts (c bigint REFERENCES ragstore_collection (id))
        PARTITION BY LIST (c)
        """,
        "CREATE TABLE host.part PARTITION OF host.parts DEFAULT",
        "INSERT INTO host.note (c) SELECT id FROM ragstore_collection",
    )
    connection.drop_tables(cascade=True)
    assert relations(connection) == HOSTS | {"host.note", "host.parts", "host.part"}
    assert one(connection, "SELECT count(*) FROM host.note") == 1
    keys = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'host.note'::regclass"
    assert one(connection, keys) == 0


def test_drop_tables_with_cascade_still_keeps_a_view(
    connection: DatabaseConnection, tables: None
) -> None:
    """A view is nobody's constraint, so it is not dropped, and neither is a key before it."""
    run(
        connection,
        "CREATE TABLE host.note (id bigint REFERENCES ragstore_collection (id))",
        "CREATE VIEW host.seen AS SELECT id FROM ragstore_document",
    )
    with pytest.raises(exceptions.QueryFailed, match=r"host\.seen"):
        connection.drop_tables(cascade=True)
    keys = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'host.note'::regclass"
    assert one(connection, f"{keys} AND contype = 'f'") == 1


@override_settings(MIGRATION_LOCK_TIMEOUT=0.05)
def test_drop_tables_does_not_wait_for_ever(connection: DatabaseConnection, tables: None) -> None:
    """A reader in an open transaction makes it give up, with everything in place."""
    with connection.transaction() as reader:
        reader.execute("SELECT * FROM ragstore_document")
        with pytest.raises(exceptions.LockTimeout):
            connection.drop_tables()
    assert relations(connection) > OUR_TABLES


def test_drop_tables_is_the_migration_roles_work(url: URL, unprivileged: URL, tables: None) -> None:
    """The role that owns the tables drops them; the one that uses them may not."""
    with DatabaseConnection(unprivileged) as connection:
        with pytest.raises(exceptions.PermissionDenied):
            connection.drop_tables()
        connection.ping()
    with DatabaseConnection(unprivileged, migration_url=url) as connection:
        connection.drop_tables()
        assert not OUR_TABLES & relations(connection)
