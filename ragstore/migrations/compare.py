"""What autogenerate looks at: whose objects are whose, and what is never dropped.

The tables of ragstore and of a host application stand in one MetaData and one database, but each
has a history of its own. Ours leaves the host's tables alone, and the host's leaves ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text

from ragstore.driver import VERSION_TABLE
from ragstore.models import TABLES

OUR_TABLES = frozenset(table.name for table in TABLES)
"""The tables that our revisions make."""

_PARTITION = re.compile(r"ragstore_embedding_\d+")

NameFilter = Callable[[str | None, str, Mapping[str, str | None]], bool]
Directives = Callable[[MigrationContext, Any, list[Any]], None]

# A partition follows its parent, and an extension's table (spatial_ref_sys) its extension.
_FOREIGN = text(
    "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relispartition OR EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid"
    " AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')"
)


def only_ours(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Accept our own tables: the ``include_name`` of our own env.py."""
    return kind != "table" or name in OUR_TABLES


def never_ours(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Accept every table but ours: the ``include_name`` of a host application."""
    return kind != "table" or name is None or not is_ours(name)


def is_ours(table: str) -> bool:
    """Tell whether a table is one of ours, a partition of one, or our version table."""
    return table in OUR_TABLES or table == VERSION_TABLE or bool(_PARTITION.fullmatch(table))


def keep_foreign(context: MigrationContext, _revision: Any, directives: list[Any]) -> None:
    """Take what concerns partitions and extensions' tables without a model out of a revision.

    A ``process_revision_directives`` of Alembic.
    """
    if context.connection is None:
        return
    foreign = _foreign_tables(context.connection) - _modelled_tables(context)
    for script in directives:
        upgrade = script.upgrade_ops
        upgrade.ops = [op for op in upgrade.ops if _table_of(op) not in foreign]
        upgrade.reverse_into(script.downgrade_ops)


def chained(hooks: Iterable[Directives | None]) -> Directives:
    """Return one ``process_revision_directives`` that calls each hook in turn."""
    present = [hook for hook in hooks if hook is not None]

    def call(context: MigrationContext, revision: Any, directives: list[Any]) -> None:
        for hook in present:
            hook(context, revision, directives)

    return call


def metadatas(target: MetaData | Sequence[MetaData]) -> Sequence[MetaData]:
    """Return what Alembic calls target_metadata as a sequence, whichever of both it is."""
    return [target] if isinstance(target, MetaData) else target


def _foreign_tables(connection: Connection) -> set[tuple[str | None, str]]:
    default = connection.dialect.default_schema_name
    return {
        (None if schema == default else schema, table)
        for schema, table in connection.execute(_FOREIGN)
    }


def _modelled_tables(context: MigrationContext) -> set[tuple[str | None, str]]:
    target = metadatas(context.opts["target_metadata"])
    return {(table.schema, table.name) for one in target for table in one.tables.values()}


def _table_of(op: Any) -> tuple[str | None, str] | None:
    name = getattr(op, "table_name", None)
    return None if name is None else (op.schema, name)
