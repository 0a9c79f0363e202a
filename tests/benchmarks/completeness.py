"""Completeness: does a search return every row it should, the right ones, and how fast.

For each size of answer and each share of the rows that a filter lets through, ragstore's answer is
compared with the exact one, and its time with that of the fastest plan by hand which returns as
many rows with the recall that is asked for. The plans by hand are tried on every cell: all vectors
that pass measured, the index as it is, and the index scanned on (relaxed and strict) at several
sizes of ``ef_search``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from tests.benchmarks import byhand, oracle
from tests.benchmarks.bench import Bench
from tests.benchmarks.byhand import Plan
from tests.benchmarks.data import PER_DOCUMENT
from tests.benchmarks.loading import Loaded, load, load_many, told
from tests.benchmarks.oracle import Right
from tests.benchmarks.search import candidates, hybrid_options
from tests.benchmarks.timing import interleaved, timed

KS = (1, 10, 40, 41, 100, 1_000)
SHARES = {
    "100 %": None,
    "50 %": "half",
    "5 %": "twentieth",
    "1 %": "hundredth",
    "0.2 %": "five_hundredth",
    "0.01 %": "ten_thousandth",
}
COLLECTIONS = (20, 2_000)
KINDS = ("vector", "hybrid")
EFS = (40, 100, 200, 400, 1_000)

RECALL_AT = 10
LEAST_RECALL, LEAST_RECALL_FILTERED, SELECTIVE = 0.95, 0.99, 0.01
MOST_RATIO = 1.3
TRIED = 3  # queries on which every plan by hand is tried first
FAR, LEAST_LIMIT = 5, 50  # times the fastest, and milliseconds: a plan beyond is not the fastest
KEPT = 2  # of the plans that qualify, the fastest so many are timed


@dataclass(frozen=True)
class Group:
    """One column of the grid: a collection, and the filter that its searches have."""

    share: str
    loaded: Loaded
    part: str | None
    least: float

    def where(self, number: int) -> dict[str, int] | None:
        """Return the filter of a query."""
        return None if self.part is None else self.loaded.data.where(self.part, number)

    def matching(self, number: int) -> int:
        """Return how many chunks the filter of a query lets through."""
        return int(self.loaded.data.passes(self.where(number), self.loaded.numbers).sum())


@dataclass(frozen=True)
class Answer:
    """What all the queries of a cell returned, one way."""

    rows: int
    missing: int
    recall: float


@dataclass(frozen=True)
class Cell:
    """One cell of the grid."""

    share: str
    kind: str
    k: int
    matching: int
    ours: Answer
    least: float
    strategy: str
    milliseconds: float
    plan: str
    baseline: float
    ratio: float
    null: float
    most: float

    @property
    def is_met(self) -> bool:
        """Tell whether nothing is missing, the recall is there, and the time too."""
        return not self.ours.missing and self.ours.recall >= self.least and self.ratio <= self.most


def cells(
    bench: Bench,
    chunks: int,
    queries: int,
    slack: float = 1.0,
    ks: Sequence[int] = KS,
    shares: Sequence[str] = tuple(SHARES),
    collections: Sequence[int] = COLLECTIONS,
) -> list[Cell]:
    """Measure the grid; the time's target is loosened by ``slack``, the others are not."""
    found = []
    for group in _groups(bench, chunks, shares, collections):
        with told(f"searching {group.share}"), _Sessions(bench, group) as sessions:
            for kind in KINDS:
                answers = [sessions.right(kind, number) for number in range(queries)]
                found += [sessions.cell(kind, k, answers, MOST_RATIO * slack) for k in ks]
    return found


def _groups(
    bench: Bench, chunks: int, shares: Sequence[str], collections: Sequence[int]
) -> Iterator[Group]:
    loaded = load(bench, chunks)
    for share in shares:
        part = SHARES[share]
        selective = part is not None and loaded.data.share(part) <= SELECTIVE
        least = LEAST_RECALL_FILTERED if selective else LEAST_RECALL
        yield Group(share, loaded, part, least)
    for count in sorted({min(count, chunks // PER_DOCUMENT) for count in collections}):
        one = load_many(bench, chunks, count)
        least = LEAST_RECALL_FILTERED if 1 / count <= SELECTIVE else LEAST_RECALL
        yield Group(f"1 of {count:,}", one, None, least)


class _Sessions(ExitStack):
    """The plans by hand of a group, each on a connection with its settings."""

    def __init__(self, bench: Bench, group: Group) -> None:
        super().__init__()
        self._bench, self._group = bench, group
        self._counts: dict[int, int] = {}
        is_filtered = group.part is not None
        self._plans: dict[str, tuple[Plan, psycopg.Connection[Any]]] = {}
        for plan in _plans(group.loaded, is_filtered):
            connection = self.enter_context(closing(bench.connect()))
            register_vector(connection)
            plan.set_up(connection)
            self._plans[plan.name] = plan, connection

    def _matching(self, number: int) -> int:
        if number not in self._counts:
            self._counts[number] = self._group.matching(number)
        return self._counts[number]

    def right(self, kind: str, number: int) -> Callable[[int], Right]:
        """Return the score that every chunk really has, as a function of ``k``."""
        group = self._group
        near = oracle.nearest(group.loaded, number, group.where(number))
        if kind == "vector":
            return lambda _k: near
        most = candidates(max(KS))
        statement = byhand.text_arm(group.loaded, most, filtered=group.part is not None)
        _, connection = self._plans["exact"]
        rows = connection.execute(statement, self._parameters(number)).fetchall()
        texts = [row[0] for row in rows]
        return lambda k: oracle.fused(near, texts, candidates(k))

    def cell(self, kind: str, k: int, right: Sequence[Callable[[int], Right]], most: float) -> Cell:
        """Measure one cell."""
        group = self._group
        scores = [each(k) for each in right]
        strategies: set[str] = set()

        def ours(number: int) -> list[int]:
            asked = self._asked(kind, k, number)
            result = self._bench.store.search(group.loaded.name, k=k, **asked)
            strategies.add(getattr(result, "scan", None) or result.strategy)
            return [hit.chunk_id for hit in result]

        answer = self._answered(ours, k, scores)
        fastest = self._fastest(kind, k, scores)
        # Each beside ours alone: of three arms, the two by hand would share the driver's warm code.
        turns = {
            name: interleaved({"ours": ours, name: search}, len(scores), warm=2)
            for name, search in fastest.items()
        }
        medians = {name: statistics.median(times[name]) for name, times in turns.items()}
        name = min(medians, key=lambda each: medians[each]) if medians else ""
        times = turns[name] if name else interleaved({"ours": ours}, len(scores), warm=2)
        again = {"a": fastest[name], "b": fastest[name]} if name else {}
        null = interleaved(again, len(scores))
        return Cell(
            group.share,
            kind,
            k,
            self._matching(0),
            answer,
            group.least,
            ", ".join(sorted(strategies)),
            statistics.median(times["ours"]) * 1_000,
            name or "none qualifies",
            medians.get(name, 0) * 1_000,
            _beside(times["ours"], times[name]) if name else 0.0,
            _beside(null["a"], null["b"]) if name else 1.0,
            most,
        )

    def _answered(
        self, search: Callable[[int], list[int]], k: int, scores: Sequence[Right]
    ) -> Answer:
        rows, missing, recalls = [], 0, []
        for number, right in enumerate(scores):
            found = search(number)
            expected = min(k, self._matching(number))
            rows.append(len(set(found)))
            missing += max(expected - len(set(found)), 0)
            recalls.append(right.recall(found, min(k, RECALL_AT)))
        return Answer(min(rows), missing, statistics.fmean(recalls))

    def _fastest(
        self, kind: str, k: int, scores: Sequence[Right]
    ) -> dict[str, Callable[[int], list[int]]]:
        """Return the fastest plans that return every row with the recall asked for."""
        tried: list[tuple[float, str, Callable[[int], list[int]]]] = []
        for name in self._plans:
            search = self._by_hand(name, kind, k)
            fastest = min((seconds for seconds, *_ in tried), default=float("inf"))
            seconds = self._tried(name, search, fastest)
            if seconds is not None and not self._answered(search, k, scores[:TRIED]).missing:
                tried.append((seconds, name, search))
        kept: dict[str, Callable[[int], list[int]]] = {}
        for _, name, search in sorted(tried, key=lambda each: each[0]):
            answer = self._answered(search, k, scores)
            if not answer.missing and answer.recall >= self._group.least:
                kept[name] = search
            if len(kept) == KEPT:
                break
        return kept

    def _tried(self, name: str, search: Callable[[int], list[int]], fastest: float) -> float | None:
        """Return the seconds of a plan, or None if it is far behind the fastest so far."""
        _, connection = self._plans[name]
        limit = 0 if fastest == float("inf") else max(1_000 * FAR * fastest, LEAST_LIMIT)
        set_limit = "SELECT set_config('statement_timeout', %s, false)"
        connection.execute(set_limit, [f"{limit:.0f}ms"])
        try:
            search(0)  # prepared, and in memory
            return statistics.median(timed(partial(search, number)) for number in range(TRIED))
        except psycopg.errors.QueryCanceled:
            return None
        finally:
            connection.execute(set_limit, ["0"])

    def _by_hand(self, name: str, kind: str, k: int) -> Callable[[int], list[int]]:
        plan, connection = self._plans[name]
        loaded, is_filtered = self._group.loaded, self._group.part is not None
        if kind == "vector":
            statement = byhand.vector_search(loaded, plan, k)
        else:
            size = candidates(k)
            statement = byhand.hybrid_search(loaded, plan, k, size, filtered=is_filtered)

        def search(number: int) -> list[int]:
            rows = connection.execute(statement, self._parameters(number)).fetchall()
            return [row[0] for row in rows]

        return search

    def _asked(self, kind: str, k: int, number: int) -> dict[str, Any]:
        data, where = self._group.loaded.data, self._group.where(number)
        at = number % len(data.queries)
        asked: dict[str, Any] = {"vector": data.queries[at], "where": where}
        if kind == "vector":
            return asked
        return {**asked, "text": data.questions[at], **hybrid_options(k)}

    def _parameters(self, number: int) -> dict[str, Any]:
        data = self._group.loaded.data
        at = number % len(data.queries)
        text = byhand.any_word(data.questions[at])
        where = Jsonb(self._group.where(number))
        return {"vector": data.queries[at], "text": text, "where": where}


def _plans(loaded: Loaded, is_filtered: bool) -> list[Plan]:
    scans = [
        byhand.hnsw(loaded, filtered=is_filtered, mode=mode, ef=ef)
        for mode in ("off", "relaxed", "strict")
        for ef in EFS
    ]
    return [byhand.exact(loaded, filtered=is_filtered), *scans]


def _beside(subject: Sequence[float], baseline: Sequence[float]) -> float:
    # Of the medians: whoever is second with a query finds it warm, so pairs have two ratios.
    return statistics.median(subject) / statistics.median(baseline)


def lines(found: Sequence[Cell]) -> list[str]:
    """Return the grid as lines: the cells, and what all of them say together."""
    head = (
        f"{'rows that pass':<15}{'search':<8}{'k':>6}{'match':>9}{'rows':>6}{'recall':>8}"
        f"{'p50 ms':>9}{'by hand':>9}{'ratio':>7}  {'fastest by hand':<22}{'ours':<24}verdict"
    )
    nulls = sorted(cell.null for cell in found)
    edge = len(nulls) // 10
    band = f"{nulls[edge]:.2f}-{nulls[-1 - edge]:.2f}" if nulls else ""
    short = sum(cell.ours.missing > 0 for cell in found)
    recall = sum(cell.ours.recall < cell.least for cell in found)
    slow = sum(cell.ratio > cell.most for cell in found)
    return [
        head,
        *map(_line, found),
        f"{len(found)} cells: {short} short of rows, {recall} of recall, {slow} too slow",
        f"null band (the fastest by hand beside itself, four cells in five): {band}",
    ]


def _line(cell: Cell) -> str:
    ratio = f"{cell.ratio:.2f}" if cell.baseline else "-"
    problems = [
        *([f"MISSED {cell.ours.missing} rows"] if cell.ours.missing else []),
        *([f"MISSED recall {cell.least:g}"] if cell.ours.recall < cell.least else []),
        *([f"MISSED {cell.most:.2f}x"] if cell.ratio > cell.most else []),
    ]
    verdict = ", ".join(problems) or "met"
    return (
        f"{cell.share:<15}{cell.kind:<8}{cell.k:>6,}{cell.matching:>9,}{cell.ours.rows:>6,}"
        f"{cell.ours.recall:>8.3f}{cell.milliseconds:>9.2f}{cell.baseline:>9.2f}{ratio:>7}  "
        f"{cell.plan:<22}{cell.strategy:<24}{verdict}"
    )
