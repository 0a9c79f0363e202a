"""Constraints and indexes: which go, which come, and which are made anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import MigrateOperation
from alembic.operations import ops as alembic_ops
from sqlalchemy.sql.elements import conv

from ragstore.migrations.facts import Constraint, Index, Name, Table
from ragstore.migrations.objects import constraint_of, index_of, is_special
from ragstore.migrations.operations import (
    CommentOnConstraintOp,
    CreateConstraintOp,
    DropConstraintOp,
    RenameConstraintOp,
    RenameIndexOp,
)
from ragstore.migrations.plan.context import Context, Pair
from ragstore.migrations.plan.steps import Difference, Phase, changed, place

_KINDS = {
    "p": "primary key",
    "u": "unique constraint",
    "f": "foreign key",
    "c": "check constraint",
    "x": "exclusion constraint",
}
_ALEMBIC_KINDS = {"p": "primary", "u": "unique", "f": "foreignkey", "c": "check", "x": None}


def compare_keys(context: Context, pair: Pair) -> None:
    """Compare the constraints, but for foreign keys, and the indexes of a table."""
    _compare_constraints(context, pair, foreign_keys=False)
    _compare_indexes(context, pair)


def compare_foreign_keys(context: Context, pair: Pair) -> None:
    """Compare the foreign keys of a table, after all that they may rest on was compared."""
    _compare_constraints(context, pair, foreign_keys=True)


def _compare_constraints(context: Context, pair: Pair, *, foreign_keys: bool) -> None:
    found = _constraints(pair.found, foreign_keys=foreign_keys)
    wanted = {
        name: constraint
        for name, constraint in _constraints(pair.wanted, foreign_keys=foreign_keys).items()
        if _accepted(context, constraint, reflected=False)
    }
    new = {name: wanted[name] for name in wanted if name not in found}
    old = {name: found[name] for name in found if name not in wanted}
    _match_constraints(context, pair, old, new)
    for name in found.keys() & wanted.keys():
        _compare_constraint(context, pair, found[name], wanted[name])
    for constraint in old.values():
        _leave_or_drop(context, pair, constraint)
    for constraint in new.values():
        difference = _difference(pair.key, constraint, "is not in the database")
        context.plan.add(
            difference, adding(pair.written, pair.written.constraints[constraint.name])
        )


def _match_constraints(
    context: Context, pair: Pair, old: dict[str, Constraint], new: dict[str, Constraint]
) -> None:
    """Take out of both what is the same under two names, and rename what is ours."""
    unnamed = {_KIND_OF.get(type(each)) for each in pair.model.constraints if each.name is None}
    for name in list(new):
        same = next((other for other in old if pair.same_constraint(other, name)), None)
        if same is None or _must_be_anew(context, pair, old[same]):
            continue
        is_ours = context.owned.owns_constraint(pair.old_key, old[same])
        if not is_ours and pair.old_name is None:
            # Somebody else's: enough, where the model leaves the name to the server.
            if new[name].kind in unnamed:
                del new[name], old[same]
        else:
            difference = _difference(pair.key, new[name], f"is named {same} in the database")
            rename = RenameConstraintOp(pair.key[1], same, name, schema=pair.key[0])
            context.plan.add(difference, (Phase.RENAMES, rename))
            del new[name], old[same]


_KIND_OF: dict[type, str] = {
    sa.PrimaryKeyConstraint: "p",
    sa.UniqueConstraint: "u",
    sa.ForeignKeyConstraint: "f",
    sa.CheckConstraint: "c",
}


def _compare_comment(context: Context, pair: Pair, found: Constraint, wanted: Constraint) -> None:
    """Compare the comments of a constraint; it was seen before whether it is made anew."""
    if found.comment == wanted.comment:
        return
    difference = _difference(pair.key, wanted, f"comment {changed(found.comment, wanted.comment)}")
    operation = CommentOnConstraintOp(
        wanted.name, pair.key[1], wanted.comment, schema=pair.key[0], existing=found.comment
    )
    context.plan.add(difference, (Phase.OPTIONS, operation))


def _compare_constraint(
    context: Context, pair: Pair, found: Constraint, wanted: Constraint
) -> None:
    _compare_comment(context, pair, found, wanted)
    is_same = pair.same_constraint(found.name, wanted.name)
    is_unvalidated = pair.written.constraints[wanted.name].validated and not found.validated
    if is_same and not is_unvalidated and not _must_be_anew(context, pair, found):
        return
    if is_same:
        what = "is not validated" if is_unvalidated else "rests on what is made anew"
    else:
        what = f"is {found.definition}, the models have {wanted.definition}"
    difference = _difference(pair.key, wanted, what)
    steps = (
        dropping(context, pair.found, found),
        adding(pair.written, pair.written.constraints[wanted.name]),
    )
    if is_same and not is_unvalidated:
        context.plan.follow(*steps)
    else:
        context.plan.add(difference, *steps)


def _must_be_anew(context: Context, pair: Pair, constraint: Constraint) -> bool:
    """Tell whether a constraint falls with a column, or with the key that it rests on."""
    if context.falling(pair.key) & set(constraint.columns):
        return True
    if constraint.kind in "cx" and context.calls_remade(constraint.definition):
        return True
    if constraint.kind != "f" or constraint.refers_to is None:
        return False
    if constraint.rests_on and (constraint.refers_to, constraint.rests_on) in context.dropped_keys:
        return True
    return bool(context.falling(constraint.refers_to) & set(constraint.referred))


def _leave_or_drop(context: Context, pair: Pair, constraint: Constraint) -> None:
    is_ours = context.owned.owns_constraint(pair.old_key, constraint) and _accepted(
        context, constraint, reflected=True
    )
    must_go = _must_be_anew(context, pair, constraint)
    if is_ours or (must_go and not _stays(pair, constraint)):
        difference = _difference(pair.key, constraint, "is not in the models")
        context.plan.add(difference, dropping(context, pair.found, constraint))
        return
    context.plan.foreign.append(f"{_KINDS[constraint.kind]} {place(pair.key, constraint.name)}")
    if must_go:
        steps = (dropping(context, pair.found, constraint), adding(pair.found, constraint))
        context.plan.follow(*steps)


def _stays(pair: Pair, constraint: Constraint) -> bool:
    """Tell whether every column that a constraint mentions is in the models too."""
    return set(constraint.columns) <= pair.wanted.columns.keys()


def _compare_indexes(context: Context, pair: Pair) -> None:
    found = pair.found.indexes
    wanted = {
        name: index
        for name, index in pair.wanted.indexes.items()
        if context.accepts(_model_index(pair, name), name, "index", False, None)
    }
    new = {name: wanted[name] for name in wanted if name not in found}
    old = {name: found[name] for name in found if name not in wanted}
    for name in list(new):
        same = next((other for other in old if pair.same_index(other, name)), None)
        if same is not None and context.owned.owns_index(pair.key[0], same):
            new.pop(name)
            old.pop(same)
            difference = _index_difference(pair.key, name, f"is named {same} in the database")
            rename = RenameIndexOp(same, name, schema=pair.key[0])
            context.plan.add(difference, (Phase.RENAMES, rename))
    for name in found.keys() & wanted.keys():
        _compare_index(context, pair, found[name], wanted[name])
    for index in old.values():
        _leave_or_drop_index(context, pair, index)
    for index in new.values():
        difference = _index_difference(pair.key, index.name, "is not in the database")
        context.plan.add(difference, adding_index(pair.written, pair.written.indexes[index.name]))


def _compare_index(context: Context, pair: Pair, found: Index, wanted: Index) -> None:
    is_same = pair.same_index(found.name, wanted.name)
    falls = _falls(context, pair, found)
    if is_same and not falls:
        return
    steps = (
        dropping_index(context, pair.found, found),
        adding_index(pair.written, pair.written.indexes[wanted.name]),
    )
    if is_same:
        context.plan.follow(*steps)
        return
    what = f"is {described(found)}, the models have {described(wanted)}"
    context.plan.add(_index_difference(pair.key, wanted.name, what), *steps)


def _falls(context: Context, pair: Pair, index: Index) -> bool:
    """Tell whether an index falls with a column, or with a function that it calls."""
    return bool(context.falling(pair.key) & index.columns) or context.calls_remade(index.definition)


def _leave_or_drop_index(context: Context, pair: Pair, index: Index) -> None:
    sa_index = index_of(index, pair.found)
    is_ours = context.owned.owns_index(pair.key[0], index.name) and context.accepts(
        sa_index, index.name, "index", True, None
    )
    falls = _falls(context, pair, index)
    stays = index.columns <= pair.wanted.columns.keys()
    if is_ours or (falls and not stays):
        difference = _index_difference(pair.key, index.name, "is not in the models")
        context.plan.add(difference, dropping_index(context, pair.found, index))
        return
    context.plan.foreign.append(f"index {place(pair.key, index.name)}")
    if falls:
        steps = (dropping_index(context, pair.found, index), adding_index(pair.found, index))
        context.plan.follow(*steps)


# --- operations --------------------------------------------------------------------------------


def adding(table: Table, constraint: Constraint) -> tuple[Phase, MigrateOperation]:
    """Return the step that adds a constraint to a table that is there."""
    phase = Phase.FOREIGN_KEYS if constraint.kind == "f" else Phase.CONSTRAINTS
    return phase, _create(table, constraint)


def dropping(
    context: Context, table: Table, constraint: Constraint
) -> tuple[Phase, MigrateOperation]:
    """Return the step that drops a constraint, and brings it back in a downgrade."""
    phase = Phase.DROP_FOREIGN_KEYS if constraint.kind == "f" else Phase.DROP_CONSTRAINTS
    if constraint.kind in "pu":
        context.dropped_keys.add((table.key, constraint.name))
    operation = DropConstraintOp(
        constraint.name,
        table.name,
        _ALEMBIC_KINDS[constraint.kind],
        schema=table.schema,
        existing=_create(table, constraint),
    )
    return phase, operation


def adding_index(table: Table, index: Index) -> tuple[Phase, MigrateOperation]:
    """Return the step that makes an index on a table that is there."""
    return Phase.INDEXES, alembic_ops.CreateIndexOp.from_index(index_of(index, table))


def dropping_index(context: Context, table: Table, index: Index) -> tuple[Phase, MigrateOperation]:
    """Return the step that drops an index, and makes it again in a downgrade."""
    if index.unique:
        context.dropped_keys.add((table.key, index.name))
    return Phase.DROP_INDEXES, alembic_ops.DropIndexOp.from_index(index_of(index, table))


def described(index: Index) -> str:
    """Say what an index is, without the table and its name."""
    return index.definition.partition(" USING ")[2] or index.definition


def _create(table: Table, constraint: Constraint) -> MigrateOperation:
    # Alembic looks for the included columns in a table that has the key's only.
    by_definition = constraint.kind == "p" or bool(constraint.included)
    if by_definition or is_special(constraint) or not constraint.validated:
        return CreateConstraintOp(
            constraint.name, table.name, constraint.definition, schema=table.schema
        )
    if constraint.kind == "f":
        return _create_foreign_key(table, constraint)
    shell = sa.Table(
        table.name,
        sa.MetaData(),
        *(sa.Column(name, sa.Integer()) for name in table.columns),
        schema=table.schema,
    )
    made = constraint_of(constraint)
    shell.append_constraint(made)
    return alembic_ops.AddConstraintOp.from_constraint(made)


def _create_foreign_key(table: Table, constraint: Constraint) -> MigrateOperation:
    schema, referred = constraint.refers_to or (None, "")
    made = constraint_of(constraint)
    given = ("onupdate", "ondelete", "match", "deferrable", "initially")
    options = {name: getattr(made, name) for name in given if getattr(made, name) is not None}
    return alembic_ops.CreateForeignKeyOp(
        conv(constraint.name),
        table.name,
        referred,
        list(constraint.columns),
        list(constraint.referred),
        source_schema=table.schema,
        referent_schema=schema,
        **options,
    )


def _constraints(table: Table, *, foreign_keys: bool) -> dict[str, Constraint]:
    return {
        name: constraint
        for name, constraint in table.constraints.items()
        if (constraint.kind == "f") == foreign_keys
    }


def _accepted(context: Context, constraint: Constraint, *, reflected: bool) -> bool:
    kind = {"u": "unique_constraint", "f": "foreign_key_constraint"}.get(constraint.kind)
    if kind is None:  # Alembic asks about no other kind
        return True
    item = constraint_of(constraint)
    return context.accepts(item, constraint.name, kind, reflected, None)


def _model_index(pair: Pair, name: str) -> sa.Index | None:
    return next((index for index in pair.model.indexes if index.name == name), None)


def _difference(key: Name, constraint: Constraint, what: str) -> Difference:
    return Difference(_KINDS[constraint.kind], place(key, constraint.name), what)


def _index_difference(key: Name, name: str, what: str) -> Difference:
    return Difference("index", place(key, name), what)
