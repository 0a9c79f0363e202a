"""The autogenerate plugin: the models against the database, by what the server says of both.

It takes the place of Alembic's own comparison, which looks at reflected objects and misses what
they do not show. The models are built in a scratch schema in a savepoint that is rolled back, and
both are read from the catalog in the same words. What the database has and the models do not is
dropped only if a revision of this history made it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation
from alembic.operations.ops import UpgradeOps
from alembic.runtime.migration import MigrationContext
from alembic.runtime.plugins import Plugin
from alembic.util import CommandError, PriorityDispatchResult
from sqlalchemy import MetaData

from ragstore.exceptions import CouldNotCompare, MigrationError
from ragstore.migrations import catalog, scratch
from ragstore.migrations.facts import Catalog, Name
from ragstore.migrations.objects import table_of
from ragstore.migrations.owned import Owned, record
from ragstore.migrations.plan import Accepts, Context, Pair, Plan, make_plan, place
from ragstore.migrations.remarks import DROP_ALL, allowed_rules
from ragstore.migrations.renames import Rename, renames
from ragstore.migrations.scratch import Scratch
from ragstore.migrations.spelling import spelled
from ragstore.types import Function

logger = logging.getLogger(__name__)
# Of the family that every alembic.ini shows: what is detected is told there, as Alembic does.
detected = logging.getLogger("alembic.autogenerate.compare.ragstore")

PLUGIN = "ragstore"
"""The name under which Alembic knows the plugin."""

FOREIGN = "ragstore_foreign"
"""The attribute of the Config that gets the names of what was left alone."""


def register() -> None:
    """Make the plugin known to Alembic; nothing if it is.

    In code and not by an entry point, which would import all of this whenever Alembic is.
    """
    try:
        plugin = Plugin(PLUGIN)
    except ValueError:  # it is
        return
    plugin.add_autogenerate_comparator(compare, "autogenerate", qualifier="postgresql")


def metadatas(target: MetaData | Sequence[MetaData]) -> Sequence[MetaData]:
    """Return what Alembic calls target_metadata as a sequence, whichever of both it is."""
    return [target] if isinstance(target, MetaData) else target


def compare(context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Add to ``upgrade_ops`` what makes the database the models'.

    Raises:
        CouldNotCompare: the models cannot be built, or the scratch schema cannot be made.
        MigrationError: every table would be dropped.
    """
    comparison = _Comparison(context)
    plan = comparison.plan()
    upgrade_ops.ops[:0] = plan.operations()
    for difference in plan.differences:
        detected.info("Detected: %s", difference)
    doubts = comparison.doubts(plan)
    for doubt in doubts:
        logger.warning(doubt)

    def as_diffs() -> list[Any]:
        if doubts:  # `alembic check` asks for this, and nothing that writes a revision does
            raise CommandError(str(CouldNotCompare(doubts))) from CouldNotCompare(doubts)
        return list(_differences(upgrade_ops, plan))

    vars(upgrade_ops)["as_diffs"] = as_diffs
    comparison.tell_foreign(plan)
    return PriorityDispatchResult.CONTINUE


register()


class _Comparison:
    """What one run of autogenerate compares."""

    def __init__(self, context: AutogenContext) -> None:
        assert context.connection is not None  # noqa: S101 - autogenerate needs one
        assert context.metadata is not None  # noqa: S101 - and this
        self._context = context
        self._connection = context.connection
        self._default = catalog.search_path(context.connection)[0]
        self._metadatas = metadatas(context.metadata)
        self._models = dict(self._accepted())
        self._owned = self._record()

    def plan(self) -> Plan:
        """Return the plan."""
        with scratch.opened(self._connection) as bench:
            wanted = bench.build(self._metadatas, self._models.values())
            found = bench.read([None, *sorted(self._schemas(wanted))])
            renamed = renames(self._models, found)
            surplus = self._surplus(found) - {
                each.table for each in renamed if each.kind == "table"
            }
            self._refuse_to_drop_all(found, surplus, renamed)
            pairs = dict(self._pairs(bench, found, wanted, renamed))
        comparison = Context(
            wanted=wanted,
            found=found,
            owned=self._owned,
            pairs=pairs,
            models=self._models,
            surplus=surplus,
            renames=renamed,
            accepts=cast("Accepts", self._context.run_object_filters),
        )
        plan = make_plan(comparison, self._functions())
        plan.foreign += self._beside(found, {pair.old_key for pair in pairs.values()} | surplus)
        return plan

    def doubts(self, plan: Plan) -> list[str]:
        """Return why what was left alone may be this history's after all."""
        foreign = ", ".join(sorted(plan.foreign))
        return [
            f"revision {revision} cannot be run without a database ({error}), so what it made is"
            f" not known, and these were left alone: {foreign}: let it run where a query gives no"
            " rows"
            for revision, error in sorted(self._owned.unreadable.items())
            if foreign
        ]

    def tell_foreign(self, plan: Plan) -> None:
        """Leave the names of what is foreign with the command, and list them if it was asked."""
        environment = self._context.migration_context.environment_context
        if environment is None:
            return
        names = sorted(plan.foreign)
        environment.config.attributes[FOREIGN] = names
        if "foreign" in x_arguments(self._context.migration_context):
            for name in names:
                environment.config.print_stdout("left alone: %s", name)

    def _beside(self, found: Catalog, known: set[Name]) -> Iterator[str]:
        """Yield what stands in the same schemas, and belongs to no model and no revision."""
        context = self._context.migration_context
        known = known | {self._key(context.version_table_schema, context.version_table)}
        for key in found.tables.keys() - known:
            yield f"table {place(key)}"
        yield from found.others

    def _accepted(self) -> Iterator[tuple[Name, sa.Table]]:
        """Yield the tables of the models that are to be compared."""
        for metadata in self._metadatas:
            for table in metadata.tables.values():
                if self._context.run_object_filters(table, table.name, "table", False, None):
                    yield self._key(table.schema, table.name), table

    def _key(self, schema: str | None, name: str) -> Name:
        return (None if schema == self._default else schema, name)

    def _record(self) -> Owned:
        script = self._context.migration_context.script
        if script is None:  # no history: nothing was made by it
            return Owned()
        target = self._context.metadata
        return record(script, target_metadata=target, default_schema=self._default)

    def _schemas(self, wanted: Catalog) -> set[str]:
        """Return the schemas to read, beside the default one."""
        used = {schema for schema, _ in self._owned.tables()}
        return {schema for schema in used | wanted.schemas if schema is not None}

    def _surplus(self, found: Catalog) -> set[Name]:
        """Return the tables that this history made and that no model has."""
        named = {
            (None if table.schema == self._default else table.schema, table.name)
            for metadata in self._metadatas
            for table in metadata.tables.values()
        }
        return {
            key
            for key in self._owned.tables() & found.tables.keys() - named
            if self._context.run_name_filters(key[1], "table", {"schema_name": key[0]})
            and self._context.run_object_filters(
                table_of(found.tables[key], found.enums), key[1], "table", True, None
            )
        }

    def _refuse_to_drop_all(
        self, found: Catalog, surplus: set[Name], renamed: Sequence[Rename]
    ) -> None:
        kept = (self._owned.tables() & found.tables.keys()) - surplus
        if surplus and not kept and not any(each.kind == "table" for each in renamed):
            given = x_arguments(self._context.migration_context)
            if DROP_ALL in allowed_rules(given):
                return
            raise MigrationError(
                f"Every table that this history made ({', '.join(sorted(n for _, n in surplus))})"
                " is without a model, and would be dropped: import the models before env.py calls"
                f" context.configure(); or, if that is meant, pass -x allow={DROP_ALL}"
            )

    def _functions(self) -> dict[str, Function]:
        return {
            function.name: function
            for table in self._models.values()
            for function in table.info.get("functions", ())
        }

    def _pairs(
        self, bench: Scratch, found: Catalog, wanted: Catalog, renamed: Sequence[Rename]
    ) -> Iterator[tuple[Name, Pair]]:
        old_keys = {
            (each.table[0], each.new): each.table for each in renamed if each.kind == "table"
        }
        both = {
            key: old_keys.get(key, key)
            for key in wanted.tables
            if old_keys.get(key, key) in found.tables
        }
        touched = {each.table for each in renamed}
        differing = {
            key: old
            for key, old in both.items()
            if old in touched or found.tables[old] != wanted.tables[key]
        }
        found_forms = bench.rebuild(found, list(differing.values()), renamed) if differing else {}
        wanted_forms = bench.rebuild_models(differing) if differing else {}
        for key, old in both.items():
            table = wanted.tables[key]
            pair = Pair(
                found=found_forms[key] if old in touched else found.tables[old],
                wanted=table,
                written=spelled(table, self._models[key]),
                found_form=found_forms.get(key, found.tables[old]),
                wanted_form=wanted_forms.get(key, table),
                model=self._models[key],
                old_name=old[1] if old != key else None,
            )
            yield key, pair


def x_arguments(context: MigrationContext) -> list[str]:
    """Return what was given as ``-x name=value`` on the command line."""
    environment = context.environment_context
    options = environment.config.cmd_opts if environment is not None else None
    return list(getattr(options, "x", None) or ())


def _differences(upgrade_ops: UpgradeOps, plan: Plan) -> Iterator[Any]:
    """Yield a sentence for each difference of the plan that is still to be removed.

    A hook may have taken operations out, and another plugin may have added its own.
    """
    operations = list(_flat(upgrade_ops.ops))
    left = {id(vars(each).get("difference")) for each in operations}
    yield from (difference for difference in plan.differences if id(difference) in left)
    for operation in operations:
        if "difference" not in vars(operation):
            yield from UpgradeOps([operation]).as_diffs()


def _flat(operations: Sequence[MigrateOperation]) -> Iterator[MigrateOperation]:
    for operation in operations:
        inner = getattr(operation, "ops", None)
        if inner is None:
            yield operation
        else:
            yield from _flat(inner)
