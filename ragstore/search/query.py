"""A search as it was asked, and the operation that answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select

from ragstore.collection import CollectionInfo, find_collection
from ragstore.exceptions import InvalidQuery
from ragstore.execution import Operation, compiled
from ragstore.search.filter import Where, condition
from ragstore.search.hits import hits, of_matching, of_nearest
from ragstore.search.hybrid import fused
from ragstore.search.result import Hit, SearchResult
from ragstore.search.text import matching, word_count
from ragstore.search.vector import nearest

MAX_K = 1_000
"""The most hits of one search."""

MAX_OFFSET = 10_000
"""The furthest a search can skip: everything skipped is ranked all the same."""

ARM_SIZE = 1_000
"""The fewest candidates of each arm of a hybrid search.

They are the same for every page up to here: candidates that grew with the page would change the
scores from one page to the next, and hits would be shown twice or never.
"""

_EXACT = "every vector of the collection was compared"


@dataclass(frozen=True)
class Search:
    """What was asked: a text, a vector or both, and how many of the best to return."""

    text: str | None = None
    vector: Sequence[float] | None = None
    k: int = 10
    offset: int = 0
    where: Where | None = None

    def __post_init__(self) -> None:
        """Refuse a search that asks for nothing, for more than it may, or by what is no filter."""
        if self.text is None and self.vector is None:
            raise InvalidQuery("there is nothing to search for: give text=, vector= or both")
        _check_range("k", self.k, 1, MAX_K)
        _check_range("offset", self.offset, 0, MAX_OFFSET)
        if self.where is not None:
            condition(self.where)  # also for a text without words, which sends no statement

    def on(self, name: str) -> Operation[SearchResult]:
        """Answer the search on the collection of that name.

        Raises:
            CollectionNotFound, SpaceNotReady: there is nothing to search.
            InvalidVector, InvalidFilter, InvalidText: the search cannot be sent.
        """
        collection = yield from find_collection(name)
        if self.text is None:
            return (yield from self._by_vector(collection, _EXACT))
        has_words = yield from _has_words(collection, self.text)
        if self.vector is None:
            return (yield from self._by_text(collection, has_words=has_words))
        if has_words:
            return (yield from self._by_both(collection))
        reason = f"the text has no words to search for, so the vector alone was; {_EXACT}"
        return (yield from self._by_vector(collection, reason))

    def _by_vector(self, collection: CollectionInfo, reason: str) -> Operation[SearchResult]:
        metric = collection.require_space().metric
        arm = self._vector_arm(collection, self.k + self.offset)
        ranked = of_nearest(arm, metric, limit=self.k, offset=self.offset)
        return (yield from _answer(collection, ranked, "vector", reason))

    def _by_text(self, collection: CollectionInfo, *, has_words: bool) -> Operation[SearchResult]:
        if not has_words:
            reason = "the text has no words to search for: only stop words or punctuation"
            return SearchResult((), strategy="text", reason=reason)
        arm = self._text_arm(collection, self.k + self.offset)
        ranked = of_matching(arm, limit=self.k, offset=self.offset)
        return (yield from _answer(collection, ranked, "text", "a text and no vector was given"))

    def _by_both(self, collection: CollectionInfo) -> Operation[SearchResult]:
        size = max(ARM_SIZE, self.k + self.offset)
        ranked = fused(
            self._vector_arm(collection, size),
            self._text_arm(collection, size, any_word=True),
            limit=self.k,
            offset=self.offset,
        )
        reason = f"a text and a vector were given; {_EXACT}"
        return (yield from _answer(collection, ranked, "hybrid", reason))

    def _vector_arm(self, collection: CollectionInfo, limit: int) -> Select[Any]:
        space = collection.require_space()
        vector = self.vector if self.vector is not None else ()
        return nearest(collection.id, space, vector, limit=limit, where=self.where)

    def _text_arm(
        self, collection: CollectionInfo, limit: int, *, any_word: bool = False
    ) -> Select[Any]:
        return matching(
            collection.id,
            collection.language,
            self.text or "",
            limit=limit,
            where=self.where,
            any_word=any_word,
        )


def _answer(
    collection: CollectionInfo, ranked: Select[Any], strategy: str, reason: str
) -> Operation[SearchResult]:
    rows = yield compiled(hits(collection.id, ranked))
    return SearchResult([Hit(*row) for row in rows], strategy=strategy, reason=reason)


def _has_words(collection: CollectionInfo, text: str) -> Operation[bool]:
    rows = yield compiled(word_count(collection.language, text))
    return bool(rows[0][0])


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidQuery(f"{name} is {value!r}: it takes a whole number from {least} to {most}")
