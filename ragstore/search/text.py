"""The text arm: the chunks of a collection that match a query in its language."""

from __future__ import annotations

import unicodedata
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Select,
    Text,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import REGCONFIG, TSQUERY

from ragstore.content import check_text
from ragstore.exceptions import InvalidQuery
from ragstore.models import CHUNKS
from ragstore.search.filter import Filter, Where, filtered

MAX_QUERY_BYTES = 8_192
"""The longest query text."""

MAX_QUERY_WORDS = 64
"""The most words of a query: 1,500 in 10,000 chunks took 30 s of the server's time."""


def matching(
    collection_id: int,
    language: str,
    text: str,
    *,
    limit: int,
    where: Where | None = None,
    any_word: bool = False,
) -> Select[Any]:
    """Return (chunk_id, score, rank) of the ``limit`` chunks that match ``text`` best.

    ``text`` is read as web search engines do: words are all needed, ``"…"`` is a phrase, ``or``
    and ``-`` mean what they say. With ``any_word`` one word is enough, and those with more of
    them closer together come first: for questions, few passages have every word of which. The
    score is Postgres's ts_rank_cd.

    Raises:
        InvalidQuery, InvalidText: the query is too long or cannot be sent.
        InvalidFilter: ``where`` is not a filter.
    """
    query = asked(tsquery(language, text), any_word=any_word)
    return found(collection_id, query, where, limit)


def asked(query: ColumnElement[Any], *, any_word: bool) -> CTE:
    """Return the query as a step of its own: read once, not anew for each chunk."""
    query = _any_word_of(query) if any_word else query
    return select(query.label("query")).cte("asked").prefix_with("MATERIALIZED")


def found(
    collection_id: Any,
    query: CTE,
    where: Where | Filter | None,
    limit: int | None,
    *,
    among: CTE | None = None,
) -> Select[Any]:
    """Return (chunk_id, score, rank) of the chunks that match best, by ts_rank_cd, ties by id.

    ``among`` has the id and tsv of the only chunks to look at, the filter applied: where they are
    few, that is faster than an index on the words of every collection.
    """
    wanted = select(query.c.query).scalar_subquery()
    chunks: Any = CHUNKS if among is None else among
    score = func.ts_rank_cd(chunks.c.tsv, wanted)
    matches = (
        select(chunks.c.id.label("chunk_id"), score.label("score"))
        .select_from(chunks)
        .where(chunks.c.tsv.op("@@")(wanted))
    )
    if among is None:
        matches = matches.where(CHUNKS.c.collection_id == collection_id)
        matches = filtered(matches, where, collection_id, CHUNKS.c.id)
    best_first = matches.order_by(score.desc(), chunks.c.id)
    if limit is not None:
        best_first = best_first.limit(literal_column(str(int(limit)), Integer()))
    first = best_first.subquery("best")
    rank = func.row_number().over(order_by=(first.c.score.desc(), first.c.chunk_id))
    return select(first.c.chunk_id, first.c.score, rank.label("rank"))


def tsquery(language: str, text: str) -> ColumnElement[Any]:
    """Return ``text`` as a tsquery of ``language``.

    Raises:
        InvalidQuery: it has too many words.
        InvalidText: it is too long, or cannot be sent.
    """
    check_query(text)
    configuration = cast(literal(language, Text), REGCONFIG)
    return func.websearch_to_tsquery(configuration, literal(text, Text))


def check_query(text: str) -> None:
    """Refuse a query text that is too long.

    Raises:
        InvalidQuery: it has too many words.
        InvalidText: it is too long, or cannot be sent.
    """
    check_text(text, "the query", MAX_QUERY_BYTES)
    if (count := _count_words(text)) > MAX_QUERY_WORDS:
        raise InvalidQuery(
            f"the query has {count} words, and {MAX_QUERY_WORDS} is the limit: search for the words"
            " that matter, or by vector"
        )


def _count_words(text: str) -> int:
    # As Postgres cuts them: also at commas, hyphens and underscores, but not at a vowel sign.
    return len(
        "".join(
            each if each.isalnum() or unicodedata.category(each).startswith("M") else " "
            for each in text
        ).split()
    )


def _any_word_of(query: ColumnElement[Any]) -> ColumnElement[Any]:
    # With a "-" in it, "or" would ask for everything that lacks the one word.
    words = cast(query, Text)
    either = cast(func.replace(words, " & ", " | "), TSQUERY)
    return case((words.contains("!"), query), else_=either)
