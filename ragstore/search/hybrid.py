"""Both arms together, by reciprocal rank fusion."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Numeric, Select, cast, func, select

RRF_CONSTANT = 60
"""How much a rank counts: 1 / (60 + rank), from Cormack, Clarke and Büttcher (2009)."""


def fused(nearest: Select[Any], matching: Select[Any], *, limit: int, offset: int) -> Select[Any]:
    """Return both arms as one list: the sum of each arm's ``1 / (60 + rank)`` is the score.

    The columns are those that ``hits`` takes.
    """
    vector = nearest.cte("vector_arm")
    text = matching.cte("text_arm")
    score = _share(vector.c.rank) + _share(text.c.rank)
    chunk_id = func.coalesce(vector.c.chunk_id, text.c.chunk_id)
    return (
        select(
            func.row_number().over(order_by=(score.desc(), chunk_id)).label("place"),
            chunk_id.label("chunk_id"),
            score.label("score"),
            vector.c.rank.label("vector_rank"),
            vector.c.distance.label("distance"),
            text.c.rank.label("text_rank"),
            text.c.score.label("text_score"),
        )
        .select_from(vector.outerjoin(text, vector.c.chunk_id == text.c.chunk_id, full=True))
        .order_by(score.desc(), chunk_id)
        .limit(limit)
        .offset(offset)
    )


def _share(rank: Any) -> Any:
    return func.coalesce(1.0 / cast(RRF_CONSTANT + rank, Numeric), 0.0)
