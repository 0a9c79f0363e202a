"""What a store remembers between searches: collections, sizes of filters, compiled statements.

All of it only makes searches faster. A statement checks what it was built on, and what is
remembered of sizes decides between ways that return the same rows.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

from ragstore.collection import CollectionInfo
from ragstore.search.prepared import Prepared
from ragstore.search.statement import Form

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

COLLECTION_SECONDS = 5.0
"""How long a collection is searched as it was found: longer, and a new index would not be used."""

FILTER_SECONDS = 60.0
"""How long it is believed how many chunks pass a filter."""


class Remembered(Generic[K, V]):
    """A mapping of bounded size whose entries are forgotten after some seconds, safe in threads."""

    def __init__(
        self,
        most: int,
        seconds: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._lock = Lock()
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return what was put there, unless it is too old or was crowded out."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            until, value = found
            if until <= self._clock():
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Keep a value, in place of the one least recently used if there are too many."""
        with self._lock:
            self._entries[key] = (self._clock() + self._seconds, value)
            self._entries.move_to_end(key)
            if len(self._entries) > self._most:
                self._entries.popitem(last=False)

    def __len__(self) -> int:
        """Return how many there are, too old ones included."""
        return len(self._entries)


class Memory:
    """What one store remembers; its threads and tasks share it."""

    def __init__(self) -> None:
        self.collections: Remembered[str, CollectionInfo] = Remembered(1_024, COLLECTION_SECONDS)
        self.filters: Remembered[int, tuple[int, bool]] = Remembered(4_096, FILTER_SECONDS)
        self.statements: Remembered[Hashable, tuple[Form, Prepared]] = Remembered(512)
