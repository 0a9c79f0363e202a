"""Facts about schemas, read from the database's own catalog.

What the server prints of an object is the one description that two spellings of the same thing
share. It prints a name with its schema or without, as the search path has it: so everything is
read under one path, which ``printing`` sets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from ragstore.migrations import facts, queries
from ragstore.migrations.facts import Catalog, Name

# As pg_dump has them: what is printed is to be read again, here or by somebody else.
_SETTINGS = {
    "quote_all_identifiers": "off",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
}

_ACTIONS = {"a": "", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_OTHERS = {"v": "view", "m": "materialized view", "f": "foreign table"}
# What follows a key in CREATE INDEX, up to the comma or parenthesis: names, and options in
# parentheses whose values are strings.
_AFTER_KEY = re.compile(r"""(?:[^,()"']|"[^"]*"|\((?:[^()']|'[^']*')*\))*""")


@contextmanager
def printing(connection: Connection, path: Sequence[str] | None = None) -> Iterator[None]:
    """Let the server print names under a search path, and values as pg_dump does.

    The path is ``path``, or the connection's own; then come the schemas of extensions. Both are
    set for the transaction, and put back at the end of the block.
    """
    _, own, extensions = search_path(connection)
    wanted = [*(own if path is None else path), *extensions]
    quoted = ", ".join(map(quoted_name, dict.fromkeys(wanted)))
    before = _set_locally(connection, {**_SETTINGS, "search_path": quoted})
    try:
        yield
    finally:
        with suppress(DBAPIError):  # of a failed transaction there is nothing to put back
            _set_locally(connection, before)


def search_path(connection: Connection) -> tuple[str, list[str], list[str]]:
    """Return the default schema, the connection's search path, and extensions' schemas beside it.

    The path is of those schemas that exist; the default one is its first, or ``public``.
    """
    default, own, extensions = connection.execute(queries.PATH).one()
    return default, list(own), list(extensions)


def quoted(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """Return each name as the server prints it: in quotes only where it needs them."""
    if not names:
        return {}
    query = text("SELECT n, quote_ident(n) FROM unnest(CAST(:names AS text[])) n")
    rows = connection.execute(query, {"names": names})
    return {name: text_ for name, text_ in rows}  # noqa: C416 - rows are no pairs to mypy


def quoted_name(name: str) -> str:
    """Return a name in quotes, as the server reads it whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def read(
    connection: Connection,
    schemas: Mapping[str, str | None],
    *,
    path: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    places: Mapping[str, str | None] | None = None,
) -> Catalog:
    """Return what is in some schemas of the database.

    ``schemas`` gives each the name it has in the result, None for the default schema. ``path`` is
    as in ``printing``. Where text still names a schema that is a key of ``rename``, which must be
    a plain identifier, it names the value instead. ``places`` are the schemas of single tables, by
    name, and go before those of ``schemas``; other tables are not in the result then.

    Takes no lock but ACCESS SHARE. The connection is in a transaction afterwards.
    """
    with printing(connection, path):
        return _Reader(connection, schemas, rename or {}, places).read()


class _Reader:
    """One reading: a query for each kind of object, each over all of the schemas."""

    def __init__(
        self,
        connection: Connection,
        schemas: Mapping[str, str | None],
        rename: Mapping[str, str],
        places: Mapping[str, str | None] | None,
    ) -> None:
        self._connection = connection
        self._schemas = schemas
        self._places = places
        names = {*rename.values(), *schemas.values(), *(places or {}).values()} - {None}
        self._quoted_schemas = quoted(connection, sorted(map(str, names)))
        self._text = _renamed(rename, self._quoted_schemas)
        self._catalog = Catalog()
        self._tables: dict[int, facts.Table] = {}
        self._quoted: dict[int, str] = {}  # the table as it stands in CREATE INDEX
        self._names: dict[tuple[int, int], str] = {}  # of columns
        self._types: dict[int, list[tuple[Name, str]]] = {}  # the columns that have a type

    def read(self) -> Catalog:
        others = self._read_relations()
        self._read_columns(self._read_sequences())
        self._read_constraints()
        self._read_indexes()
        self._read_types()
        self._read_routines()
        schemas, extensions = self._connection.execute(queries.SURROUNDINGS).one()
        return replace(
            self._catalog,
            others=tuple(others),
            schemas=frozenset(schemas),
            extensions=frozenset(extensions),
        )

    def _rows(self, query: str) -> Sequence[Row[Any]]:
        known = {"schemas": list(self._schemas), "tables": list(self._tables)}
        used = {name: known[name] for name in known if f":{name}" in query}
        return self._connection.execute(text(query), used).all()

    def _texts(self, texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(map(self._text, texts))

    def _maybe(self, printed: str | None) -> str | None:
        return None if printed is None else self._text(printed)

    def _schema(self, namespace: str, table: str) -> str | None:
        """Return the schema that a table has in the result."""
        if self._places is not None and namespace in self._schemas:
            return self._places.get(table)
        return self._schemas.get(namespace, namespace)

    def _read_relations(self) -> list[str]:
        return [other for row in self._rows(queries.RELATIONS) if (other := self._relation(row))]

    def _relation(self, row: Row[Any]) -> str | None:
        if self._places is not None and row.relname not in self._places:
            return None
        schema = self._schema(row.nspname, row.relname)
        if row.kind in _OTHERS or row.is_partition:
            name = row.relname if schema is None else f"{schema}.{row.relname}"
            return f"{_OTHERS.get(row.kind, 'partition')} {name}"
        table = facts.Table(
            schema,
            row.relname,
            partition_key=self._maybe(row.partition_key),
            unlogged=row.unlogged,
            options=_options(row.options) + _options(row.toast_options, "toast."),
            comment=row.comment,
        )
        self._tables[row.oid] = self._catalog.tables[table.key] = table
        self._quoted[row.oid] = row.quoted
        return None

    def _read_sequences(self) -> dict[tuple[int, int], list[Row[Any]]]:
        """Return the sequences that belong to columns; those that do not are facts already."""
        owned: dict[tuple[int, int], list[Row[Any]]] = {}
        for row in self._rows(queries.SEQUENCES):
            if row.table is None:
                self._add_sequence(row)
            elif row.table in self._tables:
                owned.setdefault((row.table, row.column), []).append(row)
        return owned

    def _add_sequence(self, row: Row[Any]) -> None:
        if row.nspname in self._schemas:
            self._catalog.sequences[self._schemas[row.nspname], row.relname] = _sequence(row)

    def _read_columns(self, sequences: Mapping[tuple[int, int], list[Row[Any]]]) -> None:
        for row in self._rows(queries.COLUMNS):
            table = self._tables[row.attrelid]
            table.columns[row.attname] = self._column(
                row, sequences.get((row.attrelid, row.attnum), [])
            )
            self._names[row.attrelid, row.attnum] = row.attname
            self._types.setdefault(row.atttypid, []).append((table.key, row.attname))

    def _column(self, row: Row[Any], sequences: Iterable[Row[Any]]) -> facts.Column:
        numbering = None
        for sequence in sequences:
            if row.identity or sequence.next_value == row.expression:
                numbering = sequence
            else:  # it would only be dropped with the column
                self._add_sequence(sequence)
        serial = numbering is not None and not row.identity
        return facts.Column(
            name=row.attname,
            type=self._text(row.type),
            nullable=row.nullable,
            default=None if serial else self._maybe(row.expression),
            generated=row.generated,
            identity=row.identity,
            serial=serial,
            sequence=None if numbering is None else _sequence(numbering),
            collation=self._maybe(row.collation),
            comment=row.comment,
        )

    def _read_constraints(self) -> None:
        version = self._connection.dialect.server_version_info or (0,)
        enforced = "k.conenforced" if version >= (18,) else "true"
        for row in self._rows(queries.CONSTRAINTS.format(enforced=enforced)):
            self._tables[row.conrelid].constraints[row.conname] = self._constraint(row)

    def _constraint(self, row: Row[Any]) -> facts.Constraint:
        named = {"c": sorted, "x": sorted}.get(row.kind, tuple)
        numbers = row.excluded if row.kind == "x" else row.key or ()
        constraint = facts.Constraint(
            name=row.conname,
            kind=row.kind,
            definition=self._text(row.definition),
            columns=tuple(named(self._columns(row.conrelid, numbers))),
            deferrable=row.condeferrable,
            deferred=row.condeferred,
            validated=row.convalidated,
            enforced=row.enforced,
            expression=self._text(row.expression or ""),
            no_inherit=row.connoinherit,
            comment=row.comment,
        )
        if row.kind == "f":
            return self._foreign_key(constraint, row)
        if row.kind == "c":
            return constraint
        included = row.index_key[row.indnkeyatts :]
        return replace(
            constraint,
            nulls_not_distinct=row.indnullsnotdistinct,
            included=tuple(self._columns(row.conrelid, included)),
        )

    def _foreign_key(self, constraint: facts.Constraint, row: Row[Any]) -> facts.Constraint:
        on_delete = _ACTIONS[row.on_delete]
        if row.on_delete_columns:
            on_delete += f" ({', '.join(row.on_delete_columns)})"
        schema = self._schema(row.refers_schema, row.refers_to)
        definition = constraint.definition
        if self._places is not None and schema is not None:
            target = f" REFERENCES {row.refers_printed}("
            qualified = f" REFERENCES {self._quoted_schemas[schema]}.{row.refers_printed}("
            definition = definition.replace(target, qualified, 1)
        return replace(
            constraint,
            definition=definition,
            refers_to=(schema, row.refers_to),
            referred=tuple(row.referred),
            on_update=_ACTIONS[row.on_update],
            on_delete=on_delete,
            match="FULL" if row.match_full else "",
            rests_on=row.rests_on,
        )

    def _columns(self, table: int, numbers: Iterable[int]) -> Iterator[str]:
        """Yield columns by their numbers; an expression of an index has the number 0."""
        return (self._names[table, number] for number in numbers if number > 0)

    def _read_indexes(self) -> None:
        for row in self._rows(queries.INDEXES):
            self._tables[row.indrelid].indexes[row.relname] = self._index(row)

    def _index(self, row: Row[Any]) -> facts.Index:
        table = self._tables[row.indrelid]
        schema = "" if table.schema is None else f"{self._quoted_schemas[table.schema]}."
        created = f"CREATE {'UNIQUE ' if row.indisunique else ''}INDEX {row.quoted} ON "
        # The server always prints the schema here, and ONLY for a partitioned table.
        target = f"{self._quoted[row.indrelid]} USING {row.method} ("
        at = row.definition.index(f".{target}", len(created)) + len(f".{target}")
        body = row.definition[at:]
        return facts.Index(
            name=row.relname,
            definition=f"{created}{schema}{target}{self._text(body)}",
            method=row.method,
            unique=row.indisunique,
            keys=self._texts(_keys(row.keys, body)),
            columns=frozenset(self._columns(row.indrelid, {*row.index_key, *row.mentioned})),
            included=tuple(self._columns(row.indrelid, row.index_key[row.indnkeyatts :])),
            options=_options(row.options),
            where=self._maybe(row.predicate),
            nulls_not_distinct=row.indnullsnotdistinct,
            valid=row.indisvalid,
        )

    def _read_types(self) -> None:
        for row in self._rows(queries.TYPES):
            name = self._schemas[row.nspname], row.typname
            used_by = tuple(self._types.get(row.oid, []) + self._types.get(row.typarray, []))
            if row.kind == "e":
                self._catalog.enums[name] = facts.Enum(*name, tuple(row.labels), used_by)
            else:
                self._catalog.domains[name] = facts.Domain(
                    *name,
                    type=self._text(row.type),
                    nullable=row.nullable,
                    default=self._maybe(row.expression),
                    collation=self._maybe(row.collation),
                    checks=tuple((check, self._text(printed)) for check, printed in row.checks),
                    used_by=used_by,
                )

    def _read_routines(self) -> None:
        for row in self._rows(queries.ROUTINES):
            schema, arguments = self._schemas[row.nspname], self._texts(row.arguments)
            self._catalog.routines[schema, row.proname, arguments] = facts.Routine(
                schema, row.proname, arguments, self._text(row.definition)
            )


def _set_locally(connection: Connection, settings: Mapping[str, str]) -> dict[str, str]:
    """Set settings for the transaction, and return what they were."""
    before = ", ".join(f"current_setting('{name}')" for name in settings)
    values = connection.execute(text(f"SELECT {before}")).one()
    calls = ", ".join(f"set_config('{name}', :v{at}, true)" for at, name in enumerate(settings))
    new = {f"v{at}": value for at, value in enumerate(settings.values())}
    connection.execute(text(f"SELECT {calls}"), new)
    return dict(zip(settings, values, strict=True))


def _renamed(rename: Mapping[str, str], quoted: Mapping[str, str]) -> Callable[[str], str]:
    """Return what replaces the names of schemas in text that the server has printed."""
    if not rename:
        return str
    found = re.compile(rf"\b({'|'.join(map(re.escape, rename))})\.")
    return lambda printed: found.sub(lambda match: f"{quoted[rename[match[1]]]}.", printed)


def _sequence(row: Row[Any]) -> facts.Sequence:
    return facts.Sequence(
        type=row.type,
        start=row.seqstart,
        increment=row.seqincrement,
        minimum=row.seqmin,
        maximum=row.seqmax,
        cache=row.seqcache,
        cycle=row.seqcycle,
    )


def _options(options: Iterable[str] | None, prefix: str = "") -> tuple[tuple[str, str], ...]:
    pairs = (option.partition("=") for option in options or ())
    return tuple((prefix + name, value) for name, _, value in pairs)


def _keys(keys: Iterable[str], body: str) -> Iterator[str]:
    """Yield each key of an index with what follows it in ``CREATE INDEX``."""
    at = 0
    for key in keys:
        after = _AFTER_KEY.match(body, at + len(key))
        end = after.end() if after else len(body)
        yield body[at:end]
        at = end + len(", ")
