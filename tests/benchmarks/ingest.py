"""What ingest costs beside COPY: ``python -m tests.benchmarks.ingest [chunks] [rounds]``.

The baseline is raw COPY BINARY of the same rows, ready as tuples, into the same tables with all
their constraints and indexes, in one transaction. Baseline and subject take turns; a ratio is the
median of the pairs. The null band is the baseline beside itself. No ANN index is there.
"""

from __future__ import annotations

import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from psycopg import sql

from ragstore import DatabaseConnection, NewChunk, NewDocument, Store
from ragstore.content import prepare_batch
from ragstore.database import create_database
from ragstore.embedded import EmbeddedServer
from ragstore.migrations import upgrade
from ragstore.quickstart import load_model
from ragstore.space import pack_vectors

DIMENSIONS = 384
CHUNKS_PER_DOCUMENT = 10
COPIES = (
    (
        "ragstore_document (collection_id, id, key, title, metadata, content_hash)",
        ("int8", "int8", "text", "text", "bytea", "bytea"),
    ),
    (
        "ragstore_chunk (collection_id,id,document_id,ordinal,text,metadata,language,content_hash)",
        ("int8", "int8", "int8", "int4", "text", "bytea", "text", "bytea"),
    ),
    (
        "ragstore_embedding (collection_id, chunk_id, space_id, vector)",
        ("int8", "int8", "int8", "bytea"),
    ),
)


@dataclass
class Figures:
    """The seconds of each round, by what was measured, and the memory of a long stream in MB."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: float = 0.0

    def note(self, name: str, seconds: float) -> None:
        """Add a round."""
        self.seconds.setdefault(name, []).append(seconds)

    def ratio(self, name: str, base: str) -> float:
        """Return the median of the pairs."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return statistics.median(one / other for one, other in pairs)


def documents(chunks: int, *, seed: int = 1) -> list[NewDocument]:
    """Return documents of real words in random order, about 500 characters a chunk."""
    return list(stream(chunks, seed=seed))


def stream(chunks: int, *, seed: int = 1) -> Iterator[NewDocument]:
    """Yield documents as they are asked for."""
    from pydoc_data.topics import topics

    words = " ".join(topics.values()).split()
    choice = random.Random(seed)
    numbers = np.random.default_rng(seed)
    for number in range(max(1, chunks // CHUNKS_PER_DOCUMENT)):
        vectors = numbers.normal(size=(CHUNKS_PER_DOCUMENT, DIMENSIONS)).astype(np.float32)
        passages = []
        for vector in vectors:
            at = choice.randrange(len(words) - 80)
            meta = {"lang": "en", "page": number, "category": f"c{number % 100}", "draft": False}
            passages.append(NewChunk(" ".join(words[at : at + 75]), vector, meta))
        yield NewDocument(f"doc/{number:07}", passages, title=f"Document {number}")


def rows_of(given: list[NewDocument], collection: Any) -> tuple[list[Any], ...]:
    """Return the rows that ingest writes, ready for COPY."""
    heads, chunks, vectors = [], [], []
    chunk_id = 0
    for number, each in enumerate(prepare_batch(given), 1):
        meta = b"\x01" + each.meta.encode()
        heads.append((collection.id, number, each.key, each.title, meta, each.content_hash))
        for chunk in each.chunks:
            chunk_id += 1
            head = (collection.id, chunk_id, number, chunk.ordinal, chunk.text)
            meta = b"\x01" + chunk.meta.encode()
            chunks.append((*head, meta, collection.language, chunk.content_hash))
            assert chunk.vector is not None
            packed = pack_vectors(chunk.vector[None, :])[0]
            vectors.append((collection.id, chunk_id, collection.space.id, packed))
    return heads, chunks, vectors


def copy_raw(connection: DatabaseConnection, rows: tuple[list[Any], ...]) -> None:
    """Write rows by COPY BINARY, in one transaction."""
    with connection.transaction() as driver, driver.cursor() as cursor:
        for (target, types), some in zip(COPIES, rows, strict=True):
            statement = f"COPY {target} FROM STDIN (FORMAT BINARY)"
            with cursor.copy(statement.encode()) as copy:
                copy.set_types(types)
                for row in some:
                    copy.write_row(row)


def emptied(connection: DatabaseConnection) -> None:
    """Start each round with empty tables, and nothing left for the server to do."""
    with connection.transaction() as driver:
        driver.execute(sql.SQL("TRUNCATE ragstore_document, ragstore_chunk, ragstore_embedding"))
    with connection.engine.connect() as pooled:
        pooled.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("CHECKPOINT")


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(url: Any, *, chunks: int = 20_000, rounds: int = 9) -> Figures:
    """Measure on a migrated database that is empty; what it writes stays there."""
    figures = Figures()
    with DatabaseConnection(url) as connection:
        store = Store(connection)
        store.create_space("bench", model="none", dimensions=DIMENSIONS)
        target = store.create_collection("bench", space="bench")
        given = documents(chunks)
        rows = rows_of(given, target)
        other = documents(chunks, seed=2)
        changed = [
            replace(each, chunks=[*each.chunks[:-1], other[at].chunks[-1]])
            if at % 10 == 0
            else each
            for at, each in enumerate(given)
        ]
        arms: dict[str, Callable[[], Any]] = {
            "raw": lambda: copy_raw(connection, rows),
            "raw again": lambda: copy_raw(connection, rows),
            "ingest": lambda: store.ingest("bench", given, build_index="never"),
        }
        for _ in range(rounds):
            for name in random.sample(list(arms), len(arms)):
                emptied(connection)
                figures.note(name, timed(arms[name]))
            if name != "ingest":
                emptied(connection)
                store.ingest("bench", given, build_index="never")
            figures.note("unchanged", timed(lambda: store.ingest("bench", given)))
            figures.note("tenth changed", timed(lambda: store.ingest("bench", changed)))
    return figures


def measure_local(url: Any, *, chunks: int = 20_000, rounds: int = 3) -> Figures:
    """Measure with vectors made by the local model: a first ingest, and one of the same again."""
    figures = Figures()
    embed = load_model()
    with DatabaseConnection(url) as connection:
        store = Store(connection)
        store.create_space("local", model="wordllama-256", dimensions=256)
        store.create_collection("local", space="local")
        given = [
            replace(each, chunks=[getattr(chunk, "text", "") for chunk in each.chunks])
            for each in stream(chunks)
        ]
        for _ in range(rounds):
            emptied(connection)
            for name in ("first, local model", "again, local model"):
                figures.note(name, timed(lambda: store.ingest("local", given, embed=embed)))
    return figures


def measure_memory(url: Any, *, chunks: int = 100_000) -> float:
    """Return by how many MB the process grows while it ingests a stream, after a first batch."""
    with DatabaseConnection(url) as connection:
        store = Store(connection)
        store.create_space("stream", model="none", dimensions=DIMENSIONS, exists_ok=True)
        store.create_collection("stream", space="stream", exists_ok=True)
        source = stream(chunks)
        next(source)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        store.ingest("stream", source, build_index="never")
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Measure on a server of its own, and print."""
    chunks = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    with tempfile.TemporaryDirectory() as place, EmbeddedServer(Path(place) / "data") as server:
        url = server.url("ingest")
        create_database(url)
        upgrade(url)
        memory = measure_memory(url)
        figures = measure(url, chunks=chunks, rounds=rounds)
        local = measure_local(url, chunks=chunks, rounds=max(1, rounds // 3))
    for name, seconds in figures.seconds.items():
        base = "raw" if name in ("raw", "raw again", "ingest") else "ingest"
        ratio = figures.ratio(name, base)
        print(f"{name:15} {statistics.median(seconds):7.2f} s  {ratio:6.3f} x {base}")
    faster = 1 / local.ratio("again, local model", "first, local model")
    print(f"unchanged, local model: {faster:.1f} times as fast as the first ingest")
    print(f"memory over {100_000:,} chunks streamed: {memory:.0f} MB")


if __name__ == "__main__":
    main()
