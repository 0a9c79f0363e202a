"""Taking turns: every arm of a comparison runs once in each round, in another order each time."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter

from tests.benchmarks.table import shuffled

BLOCKS = 10
"""Calls of a millisecond are too short to be compared one by one: medians of so many blocks are."""

Times = dict[str, list[float]]


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begun = perf_counter()
    work()
    return perf_counter() - begun


def interleaved(arms: Mapping[str, Callable[[int], object]], rounds: int, warm: int = 0) -> Times:
    """Call each arm with the number of each round, and return their seconds; ``warm`` go unseen."""
    times: Times = {name: [] for name in arms}
    for number, order in enumerate(shuffled(list(arms), warm + rounds)):
        for name in order:
            begun = perf_counter()
            arms[name](number)
            times[name].append(perf_counter() - begun)
    return {name: seconds[warm:] for name, seconds in times.items()}


async def interleaved_async(
    arms: Mapping[str, Callable[[int], Awaitable[object]]], rounds: int, warm: int = 0
) -> Times:
    """Await each arm as ``interleaved`` calls it."""
    times: Times = {name: [] for name in arms}
    for number, order in enumerate(shuffled(list(arms), warm + rounds)):
        for name in order:
            begun = perf_counter()
            await arms[name](number)
            times[name].append(perf_counter() - begun)
    return {name: seconds[warm:] for name, seconds in times.items()}


def blocks(seconds: Sequence[float], count: int = BLOCKS) -> list[float]:
    """Return the medians of successive blocks."""
    size = max(1, len(seconds) // count)
    parts = [seconds[at : at + size] for at in range(0, size * min(count, len(seconds)), size)]
    return [statistics.median(part) for part in parts]
