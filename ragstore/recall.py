"""How good the answers are: an index against exact search, and one space against another.

The queries are vectors that are stored already, a sample of them. Everything here reads, in one
transaction, and what it sets is local to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg import sql
from sqlalchemy import ColumnElement, Float, Select, Text, bindparam, cast, select

from ragstore import ann
from ragstore.collection import CollectionInfo, find_collection
from ragstore.exceptions import InvalidInput
from ragstore.execution import Operation, Query, compiled
from ragstore.indexing import has_index
from ragstore.models import CHUNKS, DOCUMENTS, EMBEDDINGS
from ragstore.search.filter import Where, condition
from ragstore.search.query import MAX_RERANK
from ragstore.search.vector import CANDIDATES_OF_A_LIST
from ragstore.space import Space, check_attached, find_space
from ragstore.types import DISTANCE_OPERATORS, IndexType, Vector

EF_SEARCH = (40, 64, 100, 160, 250, 400, 640, 1_000)
"""What is tried for ``hnsw.ef_search``; of a binary index so many candidates are ranked again."""

PROBES = (1, 2, 4, 8, 16, 32, 64, 128)
"""What is tried for ``ivfflat.probes``."""

MAX_SAMPLE = 10_000
"""The most queries of one measurement."""


@dataclass(frozen=True)
class RecallReport:
    """How many of the nearest an index finds, by how far it looks.

    - ``index``: the index that was used; none if the collection is searched without
    - ``setting``: what was varied, ``hnsw.ef_search`` or ``ivfflat.probes``
    - ``recall``: for each value tried, the share of the ``k`` nearest that were found
    - ``suggested``: the least value that reached ``target``, or none if none did
    - ``sample``: how many queries were asked
    - ``index_type``: that of the space
    """

    collection: str
    space: str
    k: int
    sample: int
    index: str | None
    setting: str
    target: float
    recall: Mapping[int, float] = field(default_factory=dict)
    suggested: int | None = None
    index_type: IndexType = "none"

    @property
    def arguments(self) -> dict[str, int]:
        """Return the arguments of ``search`` that look as far as was suggested, if that was."""
        if self.suggested is None:
            return {}
        if self.index_type == "ivfflat":
            return {"ef_search": self.suggested * CANDIDATES_OF_A_LIST}
        if self.index_type == "binary":
            return {"rerank": min(-(-self.suggested // self.k), MAX_RERANK)}
        return {"ef_search": self.suggested}


@dataclass(frozen=True)
class Comparison:
    """How alike the answers of two spaces are.

    ``overlap`` is the share of the ``k`` nearest chunks that both name, exact in both, over
    ``sample`` chunks as queries; ``recall`` that of the new space's index against exact search,
    none without an index.
    """

    k: int
    sample: int
    overlap: float
    recall: float | None


# --- an index against exact search -------------------------------------------------------------


def measure_recall(
    collection_name: str,
    *,
    space_name: str | None = None,
    k: int = 10,
    sample: int = 50,
    where: Where | None = None,
    target: float = 0.95,
) -> Operation[RecallReport]:
    """Ask sampled vectors of their nearest, exactly and by the index, looking further each time.

    Raises:
        CollectionNotFound, SpaceNotFound, SpaceNotReady: there is nothing to measure.
        InvalidInput: ``k``, ``sample`` or ``target`` is out of range.
        InvalidFilter: ``where`` is not a filter.
    """
    _check_range("k", k, 1, 1_000)
    _check_range("sample", sample, 1, MAX_SAMPLE)
    is_number = isinstance(target, int | float) and not isinstance(target, bool)
    if not is_number or not 0 < target <= 1:
        raise InvalidInput(f"target is {target!r}: it takes a share, above 0 and up to 1")
    collection = yield from find_collection(collection_name)
    if space_name is None:
        space = collection.require_space()
    else:
        space = yield from find_space(space_name)
        yield from check_attached(space)
    return (yield from _measure(collection, space, k, sample, where, target))


def _measure(
    collection: CollectionInfo,
    space: Space,
    k: int,
    sample: int,
    where: Where | None,
    target: float,
) -> Operation[RecallReport]:
    index = yield from _index_of(space, collection.id)
    setting = "ivfflat.probes" if space.index_type == "ivfflat" else "hnsw.ef_search"
    queries = yield from _sample(collection.id, space, sample)
    report = RecallReport(
        collection.name,
        space.name,
        k,
        len(queries),
        index,
        setting,
        target,
        index_type=space.index_type,
    )
    if index is None or not queries:
        return report
    exact = yield from _exact_distances(collection.id, space, queries, k, where)
    yield from _prefer_the_index(space)
    recall: dict[int, float] = {}
    for value in _values(space, k):
        yield _set(setting, str(value))
        found = yield from _found_distances(collection.id, space, queries, k, value, where)
        recall[value] = _mean_share(exact, found)
        if recall[value] >= target:
            return replace(report, recall=recall, suggested=value)
    return replace(report, recall=recall)


def _index_of(space: Space, collection_id: int) -> Operation[str | None]:
    """Return the name of the index that a search in a collection can use."""
    for target in (collection_id, None):
        if (yield from has_index(space, target)):
            return ann.index_name(space, target)
    return None


def _values(space: Space, k: int) -> Iterator[int]:
    values = PROBES if space.index_type == "ivfflat" else EF_SEARCH
    return (value for value in values if value >= k or space.index_type == "ivfflat")


def _exact_distances(
    collection_id: int, space: Space, queries: Sequence[str], k: int, where: Where | None
) -> Operation[list[list[float]]]:
    answers = []
    for query in queries:
        rows = yield compiled(_exact(collection_id, space, query, k, where))
        answers.append([distance for _, distance in rows])
    return answers


def _found_distances(
    collection_id: int,
    space: Space,
    queries: Sequence[str],
    k: int,
    value: int,
    where: Where | None,
) -> Operation[list[list[float]]]:
    answers = []
    for query in queries:
        rows = yield compiled(_by_index(collection_id, space, query, k, value, where))
        answers.append([distance for _, distance in rows])
    return answers


def _mean_share(exact: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> float:
    shares = [_share(*pair) for pair in zip(exact, found, strict=True)]
    return sum(shares) / len(shares)


def _share(exact: Sequence[float], found: Sequence[float]) -> float:
    """Return the share of the nearest that were found; by distance, as equal ones are equal."""
    if not exact:
        return 1.0
    furthest = exact[-1] + 1e-6 * max(1.0, abs(exact[-1]))
    return min(1.0, sum(distance <= furthest for distance in found) / len(exact))


def _prefer_the_index(space: Space) -> Operation[None]:
    """Have the planner use the index, however small the table, and go on until k are found."""
    for name in ("enable_sort", "enable_seqscan", "enable_bitmapscan"):
        yield _set(name, "off")
    # ivfflat knows relaxed order alone.
    if space.index_type == "ivfflat":
        yield _set("ivfflat.iterative_scan", "relaxed_order")
    else:
        yield _set("hnsw.iterative_scan", "strict_order")


def _set(name: str, value: str) -> Query:
    return Query(sql.SQL("SELECT set_config(%s, %s, true)"), [name, value])


# --- one space against another -----------------------------------------------------------------


def compare_spaces(
    collection_id: int, old: Space, new: Space, *, sample: int, k: int = 10
) -> Operation[Comparison]:
    """Compare the answers that two spaces give to sampled chunks, themselves left out."""
    ids = yield from _sample_ids(collection_id, new, sample)
    of_old = yield from _vectors(collection_id, old, ids)
    of_new = yield from _vectors(collection_id, new, ids)
    both = [id_ for id_ in ids if id_ in of_old and id_ in of_new]
    overlaps = []
    for id_ in both:
        answers = []
        for space, query in ((old, of_old[id_]), (new, of_new[id_])):
            rows = yield compiled(_exact(collection_id, space, query, k + 1, None))
            answers.append({found for found, _ in rows if found != id_})
        most = min(k, max(map(len, answers)))
        overlaps.append(len(answers[0] & answers[1]) / most if most else 1.0)
    recall = yield from _recall_at_default(collection_id, new, list(of_new.values()), k)
    overlap = sum(overlaps) / len(overlaps) if overlaps else 1.0
    return Comparison(k, len(both), min(1.0, overlap), recall)


def _recall_at_default(
    collection_id: int, space: Space, queries: Sequence[str], k: int
) -> Operation[float | None]:
    if not queries or (yield from _index_of(space, collection_id)) is None:
        return None
    exact = yield from _exact_distances(collection_id, space, queries, k, None)
    yield from _prefer_the_index(space)
    value = next(iter(_values(space, k)))
    found = yield from _found_distances(collection_id, space, queries, k, value, None)
    return _mean_share(exact, found)


# --- statements --------------------------------------------------------------------------------

_SAMPLE = sql.SQL(
    "SELECT chunk_id FROM ragstore_embedding WHERE collection_id = %s AND space_id = %s"
    " ORDER BY random() LIMIT %s"
)
_VECTORS = sql.SQL(
    "SELECT chunk_id, vector::text FROM ragstore_embedding"
    " WHERE collection_id = %s AND space_id = %s AND chunk_id = ANY (%s)"
)


def _sample_ids(collection_id: int, space: Space, size: int) -> Operation[list[int]]:
    rows = yield Query(_SAMPLE, [collection_id, space.id, size])
    return [id_ for (id_,) in rows]


def _vectors(collection_id: int, space: Space, ids: Sequence[int]) -> Operation[dict[int, str]]:
    """Return stored vectors as the server writes them, to be sent back as they are."""
    rows = yield Query(_VECTORS, [collection_id, space.id, list(ids)])
    return dict(rows)


def _sample(collection_id: int, space: Space, size: int) -> Operation[list[str]]:
    ids = yield from _sample_ids(collection_id, space, size)
    return list((yield from _vectors(collection_id, space, ids)).values())


def _query(space: Space, vector: str) -> ColumnElement[Any]:
    return cast(bindparam("query", vector, type_=Text), Vector(space.dimensions))


def _distance(space: Space, vector: str) -> ColumnElement[float]:
    operator = DISTANCE_OPERATORS[space.metric]
    return EMBEDDINGS.c.vector.op(operator, return_type=Float())(_query(space, vector))


def _candidates(collection_id: int, space: Space, vector: str, where: Where | None) -> Select[Any]:
    distance = _distance(space, vector).label("distance")
    rows = select(EMBEDDINGS.c.chunk_id, distance).where(
        EMBEDDINGS.c.space_id == space.id, EMBEDDINGS.c.collection_id == collection_id
    )
    if where is None:
        return rows
    matching = (
        select(CHUNKS.c.id)
        .join(
            DOCUMENTS,
            (DOCUMENTS.c.collection_id == collection_id) & (DOCUMENTS.c.id == CHUNKS.c.document_id),
        )
        .where(
            CHUNKS.c.collection_id == collection_id,
            CHUNKS.c.id == EMBEDDINGS.c.chunk_id,
            condition(where),
        )
    )
    return rows.where(matching.exists())


def _exact(
    collection_id: int, space: Space, vector: str, k: int, where: Where | None
) -> Select[Any]:
    every = _candidates(collection_id, space, vector, where).cte("every")
    every = every.prefix_with("MATERIALIZED")
    return select(every).order_by(every.c.distance).limit(k)


def _by_index(
    collection_id: int, space: Space, vector: str, k: int, value: int, where: Where | None
) -> Select[Any]:
    """Return the nearest by the index; of a binary one, by rank among so many candidates."""
    near = ann.distance(space, _query(space, vector))
    size = k if ann.is_exact(space) else max(k, value)
    first = _candidates(collection_id, space, vector, where).order_by(near).limit(size)
    found = first.cte("found").prefix_with("MATERIALIZED")
    return select(found).order_by(found.c.distance).limit(k)


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInput(f"{name} is {value!r}: it takes a whole number from {least} to {most:,}")
