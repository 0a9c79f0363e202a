"""The state that a history leaves: what was made, and not dropped since."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from ragstore.migrations.facts import Constraint, Name

_T = TypeVar("_T")

_SUFFIXES = {"p": "pkey", "u": "key", "f": "fkey", "x": "excl", "c": "check"}


@dataclass
class MadeConstraint:
    """A constraint that was made; without a name, Postgres named it after ``table``."""

    name: str | None
    kind: str
    columns: tuple[str, ...]
    table: str

    def is_called(self, name: str) -> bool:
        """Say if this is its name, or one that Postgres would give it."""
        if self.name is not None:
            return self.name == name
        middle = "" if self.kind == "p" else f"(?:_{re.escape('_'.join(self.columns))})"
        optional = "(?:_.+)?" if self.kind == "c" else middle
        return (
            re.fullmatch(rf"{re.escape(self.table)}{optional}_{self.suffix}\d*", name) is not None
        )

    @property
    def suffix(self) -> str:
        """Return the last word of the names that Postgres gives."""
        return _SUFFIXES[self.kind]

    def matches(self, found: Constraint) -> bool:
        """Say if it is the constraint that the database has."""
        if self.kind != found.kind:
            return False
        if self.name is not None:
            return self.name == found.name
        if self.kind == "c":
            return found.name.startswith(self.table)
        return self.columns == found.columns


@dataclass
class MadeIndex:
    """An index that was made, and the columns that it has by name."""

    table: Name | None
    columns: set[str]


@dataclass
class MadeTable:
    """What was made of a table: the whole, or parts of one that was there."""

    made: bool = False
    columns: set[str] = field(default_factory=set)
    constraints: list[MadeConstraint] = field(default_factory=list)
    comments: set[str | None] = field(default_factory=set)
    options: set[str] = field(default_factory=set)


@dataclass
class Made:
    """What was made, by schema and name; objects of ``default_schema`` have the schema None."""

    default_schema: str | None = None
    tables: dict[Name, MadeTable] = field(default_factory=dict)
    indexes: dict[Name, MadeIndex] = field(default_factory=dict)
    enums: set[Name] = field(default_factory=set)
    sequences: set[Name] = field(default_factory=set)
    routines: set[Name] = field(default_factory=set)
    schemas: set[str] = field(default_factory=set)
    extensions: set[str] = field(default_factory=set)

    def key(self, schema: str | None, name: str) -> Name:
        """Return what an object is known by."""
        return (None if schema == self.default_schema else schema, str(name))

    def table(self, schema: str | None, name: str) -> MadeTable:
        """Return the entry of a table, to write to."""
        return self.tables.setdefault(self.key(schema, name), MadeTable())

    def parts(self, table: Name) -> MadeTable:
        """Return the entry of a table, to read; an empty one if nothing of it was made."""
        return self.tables.get(self.key(*table)) or MadeTable()

    def drop_table(self, schema: str | None, name: str) -> None:
        """Forget a table and its indexes."""
        key = self.key(schema, name)
        self.tables.pop(key, None)
        self._forget_indexes(lambda index: index.table == key)

    def rename_table(self, schema: str | None, old: str, new: str) -> None:
        """Know a table by its new name, with its parts."""
        before, after = self.key(schema, old), self.key(schema, new)
        self.tables[after] = self.tables.pop(before, MadeTable())
        for index in self.indexes.values():
            index.table = after if index.table == before else index.table

    def drop_column(self, schema: str | None, table: str, name: str) -> None:
        """Forget a column with the constraints and indexes that mention it."""
        entry, key = self.table(schema, table), self.key(schema, table)
        entry.columns.discard(name)
        entry.comments.discard(name)
        entry.constraints = [made for made in entry.constraints if name not in made.columns]
        self._forget_indexes(lambda index: index.table == key and name in index.columns)

    def rename_column(self, schema: str | None, table: str, old: str, new: str) -> None:
        """Know a column by its new name, in constraints and indexes too."""
        entry, key = self.table(schema, table), self.key(schema, table)
        entry.columns = set(_renamed(entry.columns, old, new))
        entry.comments = set(_renamed(entry.comments, old, new))
        for constraint in entry.constraints:
            constraint.columns = tuple(_renamed(constraint.columns, old, new))
        for index in self.indexes.values():
            if index.table == key:
                index.columns = set(_renamed(index.columns, old, new))

    def _forget_indexes(self, gone: Callable[[MadeIndex], bool]) -> None:
        self.indexes = {key: index for key, index in self.indexes.items() if not gone(index)}


def _renamed(names: Iterable[_T], old: str, new: _T) -> list[_T]:
    return [new if name == old else name for name in names]
