"""The index of a space for its nearest neighbours: its names, its definition, its expression.

A space has up to two kinds of it in its partition. One covers all of it and serves searches over
many collections; others cover one collection each, of those with more vectors than the space's
``exact_limit``. Smaller collections are compared exactly through the primary key.

Postgres uses an index only for the expression that it was built on, so ``distance()`` here is not
``Space.distance``: it is what is *near* by the index, which holds less than the vectors do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from pgvector.sqlalchemy import BIT, HALFVEC
from psycopg import sql
from sqlalchemy import ColumnElement, Float, bindparam, cast, func

from ragstore.models import EMBEDDINGS
from ragstore.packing import check_vectors
from ragstore.space import Space
from ragstore.types import DISTANCE_OPERATORS, OPERATOR_CLASSES, Vector

HAMMING = "<~>"
"""pgvector's operator for the number of bits that differ."""


def index_name(space: Space, collection_id: int | None = None) -> str:
    """Return the name of the index over a space, or over one collection in it."""
    whole = f"{space.partition}_ann"
    return whole if collection_id is None else f"{whole}_{collection_id}"


def is_exact(space: Space) -> bool:
    """Tell whether ``distance`` orders as ``Space.distance`` does, but for rounding.

    A binary index does not: its nearest are to be compared again, in order.
    """
    return space.index_type != "binary"


def distance(
    space: Space, vector: Sequence[float] | npt.NDArray[Any] | ColumnElement[Any]
) -> ColumnElement[float]:
    """Return the distance of ``Embedding.vector`` to ``vector`` that the space's index is over.

    Order by it, ascending, in a statement that names the space (``Embedding.space_id ==
    space.id``) and, for the index of one collection, that collection. For a binary index it is the
    number of signs that differ. ``vector`` may be an expression of yours of type ``vector``.

    Raises:
        InvalidVector: the vector does not fit the space.
    """
    bound = vector if isinstance(vector, ColumnElement) else _bound(space, vector)
    stored = EMBEDDINGS.c.vector
    if space.index_type == "binary":
        bits = BIT(space.dimensions)
        query = cast(func.binary_quantize(cast(bound, Vector(space.dimensions))), bits)
        signs = cast(func.binary_quantize(stored), bits)
        return signs.op(HAMMING, return_type=Float())(query)
    if space.index_type == "none":
        return stored.op(DISTANCE_OPERATORS[space.metric], return_type=Float())(bound)
    kind = Vector(space.dimensions) if space.index_type == "vector" else HALFVEC(space.dimensions)
    operator = DISTANCE_OPERATORS[space.metric]
    return cast(stored, kind).op(operator, return_type=Float())(cast(bound, kind))


def _bound(space: Space, vector: Sequence[float] | npt.NDArray[Any]) -> ColumnElement[Any]:
    checked = check_vectors(space, [vector])[0].tolist()
    return bindparam("vector", checked, type_=Vector(space.dimensions), unique=True)


def definition(
    space: Space, collection_id: int | None = None, options: dict[str, int] | None = None
) -> sql.Composed:
    """Return what follows the table in CREATE INDEX: method, expression, options and rows."""
    parts = [
        sql.SQL("USING {} ({} {})").format(
            sql.SQL("ivfflat" if space.index_type == "ivfflat" else "hnsw"),
            _expression(space),
            sql.SQL(_operator_class(space)),
        )
    ]
    if options:
        pairs = [sql.SQL(name) + sql.SQL(" = ") + sql.Literal(n) for name, n in options.items()]
        parts.append(sql.SQL("WITH ({})").format(sql.SQL(", ").join(pairs)))
    if collection_id is not None:
        parts.append(sql.SQL("WHERE collection_id = {}").format(sql.Literal(collection_id)))
    return sql.SQL(" ").join(parts)


def _expression(space: Space) -> sql.Composed:
    forms = {"binary": "(binary_quantize(vector)::bit({}))", "vector": "(vector::vector({}))"}
    form = forms.get(space.index_type, "(vector::halfvec({}))")
    return sql.SQL(form).format(sql.Literal(space.dimensions))


def _operator_class(space: Space) -> str:
    if space.index_type == "binary":
        return "bit_hamming_ops"
    storage = "vector" if space.index_type == "vector" else "halfvec"
    return f"{storage}_{OPERATOR_CLASSES[space.metric]}"
