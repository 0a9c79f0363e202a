"""Filters: what ``where=`` takes, as a condition on chunks and documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, and_
from sqlalchemy.sql.util import find_tables

from ragstore.content import metadata_json
from ragstore.exceptions import InvalidFilter, InvalidMetadata
from ragstore.models import CHUNKS, DOCUMENTS

Where = Mapping[str, Any] | ColumnElement[bool]
"""A mapping that the chunk's metadata contains, or any condition on Chunk and Document."""


def condition(where: Where) -> ColumnElement[bool]:
    """Return a filter as a condition.

    A mapping is found by the GIN index: ``{"lang": "en", "author": {"name": "Ann"}}`` matches
    chunks whose metadata has at least that.

    Raises:
        InvalidFilter: it is neither a mapping of JSON values nor a condition.
    """
    if isinstance(where, ColumnElement):
        return where
    if not isinstance(where, Mapping):
        raise InvalidFilter(
            f"where= takes a mapping or a condition such as Chunk.meta['lang'].astext == 'en', not"
            f" {type(where).__name__}"
        )
    operators = [name for name in where if str(name).startswith("$")]
    if operators:
        raise InvalidFilter(
            f"where= has no operator {operators[0]!r}: a mapping filters by equality; write"
            " anything else as a condition on Chunk and Document"
        )
    try:
        metadata_json(where)
    except InvalidMetadata as exc:
        raise InvalidFilter(f"where= is not a filter: {exc}") from exc
    contained: ColumnElement[bool] = CHUNKS.c.metadata.contains(dict(where))
    return contained


def filtered(
    statement: Select[Any], where: Where | None, collection_id: int, chunk_id: ColumnElement[int]
) -> Select[Any]:
    """Return a statement over chunks' ids with the filter applied.

    Chunks and documents are joined only where the filter speaks of them, and by collection first.
    """
    if where is None:
        return statement
    filter_ = condition(where)
    tables = set(find_tables(filter_, check_columns=True))
    joined = set(statement.get_final_froms())
    if CHUNKS not in joined:
        statement = statement.join(
            CHUNKS, and_(CHUNKS.c.collection_id == collection_id, CHUNKS.c.id == chunk_id)
        )
    if DOCUMENTS in tables:
        statement = statement.join(
            DOCUMENTS,
            and_(
                DOCUMENTS.c.collection_id == collection_id,
                DOCUMENTS.c.id == CHUNKS.c.document_id,
            ),
        )
    return statement.where(filter_)
