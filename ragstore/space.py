"""Embedding spaces: a row, and its partition of the embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy.typing as npt
from psycopg import sql
from sqlalchemy import ColumnElement, Float, bindparam

from ragstore.content import check_text
from ragstore.exceptions import (
    ImproperlyConfigured,
    InvalidInput,
    InvalidName,
    InvalidVector,
    PermissionDenied,
    SpaceExists,
    SpaceNotFound,
    SpaceNotReady,
)
from ragstore.execution import Operation, Query
from ragstore.models import DEFAULT_EXACT_LIMIT, EMBEDDINGS, MAX_NAME_BYTES, EmbeddingSpace
from ragstore.packing import check_vectors
from ragstore.types import (
    DISTANCE_OPERATORS,
    INDEX_TYPES,
    MAX_DIMENSIONS,
    MAX_DIMENSIONS_OF_INDEX,
    METRICS,
    METRICS_OF_INDEX,
    IndexType,
    Metric,
    Vector,
)

MAX_INLINE_DIMENSIONS = 2_000
"""Up to here a row of an embedding fits a page of 8 KiB, and is kept in it.

Beyond, Postgres moves the vector out of line. Inline, an exact scan is 3.5 times as fast
(measured: 100,000 vectors of 384 dimensions).
"""

LOCK_TIMEOUT = "2s"
"""How long making a partition waits for a lock, before it lets go of those it has."""

_PAGE_TUPLE = 8160  # the largest tuple of a page, as toast_tuple_target takes it

MAX_EXACT_LIMIT = 2**31 - 1
"""The highest ``exact_limit``: the column is an integer."""


@dataclass(frozen=True)
class Space:
    """An embedding space: one model at one dimension, measured by one metric.

    ``index_type`` is what it is searched through; a collection of up to ``exact_limit`` vectors is
    searched without.
    """

    id: int
    name: str
    model: str
    dimensions: int
    metric: Metric
    index_type: IndexType = "halfvec"
    exact_limit: int = DEFAULT_EXACT_LIMIT

    @property
    def definition(self) -> dict[str, Any]:
        """Return the arguments of ``create_space`` that make such a space."""
        names = ("name", "model", "dimensions", "metric", "exact_limit")
        return {name: getattr(self, name) for name in names} | {"index": self.index_type}

    @property
    def partition(self) -> str:
        """Return the name of the table that holds its embeddings."""
        return f"ragstore_embedding_{self.id}"

    @property
    def can_have_index(self) -> bool:
        """Tell whether its index can be built: a row made with the models may name any."""
        return self.index_type != "none" and _can_serve(
            self.index_type, self.dimensions, self.metric
        )

    def distance(self, vector: Sequence[float] | npt.NDArray[Any]) -> ColumnElement[float]:
        """Return the distance of ``Embedding.vector`` to ``vector``, for a statement of yours.

        The statement must name the space: ``.where(Embedding.space_id == space.id)``.

        Raises:
            InvalidVector: the vector does not fit the space.
        """
        return distance(self, vector)


def distance(
    space: Space | EmbeddingSpace, vector: Sequence[float] | npt.NDArray[Any]
) -> ColumnElement[float]:
    """Return ``Space.distance`` for a Space, or for a row of EmbeddingSpace."""
    target = space if isinstance(space, Space) else space_of(space)
    checked = check_vectors(target, [vector])[0].tolist()
    bound = bindparam("vector", checked, type_=Vector(target.dimensions), unique=True)
    operator = DISTANCE_OPERATORS[target.metric]
    return EMBEDDINGS.c.vector.op(operator, return_type=Float())(bound)


def space_of(row: EmbeddingSpace) -> Space:
    """Return the Space of a row of EmbeddingSpace."""
    return Space(*(getattr(row, each.name) for each in fields(Space)))


def columns(table: str) -> sql.Composed:
    """Return the columns of a Space, of ``table`` in a statement."""
    names = [sql.Identifier(table, each.name) for each in fields(Space)]
    return sql.SQL(", ").join(names)


# --- operations --------------------------------------------------------------------------------


def is_attached(partition: sql.Composable) -> sql.Composed:
    """Return the condition that a table of that name is a partition of the embeddings.

    One that is being detached takes no rows, and is none: a drop of its space was cut short.
    """
    return sql.SQL(
        "EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass({})"
        " AND inhparent = 'ragstore_embedding'::regclass AND NOT inhdetachpending)"
    ).format(partition)


def check_attached(space: Space) -> Operation[None]:
    """Refuse a space that has no partition.

    Raises:
        SpaceNotReady: it has none.
    """
    ready = yield Query(sql.SQL("SELECT {}").format(is_attached(sql.Literal(space.partition))))
    if not ready[0][0]:
        raise SpaceNotReady(
            f"The space {space.name!r} has no partition, so it holds no vectors:"
            f" run store.create_space({space.name!r}, …, exists_ok=True) as the owner of the"
            " tables"
        )


def find_space(name: str) -> Operation[Space]:
    """Return the space of that name.

    Raises:
        SpaceNotFound: naming those there are.
    """
    if found := (yield from _look_up(name)):
        return found
    names = yield Query(sql.SQL("SELECT name FROM ragstore_embedding_space ORDER BY name LIMIT 9"))
    known = ", ".join(repr(known) for (known,) in names) or "none yet"
    raise SpaceNotFound(
        f"There is no space {name!r} (there is {known}): make it with create_space()", space=name
    )


def _look_up(name: str) -> Operation[Space | None]:
    found = yield Query(
        sql.SQL("SELECT {} FROM ragstore_embedding_space s WHERE name = %s").format(columns("s")),
        [check_text(name, "the name of the space", MAX_NAME_BYTES)],
    )
    return Space(*found[0]) if found else None


def insert_space(
    name: str,
    model: str,
    dimensions: int,
    metric: Metric,
    index: IndexType = "halfvec",
    exact_limit: int = DEFAULT_EXACT_LIMIT,
    *,
    exists_ok: bool,
) -> Operation[Space]:
    """Insert the row of a space, or return the one that is the same already.

    Raises:
        SpaceExists: the name is taken, and ``exists_ok`` is false or the space is another.
        InvalidName, InvalidText, InvalidVector: an argument cannot be that of a space.
        InvalidInput: ``index`` is not for these dimensions or this metric.
    """
    _check_arguments(name, model, dimensions, metric)
    check_index(index, dimensions, metric)
    _check_exact_limit(exact_limit)
    definition = [model, dimensions, metric, index, exact_limit]
    if exists_ok and (known := (yield from _look_up(name))):  # a role that only reads may ask so
        return _same(known, definition)
    rows = yield Query(
        sql.SQL(
            "INSERT INTO ragstore_embedding_space AS s"
            " (name, model, dimensions, metric, index_type, exact_limit)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO NOTHING RETURNING {}"
        ).format(columns("s")),
        [name, *definition],
    )
    if rows:
        return Space(*rows[0])
    space = yield from find_space(name)
    if exists_ok:
        return _same(space, definition)
    raise _taken(space)


def _same(space: Space, definition: Sequence[Any]) -> Space:
    """Return a space that is defined so; refuse another."""
    if list(definition) != [getattr(space, each.name) for each in fields(Space)[2:]]:
        raise _taken(space)
    return space


def _taken(space: Space) -> SpaceExists:
    return SpaceExists(
        f"There is a space {space.name!r} already (model {space.model!r}, {space.dimensions}"
        f" dimensions, {space.metric}, index {space.index_type!r}, exact_limit"
        f" {space.exact_limit}): choose another name, or pass exists_ok=True for the same"
        " definition",
        space=space.name,
    )


_LOCK_SPACE = sql.SQL("SELECT FROM ragstore_embedding_space WHERE id = %s FOR NO KEY UPDATE")
_PARTITION_STATE = sql.SQL("""
SELECT {is_attached}, to_regclass(%(partition)s) IS NOT NULL,
  EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(%(partition)s) AND inhdetachpending),
  EXISTS (SELECT FROM ragstore_embedding_space WHERE id = %(id)s AND name = %(name)s),
  pg_has_role(relowner, 'USAGE'), current_user, pg_get_userbyid(relowner)
FROM pg_class WHERE oid = 'ragstore_embedding'::regclass
""").format(is_attached=is_attached(sql.Placeholder("partition")))

_FINISH_DETACH = sql.SQL("ALTER TABLE ragstore_embedding DETACH PARTITION {} FINALIZE")


def create_partition(space: Space) -> Operation[None]:
    """Give a space its partition, unless it has one; an operation for the tables' owner.

    The table is made aside and attached: ``CREATE … PARTITION OF`` would lock out every search
    behind one long reader, ``ATTACH`` only writers and other changes of the schema.

    Raises:
        ImproperlyConfigured: this is not the database that has the space.
        PermissionDenied: the role does not own the tables.
        LockTimeout: another session held a lock for longer than LOCK_TIMEOUT.
    """
    names = {"partition": space.partition, "id": space.id, "name": space.name}
    state = (yield Query(_PARTITION_STATE, names))[0]
    attached, _, _, is_known, is_owner, role, owner = state
    if not is_known:
        raise ImproperlyConfigured(
            f"MIGRATION_DATABASE_URL (or migration_url=) leads to another database than"
            f" DATABASE_URL: there is no space {space.name!r} in it. Nothing was changed there"
        )
    if attached:
        return
    if not is_owner:
        raise PermissionDenied(
            f"Role {role!r} does not own the table ragstore_embedding, and cannot make the"
            f" partition of space {space.name!r}: set DB_MIGRATION_DATABASE_URL (or migration_url=)"
            f" to the URL of {owner!r}, and call create_space() again with exists_ok=True"
        )
    yield Query(sql.SQL("SELECT set_config('lock_timeout', %s, true)"), [LOCK_TIMEOUT])
    # Two sessions may have found it missing at once: the second waits here, and then sees it.
    yield Query(_LOCK_SPACE, [space.id])
    attached, is_there, is_pending, *_ = (yield Query(_PARTITION_STATE, names))[0]
    if attached:
        return
    if is_pending:  # a drop was cut short
        yield Query(_FINISH_DETACH.format(sql.Identifier(space.partition)))
    statements = _partition_statements(space)
    for statement in statements[-1:] if is_there else statements:  # it was detached, not dropped
        yield Query(statement)


def _partition_statements(space: Space) -> list[sql.Composed]:
    partition = sql.Identifier(space.partition)
    yielded = [
        sql.SQL("CREATE TABLE {} (LIKE ragstore_embedding INCLUDING ALL)").format(partition),
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK (vector_dims(vector) = {})").format(
            partition, sql.Identifier(f"{space.partition}_check"), sql.Literal(space.dimensions)
        ),
    ]
    if space.dimensions <= MAX_INLINE_DIMENSIONS:
        yielded += [
            sql.SQL("ALTER TABLE {} ALTER vector SET STORAGE PLAIN").format(partition),
            sql.SQL("ALTER TABLE {} SET (toast_tuple_target = {})").format(
                partition, sql.Literal(_PAGE_TUPLE)
            ),
        ]
    return [
        *yielded,
        sql.SQL("ALTER TABLE ragstore_embedding ATTACH PARTITION {} FOR VALUES IN ({})").format(
            partition, sql.Literal(space.id)
        ),
    ]


def _check_arguments(name: str, model: str, dimensions: int, metric: str) -> None:
    for what, value in (("name", name), ("model", model)):
        if not check_text(value, f"the {what} of the space", MAX_NAME_BYTES):
            raise InvalidName(f"a space needs a {what}")
    is_number = isinstance(dimensions, int) and not isinstance(dimensions, bool)
    if not is_number or not 1 <= dimensions <= MAX_DIMENSIONS:
        raise InvalidVector(
            f"a space has 1 to {MAX_DIMENSIONS:,} dimensions, not {dimensions!r}: pgvector's limit"
        )
    if metric not in METRICS:
        raise InvalidName(f"the metric {metric!r} is none of {', '.join(get_args(Metric))}")


def check_index(index: str, dimensions: int, metric: Metric) -> None:
    """Refuse an index that a space of these dimensions and this metric cannot have.

    Raises:
        InvalidName: there is no such kind of index.
        InvalidInput: naming those that it can have.
    """
    if index not in INDEX_TYPES:
        raise InvalidName(f"the index {index!r} is none of {', '.join(INDEX_TYPES)}")
    most = MAX_DIMENSIONS_OF_INDEX[index]
    if dimensions > most:
        raise InvalidInput(
            f"pgvector indexes up to {most:,} dimensions as {index!r}, and the space has"
            f" {dimensions:,}: pass {_others(index, dimensions, metric)}"
        )
    if metric not in METRICS_OF_INDEX[index]:
        why = (
            "the signs of a vector, which a binary index holds, tell its direction and not its"
            " length"
            if index == "binary"
            else "pgvector has no operator class for it"
        )
        raise InvalidInput(
            f"the index {index!r} cannot serve the metric {metric!r} ({why}): pass"
            f" {_others(index, dimensions, metric)}"
        )
    if not _can_serve(index, dimensions, metric):
        raise InvalidInput(
            f"pgvector builds no index {index!r} for the metric {metric!r} over a single dimension:"
            f" pass {_others(index, dimensions, metric)}"
        )


def _can_serve(index: IndexType, dimensions: int, metric: Metric) -> bool:
    # IVFFlat compares directions under these metrics, and a single number has but two.
    is_without_lists = index == "ivfflat" and dimensions == 1 and metric in _BY_DIRECTION
    return (
        dimensions <= MAX_DIMENSIONS_OF_INDEX[index]
        and metric in METRICS_OF_INDEX[index]
        and not is_without_lists
    )


_BY_DIRECTION = ("cosine", "inner_product")
_EFFECTS = {
    "binary": " (signs only: the nearest of them are compared again, and some are missed)",
    "none": " (every search compares all vectors of its collection)",
}


def _others(index: str, dimensions: int, metric: Metric) -> str:
    """Name the indexes that a space can have instead."""
    return " or ".join(
        f"index={each!r}{_EFFECTS.get(each, '')}"
        for each in INDEX_TYPES
        if each != index and _can_serve(each, dimensions, metric)
    )


def _check_exact_limit(limit: int) -> None:
    is_number = isinstance(limit, int) and not isinstance(limit, bool)
    if not is_number or not 0 <= limit <= MAX_EXACT_LIMIT:
        raise InvalidInput(
            f"exact_limit is {limit!r}: it takes a number of vectors, 0 to {MAX_EXACT_LIMIT:,}"
        )
