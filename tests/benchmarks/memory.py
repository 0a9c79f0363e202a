"""The process whose memory ``ingest`` measures: it takes a URL and a number of chunks.

Documents are made one by one as ingest asks for them, so that what grows is ingest's. A first
document opens the connection and loads what is loaded once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ragstore.connection import DatabaseConnection
from ragstore.content import NewChunk, NewDocument
from ragstore.store import Store
from tests.benchmarks.data import DIMENSIONS, PER_DOCUMENT

NAME = "memory"
STATUS = Path("/proc/self/status")


def documents(chunks: int) -> Iterator[NewDocument]:
    """Yield documents that nobody keeps."""
    chance = np.random.default_rng(0)
    for number in range(0, chunks, PER_DOCUMENT):
        vectors = chance.standard_normal((PER_DOCUMENT, DIMENSIONS), dtype=np.float32)
        texts = [f"{number + at} " + "some words to fill a chunk with " * 16 for at in range(10)]
        new = [NewChunk(text, row, {"n": number}) for text, row in zip(texts, vectors, strict=True)]
        yield NewDocument(f"document/{number}", new)


def main(url: str, chunks: int) -> None:
    """Ingest, and print by how many megabytes the highest use exceeds that of before."""
    with DatabaseConnection(url) as connection:
        store = Store(connection)
        store.ingest(NAME, documents(PER_DOCUMENT))
        Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
        before = _kilobytes("VmRSS")
        store.ingest(NAME, documents(chunks))
        print(json.dumps({"megabytes": (_kilobytes("VmHWM") - before) / 1024}))


def _kilobytes(name: str) -> int:
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[name].split()[0])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
