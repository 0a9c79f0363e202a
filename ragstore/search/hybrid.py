"""Both arms together, by reciprocal rank fusion."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float, Integer, Select, cast, func, literal_column, select

RRF_CONSTANT = 60
"""How much a rank counts: weight / (60 + rank), from Cormack, Clarke and Büttcher (2009)."""


def fused(
    nearest: Select[Any],
    matching: Select[Any],
    *,
    limit: int | None,
    offset: int = 0,
    weights: tuple[Any, Any] = (1.0, 1.0),
) -> Select[Any]:
    """Return both arms as one list: the score is the sum of each arm's ``weight / (60 + rank)``.

    ``weights`` are those of the vector and the text. The columns are those that ``hits`` takes.
    """
    vector = nearest.cte("vector_arm")
    text = matching.cte("text_arm")
    score = _share(vector.c.rank, weights[0]) + _share(text.c.rank, weights[1])
    chunk_id = func.coalesce(vector.c.chunk_id, text.c.chunk_id)
    together = (
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
        .offset(literal_column(str(int(offset)), Integer()))
    )
    return together if limit is None else together.limit(literal_column(str(int(limit)), Integer()))


def _share(rank: Any, weight: Any) -> Any:
    return func.coalesce(cast(weight, Float) / cast(RRF_CONSTANT + rank, Float), 0.0)
