"""The operation that answers a search: a statement, and one more if an index gave too little."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cached_property
from typing import Any

from ragstore.collection import CollectionInfo
from ragstore.driver import PackedVector
from ragstore.execution import Numbered, Operation, Row
from ragstore.packing import pack_vector
from ragstore.search.memory import Memory
from ragstore.search.prepared import Prepared, prepare
from ragstore.search.query import Search
from ragstore.search.result import Hit, Passage, SearchResult, hit_of
from ragstore.search.statement import STATE, Form, build
from ragstore.search.strategy import (
    DEFAULT_EF_SEARCH,
    MAX_EF_SEARCH,
    Situation,
    Strategy,
    choose,
)

ARM_SIZE = 100
"""The candidates of each arm of a hybrid search, unless it asks for more or skips further.

They are the same for every page up to here: candidates that grew with the page would change the
scores from one page to the next, and hits would be shown twice or never.
"""

DEEP_ARM_SIZE = 1_000
"""The candidates of each arm for the pages beyond."""

_RERANK_OF_BINARY = 8  # 0.98 of the ten nearest on hard data, of 400 candidates for 40
_LEAST_OF_BINARY = 200

_Way = tuple[Strategy | None, Form, Prepared]
_MOST_WAYS = 256

# Each rank of an arm counts in a fusion: for one candidate that is missed all behind it move up.
# The first hit was right 199 times of 200 instead of 195, in 4 % more time.
_WIDTH_OF_ARM = 1.5
_LARGE_PART = 20  # of all chunks, so many times more than the collection's at most
_RARE = 50  # of a collection, so many times more than pass the filter at least
_MANY = 2_000  # chunks whose words are found faster by their index
_COMPARING = ("exact", "filter")
_PLAIN = 11  # the columns that every hit has
_ORDINAL = 4
_CHUNK_ID = 3
_NO_WORDS = "the text has no words to search for: only stop words or punctuation"


def answer(
    asked: Search, target: CollectionInfo, vector: Any, memory: Memory
) -> Operation[SearchResult | None]:
    """Answer a search on a collection, with the vector made for its space.

    Returns None if the collection is no longer what ``target`` says: look it up and ask again.

    Raises:
        SpaceNotReady: there is nothing to search.
        InvalidVector: the vector does not fit the space.
    """
    return _Answer(asked, target, vector, memory).operation()


class _Answer:
    """One search on one collection."""

    def __init__(self, asked: Search, target: CollectionInfo, vector: Any, memory: Memory) -> None:
        self.asked = asked
        self.target = target
        self.memory = memory
        self.filter = asked.filter
        self.space = target.require_space() if asked.kind != "text" else None
        self.need = 0
        self.digits: int | None = None
        self.is_many = False
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
        way = self._way()
        rows = yield self._statement(way)
        if not rows[0][0]:
            return None
        if (again := self._again(way, rows)) is not None:
            way = again
            rows = yield self._statement(way)
            if not rows[0][0]:
                return None
        strategy, form, _ = way
        self._remember(form, rows)
        plan = None
        if self.asked.explain:
            told = yield _explained(self._statement(way))
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
        way = self._by(self._strategy(), self.need)
        if shape is not None and len(self.target.ways) < _MOST_WAYS:
            self.target.ways[shape] = self.need, way
        return way

    def _strategy(self) -> Strategy | None:
        if self.space is None:
            return None
        key = self._filter_key
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
        self.is_many = matching > _MANY
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
            reads_words=asked.text is not None and self._reads_words(strategy),
        )

    def _reads_words(self, strategy: Strategy | None) -> bool:
        """Tell whether it is faster to look at the words of each chunk than at their index."""
        if strategy is not None and strategy.scan == "filter":
            return not self.is_many
        return self._is_small() and not (strategy and strategy.limit)

    def _statement(self, way: _Way) -> Numbered:
        strategy, form, prepared = way
        chosen = strategy.ef_search if strategy else DEFAULT_EF_SEARCH
        if form.kind == "hybrid":
            chosen = max(chosen, int(form.measured * _WIDTH_OF_ARM))
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

    def _by(self, strategy: Strategy | None, wanted: int | None) -> _Way:
        """Return the way of a strategy; its statement is compiled once."""
        shape = self.filter.shape if self.filter is not None else ()
        if shape is None:  # SQLAlchemy cannot tell when its SQL is the same
            form = self._form(strategy, wanted)
            return strategy, form, prepare(build(form, self.filter), self.filter)
        # All that a form is made of, which takes longer to make and to hash.
        of_strategy = (strategy.scan, strategy.limit, self.digits) if strategy else None
        known = (self.asked.shape, self.target.id, self.space, self._is_small(), self.is_many)
        key = (known, of_strategy, wanted, shape)
        found = self.memory.statements.get(key)
        if found is None:
            form = self._form(strategy, wanted)
            prepared = prepare(build(form, self.filter), self.filter)
            if form.digits is not None:  # the server keeps a plan for each text of a statement
                text = prepared.statement + f" /* {form.digits} */".encode()
                prepared = replace(prepared, statement=text)
            found = form, prepared
            self.memory.statements.put(key, found)
        return strategy, *found

    def _again(self, way: _Way, rows: list[Row]) -> _Way | None:
        """Return how to ask again, if there may be more than was found."""
        strategy, form, _ = way
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
            return self._by(None, None)
        exact = Strategy(
            "filter" if self.filter is not None else "exact",
            "too few were found at first, so each was compared",
        )
        return self._by(exact, None if self.asked.per_document is not None else self.need)

    @cached_property
    def _filter_key(self) -> int | None:
        asked = self.asked.filter
        identity = asked.identity if asked is not None else None
        return None if identity is None else hash((self.target.id, identity))

    def _remember(self, form: Form, rows: list[Row]) -> None:
        """Keep how many pass the filter: the next search with it need not count."""
        if self.filter is None or (key := self._filter_key) is None:
            return
        _, _, passed, found = rows[0][:STATE]
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


def _without_text(hit: Hit) -> Hit:
    values = {each.name: getattr(hit, each.name) for each in fields(Hit)}
    return Hit(**{**values, "text_rank": None, "text_score": None})


def _explained(statement: Numbered) -> Numbered:
    return Numbered(b"EXPLAIN (ANALYZE, BUFFERS) " + statement.statement, statement.parameters)
