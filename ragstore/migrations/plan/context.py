"""What the parts of a plan work on: both catalogs, and which tables of them are one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from ragstore.migrations.facts import Catalog, Column, Constraint, Index, Name, Table
from ragstore.migrations.owned import Owned
from ragstore.migrations.plan.steps import Plan
from ragstore.migrations.renames import Rename

Accepts = Callable[[Any, "str | None", str, bool, Any], bool]
"""``include_object`` of Alembic: object, name, kind, reflected, compared to."""


@dataclass(frozen=True)
class Pair:
    """A table in the database and in the models.

    ``found`` has the new names already where something is renamed. ``written`` is the wanted table
    with its expressions as the model writes them. The ``form``s are both tables once more, built
    from what the server printed of them: two ways to write an expression print alike there, at the
    latest.
    """

    found: Table
    wanted: Table
    written: Table
    found_form: Table
    wanted_form: Table
    model: sa.Table
    old_name: str | None = None

    @property
    def key(self) -> Name:
        """Return the schema and name in the models."""
        return self.wanted.key

    @property
    def old_key(self) -> Name:
        """Return the schema and name in the database and in the history."""
        return (self.key[0], self.old_name or self.key[1])

    def same(self, read: Callable[[Table], Any]) -> bool:
        """Tell whether ``read`` gives the same of both tables, in either form."""
        return any(read(old) == read(new) for old, new in self._forms())

    def same_column(self, name: str, *parts: str) -> bool:
        """Tell whether those attributes of a column are the same."""
        return self.same(lambda table: [getattr(table.columns.get(name), part) for part in parts])

    def same_constraint(self, found: str, wanted: str) -> bool:
        """Tell whether two constraints are the same, but for their names."""
        return any(
            shape_of_constraint(old.constraints[found])
            == shape_of_constraint(new.constraints[wanted])
            for old, new in self._forms()
            if found in old.constraints and wanted in new.constraints
        )

    def same_index(self, found: str, wanted: str) -> bool:
        """Tell whether two indexes are the same, but for their names."""
        return any(
            shape_of_index(old.indexes[found]) == shape_of_index(new.indexes[wanted])
            for old, new in self._forms()
            if found in old.indexes and wanted in new.indexes
        )

    def _forms(self) -> Iterator[tuple[Table, Table]]:
        yield self.found, self.wanted
        yield self.found_form, self.wanted_form


@dataclass
class Context:
    """One comparison: what is wanted, what is found, and the plan that grows."""

    wanted: Catalog
    found: Catalog
    owned: Owned
    pairs: Mapping[Name, Pair]
    models: Mapping[Name, sa.Table]
    accepts: Accepts
    surplus: set[Name] = field(default_factory=set)
    """The tables that this history made and that no model has."""
    renames: Sequence[Rename] = ()
    plan: Plan = field(default_factory=Plan)
    dropped_keys: set[tuple[Name, str]] = field(default_factory=set)
    """The unique indexes, and indexes behind constraints, that go or are made anew."""
    replaced: dict[Name, set[str]] = field(default_factory=dict)
    """The columns of each table that are dropped, or dropped and made anew."""
    refreshed: dict[Name, set[str]] = field(default_factory=dict)
    """The columns of each table that stay in an upgrade, and that its downgrade makes anew."""
    converted: set[str] = field(default_factory=set)
    """The enumerated types, as they are printed, that are replaced by others of their names."""
    remade_functions: set[str] = field(default_factory=set)
    """The functions, as they are printed, that are dropped and made anew."""

    def falling(self, table: Name) -> set[str]:
        """Return the columns that what mentions them falls with, in either direction."""
        return self.replaced.get(table, set()) | self.refreshed.get(table, set())

    def calls_remade(self, expression: str | None) -> bool:
        """Tell whether an expression may call a function that is dropped and made anew."""
        return any(
            re.search(rf'(?<![\w".]){re.escape(name)}\(', expression or "")
            for name in self.remade_functions
        )


def shape_of_constraint(constraint: Constraint) -> tuple[Any, ...]:
    """Return what a constraint is, apart from its name."""
    if constraint.kind != "f":
        return (constraint.kind, constraint.definition.removesuffix(" NOT VALID"))
    return (
        "f",
        constraint.columns,
        constraint.refers_to,
        constraint.referred,
        constraint.on_update,
        constraint.on_delete,
        constraint.match,
        constraint.deferrable,
        constraint.deferred,
        "NOT ENFORCED" in constraint.definition,
    )


def shape_of_index(index: Index) -> tuple[Any, ...]:
    """Return what an index is, apart from its name."""
    return (
        index.method,
        index.unique,
        index.keys,
        index.included,
        tuple(sorted(index.options)),
        index.where,
        index.nulls_not_distinct,
        index.valid,
    )


def shape_of_column(column: Column) -> tuple[Any, ...]:
    """Return what a column is, apart from its name and comment."""
    return (column.type, column.nullable, column.default, column.generated, column.identity)
