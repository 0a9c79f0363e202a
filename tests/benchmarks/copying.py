"""COPY BINARY by hand: the rows that ragstore wrote, written again as fast as it can be done.

The rows are read back as Python's values; they are packed and sent while the clock runs, one
statement for each table, all in one transaction. Identities are given, not drawn from sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

DOCUMENTS = "ragstore_document (collection_id, id, key, title, metadata, content_hash)"
CHUNKS = (
    "ragstore_chunk (collection_id, id, document_id, ordinal, text, token_count, metadata,"
    " language, content_hash)"
)
EMBEDDINGS = "ragstore_embedding (collection_id, chunk_id, space_id, vector)"

_HEAD, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_PIECE = 1 << 18  # bytes of a message
_NULL = b"\xff\xff\xff\xff"
_LENGTH = Struct(">i").pack
_DOCUMENT = Struct(">hiqiq").pack
_CHUNK = Struct(">hiqiqiqii").pack
_EMBEDDING = Struct(">hiqiqiqihh").pack
_NUMBER = Struct(">ii").pack


@dataclass(frozen=True)
class Rows:
    """The rows of the three tables as Python has them."""

    documents: Sequence[tuple[Any, ...]]
    chunks: Sequence[tuple[Any, ...]]
    embeddings: Sequence[tuple[int, int, int]]
    vectors: npt.NDArray[np.float32]

    @classmethod
    def stored(cls, connection: psycopg.Connection[Any], collection: int, space: int) -> Rows:
        """Read a collection back."""

        def rows(columns: str, table: str, key: str) -> list[tuple[Any, ...]]:
            where = f"FROM {table} WHERE collection_id = {collection:d}"
            return connection.execute(f"SELECT {columns} {where} ORDER BY {key}").fetchall()

        embedded = f"ragstore_embedding_{space:d}"
        vectors = [
            np.frombuffer(packed, ">f4", offset=4).astype(np.float32)
            for (packed,) in rows("vector_send(vector)", embedded, "chunk_id")
        ]
        return cls(
            rows("collection_id, id, key, title, metadata::text, content_hash", *_of("document")),
            rows(
                "collection_id, id, document_id, ordinal, text, token_count, metadata::text,"
                " language, content_hash",
                *_of("chunk"),
            ),
            rows("collection_id, chunk_id, space_id", embedded, "chunk_id"),
            np.array(vectors),
        )

    def is_same(self, other: Rows) -> bool:
        """Tell whether these are the same rows, to the last bit."""
        mine, others = ((each.documents, each.chunks, each.embeddings) for each in (self, other))
        return mine == others and np.array_equal(self.vectors, other.vectors)

    def write(self, connection: psycopg.Connection[Any]) -> None:
        """Write them all."""
        with connection.transaction():
            _copy(connection, DOCUMENTS, map(_document, self.documents))
            _copy(connection, CHUNKS, map(_chunk, self.chunks))
            _copy(connection, EMBEDDINGS, _embeddings(self.embeddings, self.vectors))


def _of(name: str) -> tuple[str, str]:
    return f"ragstore_{name}", "id"


def _copy(connection: psycopg.Connection[Any], table: str, rows: Iterable[bytes]) -> None:
    statement = f"COPY {table} FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        write: Callable[[bytes], None] = copy.write
        piece = bytearray(_HEAD)
        for row in rows:
            piece += row
            if len(piece) > _PIECE:
                write(bytes(piece))
                piece.clear()
        write(bytes(piece + _END))


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    encoded = value.encode()
    return _LENGTH(len(encoded)) + encoded


def _json(value: str) -> bytes:
    encoded = value.encode()
    return _LENGTH(len(encoded) + 1) + b"\x01" + encoded


def _bytes(value: bytes | None) -> bytes:
    return _NULL if value is None else _LENGTH(len(value)) + value


def _document(row: tuple[Any, ...]) -> bytes:
    collection, id_, key, title, meta, digest = row
    head = _DOCUMENT(6, 8, collection, 8, id_)
    return head + _text(key) + _text(title) + _json(meta) + _bytes(digest)


def _chunk(row: tuple[Any, ...]) -> bytes:
    collection, id_, document, ordinal, text, tokens, meta, language, digest = row
    return b"".join(
        (
            _CHUNK(9, 8, collection, 8, id_, 8, document, 4, ordinal),
            _text(text),
            _NULL if tokens is None else _NUMBER(4, tokens),
            _json(meta),
            _text(language),
            _bytes(digest),
        )
    )


def _embeddings(
    keys: Sequence[tuple[int, int, int]], vectors: npt.NDArray[np.float32]
) -> Iterator[bytes]:
    dimensions = vectors.shape[1]
    size = 4 + 4 * dimensions
    for (collection, chunk, space), row in zip(keys, vectors.astype(">f4"), strict=True):
        head = _EMBEDDING(4, 8, collection, 8, chunk, 8, space, size, dimensions, 0)
        yield head + row.tobytes()
