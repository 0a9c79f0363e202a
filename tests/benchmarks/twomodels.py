"""Two embedding models that any process can compute: a text's vector is drawn from its checksum.

A vector of the one means nothing to the other, so that an answer by the wrong one shows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tests.benchmarks.data import CENTRES, DIMENSIONS, NOISE

OLD, NEW = "old", "new"
"""The models, and the spaces that hold their vectors."""

Matrix = npt.NDArray[np.float32]


def embedder(model: str) -> Callable[[list[str]], Matrix]:
    """Return the function that makes one model's vectors: in clusters, as ``data`` has them."""
    salt = zlib.crc32(model.encode())
    shape = CENTRES, DIMENSIONS
    centres = np.random.default_rng(salt).standard_normal(shape, dtype=np.float32)

    def embed(texts: list[str]) -> Matrix:
        made = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in zip(made, texts, strict=True):
            seed = zlib.crc32(text.encode(), salt)
            chance = np.random.default_rng(seed)
            noise = chance.standard_normal(DIMENSIONS, dtype=np.float32)
            row[:] = centres[seed % CENTRES] + np.float32(NOISE) * noise
        return made

    return embed
