"""Column types, vector indexes and SQL functions for a schema of yours or ours.

Everything here describes; nothing connects. Autogenerate writes these types into a revision as
plain SQLAlchemy and pgvector ones, so a revision does not depend on this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import DDL, ColumnElement, DateTime, Dialect, Index, Table, cast, event
from sqlalchemy.sql.elements import conv
from sqlalchemy.types import TypeDecorator

Metric = Literal["cosine", "l2", "inner_product", "l1"]
"""How the distance of two vectors is measured."""

VectorStorage = Literal["vector", "halfvec"]
"""What an index holds: 4-byte or 2-byte floats. The table always holds 4-byte ones."""

IndexType = Literal["halfvec", "vector", "binary", "ivfflat", "none"]
"""What a space is searched through: HNSW over 2-byte floats, over 4-byte ones, or over their signs;
IVFFlat over 2-byte floats; or nothing, so that every vector is compared."""

METRICS: tuple[Metric, ...] = ("cosine", "l2", "inner_product", "l1")
"""Every metric, the default first."""

INDEX_TYPES: tuple[IndexType, ...] = ("halfvec", "vector", "binary", "ivfflat", "none")
"""Every index of a space, the default first."""

DISTANCE_OPERATORS: dict[Metric, str] = {
    "cosine": "<=>",
    "l2": "<->",
    "inner_product": "<#>",
    "l1": "<+>",
}
"""pgvector's operator for each metric; ``<#>`` is the *negative* inner product."""

OPERATOR_CLASSES: dict[Metric, str] = {
    "cosine": "cosine_ops",
    "l2": "l2_ops",
    "inner_product": "ip_ops",
    "l1": "l1_ops",
}
"""pgvector's operator class for each metric, after the storage: ``halfvec_cosine_ops``."""

MAX_DIMENSIONS = 16_000
"""What pgvector can store in one vector."""

MAX_INDEXED_DIMENSIONS: dict[VectorStorage, int] = {"vector": 2_000, "halfvec": 4_000}
"""What pgvector can index: an index entry must fit a page of 8 KiB."""

MAX_DIMENSIONS_OF_INDEX: dict[IndexType, int] = {
    "halfvec": MAX_INDEXED_DIMENSIONS["halfvec"],
    "vector": MAX_INDEXED_DIMENSIONS["vector"],
    "ivfflat": MAX_INDEXED_DIMENSIONS["halfvec"],
    "binary": MAX_DIMENSIONS,  # pgvector indexes up to 64,000 bits
    "none": MAX_DIMENSIONS,
}
"""The most dimensions of a space with that index."""

METRICS_OF_INDEX: dict[IndexType, tuple[Metric, ...]] = {
    "halfvec": METRICS,
    "vector": METRICS,
    "ivfflat": ("cosine", "l2", "inner_product"),
    "binary": ("cosine", "inner_product"),
    "none": METRICS,
}
"""The metrics of a space with that index: IVFFlat has no operator class for l1, and the signs of a
vector tell its direction, not its length."""


class Vector(TypeDecorator[list[float]]):
    """A pgvector ``vector``, read as ``list[float]`` whatever the version of pgvector-python.

    Takes any flat sequence of numbers, numpy arrays included. Without ``dimensions`` the column
    takes vectors of any length. The distance methods (``cosine_distance`` and so on) are
    pgvector's.
    """

    impl = VECTOR
    cache_ok = True
    comparator_factory = VECTOR.comparator_factory

    def __init__(self, dimensions: int | None = None) -> None:
        self.dimensions = dimensions
        super().__init__(dimensions)

    def process_bind_param(self, value: Any, dialect: Dialect) -> list[float] | None:
        """Take an array or a sequence."""
        return None if value is None else _floats(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> list[float] | None:
        """Give a list: pgvector-python gave arrays before 0.5."""
        return None if value is None else _floats(value)

    def compare_values(self, x: Any, y: Any) -> bool:
        """Compare by element: ``==`` on two numpy arrays has no truth value."""
        if x is None or y is None:
            return x is y
        return _floats(x) == _floats(y)


class UtcDateTime(TypeDecorator[datetime]):
    """A ``timestamp with time zone``, always read in UTC.

    A naive datetime is refused: Postgres would read it in the session's time zone, whichever that
    happens to be.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive datetime."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a naive datetime: give it a time zone, as datetime.now(timezone.utc)")
        return value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give UTC, whatever the session's time zone."""
        return None if value is None else value.astimezone(timezone.utc)


def hnsw(
    name: str,
    column: ColumnElement[Any],
    *,
    dimensions: int,
    metric: Metric = "cosine",
    storage: VectorStorage = "halfvec",
    m: int = 16,
    ef_construction: int = 64,
    where: ColumnElement[bool] | None = None,
) -> Index:
    """Return an HNSW index over ``column`` for ``metric``.

    ``storage="halfvec"`` indexes 2-byte floats: 0.57 times the size at the same recall (measured,
    100,000 vectors of 384 dimensions). A query uses the index only when it orders by the same
    expression: ``cast(column, HALFVEC(dimensions))`` and the metric's operator.
    ``m`` and ``ef_construction`` are pgvector's, at its defaults.

    Raises:
        ValueError: more dimensions than pgvector can index in that storage.
    """
    options = {"m": m, "ef_construction": ef_construction}
    return _vector_index("hnsw", name, column, dimensions, metric, storage, options, where)


def ivfflat(
    name: str,
    column: ColumnElement[Any],
    *,
    dimensions: int,
    lists: int,
    metric: Metric = "cosine",
    storage: VectorStorage = "halfvec",
    where: ColumnElement[bool] | None = None,
) -> Index:
    """Return an IVFFlat index over ``column`` for ``metric``, with ``lists`` clusters.

    Build it on a filled table: the clusters are found in the rows that are there. pgvector
    suggests rows / 1000 lists up to a million rows.

    Raises:
        ValueError: more dimensions than pgvector can index, or the metric is l1, which has none.
    """
    if metric == "l1":
        raise ValueError("IVFFlat has no operator class for l1: use hnsw(), or another metric")
    return _vector_index(
        "ivfflat", name, column, dimensions, metric, storage, {"lists": lists}, where
    )


@dataclass(frozen=True)
class Function:
    """An SQL function that a schema needs: what ``CREATE FUNCTION`` takes.

    ``arguments`` are (name, type) pairs. ``attach`` it to the table whose columns call it.
    """

    name: str
    arguments: Sequence[tuple[str, str]]
    returns: str
    body: str
    language: str = "sql"
    options: str = "IMMUTABLE PARALLEL SAFE"

    @property
    def signature(self) -> str:
        """Return the name and argument types, as ``DROP FUNCTION`` takes them."""
        return f"{self.name}({', '.join(kind for _, kind in self.arguments)})"

    def create_sql(self) -> str:
        """Return the statement that creates the function, or replaces its body."""
        arguments = ", ".join(f"{name} {kind}" for name, kind in self.arguments)
        return (
            f"CREATE OR REPLACE FUNCTION {self.name}({arguments}) RETURNS {self.returns}"
            f" LANGUAGE {self.language} {self.options} AS $function${self.body}$function$"
        )

    def drop_sql(self) -> str:
        """Return the statement that drops the function."""
        return f"DROP FUNCTION IF EXISTS {self.signature}"

    def attach(self, table: Table) -> None:
        """Create the function before ``table`` and drop it after, in create_all and drop_all.

        Autogenerate finds it in ``info["functions"]`` of the table, and of its MetaData.
        """
        table.metadata.info.setdefault("functions", {})[self.name] = self
        table.info.setdefault("functions", []).append(self)
        event.listen(table, "before_create", verbatim(self.create_sql()))
        event.listen(table, "after_drop", verbatim(self.drop_sql()))


def function(
    table: Table,
    name: str,
    arguments: Sequence[tuple[str, str]],
    returns: str,
    body: str,
    *,
    language: str = "sql",
    options: str = "IMMUTABLE PARALLEL SAFE",
) -> Function:
    """Declare an SQL function that ``table`` needs, and return it.

    ``create_all`` makes it before the table; a migration makes it with ``op.create_function``.
    """
    declared = Function(name, tuple(arguments), returns, body, language, options)
    declared.attach(table)
    return declared


def verbatim(statement: str) -> DDL:
    """Return ``statement`` as a construct that runs it to the letter, ``%`` and ``:`` included.

    It can be executed, or listen to a table's create and drop events.
    """
    return DDL(statement.replace("%", "%%"))  # type: ignore[no-untyped-call]


def check_indexable(dimensions: int, storage: VectorStorage) -> None:
    """Refuse more dimensions than pgvector can index in ``storage``.

    Raises:
        ValueError: naming the limit, and the storage that takes more where there is one.
    """
    limit = MAX_INDEXED_DIMENSIONS[storage]
    if dimensions <= limit:
        return
    other = "" if storage == "halfvec" else "; storage='halfvec' takes up to 4000"
    raise ValueError(
        f"pgvector cannot index {dimensions} dimensions as {storage}: at most {limit}{other}"
    )


def _vector_index(
    method: str,
    name: str,
    column: ColumnElement[Any],
    dimensions: int,
    metric: Metric,
    storage: VectorStorage,
    options: dict[str, int],
    where: ColumnElement[bool] | None,
) -> Index:
    check_indexable(dimensions, storage)
    kind = HALFVEC(dimensions) if storage == "halfvec" else VECTOR(dimensions)
    # The label carries the operator class: written into the expression as text, the index could
    # not be compared by autogenerate.
    return Index(
        conv(name),
        cast(column, kind).label("vector"),
        postgresql_using=method,
        postgresql_with=options,
        postgresql_ops={"vector": f"{storage}_{OPERATOR_CLASSES[metric]}"},
        postgresql_where=where,
    )


def _floats(value: Any) -> list[float]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    elif hasattr(value, "to_list"):
        value = value.to_list()
    return [float(number) for number in value]
