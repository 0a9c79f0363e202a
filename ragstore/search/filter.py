"""Filters: what ``where=`` takes, as a condition on chunks and documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, literal_column, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.util import find_tables

from ragstore.content import check_text, metadata_json
from ragstore.exceptions import InvalidFilter, InvalidInput
from ragstore.execution import compiled
from ragstore.models import CHUNKS, DOCUMENTS, MAX_TEXT_BYTES

Where = Mapping[str, Any] | ColumnElement[bool]
"""A mapping that the chunk's metadata contains, or any condition on Chunk and Document."""


def condition(where: Where) -> ColumnElement[bool]:
    """Return a filter as a condition.

    A mapping is found by the GIN index: ``{"lang": "en", "author": {"name": "Ann"}}`` matches
    chunks whose metadata has at least that.

    Raises:
        InvalidFilter: it is neither a mapping of JSON values nor a condition, or a condition on
            more than Chunk and Document, or with a value that cannot be sent.
    """
    if isinstance(where, ColumnElement):
        _check_condition(where)
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
    except InvalidInput as exc:
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


def _check_condition(where: ColumnElement[bool]) -> None:
    probe: Select[Any] = select(literal_column("1")).where(where)
    # Any other table would be joined to every row, and multiply the hits.
    foreign = [each for each in probe.get_final_froms() if each not in (CHUNKS, DOCUMENTS)]
    if foreign:
        raise InvalidFilter(
            f"where= speaks of {foreign[0].description}, but is a condition on Chunk and Document:"
            " put other tables, and aliases, into a subquery (exists() or in_())"
        )
    try:
        parameters = compiled(probe).parameters
    except (SQLAlchemyError, TypeError, ValueError) as exc:
        raise InvalidFilter(f"where= is not a filter: {exc}") from exc
    for value in parameters.values() if isinstance(parameters, dict) else ():
        _check_value(value)


def _check_value(value: Any) -> None:
    """Refuse text that the driver would refuse in its own words."""
    values: Iterable[Any] = value if isinstance(value, list | tuple) else [value]
    try:
        for each in values:
            if isinstance(each, str):
                check_text(each, "a value", MAX_TEXT_BYTES)
    except InvalidInput as exc:
        raise InvalidFilter(f"where= is not a filter: {exc}") from exc
