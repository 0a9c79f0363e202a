"""Other packages on the same rows, server and run: ingest, search, and a filter for 1 %.

Each peer runs in an environment of its own, made of ``requirements.txt`` beside this file, and is
used as its documentation says: its own table, its HNSW index of default size built after the load.
None of them has documents, text search or hashes to keep; ragstore writes all of its schema.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tests.benchmarks.bench import Bench
from tests.benchmarks.data import DIMENSIONS, Data, made
from tests.benchmarks.ingest import empty
from tests.benchmarks.loading import finish, told
from tests.benchmarks.peers.serve import NAMES
from tests.benchmarks.table import Row, median_ms, shown_ratio, shuffled
from tests.benchmarks.timing import blocks

K, PART = 10, "hundredth"
HERE = Path(__file__).parent
OURS = "ragstore"

Searcher = Callable[[int, dict[str, int] | None], tuple[float, int]]
"""Searches by the query of that number, through a filter; returns the seconds and the rows."""

NAME = "peers"


class Peer:
    """A peer's process: it is told what to do, and tells how long that took."""

    def __init__(self, name: str, python: Path, bench: Bench, rows: Path) -> None:
        command = [python, HERE / "serve.py", name, bench.libpq_url, rows]
        pipe, words = subprocess.PIPE, list(map(str, command))
        self.name = name
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)

    def tell(self, do: str, **more: Any) -> dict[str, Any]:
        """Give an order and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} has ended; what it said is above")
        told_: dict[str, Any] = json.loads(answer)
        return told_

    def end(self) -> None:
        """Let the process end, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def rows(bench: Bench, chunks: int, rounds: int, queries: int, venv: Path | None) -> list[Row]:
    """Measure all, and return the rows."""
    python = _environment(venv or bench.directory / "peers")
    data = made(chunks)
    space = bench.space(NAME, DIMENSIONS, has_index=False)
    bench.collection(NAME, space)
    with ExitStack() as stack:
        directory = _written(bench, data)
        peers = [Peer(name, python, bench, directory) for name in NAMES]
        for peer in peers:
            stack.callback(peer.end)
        with told("ingesting"):
            ingested = _ingested(bench, peers, data, rounds)
        for peer in peers:
            with told(f"building the index of {peer.name}"):
                peer.tell("index")
        searched = _loaded_for_search(bench, data)
        plain, found = _searched(bench, searched, peers, data, queries, None)
        filtered, counts = _searched(bench, searched, peers, data, queries, PART)
    wanted = min(K, round(data.share(PART) * chunks))
    return [
        *_rows(f"ingest of {chunks:,} chunks", ingested),
        *_rows(f"search of {chunks:,} chunks, k {K}", plain, found, K),
        *_rows("search with a filter that 1 % pass", filtered, counts, wanted),
    ]


def _environment(venv: Path) -> Path:
    python = venv / "bin" / "python"
    if not python.exists():
        with told("installing the peers"):
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            install = [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"]
            subprocess.run(list(map(str, install)), check=True)
    return python


def _written(bench: Bench, data: Data) -> Path:
    directory = bench.directory / "rows"
    directory.mkdir()
    rows_ = {"texts": list(data.texts), "metas": list(data.metas)}
    (directory / "rows.json").write_text(json.dumps(rows_))
    np.save(directory / "vectors.npy", data.vectors)
    np.save(directory / "queries.npy", data.queries)
    return directory


def _ingested(bench: Bench, peers: list[Peer], data: Data, rounds: int) -> dict[str, list[float]]:
    documents = list(data.documents())
    times: dict[str, list[float]] = {name: [] for name in (OURS, *(peer.name for peer in peers))}
    by_name = {peer.name: peer for peer in peers}
    for order in shuffled(list(times), rounds):
        for name in order:
            if name == OURS:
                empty(bench)
                begun = perf_counter()
                bench.store.ingest(NAME, documents)
                times[name].append(perf_counter() - begun)
            else:
                by_name[name].tell("make")
                bench.execute("CHECKPOINT")
                times[name].append(by_name[name].tell("ingest")["seconds"])
    return times


def _loaded_for_search(bench: Bench, data: Data) -> str:
    """Load the rows into a space with an index, as a user would have it."""
    name = f"{NAME}_searched"
    space = bench.space(name, DIMENSIONS)
    bench.collection(name, space)
    bench.store.ingest(name, data.documents())
    finish(bench, space)
    return name


def _searched(
    bench: Bench, name: str, peers: list[Peer], data: Data, queries: int, part: str | None
) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
    """Return the seconds and the number of rows of each search, by who searched."""

    def ours(number: int, where: dict[str, int] | None) -> tuple[float, int]:
        begun = perf_counter()
        found = bench.store.search(name, vector=data.queries[number], k=K, where=where)
        return perf_counter() - begun, len(found)

    def theirs(peer: Peer, number: int, where: dict[str, int] | None) -> tuple[float, int]:
        answer = peer.tell("search", number=number, k=K, where=where)
        return answer["seconds"], answer["rows"]

    arms: dict[str, Searcher] = {OURS: ours}
    arms |= {peer.name: partial(theirs, peer) for peer in peers}
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    counts: dict[str, list[int]] = {arm: [] for arm in arms}
    for number, order in enumerate(shuffled(list(arms), queries)):
        where = data.where(part, number) if part else None
        for arm in order:
            seconds, count = arms[arm](number % len(data.queries), where)
            times[arm].append(seconds)
            counts[arm].append(count)
    return times, counts


def _rows(
    what: str,
    times: dict[str, list[float]],
    counts: dict[str, list[int]] | None = None,
    wanted: int = K,
) -> list[Row]:
    found = []
    baseline = _compared(times[OURS], is_ingest=counts is None)
    for name, seconds in times.items():
        label = f"{what}: {OURS}" if name == OURS else f"  {name}"
        compared = _compared(seconds, is_ingest=counts is None)
        beside = "" if name == OURS else shown_ratio(compared, baseline)
        note = "" if counts is None else f"{statistics.fmean(counts[name]):.2f} of {wanted} rows"
        found.append(Row(label, median_ms(seconds), beside, note=note))
    return found


def _compared(seconds: list[float], *, is_ingest: bool) -> list[float]:
    return seconds if is_ingest else blocks(seconds)
