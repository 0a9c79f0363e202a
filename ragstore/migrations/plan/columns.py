"""Columns: which go, which come, and how one becomes another with its values kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from alembic.operations import MigrateOperation
from alembic.operations import ops as alembic_ops
from sqlalchemy import DefaultClause

from ragstore.migrations.conversions import Conversion, are_alike, conversion, into_domain
from ragstore.migrations.facts import Column, Domain, Name
from ragstore.migrations.fillers import filler
from ragstore.migrations.objects import column_of, default_of, printed, sequence_options
from ragstore.migrations.operations import (
    ConvertColumnOp,
    DropColumnOp,
    DropGeneratedOp,
    Remark,
    RenameColumnOp,
    RequireDecisionOp,
    RestoreColumnOp,
    SetGeneratedOp,
    SetNumberingOp,
)
from ragstore.migrations.operations.numbering import Numbering
from ragstore.migrations.plan.context import Context, Pair, shape_of_column
from ragstore.migrations.plan.steps import Difference, Phase, changed, place

_VALUE = ("type", "generated", "default", "identity", "serial", "sequence", "collation")
_ALL = (*_VALUE, "nullable", "comment")


def replaced_columns(context: Context, pair: Pair) -> set[str]:
    """Return the columns of a table in the database that are dropped, to be made anew or not."""
    gone = {name for name in pair.found.columns if _is_dropped(context, pair, name)}
    both = pair.found.columns.keys() & pair.wanted.columns.keys()
    anew = {name for name in both if _is_made_anew(context, pair, name)}
    anew |= {
        name
        for name in both
        if pair.found.columns[name].generated
        and context.calls_remade(pair.found.columns[name].default)
    }
    moved = {name for name in both if _is_converted(context, pair, name)} | gone | anew
    # Postgres refuses to touch a column that a generated one is computed from.
    computed = {
        name
        for name in both
        if pair.found.columns[name].generated
        and any(mentions(pair.found.columns[name].default, other) for other in moved - {name})
    }
    return gone | anew | computed


def refreshed_columns(pair: Pair) -> set[str]:
    """Return the stored generated columns that become plain ones, as only they can in place."""
    return {
        name
        for name, column in pair.found.columns.items()
        if column.generated == "s"
        and name in pair.wanted.columns
        and not pair.wanted.columns[name].generated
    }


def compare_columns(context: Context, pair: Pair) -> None:
    """Compare the columns of a table."""
    replaced = context.replaced.get(pair.key, set())
    for name in pair.found.columns:
        if name in pair.wanted.columns:
            _compare(context, pair, name, is_replaced=name in replaced)
        elif name in replaced:
            _drop(context, pair, pair.found.columns[name])
        else:
            context.plan.foreign.append(f"column {place(pair.key, name)}")
    for name, column in pair.written.columns.items():
        if name not in pair.found.columns and _accepts(context, pair, name, reflected=False):
            _add(context, pair, column)


def mentions(expression: str | None, column: str) -> bool:
    """Tell whether an expression may mention a column."""
    return (
        re.search(rf'(?<![\w"]){re.escape(printed(None, column))}(?![\w"])', expression or "")
        is not None
    )


def _is_converted(context: Context, pair: Pair, name: str) -> bool:
    kind = pair.found.columns[name].type.removesuffix("[]")
    return kind in context.converted or not pair.same_column(name, "type", "collation")


def _is_dropped(context: Context, pair: Pair, name: str) -> bool:
    return (
        name not in pair.wanted.columns
        and context.owned.owns_column(pair.old_key, name)
        and _accepts(context, pair, name, reflected=True)
    )


def _accepts(context: Context, pair: Pair, name: str, *, reflected: bool) -> bool:
    item: Any = pair.model.columns.get(name)
    if reflected:
        item = column_of(pair.found.columns[name], context.found.enums)
    return context.accepts(item, name, "column", reflected, None)


def _is_made_anew(context: Context, pair: Pair, name: str) -> bool:
    """Tell whether a column must be dropped and added, because no ALTER makes the one the other."""
    if pair.same_column(name, "type", "generated", "default", "collation"):
        return False
    found, wanted = pair.found.columns[name], pair.wanted.columns[name]
    if found.generated and wanted.generated:
        return not pair.same_column(name, "type", "generated", "collation")
    if found.generated or wanted.generated:
        return bool(wanted.generated) or found.generated == "v"
    is_converted = pair.same_column(name, "type") or _conversion(context, found, wanted)
    return not is_converted


def _conversion(context: Context, old: Column, new: Column) -> Conversion | None:
    domains = {**context.found.domains, **context.wanted.domains}
    source, target = _domain(domains, old.type), _domain(domains, new.type)
    change = conversion(
        source.type if source else old.type,
        target.type if target else new.type,
        old_values=_values(context.found.enums, old.type),
        new_values=_values(context.wanted.enums, new.type),
    )
    return change if change is None or target is None else into_domain(change, target, new.type)


def _domain(domains: Mapping[Name, Domain], kind: str) -> Domain | None:
    return next((each for each in domains.values() if printed(*each.key) == kind), None)


def _values(enums: Any, kind: str) -> tuple[str, ...]:
    for enum in enums.values():
        if kind.removesuffix("[]") == printed(enum.schema, enum.name):
            values: tuple[str, ...] = enum.values
            return values
    return ()


# --- one column --------------------------------------------------------------------------------


def _add(context: Context, pair: Pair, column: Column) -> None:
    difference = _difference(pair.key, column, "is not in the database")
    if column.generated:
        context.plan.add(difference, (Phase.GENERATED, _adding(context, pair, column)))
    elif column.nullable or column.default is not None or column.identity or column.serial:
        context.plan.add(difference, (Phase.COLUMNS, _adding(context, pair, column)))
    else:
        loose = replace(column, nullable=True)
        name = _quoted(column)
        question = (
            f"{place(pair.key, column.name)} is new and NOT NULL, without a default: what is its"
            " value in the rows that are there?"
        )
        advice = f'op.execute("UPDATE {printed(*pair.key)} SET {name} = …")'  # noqa: S608 - for people
        steps = (
            _adding(context, pair, loose),
            _decision(pair.key, question, f"{name} IS NULL", advice),
            _alter(context, pair, loose, column, {"nullable"}),
        )
        context.plan.add(difference, *((Phase.COLUMNS, step) for step in steps))


def _drop(context: Context, pair: Pair, column: Column) -> None:
    difference = _difference(pair.key, column, "is not in the models")
    phase = Phase.DROP_GENERATED if column.generated else Phase.DROP_COLUMNS
    for name, other in pair.wanted.columns.items():
        if name not in pair.found.columns and shape_of_column(other) == shape_of_column(column):
            words = (
                f"{column.name} goes and {name} comes, of the same type. If it was renamed, say so"
                f' in the model, info={{"renamed_from": "{column.name}"}}, and write this revision'
                " again: as it stands, the values are lost."
            )
            context.plan.follow((phase, Remark(words)))
    context.plan.add(difference, (phase, _dropping(context, pair, column)))


def _compare(context: Context, pair: Pair, name: str, *, is_replaced: bool) -> None:
    found, wanted = pair.found.columns[name], pair.written.columns[name]
    if not found.comment or not wanted.comment:
        found, wanted = _without_foreign_comment(context, pair, found, wanted)
    is_same = pair.same_column(name, *_ALL[:-1]) and found.comment == wanted.comment
    if is_same and not is_replaced:
        if not found.generated and context.calls_remade(found.default):
            context.plan.follow(*_default_anew(context, pair, found, wanted))
        return
    difference = _difference(pair.key, wanted, _what_differs(pair, found, wanted))
    is_computed_at_read = found.generated == "v" and not wanted.generated
    if is_replaced and (found.generated or wanted.generated) and not is_computed_at_read:
        steps = _regenerated(context, pair, found, wanted)
    elif is_replaced:
        steps = [(Phase.COLUMNS, step) for step in _expanded(context, pair, found, wanted)]
    else:
        steps = _altered(context, pair, found, wanted)
    if is_same:
        context.plan.follow(*steps)
    else:
        context.plan.add(difference, *steps)


def _without_foreign_comment(
    context: Context, pair: Pair, found: Column, wanted: Column
) -> tuple[Column, Column]:
    """Overlook a comment that the models do not have, unless this history wrote it."""
    if found.comment and not context.owned.owns_comment(pair.old_key, found.name):
        context.plan.foreign.append(f"comment on {place(pair.key, found.name)}")
        return replace(found, comment=None), wanted
    return found, wanted


def _regenerated(
    context: Context, pair: Pair, found: Column, wanted: Column
) -> list[tuple[Phase, MigrateOperation]]:
    drop = _dropping(context, pair, found)
    if found.generated:
        return [
            (Phase.DROP_GENERATED, drop),
            (
                Phase.GENERATED if wanted.generated else Phase.COLUMNS,
                _adding(context, pair, wanted),
            ),
        ]
    question = (
        f"{place(pair.key, found.name)} becomes generated: what is stored in it now, and is not"
        " what the expression gives, would be lost"
    )
    # Values of two types, or of one without an operator for it, are compared as they print.
    are_comparable = found.type == wanted.type and found.type != "json"
    cast = "" if are_comparable else "::text"
    where = f"{_quoted(found)}{cast} IS DISTINCT FROM ({wanted.default}){cast}"
    decision = _decision(pair.key, question, where, "")
    return [
        (Phase.GENERATED, decision),
        (Phase.GENERATED, drop),
        (Phase.GENERATED, _adding(context, pair, wanted)),
    ]


def _expanded(
    context: Context, pair: Pair, found: Column, wanted: Column
) -> list[MigrateOperation]:
    """Return the steps by which a column of another type takes the place of one, with its values.

    Expand: the new column beside the old one. Fill it. Contract: the old one goes.
    """
    table, schema = pair.key[1], pair.key[0]
    beside = replace(wanted, name=f"{wanted.name}__new", nullable=True)
    old, new = _quoted(found), _quoted(beside)
    missing = f"{new} IS NULL" if not wanted.nullable else f"{new} IS NULL AND {old} IS NOT NULL"
    question = (
        f"{place(pair.key, found.name)} is {found.type} and becomes {wanted.type}: how are its"
        " values made anew?"
    )
    advice = f'op.execute("UPDATE {printed(schema, table)} SET {new} = …")'  # noqa: S608 - for people
    steps: list[MigrateOperation] = [
        _adding(context, pair, beside),
        _decision(pair.key, question, missing, advice),
        _dropping(context, pair, found),
        RenameColumnOp(table, beside.name, wanted.name, schema=schema),
    ]
    if not wanted.nullable:
        loose = replace(wanted, nullable=True)
        steps.append(_alter(context, pair, loose, wanted, {"nullable"}))
    return steps


def _altered(
    context: Context, pair: Pair, found: Column, wanted: Column
) -> list[tuple[Phase, MigrateOperation]]:
    name = wanted.name
    steps: list[tuple[Phase, MigrateOperation]] = []
    if wanted.generated and not pair.same_column(name, "default"):
        regenerate = SetGeneratedOp(
            pair.key[1], name, wanted.default or "", schema=pair.key[0], existing=found.default
        )
        steps.append((Phase.GENERATED, regenerate))
    if found.generated and not wanted.generated:
        operation = DropGeneratedOp(
            pair.key[1], column_of(found, context.found.enums), schema=pair.key[0]
        )
        steps.append((Phase.COLUMNS, operation))
        found = replace(found, generated="", default=None)
    changes = _changes(pair, found, wanted)
    steps += [(Phase.COLUMNS, step) for step in _guards(context, pair, found, wanted, changes)]
    if changes:
        steps += _steps(context, pair, found, wanted, changes)
    if (_how(found), _sequence(found)) != (_how(wanted), _sequence(wanted)):
        # After the type: Postgres lets an identity's sequence follow it.
        steps.append((Phase.COLUMNS, _numbering(pair, found, wanted)))
    return steps


def _default_anew(
    context: Context, pair: Pair, found: Column, wanted: Column
) -> list[tuple[Phase, MigrateOperation]]:
    """Return the steps that take a default away and bring it back: its function is made anew."""
    bare = replace(found, default=None)
    return [
        (Phase.DROP_GENERATED, _alter(context, pair, found, bare, {"default"})),
        (Phase.COLUMNS, _alter(context, pair, bare, wanted, {"default"})),
    ]


def _changes(pair: Pair, found: Column, wanted: Column) -> set[str]:
    """Return what ALTER COLUMN has to change; ``found`` is no longer generated, if it was."""
    name = wanted.name
    parts = {part for part in ("type", "nullable") if not pair.same_column(name, part)}
    if not pair.same_column(name, "collation"):
        parts.add("type")
    was_generated = bool(pair.found.columns[name].generated)
    gets_default = (
        wanted.default is not None if was_generated else not pair.same_column(name, "default")
    )
    if not wanted.generated and gets_default:
        parts.add("default")
    if found.comment != wanted.comment:
        parts.add("comment")
    return parts


def _guards(
    context: Context, pair: Pair, found: Column, wanted: Column, changes: set[str]
) -> list[MigrateOperation]:
    where, name = place(pair.key, found.name), _quoted(found)
    guards: list[MigrateOperation] = []
    if "nullable" in changes and found.nullable:
        question = f"{where} becomes NOT NULL: what is its value in the rows that have none?"
        advice = f'op.execute("UPDATE {printed(*pair.key)} SET {name} = … WHERE {name} IS NULL")'  # noqa: S608 - for people
        guards.append(_decision(pair.key, question, f"{name} IS NULL", advice))
    change = _conversion(context, found, wanted) if "type" in changes else None
    if change and change.lost:
        question = (
            f"{where} is {found.type} and becomes {wanted.type}: a row where {change.question}"
        )
        guards.append(_decision(pair.key, question, change.lost.format(name), ""))
    return guards


def _steps(
    context: Context, pair: Pair, found: Column, wanted: Column, changes: set[str]
) -> list[tuple[Phase, MigrateOperation]]:
    """Return the alterations; a default that the other type may not take is out of its way.

    In an upgrade that is the old default, and in its downgrade the new one.
    """
    is_enum = found.type.removesuffix("[]") in context.converted and "default" in changes
    is_other = "type" in changes and found.type != wanted.type
    steps: list[tuple[Phase, MigrateOperation]] = []
    if found.default is not None and (is_enum or is_other):
        bare = replace(found, default=None)
        before = Phase.DROP_GENERATED if is_enum else Phase.COLUMNS  # an enum's values come between
        steps.append((before, _alter(context, pair, found, bare, {"default"})))
        changes = changes - {"default"} if wanted.default is None else changes | {"default"}
        found = bare
    if is_other and "default" in changes and not are_alike(found.type, wanted.type):
        bare = replace(wanted, default=None)
        steps.append((Phase.COLUMNS, _alter(context, pair, found, bare, changes - {"default"})))
        found, changes = bare, {"default"}
    if changes:
        steps.append((Phase.COLUMNS, _alter(context, pair, found, wanted, changes)))
    return steps


def _alter(
    context: Context, pair: Pair, found: Column, wanted: Column, changes: set[str]
) -> MigrateOperation:
    options: dict[str, Any] = {}
    if "type" in changes:
        forth = _conversion(context, found, wanted) or Conversion()
        back = _backwards(context, found, wanted)
        options["modify_type"] = column_of(replace(wanted, serial=False), context.wanted.enums).type
        options["using"] = forth.using and forth.using.format(_quoted(found))
        options["using_back"] = back and back.format(_quoted(found))
    if "nullable" in changes:
        options["modify_nullable"] = wanted.nullable
    if "default" in changes:
        options["modify_server_default"] = _clause(wanted)
        options["existing_server_default"] = _clause(found)
    if "comment" in changes:
        options["modify_comment"] = wanted.comment
        options["existing_comment"] = found.comment
    return ConvertColumnOp(
        pair.key[1],
        wanted.name,
        schema=pair.key[0],
        existing_type=column_of(replace(found, serial=False), context.found.enums).type,
        existing_nullable=found.nullable,
        **options,
    )


def _clause(column: Column) -> DefaultClause | None:
    default = default_of(column)
    return None if default is None else DefaultClause(default)


def _backwards(context: Context, found: Column, wanted: Column) -> str | None:
    """Return how a downgrade makes the old values of the new ones."""
    change = conversion(
        wanted.type,
        found.type,
        old_values=_values(context.wanted.enums, wanted.type),
        new_values=_values(context.found.enums, found.type),
    )
    if change is not None:
        return change.using
    middle = "" if wanted.type.endswith("[]") else "::text"
    return f"{{0}}{middle}::{found.type}"


def _numbering(pair: Pair, found: Column, wanted: Column) -> MigrateOperation:
    return SetNumberingOp(
        pair.key[1],
        wanted.name,
        _how(wanted),
        was=_how(found),
        schema=pair.key[0],
        sequence=_sequence(wanted),
        existing=_sequence(found),
    )


def _how(column: Column) -> Numbering:
    if column.serial:
        return "serial"
    return {"a": "always", "d": "by default"}.get(column.identity, "none")  # type: ignore[return-value]


def _sequence(column: Column) -> dict[str, Any]:
    """Return the options of the sequence; the type of an identity is that of the column."""
    if column.sequence is None:
        return {}
    options = sequence_options(column.sequence)
    return {"data_type": column.sequence.type, **options} if column.serial else options


def _adding(context: Context, pair: Pair, column: Column) -> MigrateOperation:
    made = column_of(column, context.wanted.enums)
    return alembic_ops.AddColumnOp.from_column_and_tablename(pair.key[0], pair.key[1], made)


def _dropping(context: Context, pair: Pair, column: Column) -> MigrateOperation:
    """Return the operation that drops a column; a downgrade gives its rows some value."""
    made = column_of(column, context.found.enums)
    value = filler(column, _values(context.found.enums, column.type))
    back = RestoreColumnOp(pair.key[1], made, schema=pair.key[0], filler=value)
    return DropColumnOp(pair.key[1], column.name, schema=pair.key[0], _reverse=back)


def _decision(table: Name, question: str, where: str, advice: str) -> MigrateOperation:
    return RequireDecisionOp(question, table[1], where, schema=table[0], advice=advice)


def _quoted(column: Column) -> str:
    return printed(None, column.name)


def _difference(key: Name, column: Column, what: str) -> Difference:
    return Difference("column", place(key, column.name), what)


_NAMES = {
    "type": "type",
    "nullable": "nullable",
    "default": "default",
    "identity": "identity",
    "serial": "serial",
    "sequence": "sequence",
    "generated": "generated",
    "collation": "collation",
    "comment": "comment",
}


def _what_differs(pair: Pair, found: Column, wanted: Column) -> str:
    parts = [part for part in _ALL if not pair.same_column(found.name, part)]
    return "; ".join(
        f"{_NAMES[part]} {changed(getattr(found, part), getattr(wanted, part))}" for part in parts
    )
