"""The embedding model is switched while readers ask and writers write."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ragstore import DatabaseConnection, NewDocument, Store, exceptions

if TYPE_CHECKING:
    from typing_extensions import Self

ANCHORS, MOVING, CHUNKS = 250, 250, 6
MODELS = {"old": 24, "new": 32}
Vectors = Any


def embed(space: str, texts: list[str]) -> Vectors:
    """Give each text a direction of its own in the space."""
    dimensions = MODELS[space]
    seeds = [zlib.crc32(f"{space} {text}".encode()) for text in texts]
    rows = [np.random.default_rng(seed).normal(size=dimensions) for seed in seeds]
    return np.array(rows, dtype=np.float32).reshape(len(texts), dimensions)


class Reader:
    """Asks for a chunk that is never changed, by the model of the space the collection is in."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.answers = self.short = self.wrong = 0
        self.slowest = 0.0

    def step(self) -> None:
        """Ask once; again if the collection switched between the look and the search."""
        text = f"anchor {self.random.randrange(ANCHORS)} {self.random.randrange(CHUNKS)}"
        started = time.perf_counter()
        while True:
            space = self.space()
            try:
                hits = self.store.search("c", vector=embed(space, [text])[0], k=10)
                break
            except exceptions.DimensionMismatch:
                assert self.space() != space
        self.slowest = max(self.slowest, time.perf_counter() - started)
        self.answers += 1
        self.short += len(hits) != 10
        self.wrong += hits[0].text != text

    def space(self) -> str:
        """Return the name of the space that searches use."""
        space = self.store.collection("c").space
        assert space is not None
        return space.name


class Writer:
    """Replaces, adds and deletes documents of its own, and remembers what must be there."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.random = random.Random(name)
        self.there: dict[str, list[str]] = {}
        self.writes = self.refused = 0

    def step(self) -> None:
        """Write once; again with the other model if the collection switched meanwhile."""
        key = f"{self.name} {self.random.randrange(MOVING)}"
        if key in self.there and self.random.random() < 0.2:
            with self.store.connection.transaction() as cursor:
                cursor.execute("DELETE FROM ragstore_document WHERE key = %s", [key])
            del self.there[key]
        else:
            texts = [f"{key} {self.writes} {at}" for at in range(self.random.randrange(1, CHUNKS))]
            self.ingest(NewDocument(key, texts))
            self.there[key] = texts
        self.writes += 1

    def ingest(self, document: NewDocument) -> None:
        """Store a document, with vectors of the model that the collection is in."""
        while True:
            space = self.store.collection("c").space
            assert space is not None
            try:
                self.store.ingest("c", [document], embed=partial(embed, space.name))
            except (exceptions.SpaceChanged, exceptions.DimensionMismatch):
                self.refused += 1
            else:
                return


class Load:
    """Threads that step until they are stopped; what one raises is kept."""

    def __init__(self, steps: list[Callable[[], None]]) -> None:
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[step]) for step in steps]

    def _run(self, step: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                step()
        except BaseException as exc:  # noqa: BLE001 - the test shows it
            self.errors.append(exc)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


STORED = """
SELECT d.key, c.text, e.vector::text FROM ragstore_document d
JOIN ragstore_chunk c ON c.collection_id = d.collection_id AND c.document_id = d.id
LEFT JOIN ragstore_embedding e ON e.collection_id = c.collection_id AND e.chunk_id = c.id
  AND e.space_id = %s
WHERE d.collection_id = %s ORDER BY d.key, c.ordinal
"""


def check_stored(store: Store, expected: dict[str, list[str]]) -> None:
    """Compare every chunk and its vector in the active space with what was written."""
    collection = store.collection("c")
    assert collection.space is not None
    with store.connection.transaction() as cursor:
        rows = cursor.execute(STORED, [collection.space.id, collection.id]).fetchall()
    found: dict[str, list[str]] = {}
    for key, text, vector in rows:
        found.setdefault(key, []).append(text)
        assert vector is not None, text
        stored = np.fromstring(vector.strip("[]"), sep=",", dtype=np.float32)
        assert np.allclose(stored, embed(collection.space.name, [text])[0]), text
    assert found == expected


def test_switch_under_readers_and_writers(connection: DatabaseConnection) -> None:
    """No answer fails or is short, no write is lost, and each chunk has the new model's vector."""
    store = Store(connection)
    for name, dimensions in MODELS.items():
        store.create_space(name, model=name, dimensions=dimensions, exact_limit=1_000)
    store.create_collection("c", space="old")
    anchors = {
        f"anchor {at}": [f"anchor {at} {part}" for part in range(CHUNKS)] for at in range(ANCHORS)
    }
    filling = [NewDocument(key, texts) for key, texts in anchors.items()]
    store.ingest("c", filling, embed=partial(embed, "old"))
    readers = [Reader(store, seed) for seed in range(2)]
    writers = [Writer(store, name) for name in ("left", "right")]

    def slow(texts: list[str]) -> Vectors:
        time.sleep(0.05)
        return embed("new", texts)

    with Load([each.step for each in (*readers, *writers)]) as load:
        time.sleep(0.5)
        report = store.reembed("c", to="new", embed=slow, batch_size=100, sample=5)
        before = sum(writer.writes for writer in writers)
        time.sleep(0.5)
    after = sum(writer.writes for writer in writers)

    if load.errors:
        raise load.errors[0]
    assert report.switched
    assert report.index is not None
    assert report.index.state == "built"
    assert after > before > 0
    assert sum(reader.answers for reader in readers) > 20
    assert [(reader.short, reader.wrong) for reader in readers] == [(0, 0)] * 2
    expected = dict(anchors)
    for writer in writers:
        expected.update(writer.there)
    check_stored(store, expected)
