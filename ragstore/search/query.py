"""A search as it was asked, and the operation that answers it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from ragstore.collection import CollectionInfo
from ragstore.driver import PackedVector
from ragstore.exceptions import InvalidQuery
from ragstore.execution import Numbered, Operation, Row
from ragstore.packing import pack_vector
from ragstore.search.filter import Filter, Where, read
from ragstore.search.memory import Memory
from ragstore.search.prepared import Prepared, prepare
from ragstore.search.result import Hit, Passage, SearchResult, hit_of
from ragstore.search.statement import STATE, Form, Kind, build
from ragstore.search.strategy import (
    DEFAULT_EF_SEARCH,
    MAX_EF_SEARCH,
    Situation,
    Strategy,
    choose,
)
from ragstore.search.text import check_query
from ragstore.space import Space

MAX_K = 1_000
"""The most hits of one search."""

MAX_OFFSET = 10_000
"""The furthest a search can skip: everything skipped is ranked all the same."""

ARM_SIZE = 100
"""The candidates of each arm of a hybrid search, unless it asks for more or skips further.

They are the same for every page up to here: candidates that grew with the page would change the
scores from one page to the next, and hits would be shown twice or never.
"""

DEEP_ARM_SIZE = 1_000
"""The candidates of each arm for the pages beyond."""

MAX_RERANK = 100
"""The most candidates of an index for each one wanted."""

_RERANK_OF_BINARY = 8  # 0.98 of the ten nearest on hard data, of 400 candidates for 40
_LEAST_OF_BINARY = 200

QueryVector = Sequence[float] | np.ndarray[Any, Any] | Callable[[Space], Any]
"""A vector, or what makes it for the space that is searched."""

Weights = Mapping[str, float] | Sequence[float]
"""How much each arm of a hybrid search counts: ``{"vector": 1.0, "text": 0.5}``, or the two."""


@dataclass(frozen=True)
class Search:
    """What was asked: a text, a vector or both, how many of the best, and how to look for them.

    The names are those of the arguments of ``Store.search``, which tells what they mean.
    """

    text: str | None = None
    vector: QueryVector | None = None
    k: int = 10
    offset: int = 0
    where: Where | None = None
    ef_search: int | None = None
    exact: bool = False
    max_distance: float | None = None
    rerank: int | None = None
    per_document: int | None = None
    neighbours: int = 0
    highlight: bool = False
    with_text: bool = True
    weights: Weights | None = None
    candidates: int | None = None
    explain: bool = False
    _filter: Filter | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Refuse a search that asks for nothing, for more than it may, or by what is no filter."""
        if self.text is None and self.vector is None:
            raise InvalidQuery("there is nothing to search for: give text=, vector= or both")
        _check_range("k", self.k, 1, MAX_K)
        _check_range("offset", self.offset, 0, MAX_OFFSET)
        for name, least, most in _RANGES:
            if getattr(self, name) is not None:
                _check_range(name, getattr(self, name), least, most)
        if self.max_distance is not None:
            self._check_distance()
        if self.text is not None:
            check_query(self.text)
        if self.weights is not None:
            self.both_weights  # noqa: B018 - it refuses what are no weights
        if self.where is not None:
            object.__setattr__(self, "_filter", read(self.where))

    def _check_distance(self) -> None:
        if self.vector is None:
            raise InvalidQuery("max_distance= is of the vector arm, and there is no vector")
        if isinstance(self.max_distance, bool) or not isinstance(self.max_distance, int | float):
            raise InvalidQuery(f"max_distance is {self.max_distance!r}: it takes a number")
        if math.isnan(self.max_distance):
            raise InvalidQuery("max_distance is not a number")

    @cached_property
    def both_weights(self) -> tuple[float, float]:
        """Return the weights of the vector arm and of the text arm."""
        given = self.weights
        if given is None:
            return 1.0, 1.0
        if isinstance(given, Mapping):
            for name in given:
                if name not in ("vector", "text"):
                    raise InvalidQuery(f"weights has {name!r:.40}: there are vector and text")
            given = (given.get("vector", 1.0), given.get("text", 1.0))
        pair = _numbers_of(given)
        if len(pair) != 2 or not any(pair) or not all(0 <= each < math.inf for each in pair):
            raise InvalidQuery(
                "weights takes two numbers from 0 up, of vector and text, not both 0"
            )
        return pair[0], pair[1]

    @cached_property
    def kind(self) -> Kind:
        """Return which arms were asked for."""
        if self.vector is None:
            return "text"
        return "vector" if self.text is None else "hybrid"

    @property
    def shape(self) -> tuple[Any, ...]:
        """Return all that the way to search depends on, besides collection and filter."""
        return (
            self.kind,
            self.k,
            self.offset,
            self.exact,
            self.max_distance is None,
            self.rerank,
            self.per_document,
            self.neighbours,
            self.highlight,
            self.with_text,
            self.candidates,
        )

    def on(
        self, target: CollectionInfo, vector: Any, memory: Memory
    ) -> Operation[SearchResult | None]:
        """Answer the search on a collection, with the vector made for its space.

        Returns None if the collection is no longer what ``target`` says: look it up and ask again.

        Raises:
            SpaceNotReady: there is nothing to search.
            InvalidVector: the vector does not fit the space.
        """
        return _Answer(self, target, vector, memory).operation()


class _Answer:
    """One search on one collection: the statement, and a second one if an index gave too little."""

    def __init__(self, asked: Search, target: CollectionInfo, vector: Any, memory: Memory) -> None:
        self.asked = asked
        self.target = target
        self.memory = memory
        self.filter = asked._filter  # noqa: SLF001 - two halves of one thing
        self.space = target.require_space() if asked.kind != "text" else None
        self.need = 0
        self.digits: int | None = None
        self.keeps_plan = self.filter is None
        self.values: dict[str, Any] = {"name": target.name, "language": target.language}
        if self.space is not None:
            self.values["vector"] = PackedVector(pack_vector(self.space, vector))
            self.values["max_distance"] = asked.max_distance
        if asked.text is not None:
            weights = asked.both_weights
            self.values |= {"text": asked.text, "vector_weight": weights[0],
                            "text_weight": weights[1]}  # fmt: skip

    def _need(self) -> int:
        """Return how many chunks each arm is to rank."""
        asked = self.asked
        need = asked.k + asked.offset
        if asked.per_document is not None:
            need = max(4 * need, ARM_SIZE)
        if asked.kind == "hybrid":
            # In a small collection more cost nothing, and its pages fit together to the end.
            size = DEEP_ARM_SIZE if self._is_small() or need > ARM_SIZE else ARM_SIZE
            need = max(need, asked.candidates or size)
        return max(need, asked.candidates or 0)

    def _is_small(self) -> bool:
        return self.target.size is not None and self.target.size <= DEEP_ARM_SIZE

    def operation(self) -> Operation[SearchResult | None]:
        strategy, form, prepared = self._way()
        rows = yield self._filled(prepared, form, strategy)
        if not rows[0][0]:
            return None
        if (again := self._again(strategy, form, rows)) is not None:
            strategy, form = again
            rows = yield self._statement(form, strategy)
            if not rows[0][0]:
                return None
        self._remember(form, rows)
        plan = None
        if self.asked.explain:
            told = yield _explained(self._statement(form, strategy))
            plan = "\n".join(line for (line,) in told)
        return self._result(strategy, form, rows, plan)

    def _way(self) -> _Way:
        """Return how to search; remembered with the collection, for a search without a filter."""
        # Deciding it anew takes longer than all else that is done here for a search.
        shape = self.asked.shape if self.filter is None else None
        known: tuple[int, _Way] | None = self.target.ways.get(shape) if shape else None
        if known is not None:
            self.need, way = known
            return way
        self.need = self._need()
        strategy = self._strategy()
        form = self._form(strategy, self.need)
        way = strategy, form, self._prepared(form)
        if shape is not None and len(self.target.ways) < _MOST_WAYS:
            self.target.ways[shape] = self.need, way
        return way

    def _strategy(self) -> Strategy | None:
        if self.space is None:
            return None
        key = self._filter_key()
        known = self.memory.filters.get(key) if key is not None else None
        matching, at_least = known or (None, False)
        if matching is not None and not at_least:
            self._foresee(matching)
        return choose(
            Situation(
                size=self.target.size or 0,
                exact_limit=self.space.exact_limit,
                own_index=self.target.own_index,
                space_index=self.target.space_index,
                need=self._candidates(self.need),
                has_filter=self.filter is not None,
                matching=matching,
                at_least=at_least,
                must_be_exact=self.asked.exact or self.space.index_type == "none",
            )
        )

    def _foresee(self, matching: int) -> None:
        """Choose the plan that is kept for a filter which is known to keep so many."""
        size = self.target.size or 0
        rare = self.filter.as_rare if self.filter is not None else None
        # The index of the metadata is of all collections: in a small one of many, a value may be
        # rare that others are full of, and only the planner knows.
        is_large = 0 < self.target.chunks <= _LARGE_PART * size
        if rare is not None and is_large and matching * _RARE <= size:
            self.filter = rare
            self.keeps_plan = True
        else:
            self.digits = len(str(matching))

    def _candidates(self, wanted: int) -> int:
        """Return how many an index is asked for, to have so many after they are compared."""
        factor = self.asked.rerank
        if self.space is not None and self.space.index_type == "binary":
            return max(wanted * (factor or _RERANK_OF_BINARY), _LEAST_OF_BINARY)
        return wanted * (factor or 1)

    def _form(self, strategy: Strategy | None, wanted: int | None) -> Form:
        asked = self.asked
        return Form(
            kind=asked.kind,
            collection_id=self.target.id,
            space=self.space,
            scan=strategy.scan if strategy else None,
            probe=strategy.limit if strategy else None,
            wanted=wanted,
            measured=self._candidates(self.need),
            k=asked.k,
            offset=asked.offset,
            has_most=asked.max_distance is not None,
            per_document=asked.per_document,
            with_text=asked.with_text,
            neighbours=asked.neighbours,
            highlight=asked.highlight and asked.text is not None,
            digits=self.digits if strategy and strategy.scan == "filter" else None,
            is_small=asked.text is not None
            and self._is_small()
            and not (strategy and strategy.limit),
        )

    def _statement(self, form: Form, strategy: Strategy | None) -> Numbered:
        return self._filled(self._prepared(form), form, strategy)

    def _filled(self, prepared: Prepared, form: Form, strategy: Strategy | None) -> Numbered:
        chosen = strategy.ef_search if strategy else DEFAULT_EF_SEARCH
        ef_search = max(self.asked.ef_search or chosen, form.measured)
        values = {
            **self.values,
            "ef_search": min(ef_search, MAX_EF_SEARCH),
            "max_scan": strategy.max_scan if strategy else 0,
        }
        # A plan that is kept for any filter reads all of the collection for a filter of ten chunks.
        by_index = form.kind == "vector" and form.probe is None and form.scan not in _COMPARING
        keep = self.keeps_plan or by_index or form.digits is not None
        return prepared.with_values(values, self.filter, keep_plan=keep)

    def _prepared(self, form: Form) -> Prepared:
        shape = self.filter.shape if self.filter is not None else ()
        if shape is None:  # SQLAlchemy cannot tell when its SQL is the same
            return prepare(build(form, self.filter), self.filter)
        key = (form, shape)
        found = self.memory.statements.get(key)
        if found is None:
            found = prepare(build(form, self.filter), self.filter)
            if form.digits is not None:  # the server keeps a plan for each text of a statement
                text = found.statement + f" /* {form.digits} */".encode()
                found = replace(found, statement=text)
            self.memory.statements.put(key, found)
        return found

    def _again(
        self, strategy: Strategy | None, form: Form, rows: list[Row]
    ) -> tuple[Strategy | None, Form] | None:
        """Return how to ask again, if there may be more than was found."""
        is_full = len(rows) >= self.asked.k and rows[0][STATE + _CHUNK_ID] is not None
        if form.per_document is None:
            if strategy is None or strategy.is_exact or (is_full and form.kind == "vector"):
                return None
            _, _, passed, found = rows[0][:STATE]
            was_compared = form.probe is not None and passed <= form.probe
            if was_compared or found >= (form.wanted or 0):
                return None
        elif is_full:
            return None
        if strategy is None:
            return None, self._form(None, None)
        exact = Strategy(
            "filter" if self.filter is not None else "exact",
            "too few were found at first, so each was compared",
        )
        wanted = None if self.asked.per_document is not None else self.need
        return exact, self._form(exact, wanted)

    def _filter_key(self) -> int | None:
        asked = self.asked._filter  # noqa: SLF001 - two halves of one thing
        identity = asked.identity if asked is not None else None
        return None if identity is None else hash((self.target.id, identity))

    def _remember(self, form: Form, rows: list[Row]) -> None:
        """Keep how many pass the filter: the next search with it need not count."""
        key = self._filter_key()
        _, _, passed, found = rows[0][:STATE]
        if key is None:
            return
        if form.probe is not None:
            self.memory.filters.put(key, (passed, passed > form.probe))
        elif form.scan == "filter":
            self.memory.filters.put(key, (found, False))

    def _result(
        self, strategy: Strategy | None, form: Form, rows: list[Row], plan: str | None
    ) -> SearchResult:
        _, words, passed, _ = rows[0][:STATE]
        found = [row[STATE:] for row in rows if row[STATE + _CHUNK_ID] is not None]
        if form.is_plain and not form.neighbours:
            made = [
                hit_of(row, vector_rank=rank) for rank, row in enumerate(found, form.offset + 1)
            ]
        else:
            made = [self._hit(row, rank) for rank, row in enumerate(found, form.offset + 1)]
        has_no_words = form.kind != "vector" and not words
        scan = strategy.scan if strategy else None
        reason = strategy.reason if strategy else ""
        if form.probe is not None and passed <= form.probe:
            scan, reason = "filter", f"the filter keeps {passed:,}, so each was compared"
        if form.kind == "text":
            reason = _NO_WORDS if has_no_words else "a text and no vector was given"
        elif form.kind == "hybrid" and has_no_words:
            reason = f"{_NO_WORDS}, so the vector alone was; {reason}"
            made = [_without_text(hit) for hit in made]
        elif form.kind == "hybrid":
            reason = f"a text and a vector were given; {reason}"
        kind = "vector" if form.kind == "hybrid" and has_no_words else form.kind
        return SearchResult(made, strategy=kind, reason=reason, scan=scan, plan=plan)

    def _hit(self, row: Row, rank: int) -> Hit:
        extras = list(row[_PLAIN:])
        more: dict[str, Any] = {}
        if self.asked.kind == "vector" and self.asked.per_document is None:
            more["vector_rank"] = rank
        if self.asked.neighbours:
            around = sorted(Passage(*each) for each in extras.pop(0) or ())
            more["before"] = tuple(each for each in around if each.ordinal < row[_ORDINAL])
            more["after"] = tuple(each for each in around if each.ordinal > row[_ORDINAL])
        if extras:
            more["highlight"] = extras.pop(0)
        return hit_of(row, **more)


_Way = tuple[Strategy | None, Form, Prepared]
_MOST_WAYS = 256

_LARGE_PART = 20  # of all chunks, so many times more than the collection's at most
_RARE = 50  # of a collection, so many times more than pass the filter at least
_COMPARING = ("exact", "filter")
_PLAIN = 11  # the columns that every hit has
_ORDINAL = 4
_CHUNK_ID = 3
_NO_WORDS = "the text has no words to search for: only stop words or punctuation"

_RANGES = (
    ("ef_search", 1, MAX_EF_SEARCH),
    ("rerank", 1, MAX_RERANK),
    ("per_document", 1, MAX_K),
    ("neighbours", 0, 10),
    ("candidates", 1, MAX_K + MAX_OFFSET),
)


def _without_text(hit: Hit) -> Hit:
    values = {each.name: getattr(hit, each.name) for each in fields(Hit)}
    return Hit(**{**values, "text_rank": None, "text_score": None})


def _explained(statement: Numbered) -> Numbered:
    return Numbered(b"EXPLAIN (ANALYZE, BUFFERS) " + statement.statement, statement.parameters)


def _numbers_of(given: object) -> list[float]:
    """Return what is given as numbers, or nothing if it holds anything else."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        return []
    values = list(given)
    if any(isinstance(each, bool) or not isinstance(each, Real) for each in values):
        return []
    try:
        return [float(each) for each in values]
    except OverflowError:  # a whole number beyond all floats
        return []


def _check_range(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidQuery(f"{name} is {value!r}: it takes a whole number from {least} to {most}")
