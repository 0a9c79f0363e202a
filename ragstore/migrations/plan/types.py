"""What tables are made of: schemas, extensions, enumerated types, sequences and functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from alembic.operations import MigrateOperation
from alembic.operations.ops import AddColumnOp, AlterColumnOp, CreateIndexOp, CreateTableOp

from ragstore.migrations.facts import Enum, Name, Routine, Sequence
from ragstore.migrations.objects import printed, sequence_options
from ragstore.migrations.operations import (
    AddEnumValueOp,
    AlterSequenceOp,
    CreateEnumOp,
    CreateFunctionOp,
    CreateSequenceOp,
    DropEnumOp,
    DropFunctionOp,
    DropSchemaIfEmptyOp,
    DropSequenceOp,
    EnsureExtensionOp,
    EnsureSchemaOp,
    ReplaceEnumOp,
    RequireDecisionOp,
)
from ragstore.migrations.plan.context import Context
from ragstore.migrations.plan.domains import compare_domains, drop_domains
from ragstore.migrations.plan.renamed import columns_after
from ragstore.migrations.plan.steps import Difference, Phase, changed, place
from ragstore.types import Function


def compare_types(context: Context, functions: Mapping[str, Function]) -> None:
    """Compare all that is no table."""
    _compare_schemas(context)
    drop_domains(context)  # of what they may be, that is dropped after them
    _compare_enums(context)
    compare_domains(context)
    _compare_sequences(context)
    _compare_routines(context, functions)


def _compare_schemas(context: Context) -> None:
    for name in sorted(context.wanted.schemas - context.found.schemas):
        difference = Difference("schema", name, "is not in the database")
        context.plan.add(difference, (Phase.SCHEMAS, EnsureSchemaOp(name)))
    for name in sorted(context.wanted.extensions - context.found.extensions):
        difference = Difference("extension", name, "is not in the database")
        context.plan.add(difference, (Phase.SCHEMAS, EnsureExtensionOp(name)))


def ensure_extensions(context: Context) -> None:
    """Make sure of the extensions first, if no revision did and something new may need them."""
    makes_new = (CreateTableOp, AddColumnOp, AlterColumnOp, CreateIndexOp)
    if any(isinstance(operation, makes_new) for *_, operation in context.plan.steps):
        missing = context.wanted.extensions - context.found.extensions
        for name in sorted(context.wanted.extensions - context.owned.made.extensions - missing):
            context.plan.follow((Phase.SCHEMAS, EnsureExtensionOp(name)))


def _compare_enums(context: Context) -> None:
    found, wanted = context.found.enums, context.wanted.enums
    for key in sorted(wanted.keys() - found.keys(), key=_by_name):
        enum = wanted[key]
        difference = Difference("enum", place(key), "is not in the database")
        context.plan.add(difference, (Phase.TYPES, _create(enum)))
    for key in sorted(found.keys() & wanted.keys(), key=_by_name):
        if found[key].values != wanted[key].values:
            _change_values(context, found[key], wanted[key])
    for key in sorted(found.keys() - wanted.keys(), key=_by_name):
        if context.owned.owns_enum(*key):
            enum = found[key]
            difference = Difference("enum", place(key), "is not in the models")
            drop = DropEnumOp(enum.name, schema=enum.schema, values=enum.values)
            context.plan.add(difference, (Phase.DROP_TYPES, drop))
        else:
            context.plan.foreign.append(f"enum {place(key)}")


def _change_values(context: Context, found: Enum, wanted: Enum) -> None:
    key = (wanted.schema, wanted.name)
    what = f"values {changed(', '.join(found.values), ', '.join(wanted.values))}"
    difference = Difference("enum", place(key), what)
    kept = tuple(value for value in wanted.values if value in found.values)
    if kept == found.values and not _are_used_at_once(context, found, wanted):
        phase, steps = Phase.TYPES, list(_added(context, found, wanted))
    else:
        phase, steps = Phase.CONVERT_TYPES, list(_replaced(context, found, wanted))
        context.converted.add(printed(*key))
    context.plan.add(difference, *((phase, step) for step in steps))


def _added(context: Context, found: Enum, wanted: Enum) -> Iterator[MigrateOperation]:
    values = list(found.values)
    for position, value in enumerate(wanted.values):
        if value in values:
            continue
        before = None if position >= len(values) else values[position]
        yield AddEnumValueOp(
            wanted.name,
            value,
            before=before,
            schema=wanted.schema,
            existing_values=tuple(values),
            columns=_columns(context, found.used_by),
        )
        values.insert(position, value)


def _replaced(context: Context, found: Enum, wanted: Enum) -> Iterator[MigrateOperation]:
    removed = [value for value in found.values if value not in wanted.values]
    # Tables that are dropped, or dropped and made anew, are not there when it is converted.
    gone = context.surplus | {
        pair.old_key
        for pair in context.pairs.values()
        if not pair.same(lambda table: table.partition_key)
    }
    used_by = [(key, column) for key, column in found.used_by if key not in gone]
    for key, column in used_by if removed else ():
        yield _question(context, found, wanted, key, column, removed)
    yield ReplaceEnumOp(
        wanted.name,
        wanted.values,
        _columns(context, used_by),
        schema=wanted.schema,
        existing_values=found.values,
    )


def _question(
    context: Context, found: Enum, wanted: Enum, key: Name, column: str, removed: list[str]
) -> MigrateOperation:
    known = context.found.tables.get(key)
    is_array = known is not None and known.columns[column].type.endswith("[]")
    ((key, column),) = columns_after(context, [(key, column)])
    table, name = printed(*key), printed(None, column)
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in removed)
    where = f"{name}::text[] && ARRAY[{listed}]" if is_array else f"{name}::text IN ({listed})"
    question = (
        f"{place(key, column)} loses the value {' and '.join(map(repr, removed))}: what do rows"
        " that have it get instead?"
    )
    advice = f'op.execute("UPDATE {table} SET {name} = … WHERE {where}")'  # noqa: S608 - for people
    added = [value for value in wanted.values if value not in found.values]
    if len(removed) == len(added) == 1:
        advice += (
            "\nor, if it was only renamed, instead of all this: "
            f"op.rename_enum_value({wanted.name!r}, {removed[0]!r}, {added[0]!r})"
        )
    return RequireDecisionOp(question, key[1], where, schema=key[0], advice=advice)


def _columns(context: Context, used_by: Iterable[tuple[Name, str]]) -> list[tuple[str, ...]]:
    return [
        (table, column) if schema is None else (table, column, schema)
        for (schema, table), column in columns_after(context, used_by)
    ]


def _are_used_at_once(context: Context, found: Enum, wanted: Enum) -> bool:
    """Tell whether a new value stands in an expression of the models.

    A value that ``ADD VALUE`` has added cannot be used before its transaction has ended.
    """
    new = [value for value in wanted.values if value not in found.values]
    literals = [re.escape("'" + value.replace("'", "''") + "'") for value in new]
    pattern = re.compile(
        f"({'|'.join(literals)})::{re.escape(printed(wanted.schema, wanted.name))}"
    )
    return any(pattern.search(text) for text in _expressions(context))


def _expressions(context: Context) -> Iterator[str]:
    for table in context.wanted.tables.values():
        yield from (column.default or "" for column in table.columns.values())
        yield from (constraint.definition for constraint in table.constraints.values())
        yield from (index.definition for index in table.indexes.values())


def _create(enum: Enum) -> MigrateOperation:
    return CreateEnumOp(enum.name, enum.values, schema=enum.schema)


def _compare_sequences(context: Context) -> None:
    found, wanted = context.found.sequences, context.wanted.sequences
    for key in sorted(wanted.keys() - found.keys(), key=_by_name):
        difference = Difference("sequence", place(key), "is not in the database")
        create = CreateSequenceOp(key[1], schema=key[0], **_options(wanted[key]))
        context.plan.add(difference, (Phase.TYPES, create))
    for key in sorted(found.keys() & wanted.keys(), key=_by_name):
        if found[key] != wanted[key]:
            difference = Difference("sequence", place(key), changed(found[key], wanted[key]))
            operation = AlterSequenceOp(key[1], wanted[key], existing=found[key], schema=key[0])
            context.plan.add(difference, (Phase.TYPES, operation))
    for key in sorted(found.keys() - wanted.keys(), key=_by_name):
        if context.owned.owns_sequence(*key):
            difference = Difference("sequence", place(key), "is not in the models")
            drop = DropSequenceOp(key[1], schema=key[0], existing=found[key])
            context.plan.add(difference, (Phase.DROP_TYPES, drop))
        else:
            context.plan.foreign.append(f"sequence {place(key)}")


def _options(sequence: Sequence) -> dict[str, object]:
    options = sequence_options(sequence)
    return options if sequence.type == "bigint" else {"data_type": sequence.type, **options}


def _compare_routines(context: Context, functions: Mapping[str, Function]) -> None:
    found, wanted = context.found.routines, context.wanted.routines
    for key in sorted(wanted, key=str):
        name = f"{place(key[:2])}({', '.join(key[2])})"
        create = CreateFunctionOp(functions[key[1]])
        if key not in found:
            difference = Difference("function", name, "is not in the database")
            context.plan.add(difference, (Phase.TYPES, create))
        elif _head(found[key]) != _head(wanted[key]):
            difference = Difference("function", name, "has another result or other argument names")
            drop = _dropping(found[key])
            context.remade_functions.add(printed(*key[:2]))
            # Between what falls with it and what is made with it.
            context.plan.add(difference, (Phase.CONVERT_TYPES, drop), (Phase.CONVERT_TYPES, create))
        elif found[key].definition != wanted[key].definition:
            difference = Difference("function", name, "has another body or other options")
            create = CreateFunctionOp(functions[key[1]], existing=found[key].definition)
            context.plan.add(difference, (Phase.TYPES, create))
    for key in sorted(found.keys() - wanted.keys(), key=str):
        name = f"{place(key[:2])}({', '.join(key[2])})"
        if context.owned.owns_routine(*key[:2]):
            difference = Difference("function", name, "is not in the models")
            context.plan.add(difference, (Phase.DROP_TYPES, _dropping(found[key])))
        else:
            context.plan.foreign.append(f"function {name}")


def _head(routine: Routine) -> str:
    """Return what ``CREATE OR REPLACE`` cannot change: arguments and result."""
    return routine.definition.partition("\n LANGUAGE ")[0]


def drop_empty_schemas(context: Context) -> None:
    """Drop each schema of this history with the last table that stood in it."""
    staying = (context.found.tables.keys() - context.surplus) | context.wanted.tables.keys()
    left = {schema for schema, _ in context.surplus} - {schema for schema, _ in staying}
    for name in sorted(schema for schema in left if schema is not None):
        if context.owned.owns_schema(name):
            context.plan.follow((Phase.DROP_TYPES, DropSchemaIfEmptyOp(name)))


def _dropping(routine: Routine) -> MigrateOperation:
    return DropFunctionOp(
        routine.name, list(routine.arguments), schema=routine.schema, existing=routine.definition
    )


def _by_name(key: Name) -> tuple[str, str]:
    return (key[0] or "", key[1])
