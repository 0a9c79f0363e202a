"""Filters: what ``where=`` takes, as a condition on chunks and documents."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, and_, bindparam, literal_column, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.util import find_tables
from sqlalchemy.sql.visitors import cloned_traverse

from ragstore.content import check_text
from ragstore.exceptions import InvalidFilter, InvalidInput
from ragstore.execution import compiled
from ragstore.models import CHUNKS, DOCUMENTS, MAX_TEXT_BYTES
from ragstore.search.nodes import Node, as_rare, is_about_documents, shape_of, values_of
from ragstore.search.operators import parsed

Where = Mapping[str, Any] | ColumnElement[bool]
"""A mapping of operators over the metadata, or any condition on Chunk and Document."""

Build = Callable[[], tuple[ColumnElement[bool], Sequence[BindParameter[Any]]]]


class Filter:
    """A filter that was read, to be put into a statement that is compiled once for its shape.

    ``shape`` is what its SQL depends on, or None where that is not known; ``values`` are those of
    ``parameters``, in their order. The condition is built when it is first asked for.
    """

    def __init__(
        self,
        shape: Hashable,
        values: Sequence[Any],
        build: Build,
        *,
        is_about_documents: bool,
        node: Node | None = None,
    ) -> None:
        self.shape = shape
        self.values = values
        self.is_about_documents = is_about_documents
        self._build = build
        self._node = node

    @cached_property
    def _built(self) -> tuple[ColumnElement[bool], Sequence[BindParameter[Any]]]:
        return self._build()

    @property
    def condition(self) -> ColumnElement[bool]:
        """Return the condition, its values bound."""
        return self._built[0]

    @property
    def parameters(self) -> Sequence[BindParameter[Any]]:
        """Return the parameters of the condition, one for each of the values."""
        return self._built[1]

    @property
    def as_rare(self) -> Filter | None:
        """Return the filter for a statement whose plan is kept, and is one for few chunks.

        None where there is no equality of metadata to tell that of, and where the planner knows
        more of the values than it is to know: columns of documents have statistics, and a
        condition of SQLAlchemy's may be about anything.
        """
        rare = None if self._node is None or self.is_about_documents else as_rare(self._node)
        if rare is None:
            return None
        shape = ("rare", self.shape)
        return Filter(shape, self.values, partial(_built, rare), is_about_documents=False)

    @property
    def identity(self) -> Hashable:
        """Return what two filters have in common that keep the same rows, or None."""
        return None if self.shape is None else (self.shape, repr(self.values))


def condition(where: Where) -> ColumnElement[bool]:
    """Return a filter as a condition.

    What a mapping may hold is told in docs/search.md: ``{"lang": "en", "year": {"$gte": 2020}}``.
    Equality is found by the GIN index on the metadata.

    Raises:
        InvalidFilter: it is neither a mapping of JSON values nor a condition, or a condition on
            more than Chunk and Document, or with a value that cannot be sent.
    """
    return read(where).condition


def read(where: Where) -> Filter:
    """Read a filter.

    Raises:
        InvalidFilter: see ``condition``.
    """
    if isinstance(where, ColumnElement):
        _check_condition(where)
        return _of_expression(_renamed(where))
    if not isinstance(where, Mapping):
        raise InvalidFilter(
            f"where= takes a mapping or a condition such as Chunk.meta['lang'].astext == 'en', not"
            f" {type(where).__name__}"
        )
    node = parsed(where)
    return Filter(
        shape_of(node),
        values_of(node),
        partial(_built, node),
        is_about_documents=is_about_documents(node),
        node=node,
    )


def _built(node: Node) -> tuple[ColumnElement[bool], Sequence[BindParameter[Any]]]:
    parameters: list[BindParameter[Any]] = []

    def take(value: Any, type_: Any) -> BindParameter[Any]:
        parameters.append(bindparam("where", value, type_=type_, unique=True))
        return parameters[-1]

    return node.sql(take), parameters


def _renamed(where: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return a condition whose parameters have no name that the search's own may have too.

    A ``bindparam("text", …)`` of the caller's would take the place of the text searched for.
    """
    key = where._generate_cache_key()  # noqa: SLF001 - what SQLAlchemy's own cache of SQL goes by
    if key is not None and all(each.unique for each in key.bindparams):
        return where

    def rename(parameter: BindParameter[Any]) -> None:
        # As SQLAlchemy does where two statements become one.
        parameter._convert_to_unique()  # type: ignore[no-untyped-call]  # noqa: SLF001

    renamed: ColumnElement[bool] = cloned_traverse(where, {}, {"bindparam": rename})
    return renamed


def _of_expression(where: ColumnElement[bool]) -> Filter:
    is_about = DOCUMENTS in set(find_tables(where, check_columns=True))
    key = where._generate_cache_key()  # noqa: SLF001 - what SQLAlchemy's own cache of SQL goes by
    bound = key.bindparams if key is not None else ()
    values: list[Any] = [each.effective_value for each in bound]
    # An IN list is written out, so its length is part of the SQL.
    lengths = [len(value) for each, value in zip(bound, values, strict=True) if each.expanding]
    shape = (key.key, tuple(lengths)) if key is not None else None
    return Filter(shape, values, lambda: (where, bound), is_about_documents=is_about)


def filtered(
    statement: Select[Any],
    where: Where | Filter | None,
    collection_id: Any,
    chunk_id: ColumnElement[int],
) -> Select[Any]:
    """Return a statement over chunks' ids with the filter applied.

    Chunks and documents are joined only where the filter speaks of them, and by collection first.
    """
    if where is None:
        return statement
    filter_ = where if isinstance(where, Filter) else read(where)
    joined = set(statement.get_final_froms())
    if CHUNKS not in joined:
        statement = statement.join(
            CHUNKS, and_(CHUNKS.c.collection_id == collection_id, CHUNKS.c.id == chunk_id)
        )
    if filter_.is_about_documents:
        statement = statement.join(
            DOCUMENTS,
            and_(
                DOCUMENTS.c.collection_id == collection_id,
                DOCUMENTS.c.id == CHUNKS.c.document_id,
            ),
        )
    return statement.where(filter_.condition)


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
        # As a search has them: a subquery finds its own tables among those around it.
        parameters = compiled(probe.select_from(CHUNKS, DOCUMENTS)).parameters
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
