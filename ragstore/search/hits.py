"""From ranked chunks to hits: what a search returns of each."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, Float, Integer, Select, and_, cast, func, literal_column, null, select

from ragstore.models import CHUNKS, DOCUMENTS
from ragstore.types import Metric

MAX_HIGHLIGHTED = 20_000
"""How many characters of a chunk are looked through for words to highlight."""


def score_of(distance: Any, metric: Metric) -> Any:
    """Return the score of a distance: the cosine, the inner product, or 1 / (1 + distance)."""
    scores = {"cosine": 1 - distance, "inner_product": -distance}
    return scores.get(metric, 1 / (1 + distance))


def of_nearest(
    nearest: Select[Any], metric: Metric, *, limit: int | None, offset: int = 0
) -> Select[Any]:
    """Return the vector arm alone, as ``hits`` takes it; the score grows with nearness."""
    arm = nearest.subquery("vector_arm")
    ranked = select(
        arm.c.rank.label("place"),
        arm.c.chunk_id,
        score_of(arm.c.distance, metric).label("score"),
        arm.c.rank.label("vector_rank"),
        arm.c.distance,
        null().label("text_rank"),
        null().label("text_score"),
    )
    return page(ranked, arm.c.rank, limit, offset)


def of_matching(matching: Select[Any], *, limit: int | None, offset: int = 0) -> Select[Any]:
    """Return the text arm alone, as ``hits`` takes it; its score is the score."""
    arm = matching.subquery("text_arm")
    ranked = select(
        arm.c.rank.label("place"),
        arm.c.chunk_id,
        arm.c.score,
        null().label("vector_rank"),
        null().label("distance"),
        arm.c.rank.label("text_rank"),
        arm.c.score.label("text_score"),
    )
    return page(ranked, arm.c.rank, limit, offset)


def page(ranked: Select[Any], place: Any, limit: int | None, offset: int) -> Select[Any]:
    """Return a statement in the order of ``place``, cut to a page.

    The numbers stand in the statement: a plan for any number of rows is a worse one.
    """
    ordered = ranked.order_by(place)
    if offset:
        ordered = ordered.offset(literal_column(str(int(offset)), Integer()))
    if limit is None:
        return ordered
    return ordered.limit(literal_column(str(int(limit)), Integer()))


def diverse(
    collection_id: Any, ranked: Select[Any], *, per_document: int, limit: int, offset: int
) -> Select[Any]:
    """Return the ranked chunks without those that ``per_document`` of their document precede."""
    every = ranked.cte("every")
    nth = func.row_number().over(partition_by=CHUNKS.c.document_id, order_by=every.c.place)
    counted = (
        select(*every.c, nth.label("nth"))
        .select_from(every)
        .join(
            CHUNKS, and_(CHUNKS.c.collection_id == collection_id, CHUNKS.c.id == every.c.chunk_id)
        )
        .subquery("counted")
    )
    kept = select(*[counted.c[name] for name in every.c.keys()])  # noqa: SIM118 - no mapping
    return page(kept.where(counted.c.nth <= per_document), counted.c.place, limit, offset)


def hits(collection_id: int, ranked: Select[Any]) -> Select[Any]:
    """Return the rows of ``ranked`` with their chunk and document, the best first.

    ``ranked`` has place, chunk_id, score, vector_rank, distance, text_rank and text_score. The
    order is that of ``place``, not of the score: two distances may round to one score.
    """
    best = ranked.cte("ranked")
    columns = [CHUNKS.c.text, CHUNKS.c.metadata]
    return with_rows(collection_id, best, columns, []).order_by(best.c.place)


def with_rows(collection_id: Any, best: CTE, contents: list[Any], more: list[Any]) -> Select[Any]:
    """Return ranked chunks with what a Hit holds, in its order.

    ``contents`` are its text and metadata, in whatever form; ``more`` are columns behind the rest.
    """
    return (
        select(
            cast(best.c.score, Float).label("score"),
            DOCUMENTS.c.key,
            DOCUMENTS.c.title,
            CHUNKS.c.id,
            CHUNKS.c.ordinal,
            *contents,
            best.c.vector_rank,
            best.c.distance,
            best.c.text_rank,
            best.c.text_score,
            *more,
        )
        .select_from(best)
        .join(CHUNKS, and_(CHUNKS.c.collection_id == collection_id, CHUNKS.c.id == best.c.chunk_id))
        .join(
            DOCUMENTS,
            and_(
                DOCUMENTS.c.collection_id == collection_id, DOCUMENTS.c.id == CHUNKS.c.document_id
            ),
        )
    )


def neighbours(collection_id: Any, count: int) -> Any:
    """Return the chunks around a hit's in its document, as one JSON list."""
    other = CHUNKS.alias("neighbour")
    passage = func.jsonb_build_array(other.c.ordinal, other.c.id, other.c.text)
    return (
        select(func.jsonb_agg(passage))
        .where(
            other.c.collection_id == collection_id,
            other.c.document_id == CHUNKS.c.document_id,
            other.c.ordinal.between(CHUNKS.c.ordinal - count, CHUNKS.c.ordinal + count),
            other.c.ordinal != CHUNKS.c.ordinal,
        )
        .correlate(CHUNKS)
        .scalar_subquery()
        .label("neighbours")
    )


def highlighted(language: Any, query: Any) -> Any:
    """Return the passages of a hit's text that match, with its words between ``<b>`` and ``</b>``.

    Only the beginning of a long text is looked through: it is parsed anew for each hit.
    """
    beginning = func.left(CHUNKS.c.text, literal_column(str(MAX_HIGHLIGHTED)))
    options: Any = literal_column("'MaxFragments=2, MinWords=8, MaxWords=24'")
    return func.ts_headline(language, beginning, query, options).label("highlight")
