"""The right answers: every vector measured in memory, and both arms of a hybrid search exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.benchmarks.loading import Loaded

Ids = npt.NDArray[np.int64]


def matching(loaded: Loaded, where: dict[str, int] | None) -> Ids:
    """Return the positions in ``loaded`` of the chunks that a filter lets through."""
    passing = np.isin(loaded.numbers, loaded.data.matching(where), assume_unique=True)
    return np.flatnonzero(passing)


def nearest(loaded: Loaded, number: int, where: dict[str, int] | None, k: int) -> Ids:
    """Return the ids of the ``k`` nearest chunks that pass, by cosine distance, the best first."""
    at = matching(loaded, where)
    query = loaded.data.queries[number % len(loaded.data.queries)]
    near = _normal(loaded.name, loaded)[at] @ (query / np.linalg.norm(query))
    order = np.lexsort((loaded.ids[at], -near))[:k]
    return loaded.ids[at][order]


_normals: dict[str, npt.NDArray[np.float32]] = {}


def _normal(name: str, loaded: Loaded) -> npt.NDArray[np.float32]:
    if name not in _normals:
        vectors = loaded.vectors
        _normals[name] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return _normals[name]
