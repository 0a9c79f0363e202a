"""Tables: which go, which come, in an order that their foreign keys allow; and their options."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from alembic.operations import MigrateOperation
from alembic.operations import ops as alembic_ops

from ragstore.migrations.facts import Constraint, Name, Table
from ragstore.migrations.objects import index_of, is_special, table_of
from ragstore.migrations.operations import Remark, RequireDecisionOp, SetLoggedOp, SetTableOptionsOp
from ragstore.migrations.plan.context import Context, Pair
from ragstore.migrations.plan.keys import adding, adding_index, dropping
from ragstore.migrations.plan.steps import Difference, Phase, changed, place
from ragstore.migrations.spelling import spelled


def create_tables(context: Context, names: Collection[Name]) -> None:
    """Plan the tables that are in the models only, each after those that it refers to."""
    tables = {name: spelled(context.wanted.tables[name], context.models[name]) for name in names}
    ahead = _ahead(tables)
    for table in in_order(tables):
        difference = Difference("table", place(table.key), "is not in the database")
        model = context.models[table.key]
        later = ahead[table.key]
        made = without(table, later)
        operation = alembic_ops.CreateTableOp.from_table(
            table_of(made, context.wanted.enums, **_model_options(model))
        )
        context.plan.add(difference, (Phase.CREATE_TABLES, operation))
        special = [each for each in made.constraints.values() if is_special(each)]
        context.plan.follow(*(adding(table, each) for each in (*special, *later)))
        context.plan.follow(*(adding_index(table, index) for index in table.indexes.values()))


def drop_tables(context: Context, names: Collection[Name]) -> None:
    """Plan the tables that this history made and the models do not have, the last made first."""
    tables = {name: _found(context, name) for name in names}
    ahead = _ahead(tables)
    for table in reversed(list(in_order(tables))):
        difference = Difference("table", place(table.key), "is not in the models")
        later = ahead[table.key]
        context.plan.add(difference, *(dropping(context, table, each) for each in later))
        special = [each for each in table.constraints.values() if is_special(each)]
        made = without(table, [*later, *special])
        context.plan.follow(*(dropping(context, table, each) for each in special))
        context.plan.follow(*((Phase.DROP_TABLES, each) for each in _like(context, table)))
        drop = alembic_ops.DropTableOp.from_table(table_of(made, context.found.enums))
        context.plan.add(difference, (Phase.DROP_TABLES, drop))
        for index in table.indexes.values():
            drop_index = alembic_ops.DropIndexOp.from_index(index_of(index, table))
            context.plan.follow((Phase.DROP_INDEXES, drop_index))


def in_order(tables: Mapping[Name, Table]) -> Iterator[Table]:
    """Yield tables so that each stands after those it refers to, where there is such an order."""
    waiting = dict(sorted(tables.items(), key=lambda item: (item[0][0] or "", item[0][1])))
    needs = {name: _needs(table) & tables.keys() - {name} for name, table in waiting.items()}
    while waiting:
        # A circle of keys is cut: they are added when all the tables are there.
        ready = [name for name in waiting if not needs[name] & waiting.keys()] or [
            min(waiting, key=str)
        ]
        for name in ready:
            yield waiting.pop(name)


def _ahead(tables: Mapping[Name, Table]) -> dict[Name, list[Constraint]]:
    """Return the keys of each table that refer to a table which is made later."""
    order = {table.key: position for position, table in enumerate(in_order(tables))}
    return {
        name: [
            key
            for key in _keys(table)
            if order.get(key.refers_to, -1) > order[name]  # type: ignore[arg-type]
        ]
        for name, table in tables.items()
    }


def without(table: Table, constraints: Collection[Constraint]) -> Table:
    """Return the table without some constraints."""
    names = {constraint.name for constraint in constraints}
    kept = {name: each for name, each in table.constraints.items() if name not in names}
    return replace(table, constraints=kept)


def compare_options(context: Context, pair: Pair) -> None:
    """Compare what belongs to a table itself: comment, storage options, logging, partitioning."""
    _compare_comment(context, pair)
    _compare_storage(context, pair)
    found, wanted = pair.found, pair.wanted
    if found.unlogged != wanted.unlogged:
        difference = Difference(
            "table", place(pair.key), f"unlogged {changed(found.unlogged, wanted.unlogged)}"
        )
        operation = SetLoggedOp(wanted.name, not wanted.unlogged, schema=wanted.schema)
        context.plan.add(difference, (Phase.OPTIONS, operation))


def replace_partitioned(context: Context) -> set[Name]:
    """Plan the tables that are partitioned by another key; return them.

    Postgres cannot change that: while there are rows a person must say where they go.
    """
    changes = {
        key: pair
        for key, pair in context.pairs.items()
        if not pair.same(lambda table: table.partition_key)
    }
    for key, pair in changes.items():
        what = f"partition key {changed(pair.found.partition_key, pair.wanted.partition_key)}"
        question = (
            f"{place(key)}: its {what}, which no ALTER changes. Where do its rows go while it is"
            " made anew?"
        )
        decision = RequireDecisionOp(question, key[1], "true", schema=key[0])
        context.plan.add(Difference("table", place(key), what), (Phase.SCHEMAS, decision))
        context.dropped_keys |= {(key, name) for name in pair.found.constraints}
    return set(changes)


def _like(context: Context, table: Table) -> Iterator[MigrateOperation]:
    """Yield a word of warning for each new table with the same columns."""
    for name in sorted(context.wanted.tables.keys() - context.pairs.keys(), key=str):
        if context.wanted.tables[name].columns.keys() == table.columns.keys():
            yield Remark(
                f"{place(table.key)} goes and {place(name)} comes, with the same columns. If it was"
                f' renamed, say so in the model, info={{"renamed_from": "{table.name}"}}, and write'
                " this revision again: as it stands, the rows are lost."
            )


def _found(context: Context, name: Name) -> Table:
    pair = context.pairs.get(name)
    return context.found.tables[name] if pair is None else pair.found


def _compare_comment(context: Context, pair: Pair) -> None:
    found, wanted = pair.found.comment, pair.wanted.comment
    if found == wanted:
        return
    if wanted is None and not context.owned.owns_comment(pair.old_key, None):
        context.plan.foreign.append(f"comment on {place(pair.key)}")
        return
    difference = Difference("table", place(pair.key), f"comment {changed(found, wanted)}")
    schema, name = pair.key
    operation: MigrateOperation = (
        alembic_ops.DropTableCommentOp(name, schema=schema, existing_comment=found)
        if wanted is None
        else alembic_ops.CreateTableCommentOp(name, wanted, schema=schema, existing_comment=found)
    )
    context.plan.add(difference, (Phase.OPTIONS, operation))


def _compare_storage(context: Context, pair: Pair) -> None:
    found, wanted = dict(pair.found.options), dict(pair.wanted.options)
    foreign = {
        option
        for option in found.keys() - wanted.keys()
        if not context.owned.owns_option(pair.old_key, option)
    }
    context.plan.foreign += [f"option {option} of {place(pair.key)}" for option in sorted(foreign)]
    ours = {option: value for option, value in found.items() if option not in foreign}
    if ours == wanted:
        return
    difference = Difference("table", place(pair.key), f"options {changed(ours, wanted)}")
    operation = SetTableOptionsOp(pair.key[1], wanted, schema=pair.key[0], existing=ours)
    context.plan.add(difference, (Phase.OPTIONS, operation))


def _keys(table: Table) -> list[Constraint]:
    return [each for each in table.constraints.values() if each.kind == "f"]


def _needs(table: Table) -> set[Name]:
    return {each.refers_to for each in _keys(table) if each.refers_to is not None}


def _model_options(model: object) -> dict[str, object]:
    options = getattr(model, "kwargs", {})
    known = {"postgresql_partition_by", "postgresql_with", "postgresql_on_commit"}
    return {name: value for name, value in options.items() if name not in known}
