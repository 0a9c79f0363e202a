"""The keys of a source, kept so small that a run over millions of documents can hold them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

_SIZE = 8


class SeenKeys:
    """A set of keys in 8 bytes each (a million documents: 8 MB), as hashes under a random key.

    Two keys of one hash (one chance in 18 million millions for each pair) would make it take one
    for seen that was not: a document stays that should have gone, until the next run.
    """

    def __init__(self) -> None:
        self._secret = os.urandom(16)  # so that nobody can make two keys of one hash
        self._hashes = bytearray()
        self._sorted: npt.NDArray[np.uint64] | None = None

    def add(self, keys: Iterable[str]) -> None:
        """Add keys."""
        self._hashes += self._digests(keys)
        self._sorted = None

    def missing(self, documents: Sequence[tuple[int, str]]) -> list[int]:
        """Return the ids of those documents, given with their keys, whose key was not seen."""
        if self._sorted is None:
            self._sorted = np.unique(np.frombuffer(bytes(self._hashes), dtype=np.uint64))
        hashes = np.frombuffer(self._digests(key for _, key in documents), dtype=np.uint64)
        # Looked up: np.isin would sort all of them anew for each page.
        first = np.searchsorted(self._sorted, hashes)
        behind = np.searchsorted(self._sorted, hashes, side="right")
        seen = first < behind
        return [id_ for (id_, _), is_seen in zip(documents, seen, strict=True) if not is_seen]

    def _digests(self, keys: Iterable[str]) -> bytes:
        return b"".join(
            blake2b(
                key.encode(errors="surrogatepass"), digest_size=_SIZE, key=self._secret
            ).digest()
            for key in keys
        )
