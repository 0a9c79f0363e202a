"""``check``: whether a database is what the models say."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from ragstore import migrations
from ragstore.connection import connect
from ragstore.exceptions import SchemaBehind, SchemaDrift

HEAD = migrations.history()[0].id


def opened(url: URL) -> Connection:
    """Open a connection outside every pool; it rolls back when it is closed."""
    return create_engine(url, poolclass=NullPool).connect()


def run(url: URL, *statements: str) -> list[Any]:
    """Run statements and return the last one's rows."""
    with connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_check_ignores_what_is_not_ours(database: URL, capsys: pytest.CaptureFixture[str]) -> None:
    """Partitions, a host's tables and an extension's do not count as drift; nothing is printed."""
    run(
        database,
        "CREATE TABLE ragstore_embedding_7 PARTITION OF ragstore_embedding FOR VALUES IN (7)",
        "CREATE INDEX ON ragstore_embedding_7 USING hnsw ((vector::halfvec(3)) halfvec_cosine_ops)",
        "CREATE TABLE host (id int PRIMARY KEY, c bigint REFERENCES ragstore_collection)",
        "CREATE EXTENSION pg_trgm",
    )

    migrations.check(database)

    assert capsys.readouterr().out == ""


DRIFT = [
    (
        "ALTER TABLE ragstore_document DROP COLUMN title",
        "column ragstore_document.title is not in the database",
    ),
    (
        "ALTER TABLE ragstore_chunk DROP CONSTRAINT ragstore_chunk_text_check",
        "check constraint ragstore_chunk.ragstore_chunk_text_check is not in the database",
    ),
    (
        "ALTER TABLE ragstore_chunk ALTER COLUMN token_count TYPE bigint",
        "column ragstore_chunk.token_count type is bigint, the models have integer",
    ),
    (
        "ALTER TABLE ragstore_chunk ALTER COLUMN language SET DEFAULT 'simple'",
        "column ragstore_chunk.language default is 'simple'::text, the models have 'english'",
    ),
    (
        "ALTER TABLE ragstore_chunk ALTER COLUMN language DROP NOT NULL",
        "column ragstore_chunk.language nullable is yes, the models have no",
    ),
    (
        "DROP INDEX ragstore_chunk_tsv_idx",
        "index ragstore_chunk.ragstore_chunk_tsv_idx is not in the database",
    ),
    (
        "ALTER TABLE ragstore_collection DROP CONSTRAINT ragstore_collection_name_key",
        "unique constraint ragstore_collection.ragstore_collection_name_key is not in the database",
    ),
    (
        "ALTER TABLE ragstore_embedding DROP CONSTRAINT ragstore_embedding_chunk_id_fkey",
        "foreign key ragstore_embedding.ragstore_embedding_chunk_id_fkey is not in the database",
    ),
    ("DROP TABLE ragstore_embedding", "table ragstore_embedding is not in the database"),
]


@pytest.mark.parametrize(("change", "difference"), DRIFT)
def test_check_sees_drift(change: str, difference: str, ragstore_database: URL) -> None:
    """A database that was changed by hand is not the models' any more, and it is said how."""
    with opened(ragstore_database) as connection, connection.begin() as transaction:
        connection.execute(text(change))

        with pytest.raises(SchemaDrift, match=r"its schema is not the models'") as caught:
            migrations.check(connection=connection)
        assert difference in caught.value.differences
        assert f"\n  - {difference}" in str(caught.value)
        transaction.rollback()


def test_check_of_an_empty_database(empty_database: URL) -> None:
    """A database without the tables is behind, not different."""
    with pytest.raises(
        SchemaBehind, match=r"is at revision none.*ragstore migrate upgrade"
    ) as caught:
        migrations.check(empty_database)

    assert (caught.value.current, caught.value.head) == ((), (HEAD,))
    assert run(empty_database, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []
