"""What each operation makes, renames and drops.

Alembic's operations, and what is derived from them, are known by the names of their classes, and
ours by their verbs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, ops
from alembic.operations.schemaobj import SchemaObjects
from alembic.runtime.migration import MigrationContext
from alembic.util.sqla_compat import _get_constraint_final_name
from sqlalchemy.dialects.postgresql import ARRAY, DOMAIN, ENUM, ExcludeConstraint
from sqlalchemy.types import TypeDecorator

from ragstore.migrations.made import Made, MadeConstraint, MadeIndex, MadeTable
from ragstore.migrations.recorder import NamedTypeOp

UNLOGGED = "unlogged"
"""An option of a table that stands before TABLE and not behind WITH."""

_KINDS: tuple[tuple[type[sa.Constraint], str], ...] = (
    (sa.PrimaryKeyConstraint, "p"),
    (sa.UniqueConstraint, "u"),
    (sa.ForeignKeyConstraint, "f"),
    (ExcludeConstraint, "x"),
    (sa.CheckConstraint, "c"),
)
_WORDS = {"PRIMARY": "p", "UNIQUE": "u", "FOREIGN": "f", "EXCLUDE": "x", "CHECK": "c"}

_NAME = r'"(?:[^"]|"")+"|[\w$]+'
_DEFINED = re.compile(
    rf"\s*CREATE(?:\s+OR\s+REPLACE)?\s+FUNCTION\s+"
    rf"(?:(?P<schema>{_NAME})\.)?(?P<name>{_NAME})\s*\(",
    re.IGNORECASE,
)

_Handler = Callable[[Made, Any, MigrationContext], Any]
_HANDLERS: dict[str, _Handler] = {}


def apply(made: Made, operation: MigrateOperation, context: MigrationContext) -> Any:
    """Bring the state up to date; return what the ``op`` function returns to the script.

    Names are those that Alembic would give, with the naming convention of the context. Returns
    NotImplemented for an operation that is unknown.
    """
    for kind in type(operation).__mro__:
        if kind.__name__ in _HANDLERS:
            return _HANDLERS[kind.__name__](made, operation, context)
    return _of_ours(made, operation) if hasattr(operation, "verb") else NotImplemented


def _on(*names: str) -> Callable[[_Handler], _Handler]:
    """Let the function handle the operations of these classes, and of their subclasses."""

    def register(handler: _Handler) -> _Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


# --- tables and columns ------------------------------------------------------------------------


@_on("CreateTableOp")
def _create_table(made: Made, op: ops.CreateTableOp, context: MigrationContext) -> sa.Table:
    table = op.to_table(context)
    entry = made.tables[made.key(table.schema, table.name)] = MadeTable(made=True)
    _add_columns(made, table, context)
    if table.comment is not None:
        entry.comments.add(None)
    entry.options |= set(table.kwargs.get("postgresql_with") or ())
    if "UNLOGGED" in (prefix.upper() for prefix in op.prefixes or ()):
        entry.options.add(UNLOGGED)
    for column in table.columns:
        _add_enum(made, column.type, context)
    return table


@_on("AddColumnOp")
def _add_column(made: Made, op: ops.AddColumnOp, context: MigrationContext) -> None:
    # Unlike a new table, a new column does not create its enum: the script must have done so.
    table = ops.CreateTableOp(op.table_name, [op.column], schema=op.schema).to_table(context)
    if not op.inline_primary_key:
        table.constraints.discard(table.primary_key)
    _add_columns(made, table, context)


def _add_columns(made: Made, table: sa.Table, context: MigrationContext) -> None:
    entry = made.table(table.schema, table.name)
    for column in table.columns:
        entry.columns.add(column.name)
        if column.comment is not None:
            entry.comments.add(column.name)
    for constraint in table.constraints:
        _add_constraint(made, constraint, context)
    for index in table.indexes:
        _add_index(made, index, context)


def _add_enum(made: Made, type_: Any, context: MigrationContext) -> None:
    """Note the enum or domain that CREATE TABLE makes for a column."""
    resolved = type_.dialect_impl(context.dialect)
    if isinstance(resolved, TypeDecorator):
        _add_enum(made, resolved.impl_instance, context)
    elif isinstance(resolved, ARRAY):
        _add_enum(made, resolved.item_type, context)
    elif isinstance(resolved, (DOMAIN, ENUM)) and resolved.create_type and resolved.name:
        made.enums.add(made.key(resolved.schema, resolved.name))


@_on("DropTableOp")
def _drop_table(made: Made, op: ops.DropTableOp, _context: MigrationContext) -> None:
    made.drop_table(op.schema, op.table_name)


@_on("RenameTableOp")
def _rename_table(made: Made, op: ops.RenameTableOp, _context: MigrationContext) -> None:
    made.rename_table(op.schema, op.table_name, op.new_table_name)


@_on("DropColumnOp")
def _drop_column(made: Made, op: ops.DropColumnOp, _context: MigrationContext) -> None:
    made.drop_column(op.schema, op.table_name, op.column_name)


@_on("AlterColumnOp")
def _alter_column(made: Made, op: ops.AlterColumnOp, _context: MigrationContext) -> None:
    comments = made.table(op.schema, op.table_name).comments
    if op.modify_comment is None:
        comments.discard(op.column_name)
    elif op.modify_comment is not False:
        comments.add(op.column_name)
    if op.modify_name is not None:
        made.rename_column(op.schema, op.table_name, op.column_name, op.modify_name)


@_on("CreateTableCommentOp")
def _comment(made: Made, op: ops.CreateTableCommentOp, context: MigrationContext) -> None:
    if op.comment is None:
        _drop_comment(made, op, context)
    else:
        made.table(op.schema, op.table_name).comments.add(None)


@_on("DropTableCommentOp")
def _drop_comment(made: Made, op: ops.AlterTableOp, _context: MigrationContext) -> None:
    made.table(op.schema, op.table_name).comments.discard(None)


# --- constraints and indexes -------------------------------------------------------------------


def _add_constraint(made: Made, constraint: sa.Constraint, context: MigrationContext) -> None:
    kind = next((letter for type_, letter in _KINDS if isinstance(constraint, type_)), None)
    columns = tuple(column.name for column in getattr(constraint, "columns", ()))
    if kind is None or (kind == "p" and not columns) or not is_created(constraint, context.dialect):
        return
    name = _get_constraint_final_name(constraint, context.dialect)
    table = constraint.table
    made.table(table.schema, table.name).constraints.append(
        MadeConstraint(name, kind, columns, table.name)
    )


def is_created(constraint: sa.Constraint, dialect: sa.Dialect) -> bool:
    """Say no to the CHECK of an enum or boolean that the database has a type for."""
    rule: Any = constraint._create_rule  # noqa: SLF001 - Alembic asks it, too
    return rule is None or bool(rule(dialect.statement_compiler(dialect, None)))


def _add_index(made: Made, index: sa.Index, context: MigrationContext) -> None:
    table: Any = index.table
    name = str(_get_constraint_final_name(index, context.dialect))
    columns = {column.name for column in index.columns}
    made.indexes[made.key(table.schema, name)] = MadeIndex(
        made.key(table.schema, table.name), columns
    )


@_on("AddConstraintOp")
def _create_constraint(made: Made, op: ops.AddConstraintOp, context: MigrationContext) -> None:
    _add_constraint(made, op.to_constraint(context), context)


@_on("DropConstraintOp")
def _drop_constraint(made: Made, op: ops.DropConstraintOp, context: MigrationContext) -> None:
    constraint = SchemaObjects(context).generic_constraint(
        op.constraint_name, op.table_name, op.constraint_type, schema=op.schema
    )
    name = str(_get_constraint_final_name(constraint, context.dialect))
    constraints = made.table(op.schema, op.table_name).constraints
    found = next((each for each in constraints if each.is_called(name)), None)
    if found is not None:
        constraints.remove(found)


@_on("CreateIndexOp")
def _create_index(made: Made, op: ops.CreateIndexOp, context: MigrationContext) -> None:
    _add_index(made, op.to_index(context), context)


@_on("DropIndexOp")
def _drop_index(made: Made, op: ops.DropIndexOp, context: MigrationContext) -> None:
    name = str(_get_constraint_final_name(op.to_index(context), context.dialect))
    made.indexes.pop(made.key(op.schema, name), None)


# --- operations of ours ------------------------------------------------------------------------


@_on("NamedTypeOp")
def _named_type(made: Made, op: NamedTypeOp, _context: MigrationContext) -> None:
    (made.enums.discard if op.dropped else made.enums.add)(made.key(op.schema, op.name))


@_on("BulkInsertOp", "ExecuteSQLOp")
def _nothing(_made: Made, _op: MigrateOperation, _context: MigrationContext) -> None:
    """Rows are not looked at, and statements not read."""


def _of_ours(made: Made, op: Any) -> None:
    """Act on one of our operations, by its verb and positional arguments."""
    name, *rest = op.facts()
    key = made.key(op.schema, str(name))
    if op.verb in _SETS:
        attribute, adds = _SETS[op.verb]
        names: set[Any] = getattr(made, attribute)
        (names.add if adds else names.discard)(str(name) if attribute in _BARE else key)
    elif op.verb in _VERBS:
        _VERBS[op.verb](made, op.schema, str(name), *rest)


_BARE = ("schemas", "extensions")  # what is in no schema
_SETS = {
    "ensure_extension": ("extensions", True),
    "create_domain": ("enums", True),
    "alter_domain": ("enums", True),
    "drop_domain": ("enums", False),
    "create_enum": ("enums", True),
    "replace_enum": ("enums", True),
    "drop_enum": ("enums", False),
    "create_sequence": ("sequences", True),
    "drop_sequence": ("sequences", False),
    "ensure_schema": ("schemas", True),
    "drop_schema_if_empty": ("schemas", False),
}


def _function_made(made: Made, schema: str | None, name: str, *_rest: Any) -> None:
    made.routines.add(made.key(schema, _folded(name)))


def _function_dropped(made: Made, schema: str | None, name: str, *_rest: Any) -> None:
    made.routines.discard(made.key(schema, _folded(name)))


def _function_defined(made: Made, _schema: str | None, definition: str) -> None:
    found = _DEFINED.match(definition)
    if found is not None:
        schema, name = found["schema"], found["name"]
        made.routines.add(made.key(schema and _folded(schema), _folded(name)))


def _folded(name: str) -> str:
    """Return a name of a function as the catalog has it: it is written as SQL is."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _index_renamed(made: Made, schema: str | None, old: str, new: str) -> None:
    index = made.indexes.pop(made.key(schema, old), None)
    if index is not None:
        made.indexes[made.key(schema, new)] = index


def _constraint_made(
    made: Made, schema: str | None, name: str, table: str, definition: str
) -> None:
    kind = _WORDS[definition.split(maxsplit=1)[0].upper()]
    made.table(schema, table).constraints.append(MadeConstraint(str(name), kind, (), table))


def _constraint_renamed(made: Made, schema: str | None, table: str, old: str, new: str) -> None:
    for constraint in made.table(schema, table).constraints:
        if constraint.is_called(old):
            constraint.name = str(new)
            return


def _options_set(made: Made, schema: str | None, table: str, options: Any) -> None:
    made.table(schema, table).options |= {name for name in options if options[name] is not None}
    _options_reset(made, schema, table, [name for name in options if options[name] is None])


def _options_reset(made: Made, schema: str | None, table: str, options: Any) -> None:
    made.table(schema, table).options -= set(options)


def _logged(made: Made, schema: str | None, table: str) -> None:
    made.table(schema, table).options.discard(UNLOGGED)


def _unlogged(made: Made, schema: str | None, table: str) -> None:
    made.table(schema, table).options.add(UNLOGGED)


_VERBS: dict[str, Callable[..., None]] = {
    "rename_index": _index_renamed,
    "create_constraint": _constraint_made,
    "rename_constraint": _constraint_renamed,
    "create_function": _function_made,
    "define_function": _function_defined,
    "drop_function": _function_dropped,
    "set_table_options": _options_set,
    "reset_table_options": _options_reset,
    "set_logged": _logged,
    "set_unlogged": _unlogged,
}
