"""What the operations of a revision lock, written above them, with the way that locks less.

The rules have the names that squawk gives them (https://squawkhq.com/docs/rules), and one of ours
for what it has no rule for. Only tables that were there before the revision count: nobody waits
for a new one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, ops
from alembic.operations.ops import OpContainer
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import TypeEngine

from ragstore.exceptions import MigrationError
from ragstore.migrations.effects import is_created
from ragstore.migrations.facts import Name
from ragstore.migrations.operations import (
    CreateConstraintOp,
    CreateIndexOnlineOp,
    DropIndexOnlineOp,
    Remark,
    ReplaceEnumOp,
    RestoreColumnOp,
    SetGeneratedOp,
    SetLoggedOp,
)
from ragstore.migrations.rewriting import is_volatile, rewrites

_SWAP = "add a new column, fill it, swap."
_BATCHES = "add the column without it, fill it in batches, then set it."
_NOT_VALID = "add it NOT VALID, and VALIDATE CONSTRAINT in a revision of its own."
_UNIQUE = "op.create_index_online(..., unique=True), then ADD CONSTRAINT ... USING INDEX."
_STOP_USING = "release code that does not use it first; run this afterwards."

_NO_OTHER = "there is no other way; run it while nobody waits for the table."

DROP_ALL = "drop-all-tables"
"""Not a remark: what must be allowed before a revision may drop every table of the history."""

ONLINE = {
    "adding-field-with-default": _BATCHES,
    "adding-foreign-key-constraint": _NOT_VALID,
    "adding-not-nullable-field": "CHECK (... IS NOT NULL) NOT VALID, VALIDATE it, then this.",
    "adding-required-field": "add it nullable, fill it in batches, then set it NOT NULL.",
    "adding-serial-primary-key-field": _UNIQUE,
    "ban-drop-column": _STOP_USING,
    "ban-drop-table": _STOP_USING,
    "changing-column-type": _SWAP,
    "constraint-missing-not-valid": _NOT_VALID,
    "disallowed-unique-constraint": _UNIQUE,
    "renaming-column": "add a column of the new name, write both, then drop the old one.",
    "renaming-table": "rename it, and leave a view of the old name until no code uses it.",
    "require-concurrent-index-creation": "op.create_index_online in a revision of its own.",
    "require-concurrent-index-deletion": "op.drop_index_online in a revision of its own.",
    "rewriting-table": "make a table of the other kind, copy in batches, swap the names.",
}
"""Every rule, and what to do instead."""

_REWRITTEN = " while every row is rewritten"
_READ = " while every row is read"
_BUILT = " while its index is built"
_MOMENT = " for a moment"

_make_dialect: Any = postgresql.dialect  # which has no types
_dialect: sa.Dialect = _make_dialect()
_SERIAL = re.compile(r" (BIG|SMALL)?SERIAL\b")
_REFERRED = re.compile(r"\bREFERENCES\s+([^\s(]+)")


@dataclass(frozen=True)
class Locking:
    """What an operation does to those who use ``table``: the rule's name, and the lock in words."""

    rule: str
    table: Name
    lock: str
    online: str = ""

    @property
    def text(self) -> str:
        """Return the comment: what is locked, and the way that locks less."""
        return f"{self.rule}: {self.lock}.\nOnline: {self.online or ONLINE[self.rule]}"

    @property
    def allowed(self) -> str:
        """Return the comment for a rule that was allowed."""
        return f"allowed: {self.rule} on {_place(self.table)}"


def remarks(operation: MigrateOperation, new_tables: Collection[Name] = ()) -> list[Locking]:
    """Return what there is to say about an operation; nothing about tables that are new.

    Nor is there anything about what only changes the catalog: a nullable column, a default that is
    set or dropped, a longer varchar, a comment, the name of an index.
    """
    found = [each for each in _remarks(operation) if each.table not in new_tables]
    return list(dict.fromkeys(found))


def annotate(container: OpContainer, allowed: Collection[str] = ()) -> None:
    """Insert the remarks above the operations of a script, also in containers in it.

    Neighbours that need the same words have them once. A rule in ``allowed`` is only recorded.
    """
    _annotate(container, frozenset(allowed), set(), [])


def allowed_rules(x_arguments: Sequence[str]) -> set[str]:
    """Return the rules of ``-x allow=RULE[,RULE]``, which may stand more than once.

    Raises:
        MigrationError: there is no such rule.
    """
    given = [each.removeprefix("allow=") for each in x_arguments if each.startswith("allow=")]
    rules = {rule.strip() for each in given for rule in each.split(",") if rule.strip()}
    unknown = sorted(rules - ONLINE.keys() - {DROP_ALL})
    if unknown:
        raise MigrationError(
            f"-x allow={unknown[0]}: there is no such rule. Known are: {', '.join(sorted(ONLINE))}"
        )
    return rules


def _annotate(
    container: OpContainer, allowed: frozenset[str], new: set[Name], before: list[str]
) -> list[str]:
    """Annotate a container and return the words above its last operation."""
    result: list[MigrateOperation] = []
    for operation in container.ops:
        if isinstance(operation, OpContainer) and not isinstance(operation, Remark):
            before = _annotate(operation, allowed, new, before)
        else:
            words = [
                each.allowed if each.rule in allowed else each.text
                for each in remarks(operation, new)
            ]
            result += [Remark(text) for text in words if text not in before]
            before = words
            _note_new(operation, new)
        result.append(operation)
    container.ops = result
    return before


def _note_new(operation: MigrateOperation, new: set[Name]) -> None:
    if isinstance(operation, ops.CreateTableOp):
        new.add((operation.schema, operation.table_name))
    elif isinstance(operation, ops.RenameTableOp) and _key(operation) in new:
        new.add((operation.schema, operation.new_table_name))


def _key(operation: Any) -> Name:
    return (operation.schema, operation.table_name)


def _place(table: Name) -> str:
    return ".".join(part for part in table if part)


def _exclusive(rule: str, table: Name, how: str, online: str = "") -> Locking:
    return Locking(rule, table, f"ACCESS EXCLUSIVE on {_place(table)}{how}", online)


# --- what each operation does ------------------------------------------------------------------


@singledispatch
def _remarks(_operation: MigrateOperation) -> Iterator[Locking]:
    """Yield nothing: most operations lock for a moment and touch no row."""
    yield from ()


@_remarks.register
def _drop_table(operation: ops.DropTableOp) -> Iterator[Locking]:
    yield _exclusive("ban-drop-table", _key(operation), ", and its rows are lost")


@_remarks.register
def _rename_table(operation: ops.RenameTableOp) -> Iterator[Locking]:
    how = f"{_MOMENT}; code that uses the old name fails"
    yield _exclusive("renaming-table", _key(operation), how)


@_remarks.register
def _drop_column(operation: ops.DropColumnOp) -> Iterator[Locking]:
    how = f"{_MOMENT}; code that uses {operation.column_name} fails, and its values are lost"
    yield _exclusive("ban-drop-column", _key(operation), how)


@_remarks.register
def _alter_column(operation: ops.AlterColumnOp) -> Iterator[Locking]:
    key, name = _key(operation), operation.column_name
    if operation.modify_type is not None and _is_rewritten(operation):
        yield _exclusive("changing-column-type", key, _REWRITTEN)
    if operation.modify_nullable is False:
        yield _exclusive("adding-not-nullable-field", key, _READ)
    if operation.modify_name is not None and operation.modify_name != name:
        yield _exclusive("renaming-column", key, f"{_MOMENT}; code that uses {name} fails")


def _is_rewritten(operation: ops.AlterColumnOp) -> bool:
    if operation.existing_type is None:
        return True
    try:
        old, new = _written(operation.existing_type), _written(operation.modify_type)
    except CompileError:  # one that SQLAlchemy could not read from the database
        return True
    using = operation.kw.get("postgresql_using")
    plain = using is None or using.replace('"', "").startswith(f"{operation.column_name}::")
    return rewrites(old, new) or not plain


def _written(type_: Any) -> str:
    made: TypeEngine[Any] = type_() if isinstance(type_, type) else type_
    return made.compile(_dialect)


@_remarks.register
def _add_column(operation: ops.AddColumnOp) -> Iterator[Locking]:
    key, column = _key(operation), operation.column
    if _fills_rows(operation):
        yield _exclusive("adding-field-with-default", key, _REWRITTEN)
    elif not column.nullable and column.server_default is None:
        yield _exclusive("adding-required-field", key, ", and it fails if there are rows")
    table = _alone(operation)
    if not (operation.inline_primary_key and column.primary_key):
        table.constraints.discard(table.primary_key)
    for constraint in table.constraints:
        yield from _of_constraint(constraint)
    if table.indexes:
        yield _index(key)


def _alone(operation: ops.AddColumnOp) -> sa.Table:
    """Return a table of the column alone, with the constraints and indexes that it brings."""
    column = operation.column._copy()  # noqa: SLF001 - a Column is in one table only
    return ops.CreateTableOp(operation.table_name, [column], schema=operation.schema).to_table()


@_remarks.register
def _restore_column(operation: RestoreColumnOp) -> Iterator[Locking]:
    for step in operation.steps():
        yield from _remarks(step)


def _fills_rows(operation: ops.AddColumnOp) -> bool:
    """Say if every row is written when the column comes: constants are kept in the catalog."""
    column = _alone(operation).columns[operation.column.name]
    if column.computed is not None:
        return column.computed.persisted is not False
    if column.identity is not None or _SERIAL.search(
        str(CreateColumn(column).compile(dialect=_dialect))
    ):
        return True
    default: Any = getattr(column.server_default, "arg", None)
    if default is None:
        return False
    return not isinstance(default, str) and is_volatile(str(default.compile(dialect=_dialect)))


@_remarks.register
def _create_index(operation: ops.CreateIndexOp) -> Iterator[Locking]:
    if not operation.kw.get("postgresql_concurrently"):
        yield _index(_key(operation))


def _index(key: Name) -> Locking:
    how = "writers wait while the index is built"
    return Locking("require-concurrent-index-creation", key, f"SHARE on {_place(key)}: {how}")


@_remarks.register
def _drop_index(operation: ops.DropIndexOp) -> Iterator[Locking]:
    if not operation.kw.get("postgresql_concurrently"):
        table = operation.table_name
        key = (operation.schema, table or f"the table of {operation.index_name}")
        yield _exclusive("require-concurrent-index-deletion", key, _MOMENT)


@_remarks.register(CreateIndexOnlineOp)
@_remarks.register(DropIndexOnlineOp)
def _online(_operation: MigrateOperation) -> Iterator[Locking]:
    yield from ()


@_remarks.register
def _add_constraint(operation: ops.AddConstraintOp) -> Iterator[Locking]:
    yield from _of_constraint(operation.to_constraint())


def _of_constraint(constraint: sa.Constraint) -> Iterator[Locking]:
    options: Any = constraint.dialect_options["postgresql"]
    if options.get("not_valid") or not is_created(constraint, _dialect):
        return
    key = (constraint.table.schema, constraint.table.name)
    if isinstance(constraint, sa.ForeignKeyConstraint):
        yield _foreign_key(key, _referred(constraint))
    elif isinstance(constraint, sa.PrimaryKeyConstraint):
        yield from _by_kind("PRIMARY", key)
    elif isinstance(constraint, sa.UniqueConstraint):
        yield from _by_kind("UNIQUE", key)
    elif isinstance(constraint, postgresql.ExcludeConstraint):
        yield from _by_kind("EXCLUDE", key)
    elif isinstance(constraint, sa.CheckConstraint):
        yield from _by_kind("CHECK", key)


def _by_kind(kind: str, key: Name) -> Iterator[Locking]:
    """Yield what a constraint locks whose definition begins with that word."""
    if kind == "PRIMARY":
        yield _exclusive("adding-serial-primary-key-field", key, _BUILT)
    elif kind == "UNIQUE":
        yield _exclusive("disallowed-unique-constraint", key, _BUILT)
    elif kind == "EXCLUDE":
        yield _exclusive("constraint-missing-not-valid", key, _BUILT, _NO_OTHER)
    else:
        yield _exclusive("constraint-missing-not-valid", key, _READ)


def _foreign_key(key: Name, referred: str) -> Locking:
    places = " and ".join(dict.fromkeys((_place(key), referred)))
    how = "writers wait while every row is looked up"
    return Locking("adding-foreign-key-constraint", key, f"SHARE ROW EXCLUSIVE on {places}: {how}")


def _referred(constraint: sa.ForeignKeyConstraint) -> str:
    return str(constraint.elements[0].target_fullname).rpartition(".")[0]


# --- operations of ours ------------------------------------------------------------------------


@_remarks.register
def _create_constraint(operation: CreateConstraintOp) -> Iterator[Locking]:
    definition = operation.definition.upper()
    if any(words in definition for words in ("NOT VALID", "NOT ENFORCED", "USING INDEX ")):
        return
    referred = _REFERRED.search(operation.definition)
    if definition.startswith("FOREIGN") and referred is not None:
        yield _foreign_key(_key(operation), referred[1].replace('"', ""))
    else:
        yield from _by_kind(definition.split(maxsplit=1)[0], _key(operation))


@_remarks.register
def _set_generated(operation: SetGeneratedOp) -> Iterator[Locking]:
    key = (operation.schema, operation.table)
    yield _exclusive("adding-field-with-default", key, _REWRITTEN, _SWAP)


@_remarks.register
def _replace_enum(operation: ReplaceEnumOp) -> Iterator[Locking]:
    for table, _column, *schema in operation.columns:
        key = (schema[0] if schema else None, table)
        yield _exclusive("changing-column-type", key, _REWRITTEN)


@_remarks.register
def _set_logged(operation: SetLoggedOp) -> Iterator[Locking]:
    yield _exclusive("rewriting-table", (operation.schema, operation.table), _REWRITTEN)
