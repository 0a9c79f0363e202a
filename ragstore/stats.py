"""What a space holds, and the state of its indexes."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from ragstore.execution import Operation, Query
from ragstore.space import Space, find_space


@dataclass(frozen=True)
class IndexStats:
    """An index of a space: over all of it, or over the collection named.

    ``size`` is in bytes; ``scans`` is how often it was used, as far as the server has counted.
    """

    name: str
    collection: str | None
    size: int
    is_valid: bool
    scans: int


@dataclass(frozen=True)
class BuildProgress:
    """An index that is being built: the phase, and the share of it that is done, 0 to 1."""

    index: str
    phase: str
    share: float


@dataclass(frozen=True)
class CollectionStats:
    """A collection in a space, or on its way to or from it.

    - ``vectors``: it has so many in the space
    - ``lacking``: so many of its chunks have none
    - ``is_active``: searches of it use the space
    - ``is_due``: it is large enough for an index of its own, and has none that is valid
    """

    name: str
    vectors: int
    lacking: int
    is_active: bool
    is_due: bool


@dataclass(frozen=True)
class SpaceStats:
    """The state of a space.

    ``rows`` and ``dead_rows`` are the server's estimates; ``table_size`` is in bytes, the
    primary key and the indexes not counted. Dead rows are those of deleted chunks that vacuum has
    not removed yet: searches read past them.
    """

    space: Space
    rows: int
    dead_rows: int
    table_size: int
    collections: tuple[CollectionStats, ...]
    indexes: tuple[IndexStats, ...]
    building: tuple[BuildProgress, ...]


_TABLE = sql.SQL("""
SELECT CASE WHEN reltuples < 0 THEN coalesce(pg_stat_get_live_tuples(oid), 0)
    ELSE reltuples::bigint END,
  coalesce(pg_stat_get_dead_tuples(oid), 0), pg_table_size(oid)
FROM pg_class WHERE oid = to_regclass(%s)
""")
_INDEXES = sql.SQL("""
SELECT i.relname, pg_relation_size(i.oid), x.indisvalid,
  coalesce(pg_stat_get_numscans(i.oid), 0)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass(%s) AND starts_with(i.relname, %s) ORDER BY i.relname
""")
_BUILDING = sql.SQL("""
SELECT i.relname, p.phase, coalesce(
  p.tuples_done::float8 / nullif(p.tuples_total, 0),
  p.blocks_done::float8 / nullif(p.blocks_total, 0), 0)
FROM pg_stat_progress_create_index p JOIN pg_class i ON i.oid = p.index_relid
WHERE p.relid = to_regclass(%s) AND p.datname = current_database()
""")
# A vector has a chunk, by its foreign key: what is lacking is the difference of two counts, each in
# a primary key alone, where a join of both takes twice as long.
_COLLECTIONS = sql.SQL("""
SELECT id, name, coalesce(space_id = %(space)s, false),
  (SELECT count(*) FROM ragstore_embedding WHERE collection_id = c.id AND space_id = %(space)s),
  (SELECT count(*) FROM ragstore_chunk WHERE collection_id = c.id)
FROM ragstore_collection c
WHERE space_id = %(space)s OR next_space_id = %(space)s ORDER BY name
""")


def space_stats(name: str) -> Operation[SpaceStats]:
    """Return the state of a space.

    Raises:
        SpaceNotFound: there is none of that name.
    """
    space = yield from find_space(name)
    table = yield Query(_TABLE, [space.partition])
    rows, dead_rows, size = table[0] if table else (0, 0, 0)
    indexes = yield Query(_INDEXES, [space.partition, f"{space.partition}_ann"])
    valid = {index for index, _, is_valid, _ in indexes if is_valid}
    found = yield Query(_COLLECTIONS, {"space": space.id})
    own = {id_: f"{space.partition}_ann_{id_}" for id_, *_ in found}
    names = {own[id_]: collection for id_, collection, *_ in found}
    collections = []
    for id_, collection, is_active, vectors, chunks in found:
        is_large = space.can_have_index and vectors > space.exact_limit
        is_due = is_large and own[id_] not in valid
        stats = CollectionStats(collection, vectors, chunks - vectors, is_active, is_due)
        collections.append(stats)
    building = yield Query(_BUILDING, [space.partition])
    return SpaceStats(
        space,
        rows,
        dead_rows,
        size,
        tuple(collections),
        tuple(
            IndexStats(index, names.get(index), size, is_valid, scans)
            for index, size, is_valid, scans in indexes
        ),
        tuple(BuildProgress(index, phase, min(1.0, share)) for index, phase, share in building),
    )
