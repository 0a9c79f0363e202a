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
from ragstore.migrations.render import render_item
from ragstore.models import TABLES

OUR_TABLES = frozenset(table.name for table in TABLES)
"""The tables that our revisions make."""

_KINDS = {"fk": "foreign key"}
_PARTITION = re.compile(r"ragstore_embedding_\d+")

NameFilter = Callable[[str | None, str, Mapping[str, str | None]], bool]
ObjectFilter = Callable[[Any, str | None, str, bool, Any], bool]
Directives = Callable[[MigrationContext, Any, list[Any]], None]

# A partition follows its parent, and an extension's table (spatial_ref_sys) its extension.
_FOREIGN = text(
    "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relispartition OR EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid"
    " AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')"
)


def only_ours(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Accept our own tables: the filter of our own env.py."""
    return kind != "table" or name in OUR_TABLES


def never_ours(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Accept every table but ours: the filter of a host application."""
    return kind != "table" or name is None or not is_ours(name)


def comparison_options(
    accepts: NameFilter, target: MetaData | Sequence[MetaData], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments for ``context.configure`` that compare the tables ``accepts`` takes."""
    given = dict(overrides)
    hooks = [keep_foreign, given.pop("process_revision_directives", None)]
    # Alembic asks the first of a table in the database, and the second also of one in the models.
    names = [accepts, given.pop("include_name", None)]
    objects = [_as_object_filter(accepts), given.pop("include_object", None)]
    return {
        "target_metadata": target,
        "compare_type": True,
        "compare_server_default": True,
        "include_name": _all_of(names),
        "include_object": _all_of(objects),
        "render_item": render_item,
        "transaction_per_migration": True,
        "process_revision_directives": chained(hooks),
        **given,
    }


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
        steps = zip(script.upgrade_ops_list, script.downgrade_ops_list, strict=True)
        for upgrade, downgrade in steps:
            upgrade.ops = [op for op in upgrade.ops if _table_of(op) not in foreign]
            upgrade.reverse_into(downgrade)


def chained(hooks: Iterable[Directives | None]) -> Directives:
    """Return one ``process_revision_directives`` that calls each hook in turn."""
    present = [hook for hook in hooks if hook is not None]

    def call(context: MigrationContext, revision: Any, directives: list[Any]) -> None:
        for hook in present:
            hook(context, revision, directives)

    return call


def describe(difference: Any) -> str:
    """Say in words what a difference of Alembic's is: a tuple, or a list of them for a column."""
    if isinstance(difference, list):
        return "; ".join(map(describe, difference))
    verb, *facts = difference
    if verb.startswith("modify_"):
        _schema, table, column, _existing, found, wanted = facts
        what = verb.removeprefix("modify_").replace("_", " ")
        return f"{table}.{column}: {what} is {_shown(found)}, the models have {_shown(wanted)}"
    action, _, kind = verb.partition("_")
    where = {"add": "is not in the database", "remove": "is not in the models"}.get(action, action)
    item = next((fact for fact in reversed(facts) if hasattr(fact, "name")), None)
    table = getattr(getattr(item, "table", None), "name", None) or next(
        (fact for fact in facts if isinstance(fact, str)), None
    )
    name = ".".join(str(part) for part in (table, getattr(item, "name", None)) if part)
    return f"{_KINDS.get(kind, kind.replace('_', ' '))} {name} {where}"


def _shown(value: Any) -> str:
    argument = getattr(value, "arg", value)  # of a server default
    return str(getattr(argument, "text", argument))


def metadatas(target: MetaData | Sequence[MetaData]) -> Sequence[MetaData]:
    """Return what Alembic calls target_metadata as a sequence, whichever of both it is."""
    return [target] if isinstance(target, MetaData) else target


def _as_object_filter(accepts: NameFilter) -> ObjectFilter:
    def accept(_item: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
        return accepts(name, kind, {})

    return accept


def _all_of(filters: Sequence[Callable[..., bool] | None]) -> Callable[..., bool]:
    present = [accepts for accepts in filters if accepts is not None]

    def accept(*arguments: Any) -> bool:
        return all(accepts(*arguments) for accepts in present)

    return accept


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
    return None if name is None else (getattr(op, "schema", None), name)
