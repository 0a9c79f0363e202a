"""The migrations on a real server: up, down, what they make, and what the kit tests of any history.

``ragstore_new_database(empty=True)`` gives a database without tables, ``db_fresh`` a migrated one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError

from ragstore import DatabaseConnection, Store, migrations
from ragstore.connection import VERSION_TABLE, connect
from ragstore.exceptions import SchemaBehind, SchemaMissing
from ragstore.models import TABLES
from ragstore.testing.migrations import (  # noqa: F401 - pytest runs them here
    test_every_revision_goes_up_and_down,
    test_every_revision_goes_up_and_down_with_data,
    test_every_revision_has_a_docstring,
    test_every_revision_has_a_downgrade,
    test_models_equal_migrations,
    test_offline_sql_equals_online,
    test_there_is_one_head,
)
from ragstore.testing.revisions import read_schemas

HEAD = migrations.history()[0].id
NAMES = {table.name for table in TABLES}


@pytest.fixture
def empty(ragstore_new_database: Any) -> Iterator[URL]:
    """Yield the URL of a database without tables."""
    url: URL = ragstore_new_database(empty=True)
    yield url
    ragstore_new_database.drop(url)


@pytest.fixture
def inside(db_connection: DatabaseConnection) -> Iterator[Connection]:
    """Yield a connection to the migrated database: what is done to the schema is undone."""
    with db_connection.engine.connect() as connection:
        yield connection


# --- up and down -------------------------------------------------------------------------------


def test_upgrade_makes_the_schema(empty: URL) -> None:
    """An upgrade of a database without tables makes every table, and the extension."""
    assert migrations.current(empty) == ()

    migrations.upgrade(empty)

    assert migrations.current(empty) == (HEAD,)
    with connect(empty) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert {name for (name,) in tables} == NAMES | {VERSION_TABLE}
        found = connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'")
        assert found.fetchone() == (1,)


def test_second_upgrade_changes_nothing(empty: URL) -> None:
    """An upgrade of a database at the newest revision leaves schema, version and rows alone."""
    migrations.upgrade(empty)
    with DatabaseConnection(empty) as connection:
        Store(connection).create_collection("kept")
        before = read_schemas(empty)

        migrations.upgrade(empty)

        assert read_schemas(empty) == before
        assert migrations.current(empty) == (HEAD,)
        assert Store(connection).ingest("kept", []).documents == 0


def test_downgrade_takes_the_schema(db_fresh: DatabaseConnection) -> None:
    """A downgrade of a used database to its base leaves nothing of ours but the extension."""
    store = Store(db_fresh)
    store.create_space("tiny", model="test", dimensions=2)
    store.create_collection("book", space="tiny")

    migrations.downgrade(db_fresh.url, "base")

    assert read_schemas(db_fresh.url) == {}
    assert migrations.current(db_fresh.url) == ()
    with connect(db_fresh.url) as connection:
        found = connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'")
        assert found.fetchone() == (1,)
    with pytest.raises(SchemaMissing, match="ragstore migrate upgrade"):
        store.create_collection("other")
    migrations.upgrade(db_fresh.url)
    store.create_collection("other")


# --- inside a transaction that is rolled back ---------------------------------------------------


def test_current_and_check(inside: Connection) -> None:
    """The test database is at the newest revision, and its schema is the models'."""
    assert migrations.current(connection=inside) == (HEAD,)
    migrations.check(connection=inside)


def test_downgrade_inside_a_transaction(inside: Connection) -> None:
    """On a connection of the caller's, a downgrade is in his transaction."""
    migrations.downgrade(connection=inside, revision="base")

    assert migrations.current(connection=inside) == ()
    assert not NAMES & set(inspect(inside).get_table_names())
    with pytest.raises(SchemaBehind) as caught:
        migrations.check(connection=inside)
    assert caught.value.head == (HEAD,)


def test_down_and_up_inside_a_transaction(inside: Connection) -> None:
    """Down and up again, the schema is the models' once more."""
    migrations.downgrade(connection=inside, revision="base")
    migrations.upgrade(connection=inside)

    assert migrations.current(connection=inside) == (HEAD,)
    migrations.check(connection=inside)


# --- what the schema does ----------------------------------------------------------------------


@pytest.mark.parametrize("table", sorted(NAMES))
def test_each_table_has_what_its_model_says(inside: Connection, table: str) -> None:
    """The columns, keys and constraints of a table are those of its model."""
    model = next(each for each in TABLES if each.name == table)
    found = inspect(inside)

    assert [column["name"] for column in found.get_columns(table)] == list(model.columns.keys())
    assert found.get_pk_constraint(table)["constrained_columns"] == [
        column.name for column in model.primary_key
    ]
    named = {constraint.name for constraint in model.constraints}
    assert {each["name"] for each in found.get_foreign_keys(table)} <= named
    assert {each["name"] for each in found.get_check_constraints(table)} <= named
    assert {each["name"] for each in found.get_indexes(table)} >= {
        index.name for index in model.indexes
    }


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("INSERT INTO ragstore_collection (name) VALUES ('')", "ragstore_collection_name_check"),
        (
            "INSERT INTO ragstore_collection (name, metadata) VALUES ('x', '[]')",
            "ragstore_collection_metadata_check",
        ),
        (
            "INSERT INTO ragstore_collection (name, space_id) VALUES ('x', 0)",
            "ragstore_collection_space_id_fkey",
        ),
        (
            "INSERT INTO ragstore_collection (name) VALUES ('x'), ('x')",
            "ragstore_collection_name_key",
        ),
        (
            "INSERT INTO ragstore_document (collection_id, key) VALUES (0, 'x')",
            "ragstore_document_collection_id_fkey",
        ),
        (
            "INSERT INTO ragstore_embedding_space (name, model, dimensions) VALUES ('x', 'x', 0)",
            "ragstore_embedding_space_dimensions_check",
        ),
        (
            "INSERT INTO ragstore_embedding_space VALUES (1, 'x', 'x', 1, 'x')",
            "ragstore_embedding_space_metric_check",
        ),
    ],
)
def test_what_the_schema_refuses(inside: Connection, statement: str, constraint: str) -> None:
    """The constraints of the migrations hold for whoever writes."""
    with pytest.raises(IntegrityError, match=constraint):
        inside.execute(text(statement))


def test_words_are_generated(inside: Connection) -> None:
    """The migrated function fills ``tsv`` by the chunk's language."""
    inside.execute(
        text(
            "WITH c AS (INSERT INTO ragstore_collection (name) VALUES ('x') RETURNING id), d AS"
            " (INSERT INTO ragstore_document (collection_id, key) SELECT id, 'x' FROM c"
            "  RETURNING collection_id, id)"
            " INSERT INTO ragstore_chunk (collection_id, document_id, ordinal, language, text)"
            " SELECT collection_id, id, 0, 'english', 'running databases' FROM d"
        )
    )

    assert inside.scalar(text("SELECT tsv::text FROM ragstore_chunk")) == "'databas':2 'run':1"
