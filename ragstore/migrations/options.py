"""What ``context.configure`` is given: whose tables are compared, and how a revision is written.

The tables of ragstore and of a host application stand in one MetaData and one database, but each
has a history of its own. Ours leaves the host's tables alone, and the host's leaves ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData

from ragstore.driver import VERSION_TABLE
from ragstore.migrations import compare
from ragstore.migrations.render import render_item
from ragstore.migrations.revise import annotate_revision
from ragstore.models import TABLES

OUR_TABLES = frozenset(table.name for table in TABLES)
"""The tables that our revisions make."""

_PARTITION = re.compile(r"ragstore_embedding_\d+")

NameFilter = Callable[[str | None, str, Mapping[str, str | None]], bool]
ObjectFilter = Callable[[Any, str | None, str, bool, Any], bool]
Directives = Callable[[MigrationContext, Any, list[Any]], None]


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
    hooks = [annotate_revision, given.pop("process_revision_directives", None)]
    # Alembic asks the first of a table in the database, and the second also of one in the models.
    names = [accepts, given.pop("include_name", None)]
    objects = [_as_object_filter(accepts), given.pop("include_object", None)]
    return {
        "target_metadata": target,
        "autogenerate_plugins": [compare.PLUGIN, "alembic.autogenerate.schemas"],
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


def chained(hooks: Iterable[Directives | None]) -> Directives:
    """Return one ``process_revision_directives`` that calls each hook in turn."""
    present = [hook for hook in hooks if hook is not None]

    def call(context: MigrationContext, revision: Any, directives: list[Any]) -> None:
        for hook in present:
            hook(context, revision, directives)

    return call


def _as_object_filter(accepts: NameFilter) -> ObjectFilter:
    def accept(_item: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
        return accepts(name, kind, {})

    return accept


def _all_of(filters: Sequence[Callable[..., bool] | None]) -> Callable[..., bool]:
    present = [accepts for accepts in filters if accepts is not None]

    def accept(*arguments: Any) -> bool:
        return all(accepts(*arguments) for accepts in present)

    return accept
