"""Tables made once more from what was printed of them, and what renames make of their facts.

Only what the server prints as text is made: the rest of a table is taken from its facts as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ragstore.migrations.catalog import quoted_name
from ragstore.migrations.facts import Column, Constraint, Index, Name, Table
from ragstore.migrations.renames import Rename

Quote = Callable[[str], str]

_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')


# --- statements --------------------------------------------------------------------------------


def statements(table: Table, schema: str) -> Iterator[str]:
    """Yield what makes a table in a schema: columns, constraints but foreign keys, and indexes."""
    name = f"{quoted_name(schema)}.{quoted_name(table.name)}"
    columns = ", ".join(map(_column, table.columns.values()))
    partitioned = f" PARTITION BY {table.partition_key}" if table.partition_key else ""
    yield f"CREATE TABLE {name} ({columns}){partitioned}"
    for constraint in table.constraints.values():
        if constraint.kind != "f":
            added = f"CONSTRAINT {quoted_name(constraint.name)} {constraint.definition}"
            yield f"ALTER TABLE {name} ADD {added}"
    for index in table.indexes.values():
        yield _index(index, name)


def renaming(table: Table, schema: str, renames: Iterable[Rename]) -> Iterator[str]:
    """Yield what renames a table that was made in a schema, and what is in it."""
    name = f"{quoted_name(schema)}.{quoted_name(table.name)}"
    keys = {key.name for key in table.constraints.values() if key.kind == "f"}  # are not made
    # The table comes last: the others name it by its old name.
    for each in sorted(renames, key=lambda rename: rename.kind == "table"):
        if each.table == table.key:
            old, new = quoted_name(each.old), quoted_name(each.new)
            if each.kind == "index":
                yield f"ALTER INDEX {quoted_name(schema)}.{old} RENAME TO {new}"
            elif each.kind == "table":
                yield f"ALTER TABLE {name} RENAME TO {new}"
            elif each.kind == "column" or each.old not in keys:
                yield f"ALTER TABLE {name} RENAME {each.kind} {old} TO {new}"


def _column(column: Column) -> str:
    parts = [quoted_name(column.name), column.type]
    if column.collation is not None:
        parts.append(f"COLLATE {column.collation}")
    if column.generated:
        kind = "STORED" if column.generated == "s" else "VIRTUAL"
        parts.append(f"GENERATED ALWAYS AS ({column.default}) {kind}")
    elif column.default is not None:
        parts.append(f"DEFAULT {column.default}")
    return " ".join(parts)


def _index(index: Index, table: str) -> str:
    parts = [
        f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {quoted_name(index.name)} ON {table}",
        f"USING {index.method} ({', '.join(index.keys)})",
    ]
    if index.included:
        parts.append(f"INCLUDE ({', '.join(map(quoted_name, index.included))})")
    if index.nulls_not_distinct:
        parts.append("NULLS NOT DISTINCT")
    if index.options:
        values = ((name, value.replace("'", "''")) for name, value in index.options)
        options = ", ".join(f"{name} = '{value}'" for name, value in values)
        parts.append(f"WITH ({options})")
    if index.where is not None:
        parts.append(f"WHERE {index.where}")
    return " ".join(parts)


# --- facts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewNames:
    """The new names of what is renamed, by table and old name."""

    tables: Mapping[Name, Name]
    parts: Mapping[tuple[str, Name, str], str]

    @classmethod
    def of(cls, renames: Iterable[Rename]) -> NewNames:
        """Return the names that renames give."""
        every = list(renames)
        return cls(
            {each.table: (each.table[0], each.new) for each in every if each.kind == "table"},
            {(each.kind, each.table, each.old): each.new for each in every if each.kind != "table"},
        )

    def table(self, name: Name) -> Name:
        """Return the new name of a table, which may be the old one."""
        return self.tables.get(name, name)

    def part(self, kind: str, table: Name, old: str) -> str:
        """Return the new name of a column, index or constraint of a table."""
        return self.parts.get((kind, table, old), old)


def restored(source: Table, built: Table, names: NewNames, quote: Quote) -> Table:
    """Return the facts of a table that was made from ``source``, with all that was left out."""
    columns = {names.part("column", source.key, name): name for name in source.columns}
    constraints = {
        names.part("constraint", source.key, name): constraint
        for name, constraint in source.constraints.items()
    }
    indexes = {names.part("index", source.key, name): each for name, each in source.indexes.items()}
    return replace(
        built,
        unlogged=source.unlogged,
        options=source.options,
        comment=source.comment,
        columns={
            name: _restored_column(source.columns[columns[name]], each)
            for name, each in built.columns.items()
        },
        constraints={
            name: foreign_key(source.key, name, each, names, quote)
            if each.kind == "f"
            else replace(built.constraints[name], comment=each.comment)
            for name, each in constraints.items()
        },
        indexes={
            name: replace(built.indexes[name], valid=each.valid) for name, each in indexes.items()
        },
    )


def foreign_key(
    table: Name, name: str, key: Constraint, names: NewNames, quote: Quote
) -> Constraint:
    """Return a foreign key of a table under its new names."""
    if key.refers_to is None:
        return replace(key, name=name)
    target = key.refers_to
    rests_on = key.rests_on and names.part("constraint", target, key.rests_on)
    renamed = replace(
        key,
        name=name,
        columns=tuple(names.part("column", table, column) for column in key.columns),
        refers_to=names.table(target),
        referred=tuple(names.part("column", target, column) for column in key.referred),
        on_delete=_on_delete(table, key.on_delete, names, quote),
        rests_on=rests_on and names.part("index", target, rests_on),
    )
    if _structure(renamed) == _structure(key):
        return renamed
    return replace(renamed, definition=definition(renamed, quote))


def definition(key: Constraint, quote: Quote) -> str:
    """Return the definition of a foreign key, as the server prints it."""
    schema, table = key.refers_to or (None, "")
    target = quote(table) if schema is None else f"{quote(schema)}.{quote(table)}"
    parts = [
        f"FOREIGN KEY ({', '.join(map(quote, key.columns))})",
        f"REFERENCES {target}({', '.join(map(quote, key.referred))})",
    ]
    parts += [f"MATCH {key.match}"] if key.match else []
    parts += [f"ON UPDATE {key.on_update}"] if key.on_update else []
    parts += [f"ON DELETE {key.on_delete}"] if key.on_delete else []
    parts += ["DEFERRABLE"] if key.deferrable else []
    parts += ["INITIALLY DEFERRED"] if key.deferred else []
    if not key.enforced:
        parts.append("NOT ENFORCED")
    elif not key.validated:
        parts.append("NOT VALID")
    return " ".join(parts)


def names_in(tables: Iterable[Table], renames: Collection[Rename]) -> Sequence[str]:
    """Return every name that a definition of a foreign key may have."""
    found = {each.new for each in renames}
    for table in tables:
        for key in (key for key in table.constraints.values() if key.refers_to is not None):
            schema, name = key.refers_to or (None, "")
            found |= {*key.columns, *key.referred, name, *([schema] if schema else [])}
    return sorted(found)


def _structure(key: Constraint) -> tuple[object, ...]:
    return key.columns, key.refers_to, key.referred, key.on_delete


def _on_delete(table: Name, action: str, names: NewNames, quote: Quote) -> str:
    """Return an action under new names: SET NULL and SET DEFAULT may have a list of columns."""
    head, bracket, rest = action.partition(" (")
    if not bracket:
        return action
    columns = [
        quoted.replace('""', '"') if quoted else plain
        for quoted, plain in _NAME.findall(rest.removesuffix(")"))
    ]
    renamed = (quote(names.part("column", table, column)) for column in columns)
    return f"{head} ({', '.join(renamed)})"


def _restored_column(source: Column, built: Column) -> Column:
    return replace(
        built,
        nullable=source.nullable,
        identity=source.identity,
        serial=source.serial,
        sequence=source.sequence,
        comment=source.comment,
    )
