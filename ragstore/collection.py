"""Collections by name: made, found, and resolved to what every statement needs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg import sql

from ragstore import ann
from ragstore.content import check_text, metadata_json
from ragstore.exceptions import CollectionExists, CollectionNotFound, InvalidName, SpaceNotReady
from ragstore.execution import Operation, Query
from ragstore.models import MAX_NAME_BYTES
from ragstore.space import Space, columns, find_space, is_attached


@dataclass(frozen=True)
class CollectionInfo:
    """A collection as it was when it was looked up.

    ``space`` is the active embedding space, if one is set; ``is_ready`` says that its partition is
    there. The rest is known where the collection was measured: ``size`` is how many vectors it
    has, estimated beyond the space's ``exact_limit``; ``own_index`` and ``space_index`` are how
    many vectors its own index and that of the whole space hold, or None where there is no such
    index, or none that can be used; ``chunks`` is how many all collections have together, 0 before
    the first ANALYZE. ``ways`` is what searches remember of it.
    """

    id: int
    name: str
    language: str
    space: Space | None
    is_ready: bool
    size: int | None = field(default=None, compare=False)
    own_index: int | None = field(default=None, compare=False)
    space_index: int | None = field(default=None, compare=False)
    chunks: int = field(default=0, compare=False)
    ways: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def require_space(self) -> Space:
        """Return the space that vectors go to and are searched in.

        Raises:
            SpaceNotReady: the collection has none, or the space has no partition.
        """
        if self.space is None:
            raise SpaceNotReady(
                f"The collection {self.name!r} has no embedding space, so it holds no vectors:"
                " create it with space=, or search by text"
            )
        if not self.is_ready:
            raise SpaceNotReady(
                f"The space {self.space.name!r} has no partition, so it holds no vectors:"
                f" run store.create_space({self.space.name!r}, …, exists_ok=True) as the owner of"
                " the tables"
            )
        return self.space


_FIND = sql.SQL(
    "SELECT c.id, c.name, c.language, {}, {}"
    " FROM ragstore_collection c LEFT JOIN ragstore_embedding_space s ON s.id = c.space_id"
    " WHERE c.name = %s"
).format(is_attached(sql.SQL("'ragstore_embedding_' || s.id")), columns("s"))


def find_collection(name: str) -> Operation[CollectionInfo]:
    """Return the collection of that name, with its active space.

    Raises:
        CollectionNotFound: naming those there are.
    """
    if found := (yield from _look_up(name)):
        return found
    names = yield Query(sql.SQL("SELECT name FROM ragstore_collection ORDER BY name LIMIT 9"))
    known = ", ".join(repr(known) for (known,) in names) or "none yet"
    raise CollectionNotFound(
        f"There is no collection {name!r} (there is {known}): make it with create_collection()",
        collection=name,
    )


def _look_up(name: str) -> Operation[CollectionInfo | None]:
    found = yield Query(_FIND, [check_text(name, "the name of the collection", MAX_NAME_BYTES)])
    if not found:
        return None
    id_, name, language, is_ready, *space = found[0]
    return CollectionInfo(id_, name, language, Space(*space) if space[0] else None, is_ready)


_MEASURE = sql.SQL("""
SELECT
  (SELECT count(*) FROM (
    SELECT FROM ragstore_embedding WHERE space_id = {space} AND collection_id = {collection}
    LIMIT {most}
  ) AS counted),
  {own}, {whole},
  (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass('ragstore_chunk'))
""")
# What is not analyzed yet has -1 rows; the table may know more.
_ROWS_OF_INDEX = sql.SQL(
    "(SELECT greatest(c.reltuples, CASE WHEN i.indpred IS NULL THEN t.reltuples END, 0)::bigint"
    " FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
    " JOIN pg_class AS t ON t.oid = i.indrelid"
    " WHERE i.indexrelid = to_regclass({}) AND i.indisvalid)"
)


def measure(collection: CollectionInfo) -> Operation[CollectionInfo]:
    """Return the collection with its size and its indexes, as a search needs them."""
    space = collection.space
    if space is None or not collection.is_ready:
        return collection
    names = (ann.index_name(space, collection.id), ann.index_name(space))
    own, whole = (_ROWS_OF_INDEX.format(sql.Literal(name)) for name in names)
    rows = yield Query(
        _MEASURE.format(
            space=sql.Literal(space.id),
            collection=sql.Literal(collection.id),
            most=sql.Literal(space.exact_limit + 1),
            own=own,
            whole=whole,
        )
    )
    size, own_index, space_index, chunks = rows[0]
    if size > space.exact_limit:
        size = max(size, own_index or 0, (yield from _estimated(space, collection.id)))
    return replace(
        collection, size=size, own_index=own_index, space_index=space_index, chunks=chunks or 0
    )


def _estimated(space: Space, collection_id: int) -> Operation[int]:
    """Return how many vectors the planner believes the collection has: counting takes too long."""
    rows = yield Query(
        sql.SQL(
            "EXPLAIN (FORMAT JSON) SELECT FROM ragstore_embedding"
            " WHERE space_id = {} AND collection_id = {}"
        ).format(sql.Literal(space.id), sql.Literal(collection_id))
    )
    return int(rows[0][0][0]["Plan"]["Plan Rows"])


def insert_collection(
    name: str, space: str | None, language: str, meta: Mapping[str, Any], *, exists_ok: bool
) -> Operation[CollectionInfo]:
    """Insert a collection, or return the one that is the same already.

    Raises:
        CollectionExists: the name is taken, and ``exists_ok`` is false or space or language differ.
        SpaceNotFound: there is no such space.
        InvalidName: the name is empty, or the server has no such text search configuration.
        InvalidText, InvalidMetadata: the name or ``meta`` cannot be stored.
    """
    if not check_text(name, "the name of the collection", MAX_NAME_BYTES):
        raise InvalidName("a collection needs a name")
    target = (yield from find_space(space)) if space is not None else None
    yield from _check_language(language)
    meta_json = metadata_json(meta)
    if exists_ok and (known := (yield from _look_up(name))):  # a role that only reads may ask so
        return _same(known, target, language)
    inserted = yield Query(
        sql.SQL(
            "INSERT INTO ragstore_collection (name, space_id, language, metadata)"
            " VALUES (%s, %s, %s, %s::jsonb) ON CONFLICT (name) DO NOTHING RETURNING id"
        ),
        [name, target and target.id, language, meta_json],
    )
    found = yield from find_collection(name)
    if inserted:
        return found
    if exists_ok:
        return _same(found, target, language)
    raise _taken(found)


def _same(found: CollectionInfo, space: Space | None, language: str) -> CollectionInfo:
    """Return a collection that is defined so; refuse another."""
    if (found.space, found.language) != (space, language):
        raise _taken(found)
    return found


def _taken(found: CollectionInfo) -> CollectionExists:
    there = f"space {found.space.name!r}" if found.space else "no space"
    return CollectionExists(
        f"There is a collection {found.name!r} already ({there}, language {found.language!r}):"
        " choose another name, or pass exists_ok=True for the same definition",
        collection=found.name,
    )


def _check_language(language: str) -> Operation[None]:
    """Refuse a language that Postgres could not read back from the text in a row.

    One outside pg_catalog needs its schema: where a dump is restored, the search path is empty.
    """
    check_text(language, "the language", MAX_NAME_BYTES)
    rows = yield Query(
        sql.SQL(
            "SELECT CASE WHEN nspname = 'pg_catalog' THEN '' ELSE quote_ident(nspname) || '.' END"
            " || quote_ident(cfgname) AS name"
            " FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace ORDER BY name"
        )
    )
    names = [name for (name,) in rows]
    if language.removeprefix("pg_catalog.") not in names:
        raise InvalidName(
            f"The server has no text search configuration {language!r}, only {', '.join(names)}"
        )
