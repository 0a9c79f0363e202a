"""A collection as lines of JSON, and back: the same to the bit, but for ids and times.

The first line holds the collection and the definition of its space, every other one a document.
Vectors are base64 of little-endian 4-byte floats: decimal digits would be six times as slow, and
twice as long.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, groupby, islice
from operator import itemgetter
from typing import Any

import numpy as np
from psycopg import sql

from ragstore.backfill import BELOW_ALL
from ragstore.collection import CollectionInfo, find_collection, insert_collection
from ragstore.content import (
    NewChunk,
    NewDocument,
    PreparedDocument,
    check_text,
    prepare,
)
from ragstore.exceptions import InvalidInput
from ragstore.execution import Call, Operation, Query, Row, prefer_indexes
from ragstore.ingest import Batch, Place, find_circumstances, write
from ragstore.models import MAX_NAME_BYTES
from ragstore.packing import check_vectors, pack_vectors
from ragstore.report import IngestReport
from ragstore.work import Work, transact

logger = logging.getLogger(__name__)

FORMAT = 1
"""The number of this format, in the first line of an export."""

PAGE = 200
"""The most documents that are read at a time, and written in one transaction."""

PAGE_CHUNKS = 1_000
"""How many chunks of them, of a single document more, are read at a time."""

PAGE_CHARACTERS = 4 * 2**20
"""How long the lines may be together, a single one longer, that are written in one transaction."""

_DEFINITION = {"name", "model", "dimensions", "metric", "index", "exact_limit"}

_META = sql.SQL("SELECT metadata::text FROM ragstore_collection WHERE id = %s")
# Counted first, so that a page of large documents is not many times as large as usual.
_SIZES = sql.SQL("""
SELECT d.id, (
  SELECT count(*) FROM ragstore_chunk WHERE collection_id = %(collection)s AND document_id = d.id)
FROM ragstore_document d WHERE collection_id = %(collection)s AND id > %(after)s
ORDER BY id LIMIT %(size)s
""")
# The vectors in binary: pgvector's text has digits enough, but takes six times as long.
_PAGE = sql.SQL("""
SELECT d.id, d.key, d.title, d.metadata::text, d.content_hash,
  c.ordinal, c.text, c.metadata::text, c.token_count, c.language, c.content_hash,
  vector_send(e.vector)
FROM (
  SELECT * FROM ragstore_document
  WHERE collection_id = %(collection)s AND id > %(after)s AND id <= %(last)s) AS d
LEFT JOIN LATERAL (
  SELECT * FROM ragstore_chunk WHERE collection_id = %(collection)s AND document_id = d.id
  OFFSET 0) AS c ON true
LEFT JOIN ragstore_embedding e ON e.collection_id = %(collection)s AND e.chunk_id = c.id
  AND e.space_id = %(space)s
ORDER BY d.id, c.ordinal
""")
_HEAD = 4  # bytes of pgvector's binary before the numbers


class Export:
    """The lines of a collection: ``start()`` gives the first, each ``page()`` some more."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._after = BELOW_ALL
        self._collection: CollectionInfo

    def start(self) -> Work[str]:
        """Return the first line.

        Raises:
            CollectionNotFound: there is no such collection.
        """
        return (yield from transact(self._start()))

    def _start(self) -> Operation[str]:
        self._collection = found = yield from find_collection(self._name)
        ((meta,),) = yield Query(_META, [found.id])
        space = found.space and found.space.definition
        return _line(
            {
                "ragstore": FORMAT,
                "collection": found.name,
                "language": found.language,
                "meta": json.loads(meta),
                "space": space,
            }
        )

    def page(self) -> Work[list[str]]:
        """Return the lines of the next documents; none after the last."""
        rows: list[Row] = []
        while not rows:
            page = yield from transact(self._read())
            if page is None:
                return []
            self._after, rows = page
        lines: list[str] = yield Call(_document_lines, (rows,))
        return lines

    def _read(self) -> Operation[tuple[int, list[Row]] | None]:
        """Return the rows of a page behind the id of its last document; None after the end."""
        found = self._collection
        space = found.space and found.space.id
        yield from prefer_indexes()
        values = {"collection": found.id, "after": self._after, "space": space}
        sizes = yield Query(_SIZES, {**values, "size": PAGE})
        if not sizes:
            return None
        last = _last_of_page(sizes)
        return last, (yield Query(_PAGE, {**values, "last": last}))


def _last_of_page(sizes: Sequence[Row]) -> int:
    """Return the id of the last document that fits a page; the first one always does."""
    last: int = sizes[0][0]
    whole = accumulate(chunks for _, chunks in sizes)
    for (id_, _), chunks in zip(sizes[1:], islice(whole, 1, None), strict=True):
        if chunks > PAGE_CHUNKS:
            break
        last = id_
    return last


def _document_lines(rows: Iterable[Row]) -> list[str]:
    return [_document_line(list(some)) for _, some in groupby(rows, key=itemgetter(0))]


def _document_line(rows: list[Row]) -> str:
    _, key, title, meta, content_hash, *_ = rows[0]
    chunks = [_chunk(row[5:]) for row in rows if row[5] is not None]
    document = {"key": key, "title": title, "meta": json.loads(meta), "hash": _hex(content_hash)}
    return _line({**document, "chunks": chunks})


def _chunk(row: Row) -> dict[str, Any]:
    ordinal, text, meta, token_count, language, content_hash, vector = row
    return {
        "ordinal": ordinal,
        "text": text,
        "meta": json.loads(meta),
        "token_count": token_count,
        "language": language,
        "hash": _hex(content_hash),
        "vector": vector and base64.b64encode(_swapped(vector[_HEAD:])).decode(),
    }


def _swapped(numbers: bytes) -> bytes:
    return np.frombuffer(numbers, dtype=">f4").astype("<f4").tobytes()


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


class Import:
    """The collection that lines of an export describe.

    Those of an async iterable come as ``AsyncLines``: see ``opened``.

    Raises:
        InvalidInput: the first line is not that of an export.
    """

    def __init__(self, lines: Iterable[str] | AsyncLines, name: str | None) -> None:
        if isinstance(lines, str | bytes) or not isinstance(lines, Iterable | AsyncLines):
            raise InvalidInput(f"lines is {type(lines).__name__}: pass an open file, or a list")
        source = lines if isinstance(lines, AsyncLines) else _Lines(lines)
        self._read: Callable[[], Any] = source.read
        self._number = 1
        self._head = _object(source.first, 1)
        if self._head.get("ragstore") != FORMAT:
            raise InvalidInput(f"line 1 is not that of an export of format {FORMAT}")
        self._name = name or self._head.get("collection", "")
        self.space: dict[str, Any] | None = self._head.get("space")
        if self.space is not None and not _is_definition(self.space):
            raise InvalidInput("line 1 has no definition of a space: is it a whole export?")

    def work(self) -> Work[IngestReport]:
        """Make the collection, and write its documents.

        Raises:
            CollectionExists: the name is taken.
            InvalidInput: a line is not that of a document.
        """
        started = time.perf_counter()
        target = yield from transact(self._insert())
        now = yield from transact(find_circumstances())
        report = IngestReport()
        while lines := (yield Call(self._read)):
            batch = yield Call(self._batch, (target, lines))
            if batch.changed:
                report += yield from transact(write(target, batch, staged=now.is_secured))
        report = replace(report, seconds=time.perf_counter() - started)
        extra = {"collection": target.name, **report.numbers}
        logger.info("collection imported", extra=extra)
        return report

    def _insert(self) -> Operation[CollectionInfo]:
        space = None if self.space is None else str(self.space.get("name"))
        language, meta = self._head.get("language", ""), self._head.get("meta", {})
        return (yield from insert_collection(self._name, space, language, meta, exists_ok=False))

    def _batch(self, target: CollectionInfo, lines: Iterable[str]) -> Batch:
        documents: dict[str, PreparedDocument] = {}
        for line in lines:
            self._number += 1
            if line.strip():
                document = _read_document(_object(line, self._number), self._number)
                documents[document.key] = document
        return _batch(target, documents)


class _Page(list[str]):
    """Lines that are written in one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._left = PAGE_CHARACTERS

    def add(self, line: str) -> bool:
        """Take a line, and tell whether they are enough."""
        self.append(line)
        self._left -= len(line)
        return len(self) == PAGE or self._left <= 0


class _Lines:
    """An iterable of lines: the first, and then a page at a time."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.first = next(self._lines, "")

    def read(self) -> list[str]:
        """Return the lines of the next page, none after the last."""
        page = _Page()
        for line in self._lines:
            if page.add(line):
                break
        return page


class AsyncLines:
    """An async iterable of lines, the first of which is read."""

    def __init__(self, lines: AsyncIterator[str], first: str) -> None:
        self._lines = lines
        self.first = first

    @classmethod
    async def opened(cls, lines: AsyncIterable[str]) -> AsyncLines:
        """Read the first line."""
        others = aiter(lines)
        return cls(others, await anext(others, ""))

    async def read(self) -> list[str]:
        """Return the lines of the next page, none after the last."""
        page = _Page()
        async for line in self._lines:
            if page.add(line):
                break
        return page


async def opened(lines: Iterable[str] | AsyncIterable[str], name: str | None) -> Import:
    """Return an ``Import`` for asyncio, of lines of either kind.

    Raises:
        InvalidInput: the first line is not that of an export.
    """
    if isinstance(lines, AsyncIterable):
        return Import(await AsyncLines.opened(lines), name)
    return await asyncio.to_thread(Import, lines, name)


def _is_definition(space: Any) -> bool:
    """Tell whether it has the names that ``create_space`` takes, and no other."""
    return isinstance(space, dict) and space.keys() == _DEFINITION


def _batch(target: CollectionInfo, documents: Mapping[str, PreparedDocument]) -> Batch:
    ready = [documents[key] for key in sorted(documents)]
    vectors: dict[Place, bytes | None] = {}
    given: list[Place] = []
    matrix = []
    for document in ready:
        for chunk in document.chunks:
            place = Place(document.key, chunk.ordinal)
            vectors[place] = None
            if chunk.vector is not None:
                given.append(place)
                matrix.append(chunk.vector)
    if matrix:
        packed = pack_vectors(check_vectors(target.require_space(), matrix, given.__getitem__))
        vectors.update(zip(given, packed, strict=True))
    return Batch(ready, vectors=vectors)


def _object(line: str | bytes, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidInput(f"line {number} is not a JSON object: is it a whole export?") from None
    return value


def _read_document(value: dict[str, Any], number: int) -> PreparedDocument:
    try:
        chunks = [
            NewChunk(each["text"], _vector(each["vector"]), each["meta"], each["token_count"])
            for each in value["chunks"]
        ]
        document = NewDocument(value["key"], chunks, value["title"], value["meta"])
        ready = _prepared(document, value)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        if isinstance(exc, InvalidInput):
            raise
        raise InvalidInput(f"line {number} is not a document of an export") from exc
    return ready


def _prepared(document: NewDocument, value: dict[str, Any]) -> PreparedDocument:
    """Check a document, and give it the places, languages and hashes that it had."""
    if not document.chunks:
        checked = prepare(replace(document, chunks=["none"]))
        chunks: tuple[Any, ...] = ()
    else:
        checked = prepare(document)
        chunks = tuple(
            replace(
                chunk,
                ordinal=_ordinal(each["ordinal"]),
                language=check_text(each["language"], "the language", MAX_NAME_BYTES),
                content_hash=_bytes(each["hash"]),
            )
            for chunk, each in zip(checked.chunks, value["chunks"], strict=True)
        )
    return replace(checked, chunks=chunks, content_hash=_bytes(value["hash"]))


def _ordinal(value: Any) -> int:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise ValueError
    return value


def _vector(value: str | None) -> Any:
    return None if value is None else np.frombuffer(base64.b64decode(value, validate=True), "<f4")


def _bytes(value: str | None) -> Any:
    return None if value is None else bytes.fromhex(value)
