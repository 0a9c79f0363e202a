"""What is stored and searched: real sentences, and vectors in clusters; the same in every run.

The texts are sentences of the Python language reference, put together anew: each chunk mostly of
one topic, so that its words belong together. Their vectors are either made of them by the local
model, or synthetic: 200 centres, and around them noise in all directions, 0.7 of a centre's length.
That is hard for an approximate index, as nothing but the cluster tells neighbours apart.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ragstore.content import NewChunk, NewDocument
from ragstore.quickstart.corpus import read_reference

DIMENSIONS = 384
CENTRES, NOISE = 200, 0.7
CHARACTERS = 500
"""A chunk ends with the sentence that reaches this."""

PER_DOCUMENT = 10
"""Chunks of a document."""

PARTS = {
    "half": 2,
    "twentieth": 20,
    "hundredth": 100,
    "five_hundredth": 500,
    "ten_thousandth": 10_000,
}
"""Keys of the chunks' metadata, and how many values each has: equally many chunks have each."""

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Data:
    """Chunks: their texts, metadata and vectors, and queries like them."""

    texts: Sequence[str]
    metas: Sequence[dict[str, int]]
    vectors: Matrix
    queries: Matrix
    questions: Sequence[str]

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self.texts)

    def documents(
        self, start: int = 0, stop: int | None = None, *, with_vectors: bool = True
    ) -> Iterator[NewDocument]:
        """Yield documents of the chunks from ``start`` to ``stop``."""
        end = len(self) if stop is None else stop
        for first in range(start, end, PER_DOCUMENT):
            numbers = range(first, min(first + PER_DOCUMENT, end))
            chunks = [self.chunk(number, with_vectors=with_vectors) for number in numbers]
            yield NewDocument(key_of(first), chunks, title=self.texts[first][:60])

    def chunk(self, number: int, *, with_vectors: bool = True) -> NewChunk:
        """Return one chunk."""
        vector = self.vectors[number] if with_vectors else None
        return NewChunk(self.texts[number], vector, self.metas[number])

    def where(self, part: str, number: int) -> dict[str, int]:
        """Return a filter by one of the PARTS, another value for each number."""
        return {part: number % min(PARTS[part], len(self))}

    def passes(
        self, where: dict[str, int] | None, numbers: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Tell, of the chunks of those numbers, which a filter lets through."""
        if where is None:
            return np.ones(len(numbers), dtype=bool)
        ((part, value),) = where.items()
        passing: npt.NDArray[np.bool_] = _part(part, len(self))[numbers] == value
        return passing

    def share(self, part: str) -> float:
        """Return the share of the chunks that a filter by one of the PARTS lets through."""
        return 1 / min(PARTS[part], len(self))


def key_of(first: int) -> str:
    """Return the key of the document whose first chunk has that number."""
    return f"document/{first // PER_DOCUMENT:08d}"


@cache
def made(chunks: int, queries: int = 400) -> Data:
    """Return data with synthetic vectors."""
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((CENTRES, DIMENSIONS), dtype=np.float32)

    def around(count: int) -> Matrix:
        noise = chance.standard_normal((count, DIMENSIONS), dtype=np.float32)
        return centres[chance.integers(CENTRES, size=count)] + np.float32(NOISE) * noise

    parts = [_part(name, chunks).tolist() for name in PARTS]
    metas = [dict(zip(PARTS, values, strict=True)) for values in zip(*parts, strict=True)]
    texts = [_text(number) for number in range(chunks)]
    questions = [_question(texts[number * 7919 % chunks], number) for number in range(queries)]
    return Data(texts, metas, around(chunks), around(queries), questions)


@cache
def _part(name: str, chunks: int) -> npt.NDArray[np.int64]:
    seed = list(PARTS).index(name) + 1
    shuffled: npt.NDArray[np.int64] = np.random.default_rng(seed).permutation(chunks)
    return shuffled % PARTS[name]


@cache
def _sentences() -> list[list[str]]:
    """Return the sentences of each topic of the language reference."""
    topics = [" ".join(map(str, document.chunks)) for document in read_reference().documents]
    cut = [re.split(r"(?<=[.!?:])\s+", re.sub(r"\s+", " ", topic)) for topic in topics]
    long = [[each for each in topic if len(each) > 20] for topic in cut]
    return [topic for topic in long if len(topic) >= PER_DOCUMENT]


def _text(number: int) -> str:
    """Return the text of a chunk: three sentences in four are of its document's topic."""
    topics = _sentences()
    chance = random.Random(number)
    own = topics[number // PER_DOCUMENT % len(topics)]
    taken: list[str] = []
    while sum(map(len, taken)) < CHARACTERS:
        taken.append(chance.choice(own if chance.random() < 0.75 else chance.choice(topics)))
    return " ".join(taken)


_RARE = 5  # sentences of the reference that a telling word is in; thousands of chunks have others


@cache
def _frequencies() -> Counter[str]:
    """Return in how many sentences of the reference each word is."""
    return Counter(word for topic in _sentences() for each in topic for word in _words(each))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{5,}", text))


def _question(text: str, number: int) -> str:
    """Return three words of a text that few others have."""
    by_frequency = sorted(_words(text), key=lambda word: (_frequencies()[word], word))
    rare = [word for word in by_frequency if _frequencies()[word] <= _RARE]
    return " ".join(random.Random(number).sample(rare if len(rare) >= 3 else by_frequency[:3], 3))


def changed(document: NewDocument) -> NewDocument:
    """Return a document with another text, and another vector if it has one, in its third chunk."""
    chunks = list(document.chunks)
    at = min(2, len(chunks) - 1)
    old = chunks[at]
    assert isinstance(old, NewChunk)
    vector: Any = None if old.vector is None else np.asarray(old.vector)[::-1].copy()
    chunks[at] = NewChunk(f"{old.text} And this was added.", vector, old.meta)
    return NewDocument(document.key, chunks, document.title, document.meta)
