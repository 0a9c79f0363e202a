"""Ingest: beside COPY BINARY by hand of the same rows, again, with changes, and its memory.

Both arms write into the same tables of one database, emptied before each run, with every index but
the approximate one, which is built after the load and counted on neither side.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ragstore.content import NewDocument
from ragstore.quickstart import DIMENSIONS as LOCAL_DIMENSIONS
from ragstore.quickstart import load_model
from tests.benchmarks import data
from tests.benchmarks.bench import Bench
from tests.benchmarks.copying import Rows
from tests.benchmarks.table import NULL, Row, median_ms, ratio, shown_ratio, shuffled

MOST_RATIO, MOST_CHANGED, MOST_MEGABYTES = 1.25, 0.25, 50
LEAST_GIVEN, LEAST_EMBEDDED = 5, 20
Embed = Callable[[list[str]], Any]

EVERY = 10  # one document in so many is changed


@dataclass(frozen=True)
class Times:
    """The seconds of each round: ragstore's, and those of COPY by hand."""

    first: list[float]
    again: list[float]
    changed: list[float]
    raw: list[float]
    raw_again: list[float]


def rows(bench: Bench, chunks: int, rounds: int, slack: float = 1.0) -> list[Row]:
    """Measure, and return the rows; every target is loosened by ``slack``."""
    given = _given(bench, chunks, rounds)
    embedded = _embedded(bench, chunks // 2, max(rounds // 3, 1))
    most, changed = MOST_RATIO * slack, MOST_CHANGED * slack
    beside = ratio(given.first, given.raw)
    found = [
        Row(f"{chunks:,} chunks, COPY BINARY by hand", median_ms(given.raw)),
        Row(NULL, median_ms(given.raw_again), shown_ratio(given.raw_again, given.raw)),
        Row(
            "  ingest, vectors given",
            median_ms(given.first),
            shown_ratio(given.first, given.raw),
            f"<= {most:.2f}x",
            beside <= most,
        ),
        *_again("  vectors given", given, LEAST_GIVEN / slack, changed),
        Row(f"{chunks // 2:,} chunks, embedded by the local model", median_ms(embedded.first)),
        *_again("  local model", embedded, LEAST_EMBEDDED / slack, changed),
    ]
    grown = memory(bench, chunks)
    name = f"memory of the client over {chunks:,} chunks"
    met = grown <= MOST_MEGABYTES
    return [*found, Row(name, None, f"+{grown:.0f} MB", f"<= {MOST_MEGABYTES} MB", met)]


def _again(name: str, times: Times, least: float, most: float) -> list[Row]:
    faster = ratio(times.first, times.again)
    return [
        Row(
            f"{name}: again, unchanged",
            median_ms(times.again),
            f"1/{faster:.1f} of the first",
            f"<= 1/{least:.1f}",
            faster >= least,
        ),
        Row(
            f"{name}: 1 document in {EVERY} changed",
            median_ms(times.changed),
            shown_ratio(times.changed, times.first),
            f"<= {most:.2f}x",
            ratio(times.changed, times.first) <= most,
        ),
    ]


def _given(bench: Bench, chunks: int, rounds: int) -> Times:
    """Return the seconds of runs in which the chunks bring their vectors."""
    space = bench.space("given", data.DIMENSIONS, has_index=False)
    collection = bench.collection("given", space)
    documents = list(data.made(chunks).documents())
    bench.store.ingest("given", documents)
    with closing(bench.connect()) as connection:
        stored = Rows.stored(connection, collection.id, space.id)
        empty(bench)
        stored.write(connection)
        if not stored.is_same(Rows.stored(connection, collection.id, space.id)):
            raise SystemExit("COPY by hand has written other rows than ragstore: it is no baseline")
        return _rounds(bench, "given", documents, None, rounds, lambda: stored.write(connection))


def _embedded(bench: Bench, chunks: int, rounds: int) -> Times:
    """Return the seconds of runs in which the local model makes the vectors."""
    bench.collection("embedded", bench.space("embedded", LOCAL_DIMENSIONS, has_index=False))
    embed = load_model()
    embed(["The first call takes longer."])
    documents = list(data.made(chunks).documents(with_vectors=False))
    return _rounds(bench, "embedded", documents, embed, rounds, None)


def _rounds(
    bench: Bench,
    name: str,
    documents: Sequence[NewDocument],
    embed: Embed | None,
    rounds: int,
    raw: Callable[[], None] | None,
) -> Times:
    differing = [
        data.changed(document) if at % EVERY == 0 else document
        for at, document in enumerate(documents)
    ]
    times = Times([], [], [], [], [])

    def ingest(into: list[float], given: Sequence[NewDocument]) -> None:
        begun = perf_counter()
        bench.store.ingest(name, given, embed=embed)
        into.append(perf_counter() - begun)

    for order in shuffled(["ours", "raw", "raw_again"] if raw else ["ours"], rounds):
        for arm in order:
            empty(bench)
            if arm == "ours":
                ingest(times.first, documents)
                ingest(times.again, documents)
                ingest(times.changed, differing)
            elif raw is not None:
                begun = perf_counter()
                raw()
                (times.raw if arm == "raw" else times.raw_again).append(perf_counter() - begun)
    empty(bench)
    return times


def empty(bench: Bench) -> None:
    """Empty the tables that grow, and let no write of before wait for the disk in the next run."""
    bench.execute("TRUNCATE ragstore_document, ragstore_chunk, ragstore_embedding")
    bench.execute("CHECKPOINT")


def memory(bench: Bench, chunks: int) -> float:
    """Return by how many megabytes a process grows that ingests documents made on the way."""
    space = bench.space("memory", data.DIMENSIONS, has_index=False)
    bench.collection("memory", space)
    command = [sys.executable, "-m", "tests.benchmarks.memory", bench.libpq_url, str(chunks)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the process whose memory is measured failed:\n{done.stderr}")
    empty(bench)
    return float(json.loads(done.stdout)["megabytes"])
