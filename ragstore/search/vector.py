"""The vector arm: the nearest chunks of a collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select

from ragstore.models import EMBEDDINGS
from ragstore.search.filter import Where, filtered
from ragstore.space import Space


def nearest(
    collection_id: int,
    space: Space,
    vector: Sequence[float],
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
    """
    measured = select(EMBEDDINGS.c.chunk_id, space.distance(vector).label("distance")).where(
        EMBEDDINGS.c.space_id == space.id, EMBEDDINGS.c.collection_id == collection_id
    )
    measured = filtered(measured, where, collection_id, EMBEDDINGS.c.chunk_id)
    every = measured.cte("measured").prefix_with("MATERIALIZED")
    first = (
        select(every.c.chunk_id, every.c.distance)
        .order_by(every.c.distance, every.c.chunk_id)
        .limit(limit)
        .subquery("first")
    )
    rank = func.row_number().over(order_by=(first.c.distance, first.c.chunk_id))
    return select(first.c.chunk_id, first.c.distance, rank.label("rank"))
