"""Operations in the order in which they can run, each with the difference that it removes.

An upgrade runs the phases from first to last, and a downgrade takes the same operations back from
last to first, so every phase stands where both directions find what they need.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import Any

from alembic.operations import MigrateOperation

from ragstore.migrations.facts import Name


class Phase(IntEnum):
    """When an operation runs."""

    SCHEMAS = auto()
    RENAMES = auto()
    TYPES = auto()
    DROP_FOREIGN_KEYS = auto()
    DROP_INDEXES = auto()
    DROP_CONSTRAINTS = auto()
    DROP_GENERATED = auto()
    DROP_TABLES = auto()
    CONVERT_TYPES = auto()
    CREATE_TABLES = auto()
    COLUMNS = auto()
    GENERATED = auto()
    DROP_COLUMNS = auto()
    CONSTRAINTS = auto()
    INDEXES = auto()
    FOREIGN_KEYS = auto()
    OPTIONS = auto()
    DROP_TYPES = auto()


class Difference(tuple[str, str, str]):
    """In what the models and the database differ: the kind of object, its name, and a sentence.

    Alembic prints the differences that it finds as tuples; this one prints as its sentence.
    """

    __slots__ = ()

    def __new__(cls, kind: str, name: str, sentence: str) -> Difference:  # noqa: PYI034 - 3.10
        """Return the difference ``kind name sentence``."""
        return super().__new__(cls, (kind, name, sentence))

    def __str__(self) -> str:
        return " ".join(self)

    def __repr__(self) -> str:
        return f"\n  {self}"


@dataclass
class Plan:
    """What would make the database the models', in steps."""

    differences: list[Difference] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    steps: list[tuple[Phase, Difference | None, MigrateOperation]] = field(default_factory=list)

    def add(self, difference: Difference, *steps: tuple[Phase, MigrateOperation]) -> None:
        """Add a difference and what removes it."""
        if difference not in self.differences:
            self.differences.append(difference)
        self.steps += [(phase, difference, operation) for phase, operation in steps]

    def follow(self, *steps: tuple[Phase, MigrateOperation]) -> None:
        """Add what a difference entails: what falls with a column is made anew."""
        self.steps += [(phase, None, operation) for phase, operation in steps]

    def operations(self) -> list[MigrateOperation]:
        """Return the operations in order; each one has its ``difference`` as an attribute.

        That of what merely follows is None.
        """
        ordered = sorted(self.steps, key=lambda step: step[0])
        for _, difference, operation in ordered:
            vars(operation)["difference"] = difference
        return [operation for *_, operation in ordered]


def place(table: Name, *parts: str) -> str:
    """Return the name of a table, or of a part of it, for a person."""
    schema, name = table
    return ".".join(part for part in (schema, name, *parts) if part)


def changed(old: Any, new: Any) -> str:
    """Say that something becomes something else."""
    return f"is {_shown(old)}, the models have {_shown(new)}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value not in (None, "", ()) else "none"
