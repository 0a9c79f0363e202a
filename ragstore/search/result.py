"""What a search returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, overload


class Passage(NamedTuple):
    """A chunk beside a hit's, in the same document."""

    ordinal: int
    chunk_id: int
    text: str


@dataclass(frozen=True)
class Hit:
    """One chunk that was found, its document, and how each arm of the search ranked it.

    ``score`` grows with relevance and compares within one search. ``distance`` is the space's, for
    chunks of the vector arm; ``text_score`` is Postgres's ts_rank_cd, for those of the text arm.
    Ranks start at 1; an arm that did not find the chunk has none. ``before`` and ``after`` are the
    neighbours, and ``highlight`` the matching passages, of a search that asked for them; ``text``
    is empty in one that did not want it.
    """

    score: float
    document_key: str
    title: str | None
    chunk_id: int
    ordinal: int
    text: str
    meta: dict[str, Any]
    vector_rank: int | None
    distance: float | None
    text_rank: int | None
    text_score: float | None
    before: tuple[Passage, ...] = ()
    after: tuple[Passage, ...] = ()
    highlight: str | None = None


_OF_ROW = tuple(each.name for each in fields(Hit))[:11]
_decoded = json.JSONDecoder().raw_decode


def hit_of(row: Sequence[Any], **more: Any) -> Hit:
    """Return the hit of a row that has the first eleven fields in their order, ``meta`` as JSON.

    A frozen dataclass sets each field through a call, and the driver's reading of JSON is three
    times as long: for a thousand hits, together most of the time.
    """
    hit = object.__new__(Hit)
    values = hit.__dict__
    values.update(zip(_OF_ROW, row))  # noqa: B905 - the row may have more
    values["meta"] = _decoded(values["meta"])[0]
    values.update(more)
    return hit


class SearchResult(Sequence[Hit]):
    """The hits of a search, the best first, and how they were found.

    ``strategy`` is ``vector``, ``text`` or ``hybrid``, as it was run. ``scan`` is how vectors were
    searched: ``exact`` (each of the collection), ``filter`` (each that passes the filter),
    ``own_index`` or ``space_index``; None without vectors. ``reason`` says why both, and what was
    left out. ``plan`` is what the server did, if the search asked to explain it.
    """

    def __init__(
        self,
        hits: Sequence[Hit],
        *,
        strategy: str,
        reason: str,
        scan: str | None = None,
        plan: str | None = None,
    ) -> None:
        self._hits = tuple(hits)
        self.strategy = strategy
        self.scan = scan
        self.reason = reason
        self.plan = plan

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        """Return a hit, or a slice of them."""
        return self._hits[index]

    def __len__(self) -> int:
        """Return how many hits there are."""
        return len(self._hits)

    def __repr__(self) -> str:
        """Return the strategy and the number of hits, without their text."""
        return f"<SearchResult {self.strategy}: {len(self)} hits>"
