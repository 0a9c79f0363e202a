"""The one statement of a search, built and compiled once for its form.

Ids, limits and the names of settings stand in it, so that the server keeps one plan for the
partition and the index; what changes from search to search is a parameter. It also says whether
the collection is still what the form was chosen for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    CTE,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import REGCONFIG
from sqlalchemy.types import Float, NullType

from ragstore import ann
from ragstore.models import CHUNKS, COLLECTIONS
from ragstore.search import text, vector
from ragstore.search.filter import Filter
from ragstore.search.hits import (
    diverse,
    highlighted,
    neighbours,
    of_matching,
    of_nearest,
    score_of,
    with_rows,
)
from ragstore.search.hybrid import fused
from ragstore.search.strategy import Scan
from ragstore.search.vector import Ids, number
from ragstore.space import Space

Kind = Literal["vector", "text", "hybrid"]


@dataclass(frozen=True)
class Form:
    """All that the SQL of a search depends on, but for the shape of its filter.

    Each arm ranks ``wanted`` chunks, or all (None); an index is asked for ``measured``. With
    ``probe``, what passes the filter is counted up to that, and compared unless there is more.
    ``reads_words`` says that the words of each chunk that passes are looked at, not their index.
    ``digits`` is how many the number has that passes the filter, where it is known: each has a
    plan of its own.
    """

    kind: Kind
    collection_id: int
    space: Space | None
    scan: Scan | None
    probe: int | None
    wanted: int | None
    measured: int
    k: int
    offset: int
    has_most: bool = False
    per_document: int | None = None
    with_text: bool = True
    neighbours: int = 0
    highlight: bool = False
    reads_words: bool = False
    digits: int | None = None

    @property
    def is_plain(self) -> bool:
        """Tell whether hits come in the order of their distances, so that places are ranks."""
        return self.kind == "vector" and self.per_document is None


STATE = 4
"""How many columns stand before those of a hit: is_current, words, passed and found."""


def build(form: Form, where: Filter | None) -> Select[Any]:
    """Return the statement; it always has a row, with an empty hit if there is none."""
    return _Builder(form, where).statement()


class _Builder:
    """Puts the parts of one statement together."""

    def __init__(self, form: Form, where: Filter | None) -> None:
        self.form = form
        self.where = where
        self.ids = Ids(number(form.collection_id), number(form.space.id) if form.space else None)
        self.words: Any = null()
        self.passed: Any = null()
        self.found: Any = null()
        self.asked: CTE | None = None
        if form.kind != "vector":
            query = func.websearch_to_tsquery(_language(), bindparam("text", None, Text()))
            self.asked = text.asked(query, any_word=form.kind == "hybrid")
            self.words = select(func.numnode(self.asked.c.query)).scalar_subquery()

    def statement(self) -> Select[Any]:
        best = self._ranked().cte("ranked")
        more = [best.c.place, *self._extras()]
        text = CHUNKS.c.text if self.form.with_text else literal_column("''").label("text")
        contents = [text, cast(CHUNKS.c.metadata, Text).label("metadata")]
        hit = with_rows(self.ids.collection, best, contents, more)
        rows = hit.subquery("hit")
        columns = [each for each in rows.c if each is not rows.c.place]
        order = [rows.c.distance, rows.c.id] if self.form.is_plain else [rows.c.place]
        one = select(literal_column("1").label("one")).subquery("one")
        return (
            select(
                self._is_current().label("is_current"),
                self.words.label("words"),
                self.passed.label("passed"),
                self.found.label("found"),
                *columns,
            )
            .select_from(one.outerjoin(rows, true()))
            .order_by(*order)
        )

    def _is_current(self) -> Any:
        """Return whether the collection is still the one that was looked up, or NULL."""
        is_same = and_(
            COLLECTIONS.c.name == bindparam("name", None, Text()),
            COLLECTIONS.c.language == bindparam("language", None, Text()),
        )
        if self.form.space is not None:
            same_space = COLLECTIONS.c.space_id.is_not_distinct_from(self.ids.space)
            is_same = and_(is_same, same_space)
        return select(is_same).where(COLLECTIONS.c.id == self.ids.collection).scalar_subquery()

    def _ranked(self) -> Select[Any]:
        form = self.form
        if form.is_plain:
            return self._plain()
        apart = form.per_document is not None
        limit, offset = (None, 0) if apart else (form.k, form.offset)
        if form.kind == "text":
            ranked = of_matching(self._text_arm(), limit=limit, offset=offset)
        elif form.kind == "vector":
            metric = self._space().metric
            ranked = of_nearest(self._vector_arm(), metric, limit=limit, offset=offset)
        else:
            ranked = self._fused(limit, offset)
        if form.per_document is None:
            return ranked
        return diverse(
            self.ids.collection,
            ranked,
            per_document=form.per_document,
            limit=form.k,
            offset=form.offset,
        )

    def _plain(self) -> Select[Any]:
        """Return the nearest without their ranks, which are their places in what comes back."""
        first = vector.nearest_first(self._measured_once(), within=self._most())
        page = first.limit(number(self.form.k)).offset(number(self.form.offset)).subquery("first")
        return select(
            null().label("place"),
            page.c.chunk_id,
            score_of(page.c.distance, self._space().metric).label("score"),
            null().label("vector_rank"),
            page.c.distance,
            null().label("text_rank"),
            null().label("text_score"),
        )

    def _fused(self, limit: int | None, offset: int) -> Select[Any]:
        weights = (
            bindparam("vector_weight", None, Float()),
            bindparam("text_weight", None, Float()),
        )
        together = fused(
            self._vector_arm(), self._text_arm(), limit=limit, offset=offset, weights=weights
        ).cte("fused")
        # Without a word to search for it is a search by vector, and so is its score.
        alone = score_of(together.c.distance, self._space().metric)
        score = case((self.words == literal_column("0"), alone), else_=together.c.score)
        others = [each for each in together.c if each is not together.c.score]
        return select(*others, score.label("score"))

    def _text_arm(self) -> Select[Any]:
        assert self.asked is not None  # noqa: S101 - for mypy
        among = self._passing if self.form.reads_words else None
        return text.found(
            self.ids.collection, self.asked, self.where, self.form.wanted, among=among
        )

    def _vector_arm(self) -> Select[Any]:
        return vector.ranked(self._measured_once(), self.form.wanted, within=self._most())

    def _measured_once(self) -> Any:
        if self.form.scan == "exact":
            # OFFSET keeps the planner from an index that returns too few, at no cost.
            return self._measured().offset(number(0)).subquery("measured")
        measured = self._measured().cte("measured").prefix_with("MATERIALIZED")
        self.found = select(func.count()).select_from(measured).scalar_subquery()
        return measured

    def _most(self) -> Any:
        return bindparam("max_distance", None, Float()) if self.form.has_most else None

    def _measured(self) -> Any:
        form, space, where = self.form, self._space(), self.where
        query = cast(bindparam("vector", None, NullType()), VECTOR())
        distance = vector.measured_by(space, query)
        if form.scan == "exact":
            return vector.exactly(self.ids, distance, where)
        if form.scan == "filter":
            return vector.among(self.ids, distance, self._passing)
        set_up = vector.are_set(
            space,
            bindparam("ef_search", None, Integer()),
            bindparam("max_scan", None, Integer()),
        )
        near = ann.distance(space, query)
        by_index = vector.by_index(self.ids, distance, near, where, limit=form.measured)
        if form.probe is None:
            return by_index.where(set_up)
        passing = self._passing
        self.passed = select(func.count()).select_from(passing).scalar_subquery()
        few = self.passed <= number(form.probe)
        # Of the two only one is run: their conditions are tested before their first row.
        compared = vector.among(self.ids, distance, passing).where(few)
        searched = by_index.where(self.passed > number(form.probe), set_up).subquery("searched")
        return union_all(compared, select(*searched.c))

    @cached_property
    def _passing(self) -> CTE:
        """Return the chunks that pass the filter, found once for both arms."""
        form = self.form
        limit = None if form.probe is None else form.probe + 1
        found = vector.passing(self.ids, self.where, limit, with_words=form.reads_words)
        return found.cte("passing").prefix_with("MATERIALIZED")

    def _extras(self) -> list[Any]:
        extras = []
        if self.form.neighbours:
            extras.append(neighbours(self.ids.collection, self.form.neighbours))
        if self.form.highlight and self.asked is not None:
            query = select(self.asked.c.query).scalar_subquery()
            extras.append(highlighted(_language(), query))
        return extras

    def _space(self) -> Space:
        assert self.form.space is not None  # noqa: S101 - for mypy
        return self.form.space


def _language() -> Any:
    return cast(bindparam("language", None, Text()), REGCONFIG)
