"""The right answers: every vector measured in memory, and both arms of a hybrid search exact."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.byhand import RRF
from tests.benchmarks.loading import Loaded

Ids = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.floating[Any]]

TOLERANCE = 1e-6
"""Cosines that differ by less are equal: the server adds up in another order."""


class Right:
    """What every chunk really scores, of those that pass."""

    def __init__(self, ids: Ids, scores: Numbers, tolerance: float = TOLERANCE) -> None:
        """Take ids in ascending order, and the score of each."""
        self._ids, self._scores, self._tolerance = ids, scores, tolerance
        self._least: dict[int, float] = {}

    def best(self, k: int) -> Ids:
        """Return the ids of the ``k`` highest scores; of equal ones, the lower id is first."""
        at = np.flatnonzero(self._scores >= self._least_of(k)) if len(self._ids) else self._ids
        order = np.lexsort((self._ids[at], -self._scores[at]))[:k]
        return self._ids[at][order]

    def recall(self, found: Sequence[int], k: int) -> float:
        """Return how many of the first ``k`` found are no worse than the ``k``-th best."""
        expected = min(k, len(self._ids))
        if not expected:
            return 1.0
        first = np.array(found[:expected], dtype=np.int64)
        at = np.searchsorted(self._ids, first).clip(max=len(self._ids) - 1)
        passes = self._ids[at] == first
        good = passes & (self._scores[at] >= self._least_of(k) - self._tolerance)
        return float(good.sum()) / expected

    def _least_of(self, k: int) -> float:
        """Return the score of the ``k``-th best, or of the last."""
        at = len(self._ids) - min(k, len(self._ids))
        if at not in self._least:
            self._least[at] = float(np.partition(self._scores, at)[at])
        return self._least[at]


def nearest(loaded: Loaded, number: int, where: dict[str, int] | None) -> Right:
    """Return the cosines of the chunks that pass a filter to a query."""
    at = np.flatnonzero(loaded.data.passes(where, loaded.numbers))
    query = loaded.data.queries[number % len(loaded.data.queries)]
    return Right(loaded.ids[at], _normal(loaded)[at] @ (query / np.linalg.norm(query)))


def fused(near: Right, texts: Sequence[int], candidates: int) -> Right:
    """Return the fused scores of the candidates, of which each arm has so many."""
    scores: dict[int, float] = {}
    for arm in (near.best(candidates).tolist(), texts[:candidates]):
        for rank, id_ in enumerate(arm, 1):
            scores[id_] = scores.get(id_, 0.0) + 1 / (RRF + rank)
    ids = np.array(sorted(scores), dtype=np.int64)
    return Right(ids, np.array([scores[id_] for id_ in ids.tolist()]), tolerance=1e-12)


def _normal(loaded: Loaded) -> npt.NDArray[np.float32]:
    key = loaded.name, loaded.id
    if key not in _normals():
        vectors = loaded.vectors
        _normals()[key] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return _normals()[key]


@cache
def _normals() -> dict[tuple[str, int], npt.NDArray[np.float32]]:
    return {}
