"""The right answers: every vector measured in memory, and both arms of a hybrid search exact."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tests.benchmarks.byhand import RRF
from tests.benchmarks.loading import Loaded

Ids = npt.NDArray[np.int64]

TOLERANCE = 1e-6
"""Cosines that differ by less are equal: the server adds up in another order."""


def matching(loaded: Loaded, where: dict[str, int] | None) -> Ids:
    """Return the positions in ``loaded`` of the chunks that a filter lets through."""
    passing = np.isin(loaded.numbers, loaded.data.matching(where), assume_unique=True)
    return np.flatnonzero(passing)


def similarities(loaded: Loaded, number: int, where: dict[str, int] | None) -> dict[int, float]:
    """Return the cosine of every chunk that passes, by its id."""
    at = matching(loaded, where)
    query = loaded.data.queries[number % len(loaded.data.queries)]
    near = _normal(loaded)[at] @ (query / np.linalg.norm(query))
    return dict(zip(loaded.ids[at].tolist(), near.tolist(), strict=True))


def best(scores: Mapping[int, float | Fraction], k: int) -> list[int]:
    """Return the ids of the ``k`` highest scores; of equal ones, the lower id is first."""
    return heapq.nsmallest(k, scores, key=lambda id_: (-scores[id_], id_))


def fused(
    near: Mapping[int, float], texts: Sequence[int], candidates: int
) -> Mapping[int, Fraction]:
    """Return the fused score of every candidate: both arms exact, and so is the arithmetic."""
    scores: dict[int, Fraction] = {}
    for arm in (best(near, candidates), texts[:candidates]):
        for rank, id_ in enumerate(arm, 1):
            scores[id_] = scores.get(id_, Fraction(0)) + Fraction(1, RRF + rank)
    return scores


def recall(found: Sequence[int], scores: Mapping[int, float | Fraction], k: int) -> float:
    """Return how many of the first ``k`` found are among the ``k`` best; equal ones all count."""
    expected = min(k, len(scores))
    if not expected:
        return 1.0
    least = scores[best(scores, expected)[-1]] - TOLERANCE
    good = sum(id_ in scores and scores[id_] >= least for id_ in found[:expected])
    return good / expected


_normals: dict[str, npt.NDArray[np.float32]] = {}


def _normal(loaded: Loaded) -> npt.NDArray[np.float32]:
    if loaded.name not in _normals:
        vectors = loaded.vectors
        _normals[loaded.name] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return _normals[loaded.name]
