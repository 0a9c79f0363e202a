"""Rows in by COPY; through a temporary table where the server refuses that, under row security."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import sql

from ragstore.execution import Copy, Operation, Query
from ragstore.space import Space

_EVERYWHERE = sql.SQL("")
_EMBEDDING_COLUMNS = ("collection_id", "chunk_id", "space_id", "vector")
_EMBEDDING_TYPES = ("int8", "int8", "int8", "bytea")
_IS_SECURED = sql.SQL("SELECT row_security_active('ragstore_embedding')")


def is_secured() -> Operation[bool]:
    """Tell whether row security is in force for the role, so that vectors go by a stage."""
    rows = yield Query(_IS_SECURED)
    return bool(rows[0][0])


def copy_vectors(
    collection_id: int, space: Space, vectors: Iterable[tuple[int, bytes]], *, staged: bool
) -> Operation[None]:
    """Write packed vectors, each with the id of its chunk, which has none in the space."""
    rows = ((collection_id, chunk_id, space.id, vector) for chunk_id, vector in vectors)
    where = sql.SQL("WHERE collection_id = {} AND space_id = {}").format(collection_id, space.id)
    yield from copy_rows(
        "ragstore_embedding", _EMBEDDING_COLUMNS, _EMBEDDING_TYPES, rows, where, staged=staged
    )


def copy_rows(
    table: str,
    columns: Sequence[str],
    types: Sequence[str],
    rows: Iterable[tuple[Any, ...]],
    where: sql.Composable = _EVERYWHERE,
    *,
    staged: bool,
) -> Operation[None]:
    """Write rows into a table; ``where`` are the values that a staged statement is to name."""
    names = {
        "table": sql.Identifier(table),
        "stage": sql.Identifier("pg_temp", f"{table}_stage"),
        "columns": sql.SQL(", ").join(map(sql.Identifier, columns)),
        "where": where,
    }
    copy = "COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)"
    if not staged:
        yield Copy(sql.SQL(copy).format(**names), types, rows)
        return
    # Dropped at once, not only at the commit: this may be a savepoint of a longer transaction.
    for statement in (
        "CREATE TEMP TABLE {stage} ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA",
        copy.replace("{table}", "{stage}"),
        "INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage} {where} ORDER BY 1, 2",
        "DROP TABLE {stage}",
    ):
        composed = sql.SQL(statement).format(**names)
        yield Copy(composed, types, rows) if statement.startswith("COPY") else Query(composed)
