"""From ranked chunks to hits: what a search returns of each."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float, Select, and_, cast, null, select

from ragstore.models import CHUNKS, DOCUMENTS
from ragstore.types import Metric


def of_nearest(nearest: Select[Any], metric: Metric, *, limit: int, offset: int) -> Select[Any]:
    """Return the vector arm alone, as ``hits`` takes it.

    The score grows with nearness: the cosine, the inner product, or 1 / (1 + distance).
    """
    arm = nearest.subquery("vector_arm")
    distance = arm.c.distance
    scores = {"cosine": 1 - distance, "inner_product": -distance}
    score = scores.get(metric, 1 / (1 + distance))
    return (
        select(
            arm.c.rank.label("place"),
            arm.c.chunk_id,
            score.label("score"),
            arm.c.rank.label("vector_rank"),
            distance,
            null().label("text_rank"),
            null().label("text_score"),
        )
        .order_by(arm.c.rank)
        .limit(limit)
        .offset(offset)
    )


def of_matching(matching: Select[Any], *, limit: int, offset: int) -> Select[Any]:
    """Return the text arm alone, as ``hits`` takes it; its score is the score."""
    arm = matching.subquery("text_arm")
    return (
        select(
            arm.c.rank.label("place"),
            arm.c.chunk_id,
            arm.c.score,
            null().label("vector_rank"),
            null().label("distance"),
            arm.c.rank.label("text_rank"),
            arm.c.score.label("text_score"),
        )
        .order_by(arm.c.rank)
        .limit(limit)
        .offset(offset)
    )


def hits(collection_id: int, ranked: Select[Any]) -> Select[Any]:
    """Return the rows of ``ranked`` with their chunk and document, the best first.

    ``ranked`` has place, chunk_id, score, vector_rank, distance, text_rank and text_score. The
    order is that of ``place``, not of the score: two distances may round to one score.
    """
    best = ranked.cte("ranked")
    return (
        select(
            cast(best.c.score, Float).label("score"),
            DOCUMENTS.c.key,
            DOCUMENTS.c.title,
            CHUNKS.c.id,
            CHUNKS.c.ordinal,
            CHUNKS.c.text,
            CHUNKS.c.metadata,
            best.c.vector_rank,
            best.c.distance,
            best.c.text_rank,
            best.c.text_score,
        )
        .select_from(best)
        .join(CHUNKS, and_(CHUNKS.c.collection_id == collection_id, CHUNKS.c.id == best.c.chunk_id))
        .join(
            DOCUMENTS,
            and_(
                DOCUMENTS.c.collection_id == collection_id, DOCUMENTS.c.id == CHUNKS.c.document_id
            ),
        )
        .order_by(best.c.place)
    )
