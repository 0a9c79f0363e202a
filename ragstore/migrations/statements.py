"""What ``create_all`` would run for models, as statements that fire no events.

They are compiled from the models' own objects, which are neither copied nor changed. Foreign keys
come last, and each statement says which tables must be there before it: one that ran without them
could reach a table of the same name that is the user's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, ForeignKeyConstraint, Index, Table
from sqlalchemy.dialects.postgresql import DOMAIN, ENUM
from sqlalchemy.dialects.postgresql.named_types import CreateDomainType, CreateEnumType
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import (
    CreateIndex,
    CreateSequence,
    CreateTable,
    ExecutableDDLElement,
    SetColumnComment,
    SetConstraintComment,
    SetTableComment,
)

from ragstore.migrations.catalog import quoted_name
from ragstore.migrations.facts import Name
from ragstore.migrations.parts import Parts, table_key

_CONCURRENTLY = re.compile(r"^(CREATE (?:UNIQUE )?INDEX )CONCURRENTLY ")


@dataclass(frozen=True)
class Statement:
    """A statement with the object that it is about, in words.

    It runs when the tables of ``needs`` are there. ``makes`` is the table that it creates.
    ``error`` says why the models cannot be compiled into one.
    """

    sql: str
    subject: str
    needs: frozenset[Name] = frozenset()
    makes: Name | None = None
    error: str | None = None


class _AddForeignKey(ExecutableDDLElement):
    """``ALTER TABLE … ADD``; SQLAlchemy's own would also change the constraint."""

    __visit_name__ = "add_constraint"

    def __init__(self, element: ForeignKeyConstraint) -> None:
        self.element = element


def statements(
    parts: Parts,
    *,
    dialect: Dialect,
    default_schema: str,
    schemas: Mapping[str, str],
    temporary: bool = False,
) -> list[Statement]:
    """Return the statements that make the models, in an order in which they can run.

    Objects of the schemas that are keys of ``schemas`` are made in the values; those without a
    schema wherever the search path says. With ``temporary`` all are for a session's own schema.
    """
    return list(_Compiler(parts, dialect, default_schema, schemas, temporary).statements())


class _Compiler:
    def __init__(
        self,
        parts: Parts,
        dialect: Dialect,
        default_schema: str,
        schemas: Mapping[str, str],
        temporary: bool,
    ) -> None:
        self._parts = parts
        self._dialect = dialect
        self._default = default_schema
        self._schemas = dict(schemas)
        self._temporary = temporary

    def statements(self) -> Iterator[Statement]:
        yield from self._types()
        for (schema, name), sequence in self._parts.sequences.items():
            yield self._statement(CreateSequence(sequence), f"sequence {_dotted(schema, name)}")
        for function in self._parts.functions.values():
            # The percent signs are doubled as in all that is compiled: the driver halves them.
            sql = function.create_sql().replace("%", "%%")
            yield Statement(sql, f"function {function.name}")
        tables = sorted(self._parts.tables.values(), key=lambda table: len(_parents(table)))
        for table in tables:
            yield self._table(table)
        for table in tables:
            yield from self._of_table(table)
        for key in sorted(self._parts.asked_tables, key=str):
            yield from self._foreign_keys(self._parts.tables[key])

    def _types(self) -> Iterator[Statement]:
        for (schema, name), kind in self._parts.given_types.items():
            if schema is not None:  # one of the default schema is found by the search path
                yield self._copied(schema, name, kind)
        for (schema, name), kind in self._parts.types.items():
            create = CreateEnumType(kind) if isinstance(kind, ENUM) else CreateDomainType(kind)
            yield self._statement(create, f"type {_dotted(schema, name)}")

    def _copied(self, schema: str, name: str, kind: ENUM | DOMAIN) -> Statement:
        """Return what makes a copy of a type that the models leave to others."""
        subject = f"type {schema}.{name}"
        if isinstance(kind, DOMAIN):
            return self._statement(CreateDomainType(kind), subject)
        source = f"{quoted_name(schema)}.{quoted_name(name)}".replace("'", "''")
        copy = f"{quoted_name(self._schemas[schema])}.{quoted_name(name)}".replace("'", "''")
        # Both names are quoted twice: as names, and as strings.
        body = f"""BEGIN EXECUTE (
          SELECT format('CREATE TYPE %s AS ENUM (%s)', '{copy}',
            string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder))
          FROM pg_enum WHERE enumtypid = '{source}'::regtype); END"""  # noqa: S608
        return Statement(f"DO $copy$ {body} $copy$".replace("%", "%%"), subject)

    def _table(self, table: Table) -> Statement:
        key = table_key(table, self._default)
        create = CreateTable(table, include_foreign_key_constraints=[])
        needs = frozenset((key[0], parent) for parent in _parents(table) if (key[0], parent) != key)
        made = self._statement(create, f"table {table.fullname}", needs, makes=key)
        if not self._temporary:
            return made
        sql = re.sub(r"^(\s*CREATE )UNLOGGED ", r"\1", made.sql)
        return Statement(sql, made.subject, needs, key, made.error)

    def _of_table(self, table: Table) -> Iterator[Statement]:
        needs = frozenset({table_key(table, self._default)})
        of = f"of table {table.fullname}"
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if _wanted(index, self._dialect):
                made = self._statement(CreateIndex(index), f"index {index.name} {of}", needs)
                sql = _CONCURRENTLY.sub(r"\1", made.sql)
                yield Statement(sql, made.subject, needs, error=made.error)
        for ddl, what in _comments(table):
            yield self._statement(ddl, f"comment on {what} {of}", needs)

    def _foreign_keys(self, table: Table) -> Iterator[Statement]:
        for key in _in_order(table.foreign_key_constraints):
            subject = f"foreign key ({', '.join(key.column_keys)}) of table {table.fullname}"
            try:
                referred = table_key(key.referred_table, self._default)
            except SQLAlchemyError as exc:
                yield Statement("", subject, error=f"{exc}: import the models it is in")
                continue
            if referred in self._parts.tables:
                needs = frozenset({table_key(table, self._default), referred})
                yield self._statement(_AddForeignKey(key), subject, needs)
                if key.comment is not None:
                    comment = SetConstraintComment(key)
                    yield self._statement(comment, f"comment on {subject}", needs)

    def _statement(
        self,
        ddl: ExecutableDDLElement,
        subject: str,
        needs: frozenset[Name] = frozenset(),
        makes: Name | None = None,
    ) -> Statement:
        options: dict[str, Any] = {}
        if self._schemas:
            options = {"schema_translate_map": self._schemas, "render_schema_translate": True}
        try:
            sql = str(ddl.compile(dialect=self._dialect, **options)).strip()
        except SQLAlchemyError as exc:
            return Statement("", subject, needs, makes, error=str(exc))
        return Statement(sql, subject, needs, makes)


def _dotted(schema: str | None, name: str) -> str:
    return name if schema is None else f"{schema}.{name}"


def _parents(table: Table) -> tuple[str, ...]:
    inherits = table.dialect_options["postgresql"]["inherits"] or ()
    return (str(inherits),) if isinstance(inherits, str) else tuple(map(str, inherits))


def _in_order(constraints: Iterable[ForeignKeyConstraint]) -> list[ForeignKeyConstraint]:
    """Return constraints as the model declares them: the server counts those without a name."""
    return sorted(constraints, key=lambda each: getattr(each, "_creation_order", 0))


def _wanted(index: Index, dialect: Dialect) -> bool:
    """Tell whether the ``ddl_if`` of an index lets it be."""
    condition = index._ddl_if  # noqa: SLF001 - what create_all asks
    create = CreateIndex(index)
    compiler = dialect.ddl_compiler(dialect, None)  # type: ignore[arg-type]  # for its dialect
    return condition is None or condition._should_execute(  # noqa: SLF001
        create, index, None, compiler=compiler, checkfirst=False
    )


def _comments(table: Table) -> Iterator[tuple[ExecutableDDLElement, str]]:
    if table.comment is not None:
        yield SetTableComment(table), "table"
    for column in table.columns:
        if column.comment is not None:
            yield SetColumnComment(column), f"column {column.name}"
    for constraint in table.constraints:
        if constraint.comment is not None and not isinstance(constraint, ForeignKeyConstraint):
            yield SetConstraintComment(constraint), f"constraint {constraint.name}"
