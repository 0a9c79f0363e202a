"""Rows in by COPY; through a temporary table where the server refuses that, under row security.

A row is the number of its columns, and each value behind its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct

from psycopg import sql

from ragstore.execution import Copy, Operation, Query
from ragstore.space import Space

_EVERYWHERE = sql.SQL("")
_EMBEDDING_COLUMNS = ("collection_id", "chunk_id", "space_id", "vector")
_IS_SECURED = sql.SQL("SELECT row_security_active('ragstore_embedding')")


NULL = b"\xff\xff\xff\xff"
"""A value that is not there, in a row."""

_LENGTH = Struct(">i").pack
_NUMBER = Struct(">iq").pack
_EMBEDDING_HEAD = Struct(">hiqi").pack


def packed(value: bytes) -> bytes:
    """Return a value as it stands in a row."""
    return _LENGTH(len(value)) + value


def is_secured() -> Operation[bool]:
    """Tell whether row security is in force for the role, so that vectors go by a stage."""
    rows = yield Query(_IS_SECURED)
    return bool(rows[0][0])


def copy_vectors(
    collection_id: int, space: Space, vectors: Iterable[tuple[int, bytes]], *, staged: bool
) -> Operation[None]:
    """Write packed vectors, each with the id of its chunk, which has none in the space."""
    head = _EMBEDDING_HEAD(4, 8, collection_id, 8)
    middle = _NUMBER(8, space.id)
    rows = (
        b"".join((head, chunk_id.to_bytes(8, "big", signed=True), middle, packed(vector)))
        for chunk_id, vector in vectors
    )
    where = sql.SQL("WHERE collection_id = {} AND space_id = {}").format(collection_id, space.id)
    yield from copy_rows("ragstore_embedding", _EMBEDDING_COLUMNS, rows, where, staged=staged)


def copy_rows(
    table: str,
    columns: Sequence[str],
    rows: Iterable[bytes],
    where: sql.Composable = _EVERYWHERE,
    *,
    staged: bool,
) -> Operation[None]:
    """Write packed rows into a table; ``where`` are the values a staged statement is to name."""
    names = {
        "table": sql.Identifier(table),
        "stage": sql.Identifier("pg_temp", f"{table}_stage"),
        "columns": sql.SQL(", ").join(map(sql.Identifier, columns)),
        "where": where,
    }
    copy = "COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)"
    if not staged:
        yield Copy(sql.SQL(copy).format(**names), rows)
        return
    # Dropped at once, not only at the commit: this may be a savepoint of a longer transaction.
    for statement in (
        "CREATE TEMP TABLE {stage} ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA",
        copy.replace("{table}", "{stage}"),
        "INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage} {where} ORDER BY 1, 2",
        "DROP TABLE {stage}",
    ):
        composed = sql.SQL(statement).format(**names)
        yield Copy(composed, rows) if statement.startswith("COPY") else Query(composed)
