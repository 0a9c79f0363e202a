"""Search: its p50 beside psycopg's on SQL by hand, prepared, on the same index, in turns."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from pgvector.psycopg import register_vector, register_vector_async

from ragstore.async_store import AsyncStore
from ragstore.connection import DatabaseConnection
from ragstore.search.answer import ARM_SIZE
from ragstore.store import Store
from tests.benchmarks import byhand, oracle
from tests.benchmarks.bench import Bench, known_options
from tests.benchmarks.loading import Loaded, load
from tests.benchmarks.table import NULL, Row, ratio, shown_ratio
from tests.benchmarks.timing import Times, blocks, interleaved, interleaved_async

K, EF = 10, 100
WARM = 20
CANDIDATES = 100
# Found out once: it takes a tenth of what a search does.
_EF_OPTIONS = known_options(Store.search, ef_search=EF)
_CHOSEN = bool(known_options(Store.search, candidates=CANDIDATES))
MOST_VECTOR, MOST_TEXT, MOST_HYBRID = 1.5, 1.3, 1.3

_SET_EF = "SELECT set_config('hnsw.ef_search', %s, false)"

ARMS = ("by hand", "by hand again", "ragstore")


def candidates(k: int = K) -> int:
    """Return how many candidates each arm of a hybrid search has, on both sides."""
    return max(CANDIDATES if _CHOSEN else ARM_SIZE, k)


def hybrid_options(k: int = K) -> dict[str, int]:
    """Return what makes ``Store.search`` take so many."""
    return {"candidates": candidates(k)} if _CHOSEN else {}


@dataclass(frozen=True)
class Kind:
    """One kind of search: as ragstore is asked, and by hand."""

    name: str
    statement: str
    ef: int
    most: float
    has_text: bool
    has_vector: bool

    def asked(self, loaded: Loaded, number: int) -> dict[str, Any]:
        """Return the arguments of ``Store.search``."""
        data = loaded.data
        at = number % len(data.queries)
        return {
            "k": K,
            **({"text": data.questions[at]} if self.has_text else {}),
            **({"vector": data.queries[at]} if self.has_vector else {}),
            **(_EF_OPTIONS if self.has_vector else {}),
            **(hybrid_options() if self.has_text and self.has_vector else {}),
        }

    def parameters(self, loaded: Loaded, number: int) -> dict[str, Any]:
        """Return the parameters of the statement."""
        data = loaded.data
        at = number % len(data.queries)
        question = data.questions[at]
        return {
            "vector": data.queries[at],
            "text": byhand.any_word(question) if self.has_vector else question,
        }


def kinds(loaded: Loaded) -> list[Kind]:
    """Return the kinds that are measured."""
    ef = max(EF, candidates())
    plan, wide = byhand.hnsw(loaded, ef=EF), byhand.hnsw(loaded, ef=min(ef, 1_000))
    vector = byhand.vector_search(loaded, plan, K)
    hybrid = byhand.hybrid_search(loaded, wide, K, candidates())
    return [
        Kind("vector", vector, EF, MOST_VECTOR, has_text=False, has_vector=True),
        Kind("text", byhand.text_search(loaded, K), EF, MOST_TEXT, True, False),
        Kind("hybrid", hybrid, min(ef, 1_000), MOST_HYBRID, True, True),
    ]


def rows(bench: Bench, chunks: int, queries: int, slack: float = 1.0) -> list[Row]:
    """Measure, and return the rows; every target is loosened by ``slack``."""
    loaded = load(bench, chunks)
    found: list[Row] = []
    for kind in kinds(loaded):
        times = _sync(bench, loaded, kind, queries)
        found += _rows(f"{kind.name}, {chunks:,} chunks", kind.most * slack, times)
        if kind.name == "vector":
            times = asyncio.run(_async(bench, loaded, kind, queries))
            found += _rows(f"{kind.name}, async", kind.most * slack, times)
            found += _recalls(bench, loaded, kind, queries)
    return found


def _sync(bench: Bench, loaded: Loaded, kind: Kind, queries: int) -> Times:
    def by_hand(connection: psycopg.Connection[Any], number: int) -> object:
        parameters = kind.parameters(loaded, number)
        return connection.execute(kind.statement, parameters).fetchall()

    def ours(number: int) -> object:
        return bench.store.search(loaded.name, **kind.asked(loaded, number))

    # Each arm has a session of its own: one that two arms share is twice as warm as the third's.
    with closing(bench.connect()) as first, closing(bench.connect()) as second:
        for connection in (first, second):
            register_vector(connection)
            connection.execute(_SET_EF, [str(kind.ef)])
        every = (partial(by_hand, first), partial(by_hand, second), ours)
        arms: dict[str, Callable[[int], object]] = dict(zip(ARMS, every, strict=True))
        return interleaved(arms, queries, WARM)


async def _async(bench: Bench, loaded: Loaded, kind: Kind, queries: int) -> Times:
    async def by_hand(connection: psycopg.AsyncConnection[Any], number: int) -> object:
        parameters = kind.parameters(loaded, number)
        cursor = await connection.execute(kind.statement, parameters)
        return await cursor.fetchall()

    first, second = [await bench.connect_async() for _ in range(2)]
    async with first, second, DatabaseConnection(bench.url) as database:
        store = AsyncStore(database)
        for connection in (first, second):
            await register_vector_async(connection)
            await connection.execute(_SET_EF, [str(kind.ef)])

        async def ours(number: int) -> object:
            return await store.search(loaded.name, **kind.asked(loaded, number))

        every = (partial(by_hand, first), partial(by_hand, second), ours)
        arms: dict[str, Callable[[int], Awaitable[object]]] = dict(zip(ARMS, every, strict=True))
        return await interleaved_async(arms, queries, WARM)


def _rows(name: str, most: float, times: Times) -> list[Row]:
    raw, again, ours = (blocks(times[arm]) for arm in ARMS)
    p50 = {arm: statistics.median(times[arm]) * 1_000 for arm in ARMS}
    target = f"<= {most:.2f}x"
    return [
        Row(f"{name}: SQL by hand", p50["by hand"]),
        Row(NULL, p50["by hand again"], shown_ratio(again, raw)),
        Row(
            "  Store.search",
            p50["ragstore"],
            shown_ratio(ours, raw),
            target,
            ratio(ours, raw) <= most,
        ),
    ]


def _recalls(bench: Bench, loaded: Loaded, kind: Kind, queries: int) -> list[Row]:
    """Return how much of the exact answer both find."""
    by_hand, ours = [], []
    with closing(bench.connect()) as connection:
        register_vector(connection)
        connection.execute(_SET_EF, [str(kind.ef)])
        for number in range(min(queries, 100)):
            near = oracle.nearest(loaded, number, None)
            parameters = kind.parameters(loaded, number)
            rows = connection.execute(kind.statement, parameters).fetchall()
            by_hand.append(near.recall([row[0] for row in rows], K))
            hits = bench.store.search(loaded.name, **kind.asked(loaded, number))
            ours.append(near.recall([hit.chunk_id for hit in hits], K))
    shown = f"{statistics.fmean(by_hand):.3f}, {statistics.fmean(ours):.3f}"
    return [Row(f"  recall@{K} at ef_search {EF}: by hand, ours", None, shown)]
