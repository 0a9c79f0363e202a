"""A search as it was asked, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from ragstore.exceptions import InvalidQuery
from ragstore.search.filter import Filter, Where, read
from ragstore.search.statement import Kind
from ragstore.search.strategy import (
    MAX_EF_SEARCH,
)
from ragstore.search.text import check_query
from ragstore.space import Space

MAX_K = 1_000
"""The most hits of one search."""

MAX_OFFSET = 10_000
"""The furthest a search can skip: everything skipped is ranked all the same."""

MAX_RERANK = 100
"""The most candidates of an index for each one wanted."""

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
    filter: Filter | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Refuse a search that asks for nothing, for more than it may, or by what is no filter."""
        if self.text is None and self.vector is None:
            raise InvalidQuery("there is nothing to search for: give text=, vector= or both")
        for name in ("exact", "highlight", "with_text", "explain"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidQuery(f"{name} is {getattr(self, name)!r:.40}: it takes True or False")
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
            object.__setattr__(self, "filter", read(self.where))

    def _check_distance(self) -> None:
        if self.vector is None:
            raise InvalidQuery("max_distance= is of the vector arm, and there is no vector")
        if isinstance(self.max_distance, bool) or not isinstance(self.max_distance, int | float):
            raise InvalidQuery(f"max_distance is {self.max_distance!r}: it takes a number")
        try:
            is_nan = math.isnan(self.max_distance)
        except OverflowError:  # a whole number beyond all floats
            raise InvalidQuery("max_distance is beyond all distances: leave it out") from None
        if is_nan:
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
        if len(pair) != 2 or not any(pair) or not all(map(_is_weight, pair)):
            raise InvalidQuery(
                "weights takes two numbers from 0 up, of vector and text, not both 0 (nor next to"
                " it, below 1e-300)"
            )
        return pair[0], pair[1]

    @cached_property
    def kind(self) -> Kind:
        """Return which arms were asked for."""
        if self.vector is None:
            return "text"
        return "vector" if self.text is None else "hybrid"

    @cached_property
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


_RANGES = (
    ("ef_search", 1, MAX_EF_SEARCH),
    ("rerank", 1, MAX_RERANK),
    ("per_document", 1, MAX_K),
    ("neighbours", 0, 10),
    ("candidates", 1, MAX_K + MAX_OFFSET),
)


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


def _is_weight(number: float) -> bool:
    # Divided by a rank, a smaller one underflows, which Postgres takes for an error.
    return number == 0 or _LEAST_WEIGHT <= number < math.inf


_LEAST_WEIGHT = 1e-300


def _check_range(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidQuery(f"{name} is {value!r}: it takes a whole number from {least} to {most}")
