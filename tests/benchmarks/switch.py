"""The model switch: another model for every chunk, while a process reads and writes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, sleep
from typing import Any

import numpy as np

from ragstore.content import NewDocument
from tests.benchmarks.bench import Bench
from tests.benchmarks.data import DIMENSIONS, PER_DOCUMENT, made
from tests.benchmarks.loading import finish, told
from tests.benchmarks.table import Row
from tests.benchmarks.traffic import NAME, READERS, STOP, WRITERS, K
from tests.benchmarks.twomodels import NEW, OLD, embedder


def rows(bench: Bench, chunks: int, beside: float) -> list[Row]:
    """Switch the model of so many chunks under load, and return what readers and writers met.

    The load is there for ``beside`` seconds before, and after.
    """
    if not hasattr(bench.store, "reembed"):
        return [Row("this version of ragstore has no reembed()")]
    _load(bench, chunks)
    with _under_load(bench) as (tell, met):
        sleep(beside)
        tell("during")
        begun = perf_counter()
        with told(f"embedding {chunks:,} chunks by another model"):
            bench.store.reembed(NAME, to=NEW, embed=embedder(NEW))
        seconds = perf_counter() - begun
        tell("after")
        sleep(beside)
    return [Row(f"reembed of {chunks:,} chunks", seconds * 1_000), *_rows(bench, met)]


def _load(bench: Bench, chunks: int) -> None:
    texts = made(chunks).texts
    documents = (
        NewDocument(f"document/{first}", texts[first : first + PER_DOCUMENT])
        for first in range(0, chunks, PER_DOCUMENT)
    )
    old = bench.space(OLD, DIMENSIONS)
    bench.space(NEW, DIMENSIONS)
    bench.collection(NAME, old)
    with told(f"loading {chunks:,} chunks"):
        bench.store.ingest(NAME, documents, embed=embedder(OLD))
    finish(bench, old)


@contextmanager
def _under_load(bench: Bench) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Run the readers and writers; what they met is there at the end."""
    command = [sys.executable, "-m", "tests.benchmarks.traffic", bench.libpq_url]
    met: dict[str, Any] = {}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the process of the readers and writers did not start")

        def tell(word: str) -> None:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n")
            process.stdin.flush()

        try:
            yield tell, met
        finally:
            tell(STOP)
            met.update(json.loads(process.stdout.read()))


def _rows(bench: Bench, met: dict[str, Any]) -> list[Row]:
    failed, unwritten = met["failed"], met["unwritten"]
    for message in sorted(set(failed + unwritten))[:5]:
        sys.stderr.write(f"  {message}\n")
    lost, foreign = _lost(bench, met["written"])
    writes = sum(map(len, met["writes"].values()))
    return [
        *(_latency("read", phase, seconds) for phase, seconds in met["reads"].items()),
        *(_latency("write", phase, seconds) for phase, seconds in met["writes"].items()),
        _counted(f"reads that failed ({READERS} threads)", len(failed)),
        _counted(f"reads of fewer than {K} hits", met["short"]),
        Row("reads whose first hit was another chunk", None, _by_phase(met["wrong"])),
        Row(
            "writes refused by SpaceChanged, done again", None, f"{met['refused']:,} of {writes:,}"
        ),
        _counted(f"writes that failed ({WRITERS} threads)", len(unwritten)),
        _counted("writes lost, or without a vector", lost),
        _counted("chunks with a vector of the other model", foreign),
    ]


def _latency(what: str, phase: str, seconds: list[float]) -> Row:
    worst = f"longest {max(seconds) * 1_000:,.0f} ms"
    return Row(f"a {what} {phase} ({len(seconds):,})", statistics.median(seconds) * 1_000, worst)


def _by_phase(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {phase}" for phase, count in counts.items())


def _counted(name: str, count: int) -> Row:
    return Row(name, None, f"{count:,}", "0", not count)


def _lost(bench: Bench, written: dict[str, list[str]]) -> tuple[int, int]:
    """Return how many chunks have no vector or another text than written, and wrong vectors."""
    collection = bench.store.collection(NAME)
    space = collection.require_space()
    rows = bench.execute(
        "SELECT d.key, c.ordinal, c.text, vector_send(e.vector) FROM ragstore_chunk c"
        " JOIN ragstore_document d ON d.collection_id = c.collection_id AND d.id = c.document_id"
        f" LEFT JOIN {space.partition} e ON e.collection_id = c.collection_id"
        f" AND e.chunk_id = c.id WHERE c.collection_id = {collection.id:d}"
    )
    stored = {(key, ordinal): text for key, ordinal, text, _ in rows}
    wanted = {(key, at): text for key, texts in written.items() for at, text in enumerate(texts)}
    lost = sum(stored.get(place) != text for place, text in wanted.items())
    without = sum(vector is None for *_, vector in rows)
    having = [(text, vector) for _, _, text, vector in rows if vector is not None]
    right = embedder(space.name)([text for text, _ in having])
    there = np.array([np.frombuffer(vector, ">f4", offset=4) for _, vector in having])
    foreign = int((np.abs(there - right).max(axis=1) > 1e-6).sum()) if having else 0
    return lost + without + (0 if space.name == NEW else len(rows)), foreign
