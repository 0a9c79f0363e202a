"""The vector arm: the nearest chunks of a collection, exactly or through an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy.typing as npt
from sqlalchemy import (
    CTE,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Select,
    Text,
    and_,
    cast,
    exists,
    func,
    literal,
    literal_column,
    select,
)

from ragstore import ann
from ragstore.exceptions import InvalidQuery
from ragstore.models import CHUNKS, DOCUMENTS, EMBEDDINGS
from ragstore.search.filter import Filter, Where, filtered, read
from ragstore.search.strategy import DEFAULT_EF_SEARCH, MAX_EF_SEARCH
from ragstore.space import Space
from ragstore.types import DISTANCE_OPERATORS

CANDIDATES_OF_A_LIST = 4
"""An IVFFlat list that is read stands for so many of ``ef_search``."""

_MAX_PROBES = 32_768


def nearest(
    collection_id: int,
    space: Space,
    vector: Sequence[float] | npt.NDArray[Any],
    *,
    limit: int,
    where: Where | None = None,
) -> Select[Any]:
    """Return (chunk_id, distance, rank) of the ``limit`` chunks nearest to ``vector``.

    Exact: every vector of the collection that passes the filter is measured, found through the
    primary key. The materialized step keeps the planner from an index that would be faster and
    return too few rows, as an approximate one does under a filter.

    Raises:
        InvalidVector: the vector does not fit the space.
        InvalidFilter: ``where`` is not a filter.
    """
    ids = Ids(literal(collection_id), literal(space.id))
    every = exactly(ids, space.distance(vector), where)
    return ranked(every.cte("measured").prefix_with("MATERIALIZED"), limit)


def approximate(
    collection_id: int,
    space: Space,
    vector: Sequence[float] | npt.NDArray[Any],
    *,
    limit: int,
    candidates: int | None = None,
    where: Where | None = None,
) -> Select[Any]:
    """Return (chunk_id, distance, rank) of about the ``limit`` chunks nearest to ``vector``.

    They come from the space's index, or the collection's own: the ``candidates`` nearest by what
    the index holds (``limit`` of them unless given; give more to a binary index), in the order of
    their full vectors. How far the index is searched is set for the transaction: execute
    ``scan_settings()`` before. Without it at most 40 come, and fewer under a filter.

    Raises:
        InvalidVector: the vector does not fit the space.
        InvalidQuery: the space has no index.
        InvalidFilter: ``where`` is not a filter.
    """
    if space.index_type == "none":
        raise InvalidQuery(f"the space {space.name!r} has no index: use nearest()")
    found = by_index(
        Ids(literal(collection_id), literal(space.id)),
        space.distance(vector),
        ann.distance(space, vector),
        None if where is None else read(where),
        limit=max(limit, candidates or 0),
    )
    return ranked(found.cte("measured").prefix_with("MATERIALIZED"), limit)


def scan_settings(
    space: Space, *, ef_search: Any = DEFAULT_EF_SEARCH, max_scan_tuples: Any = 20_000
) -> Select[Any]:
    """Return a statement that sets how far the space's index is searched, for the transaction.

    The scan goes on until enough rows passed the filter, or ``max_scan_tuples`` were looked at.
    For IVFFlat a quarter of ``ef_search`` is the number of lists that are read first. Execute it in
    the transaction of the search; outside of one it does nothing.
    """
    settings = _settings(space, ef_search, max_scan_tuples)
    return select(*[each.label(f"set_{at}") for at, each in enumerate(settings)])


class Ids(NamedTuple):
    """The collection and the space of a statement, each a value of it: parameter or literal."""

    collection: Any
    space: Any


def exactly(ids: Ids, distance: Any, where: Where | Filter | None) -> Select[Any]:
    """Return (chunk_id, distance) of each vector of the collection that passes the filter."""
    measured = (
        select(EMBEDDINGS.c.chunk_id, distance.label("distance"))
        .select_from(EMBEDDINGS)
        .where(EMBEDDINGS.c.space_id == ids.space, EMBEDDINGS.c.collection_id == ids.collection)
    )
    return filtered(measured, where, ids.collection, EMBEDDINGS.c.chunk_id)


def passing(
    ids: Ids, where: Filter | None, limit: int | None, *, with_words: bool = False
) -> Select[Any]:
    """Return the ids of the chunks that pass the filter, no more than ``limit``, and their tsv."""
    columns = [CHUNKS.c.id, *([CHUNKS.c.tsv] if with_words else [])]
    found = select(*columns).select_from(CHUNKS).where(CHUNKS.c.collection_id == ids.collection)
    found = filtered(found, where, ids.collection, CHUNKS.c.id)
    return found if limit is None else found.limit(number(limit))


def among(ids: Ids, distance: Any, passed: CTE) -> Select[Any]:
    """Return (chunk_id, distance) of the vectors of the chunks that passed."""
    return (
        select(EMBEDDINGS.c.chunk_id, distance.label("distance"))
        .select_from(passed)
        .join(
            EMBEDDINGS,
            and_(
                EMBEDDINGS.c.space_id == ids.space,
                EMBEDDINGS.c.collection_id == ids.collection,
                EMBEDDINGS.c.chunk_id == passed.c.id,
            ),
        )
    )


def by_index(
    ids: Ids,
    distance: Any,
    near: Any,
    where: Filter | None,
    *,
    limit: int,
) -> Select[Any]:
    """Return (chunk_id, distance) of the ``limit`` nearest by the index."""
    found = (
        select(EMBEDDINGS.c.chunk_id, distance.label("distance"))
        .select_from(EMBEDDINGS)
        .where(EMBEDDINGS.c.space_id == ids.space, EMBEDDINGS.c.collection_id == ids.collection)
    )
    if where is not None:
        found = found.where(_passes(ids, where))
    return found.order_by(near).limit(number(limit))


def ranked(measured: FromClause, limit: int | None, *, within: Any = None) -> Select[Any]:
    """Return (chunk_id, distance, rank) of the ``limit`` nearest of those measured."""
    best = nearest_first(measured, within=within)
    first = (best if limit is None else best.limit(number(limit))).subquery("first")
    rank = func.row_number().over(order_by=(first.c.distance, first.c.chunk_id))
    return select(first.c.chunk_id, first.c.distance, rank.label("rank"))


def nearest_first(measured: FromClause, *, within: Any = None) -> Select[Any]:
    """Return (chunk_id, distance) of those measured, none farther than ``within`` if given."""
    first = select(measured.c.chunk_id, measured.c.distance).order_by(
        measured.c.distance, measured.c.chunk_id
    )
    return first if within is None else first.where(measured.c.distance <= within)


def measured_by(space: Space, query: Any) -> ColumnElement[float]:
    """Return the exact distance to a vector that is an expression."""
    operator = DISTANCE_OPERATORS[space.metric]
    return EMBEDDINGS.c.vector.op(operator, return_type=Float())(query)


def are_set(space: Space, ef_search: Any, max_scan: Any) -> ColumnElement[bool]:
    """Return a condition that is true, and has set how the index is searched when it is.

    It does not depend on a row, so it is evaluated once and before the first row is read: the
    statement's own index scan sees the settings, which end with its transaction.
    """
    together = func.concat(*_settings(space, ef_search, max_scan))
    settings = select(together.label("done")).cte("settings").prefix_with("MATERIALIZED")
    return select(settings.c.done).scalar_subquery().is_not(None)


def number(value: int) -> ColumnElement[int]:
    """Return a number as part of the statement: a plan is made for it, and kept."""
    return literal_column(str(int(value)), Integer())


def _settings(space: Space, ef_search: Any, max_scan: Any) -> list[Any]:
    if space.index_type == "ivfflat":
        most = func.least(
            func.greatest(cast(ef_search, Integer) / CANDIDATES_OF_A_LIST, 1), _MAX_PROBES
        )
        probes = cast(cast(most, Integer), Text)
        pairs = {"ivfflat.probes": probes, "ivfflat.iterative_scan": "relaxed_order"}
    else:
        within = func.least(cast(ef_search, Integer), MAX_EF_SEARCH)
        pairs = {
            "hnsw.ef_search": cast(within, Text),
            # Strict order finds less: 0.82 of the ten nearest under a filter of 1 %, not 0.94.
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": cast(cast(max_scan, Integer), Text),
        }
    # Written out, so that only what changes from one search to the next is a parameter.
    return [
        func.set_config(
            literal_column(f"'{name}'"),
            literal_column(f"'{value}'") if isinstance(value, str) else value,
            literal_column("true"),
        )
        for name, value in pairs.items()
    ]


def _passes(ids: Ids, where: Filter) -> Any:
    """Return the filter as a condition on one embedding, tested while the index is scanned.

    OFFSET keeps the planner from a join, which would end the scan of the index where it is, or
    read all of it first.
    """
    found: Select[Any] = (
        select(literal_column("1"))
        .select_from(CHUNKS)
        .where(CHUNKS.c.collection_id == ids.collection, CHUNKS.c.id == EMBEDDINGS.c.chunk_id)
    )
    if where.is_about_documents:
        found = found.join(
            DOCUMENTS,
            and_(
                DOCUMENTS.c.collection_id == ids.collection,
                DOCUMENTS.c.id == CHUNKS.c.document_id,
            ),
        )
    found = found.where(where.condition).offset(literal_column("0"))
    return exists(found.correlate(EMBEDDINGS))
