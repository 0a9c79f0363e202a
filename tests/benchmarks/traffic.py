"""The readers and writers of ``switch``: a process that searches and ingests until told to stop.

It prints ``ready``, takes a word for each phase on standard input, and after ``stop`` prints, as
JSON, what every read and write met. Readers look for chunks that are known to be there, by their
own vector: the chunk must be the first hit, and there must be K of them.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

from ragstore.connection import DatabaseConnection
from ragstore.content import NewDocument
from ragstore.exceptions import RagstoreError, SpaceChanged
from ragstore.space import Space
from ragstore.store import Store
from tests.benchmarks.twomodels import NEW, OLD, embedder

NAME = "switched"
K = 10
READERS, WRITERS = 2, 2
KEYS = 200
"""Documents of each writer: written anew again and again."""

STOP = "stop"


@dataclass
class Met:
    """What the threads met."""

    reads: dict[str, list[float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    short: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    writes: dict[str, list[float]] = field(default_factory=dict)
    written: dict[str, list[str]] = field(default_factory=dict)
    refused: int = 0
    unwritten: list[str] = field(default_factory=list)


class Traffic:
    """The threads, and the phase they are in."""

    def __init__(self, store: Store, texts: list[str]) -> None:
        self.phase = "before"
        self.met = Met()
        self._store, self._texts = store, texts
        self._embedders = {model: embedder(model) for model in (OLD, NEW)}
        self._lock = threading.Lock()
        self._threads = [
            *(threading.Thread(target=self._each, args=(self._read, n)) for n in range(READERS)),
            *(threading.Thread(target=self._each, args=(self._write, n)) for n in range(WRITERS)),
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every thread end what it does."""
        self.phase = STOP
        for thread in self._threads:
            thread.join()

    def _each(self, work: Callable[[random.Random, int, int], None], number: int) -> None:
        chance, count = random.Random(number), 0
        while self.phase != STOP:
            work(chance, number, count)
            count += 1

    def _embed(self, texts: list[str]) -> Any:
        """Make vectors by the model that the collection has now.

        Ingest has looked the collection up before it calls this, and looks again before it writes:
        if the model is another one by then, it refuses the batch.
        """
        space = self._store.collection(NAME).require_space()
        return self._embedders[space.name](texts)

    def _made(self, space: Space, text: str) -> Any:
        """Return the vector of a text in the space that is searched."""
        return self._embedders[space.name]([text])[0]

    def _read(self, chance: random.Random, _number: int, _count: int) -> None:
        text, phase, begun = chance.choice(self._texts), self.phase, perf_counter()
        try:
            hits = self._store.search(NAME, vector=lambda space: self._made(space, text), k=K)
        except RagstoreError as exc:
            self.met.failed.append(f"{type(exc).__name__}: {exc}")
            return
        seconds = perf_counter() - begun
        with self._lock:
            self.met.reads.setdefault(phase, []).append(seconds)
            self.met.short += len(hits) < K
            is_wrong = not hits or hits[0].text != text
            self.met.wrong[phase] = self.met.wrong.get(phase, 0) + is_wrong

    def _write(self, chance: random.Random, number: int, count: int) -> None:
        key = f"writer {number}/{chance.randrange(KEYS)}"
        texts = [f"{key}, time {count}, part {part}" for part in range(3)]
        phase, begun = self.phase, perf_counter()
        try:
            self._ingest(NewDocument(key, texts))
        except RagstoreError as exc:
            self.met.unwritten.append(f"{type(exc).__name__}: {exc}")
            return
        with self._lock:
            self.met.writes.setdefault(phase, []).append(perf_counter() - begun)
            self.met.written[key] = texts

    def _ingest(self, document: NewDocument, tries: int = 5) -> None:
        """Store a document, and once more where the collection has switched meanwhile."""
        try:
            self._store.ingest(NAME, [document], embed=self._embed)
        except SpaceChanged:
            self.met.refused += 1
            if not tries:
                raise
            self._ingest(document, tries - 1)


def main(url: str) -> None:
    """Search and write until told to stop."""
    with DatabaseConnection(url, pool_size=READERS + WRITERS) as connection:
        with connection.transaction() as raw:
            rows = raw.execute(
                "SELECT text FROM ragstore_chunk WHERE collection_id = %s ORDER BY id LIMIT 5000",
                [Store(connection).collection(NAME).id],
            ).fetchall()
        traffic = Traffic(Store(connection), [text for (text,) in rows])
        traffic.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for line in sys.stdin:
            if line.strip() == STOP:
                break
            traffic.phase = line.strip()
        traffic.stop()
        json.dump(asdict(traffic.met), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
