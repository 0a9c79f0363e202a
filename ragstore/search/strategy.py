"""Which way to the nearest vectors: decided from sizes, before anything is sent.

Costs are in units of one vector compared exactly, 0.6 µs of the server's time at 384 dimensions;
the others were measured beside it (100,000 vectors). They need not be right, only their order:
whatever is chosen returns the same rows, or is found short and done again exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Scan = Literal["exact", "filter", "own_index", "space_index"]
"""How vectors are searched: all of the collection, all that pass the filter, or by an index."""

MAX_EF_SEARCH = 1_000
"""pgvector's limit: the most candidates that an index gives at once."""

DEFAULT_EF_SEARCH = 40
"""pgvector's own; recall@10 of 0.99 on 100,000 vectors in clusters, in a graph ragstore builds."""

_START = 1_100
"""Finding a first neighbour in a graph of 100,000."""

_STEP = 10
"""One more candidate of the index."""

_FILTERED_STEP = 30
"""One more candidate of the index, and its chunk looked up for the filter."""

_FOUND_BY_FILTER = 8
"""A chunk found by a filter, its vector looked up and compared."""

_SURE = 0.011
"""The part of the vectors up to which a filter is searched exactly whatever it costs.

An index that skips 99 of 100 candidates loses neighbours: recall fell to 0.94 at 1 %.
"""

_MOST_SURE = 10_000
"""The most vectors that are compared for being surer alone."""

_WIDTH = 4
"""How many candidates an index gives at once for each that should be needed under a filter."""

_WIDE = 64
"""Up to so many for a filter that keeps more: a tenth of the time more than 40, and recall of 0.99
instead of 0.975 for the nearest of 5 % and of half of 100,000."""

_WIDEST = 400
"""Up to so many where few pass: as sure as comparing each, and faster for a thousand of them. The
nearest of 1 % of 100,000 was found 200 times of 200, in a quarter of the time."""

_LEAST_SCAN = 20_000
"""pgvector's own limit of an iterative scan, in candidates."""


@dataclass(frozen=True)
class Situation:
    """What is known before a search by vector.

    ``size`` vectors are in the collection, estimated beyond ``exact_limit``; the indexes hold so
    many, or are not there (None). ``matching`` chunks pass the filter, as far as is known:
    exactly, or with ``at_least`` set, that many or more. ``need`` is how many are wanted.
    """

    size: int
    exact_limit: int
    own_index: int | None
    space_index: int | None
    need: int
    has_filter: bool = False
    matching: int | None = None
    at_least: bool = False
    must_be_exact: bool = False


@dataclass(frozen=True)
class Strategy:
    """How a search by vector is made, and why.

    With ``limit`` the statement counts what passes the filter, no further than one beyond it, and
    compares these exactly unless there are more; ``scan`` is what it does then. ``ef_search`` is
    how many candidates an index gives at once, unless the search asks for more.
    """

    scan: Scan
    reason: str
    limit: int | None = None
    max_scan: int = _LEAST_SCAN
    ef_search: int = DEFAULT_EF_SEARCH

    @property
    def is_exact(self) -> bool:
        """Tell whether it can miss nothing."""
        return self.scan in ("exact", "filter")


def choose(now: Situation) -> Strategy:
    """Return the strategy for a situation."""
    if now.must_be_exact:
        return _exactly(now, "exact=True was asked for")
    if now.size <= now.exact_limit:
        return Strategy("exact", f"its {now.size:,} vectors are few enough to compare each")
    scan, rows = _index(now)
    if scan is None:
        return _exactly(now, "there is no index that is ready to use")
    if now.has_filter:
        return _with_filter(now, scan, rows)
    if now.size <= _by_index(rows, now.size, now.need, _STEP):
        reason = f"{now.need:,} are wanted of about {now.size:,}, so each was compared"
        return Strategy("exact", reason)
    return Strategy(scan, _NAMES[scan], max_scan=_reach(rows, now.size, now.need))


def _exactly(now: Situation, reason: str) -> Strategy:
    return Strategy("filter" if now.has_filter else "exact", reason)


def _with_filter(now: Situation, scan: Scan, rows: int) -> Strategy:
    most = _most_to_compare(now, rows)
    if now.matching is None or (now.at_least and now.matching <= most):
        reason = f"{_NAMES[scan]}, as the filter keeps more than {most:,}"
        reach = _reach(rows, most, now.need)
        return Strategy(scan, reason, limit=most, max_scan=reach, ef_search=_WIDE)
    is_few = now.matching <= most
    widest = _WIDEST if is_few else _WIDE
    width = math.ceil(_WIDTH * now.need * rows / max(now.matching, 1))
    if is_few and not width <= widest <= now.matching:
        return Strategy("filter", f"the filter keeps about {now.matching:,}, so each was compared")
    why = f"about {now.matching:,} and {now.need:,} is wanted" if is_few else "many"
    return Strategy(
        scan,
        f"{_NAMES[scan]}, as the filter keeps {why}",
        max_scan=_reach(rows, now.matching, now.need),
        ef_search=max(min(width, widest), DEFAULT_EF_SEARCH),
    )


def _index(now: Situation) -> tuple[Scan | None, int]:
    """Return the better index: its own, unless there is none."""
    if now.own_index is not None:
        return "own_index", max(now.own_index, now.size)
    if now.space_index is not None:
        return "space_index", max(now.space_index, now.size)
    return None, 0


def _by_index(rows: int, matching: int, need: int, step: int) -> float:
    """Return the cost of a scan that goes on until it has found ``need`` of ``matching``."""
    return _START + step * max(DEFAULT_EF_SEARCH, need * rows / max(matching, 1))


def _most_to_compare(now: Situation, rows: int) -> int:
    """Return up to how many matches comparing each is cheaper than the index, or surer."""
    cheaper = (
        math.sqrt(_FILTERED_STEP / _FOUND_BY_FILTER * now.need * rows) + _START / _FOUND_BY_FILTER
    )
    surer = min(rows * _SURE, max(now.exact_limit, _MOST_SURE))
    return int(max(cheaper, surer, now.need))


def _reach(rows: int, matching: int, need: int) -> int:
    """Return how far an iterative scan may go: four times as far as it should need."""
    return min(max(_LEAST_SCAN, 4 * need * rows // max(matching, 1)), 2**31 - 1)


_NAMES: dict[Scan, str] = {
    "own_index": "the collection's own index was searched",
    "space_index": "the index of the space was searched",
}
