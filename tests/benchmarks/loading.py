"""Data in the store: loaded once, indexed, analyzed, and its chunks' ids by their numbers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from ragstore.space import Space
from tests.benchmarks.bench import Bench
from tests.benchmarks.data import DIMENSIONS, PER_DOCUMENT, Data, made

MAIN = "main"
"""The collection that has its space to itself."""


@dataclass(frozen=True)
class Loaded:
    """One collection in the store; ``numbers[i]`` of the data is stored under ``ids[i]``."""

    name: str
    id: int
    space: Space
    data: Data
    numbers: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """Return the vectors in the order of ``ids``."""
        return self.data.vectors[self.numbers]


def load(bench: Bench, chunks: int) -> Loaded:
    """Load the main collection and its index, or return what an earlier call loaded."""
    data = made(chunks)
    known = {name for (name,) in bench.execute("SELECT name FROM ragstore_collection")}
    if MAIN not in known:
        space = bench.space(MAIN, DIMENSIONS)
        bench.collection(MAIN, space)
        with told(f"loading {chunks:,} chunks"):
            bench.store.ingest(MAIN, data.documents())
        finish(bench, space)
    return found(bench, MAIN, data)


def load_many(bench: Bench, chunks: int, collections: int) -> Loaded:
    """Load equal collections into one space; return the middle one of them."""
    data, prefix = made(chunks), f"one_of_{collections}"
    space = bench.space(prefix, DIMENSIONS)
    share = chunks // collections
    with told(f"loading {collections:,} collections of {share:,} chunks"):
        for number in range(collections):
            bench.collection(f"{prefix}_{number}", space)
            documents = data.documents(number * share, (number + 1) * share)
            bench.store.ingest(f"{prefix}_{number}", documents)
    finish(bench, space, whole=True)
    return found(bench, f"{prefix}_{collections // 2}", data)


def finish(bench: Bench, space: Space, *, whole: bool = False) -> None:
    """Build the indexes a space is due, with ``whole`` also the one over all of it; analyze."""
    with told(f"building the index of {space.name}"):
        if hasattr(bench.store, "ensure_indexes"):
            bench.store.ensure_indexes(space.name, whole=whole)
        else:
            bench.execute(
                f"CREATE INDEX IF NOT EXISTS {space.partition}_ann ON {space.partition}"
                f" USING hnsw ((vector::halfvec({space.dimensions})) halfvec_cosine_ops)"
            )
    bench.execute("VACUUM (ANALYZE)")


def found(bench: Bench, name: str, data: Data) -> Loaded:
    """Return a collection that is in the store."""
    collection = bench.store.collection(name)
    rows = bench.execute(
        "SELECT d.key, c.ordinal, c.id FROM ragstore_document d JOIN ragstore_chunk c"
        " ON c.collection_id = d.collection_id AND c.document_id = d.id"
        f" WHERE d.collection_id = {collection.id:d} ORDER BY c.id"
    )
    numbers = [int(key.rpartition("/")[2]) * PER_DOCUMENT + ordinal for key, ordinal, _ in rows]
    ids = np.array([id_ for *_, id_ in rows], dtype=np.int64)
    return Loaded(name, collection.id, collection.require_space(), data, np.array(numbers), ids)


class told:  # noqa: N801 - it is used as a function
    """Tell, on standard error, what takes so long."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._begun = perf_counter()
        sys.stderr.write(f"{self._what} …")
        sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        sys.stderr.write(f" {perf_counter() - self._begun:.1f} s\n")
