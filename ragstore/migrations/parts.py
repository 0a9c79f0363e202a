"""The parts of models: tables, and the types, sequences and functions that they need.

Some tables may be asked for and others not, as in one MetaData that holds those of two histories.
Parts that only the others have are then not asked for either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import ARRAY, Dialect, MetaData, Table
from sqlalchemy import Sequence as SequenceObject
from sqlalchemy.dialects.postgresql import DOMAIN, ENUM
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import TypeDecorator, TypeEngine

from ragstore.migrations.facts import Name
from ragstore.types import Function

_TEMPORARY = {"TEMP", "TEMPORARY"}

NamedType = ENUM | DOMAIN
_K = TypeVar("_K")


@dataclass
class Parts:
    """All that has to be made so that the tables asked for can be, by name.

    ``tables`` has the tables asked for and, in whichever MetaData they are, those that foreign keys
    of theirs refer to. ``given_types`` are types that the models use and leave to others to make.
    ``asked`` are the names that were asked for, by kind. ``problems`` say what is not clear.
    """

    tables: dict[Name, Table] = field(default_factory=dict)
    types: dict[Name, NamedType] = field(default_factory=dict)
    given_types: dict[Name, NamedType] = field(default_factory=dict)
    sequences: dict[Name, SequenceObject] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    extensions: tuple[str, ...] = ()
    asked_tables: frozenset[Name] = frozenset()
    asked_types: frozenset[Name] = frozenset()
    asked_sequences: frozenset[Name] = frozenset()
    asked_functions: frozenset[str] = frozenset()
    problems: list[str] = field(default_factory=list)

    @property
    def schemas(self) -> set[str]:
        """Return the schemas that the models name, the default one if they name it."""
        named = [*self.tables.values(), *self.types.values(), *self.given_types.values()]
        schemas = {thing.schema for thing in (*named, *self.sequences.values())}
        return {schema for schema in schemas if schema is not None}


def collect(
    metadatas: Sequence[MetaData],
    needed: Collection[Table] | None,
    *,
    dialect: Dialect,
    default_schema: str,
) -> Parts:
    """Return what the tables ``needed``, or all if None, consist of and refer to."""
    return _Collector(metadatas, needed, dialect, default_schema).collect()


def table_key(table: Table, default_schema: str) -> Name:
    """Return the name of a table in facts: one in the default schema has none."""
    return _key(table, default_schema)


def is_unlogged(table: Table) -> bool:
    """Tell whether the model's table is UNLOGGED."""
    return "UNLOGGED" in _prefixes(table)


class _Collector:
    def __init__(
        self,
        metadatas: Sequence[MetaData],
        needed: Collection[Table] | None,
        dialect: Dialect,
        default_schema: str,
    ) -> None:
        self._metadatas = metadatas
        self._needed = None if needed is None else set(needed)
        self._dialect = dialect
        self._default = default_schema
        self._found = Parts()

    def collect(self) -> Parts:
        everything = self._all_tables()
        asked = {key: table for key, table in everything.items() if self._is_needed(table)}
        others = [table for key, table in everything.items() if key not in asked]
        self._found.asked_tables = frozenset(asked)
        self._found.tables = self._with_referred(asked, everything)
        self._add_types(asked.values(), others)
        self._add_sequences(asked.values(), others)
        self._add_functions(others)
        named = (name for each in self._metadatas for name in each.info.get("extensions", ()))
        self._found.extensions = tuple(dict.fromkeys(named))
        return self._found

    def _is_needed(self, table: Table) -> bool:
        return self._needed is None or table in self._needed

    def _all_tables(self) -> dict[Name, Table]:
        tables: dict[Name, Table] = {}
        for table in (table for each in self._metadatas for table in each.tables.values()):
            if getattr(table, "is_view", False) or _prefixes(table) & _TEMPORARY:
                continue
            if tables.setdefault(_key(table, self._default), table) is not table:
                self._found.problems.append(
                    f"table {table.fullname}: the models have two of that name: leave one out"
                )
        return tables

    def _with_referred(
        self, asked: Mapping[Name, Table], everything: Mapping[Name, Table]
    ) -> dict[Name, Table]:
        tables = dict(asked)
        for target in (target for table in asked.values() for target in _referred(table)):
            key = _key(target, self._default)
            tables.setdefault(key, everything.get(key, target))
        return tables

    def _add_types(self, asked: Iterable[Table], others: Iterable[Table]) -> None:
        loose = self._types_of_metadata()
        for kind in (*self._types_of(self._found.tables.values()), *loose):
            key = _key(kind, self._default)
            made = getattr(kind, "create_type", True)
            (self._found.types if made else self._found.given_types).setdefault(key, kind)
        for key in self._found.types:
            self._found.given_types.pop(key, None)
        self._found.asked_types = _own(
            *(
                self._keyed(kinds)
                for kinds in (self._types_of(asked), loose, self._types_of(others))
            )
        )

    def _add_sequences(self, asked: Iterable[Table], others: Iterable[Table]) -> None:
        loose = [
            sequence
            for each in self._metadatas
            for sequence in each._sequences.values()  # noqa: SLF001 - no public twin
            if not sequence.optional
        ]
        of_columns = list(_sequences_of(self._found.tables.values()))
        self._found.sequences = self._keyed([*loose, *of_columns])
        self._found.asked_sequences = _own(
            self._keyed(_sequences_of(asked)),
            self._keyed(loose),
            self._keyed(_sequences_of(others)),
        )

    def _add_functions(self, others: Iterable[Table]) -> None:
        for metadata in self._metadatas:
            self._found.functions |= metadata.info.get("functions", {})
        of_others = {each.name for table in others for each in table.info.get("functions", ())}
        self._found.asked_functions = frozenset(self._found.functions.keys() - of_others)

    def _keyed(self, things: Iterable[_K]) -> dict[Name, _K]:
        return {_key(thing, self._default): thing for thing in things}

    def _types_of_metadata(self) -> list[NamedType]:
        """Return the types that a MetaData knows, used or not: SQLAlchemy 2.1 keeps them."""
        things = (thing for each in self._metadatas for thing in getattr(each, "_objects", ()))
        kinds = [thing for thing in things if isinstance(thing, TypeEngine)]
        return [named for kind in kinds for named in self._named(kind)]

    def _types_of(self, tables: Iterable[Table]) -> list[NamedType]:
        columns = [column for table in tables for column in table.columns]
        return [named for column in columns for named in self._named(column.type)]

    def _named(self, kind: TypeEngine[Any]) -> Iterator[NamedType]:
        """Yield the named types that a type is, or is made of, as Postgres has them."""
        impl = kind.dialect_impl(self._dialect)
        if isinstance(impl, TypeDecorator):
            yield from self._named(impl.impl_instance)
        elif isinstance(impl, ARRAY):
            yield from self._named(impl.item_type)
        elif isinstance(impl, DOMAIN):
            yield from self._named(impl.data_type)
            yield impl
        elif isinstance(impl, ENUM):
            yield impl


def _own(
    of_asked: Collection[Name], of_metadata: Collection[Name], of_others: Collection[Name]
) -> frozenset[Name]:
    """Return what the asked tables have, and what is in a MetaData and no other table has."""
    return frozenset({*of_asked} | ({*of_metadata} - {*of_others}))


def _key(thing: Any, default_schema: str) -> Name:
    return (None if thing.schema == default_schema else thing.schema, str(thing.name))


def _referred(table: Table) -> Iterator[Table]:
    for key in table.foreign_keys:
        try:
            yield key.column.table
        except SQLAlchemyError:  # noqa: PERF203 - reported when the constraint is compiled
            continue


def _sequences_of(tables: Iterable[Table]) -> Iterator[SequenceObject]:
    for column in (column for table in tables for column in table.columns):
        if isinstance(column.default, SequenceObject) and not column.default.optional:
            yield column.default


def _prefixes(table: Table) -> set[str]:
    return {str(prefix).upper() for prefix in table._prefixes}  # noqa: SLF001 - no public twin
