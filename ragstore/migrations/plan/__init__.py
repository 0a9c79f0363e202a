"""From what is wanted and what is found to the operations that make the one of the other."""

from __future__ import annotations

from collections.abc import Mapping

from ragstore.migrations.plan.columns import (
    compare_columns,
    refreshed_columns,
    replaced_columns,
)
from ragstore.migrations.plan.context import Accepts, Context, Pair
from ragstore.migrations.plan.keys import compare_foreign_keys, compare_keys
from ragstore.migrations.plan.renamed import rename
from ragstore.migrations.plan.steps import Difference, Phase, Plan, place
from ragstore.migrations.plan.tables import (
    compare_options,
    create_tables,
    drop_tables,
    replace_partitioned,
)
from ragstore.migrations.plan.types import (
    compare_types,
    drop_empty_schemas,
    ensure_extensions,
)
from ragstore.types import Function

__all__ = ["Accepts", "Context", "Difference", "Pair", "Phase", "Plan", "make_plan", "place"]


def make_plan(context: Context, functions: Mapping[str, Function]) -> Plan:
    """Return the plan for a comparison; ``functions`` are those of the models, by name."""
    rename(context)
    compare_types(context, functions)
    anew = replace_partitioned(context)
    pairs = [pair for key, pair in context.pairs.items() if key not in anew]
    for pair in pairs:
        context.replaced[pair.key] = replaced_columns(context, pair)
        context.refreshed[pair.key] = refreshed_columns(pair)
    for pair in pairs:
        compare_columns(context, pair)
        compare_keys(context, pair)
        compare_options(context, pair)
    create_tables(context, context.wanted.tables.keys() - context.pairs.keys() | anew)
    drop_tables(context, context.surplus | anew)
    for pair in pairs:
        compare_foreign_keys(context, pair)
    ensure_extensions(context)
    drop_empty_schemas(context)
    return context.plan
