"""Sequences that stand alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alembic.operations import Operations

from ragstore.migrations import facts
from ragstore.migrations.operations.base import Operation, quoted, run

Options = Mapping[str, Any] | facts.Sequence
"""``data_type``, ``start``, ``increment``, ``minvalue``, ``maxvalue``, ``cache`` and ``cycle``."""

_CLAUSES = {
    "data_type": "AS {}",
    "increment": "INCREMENT BY {}",
    "minvalue": "MINVALUE {}",
    "maxvalue": "MAXVALUE {}",
    "start": "START WITH {}",
    "cache": "CACHE {}",
}


@Operations.register_operation("create_sequence")
class CreateSequenceOp(Operation):
    """Create a sequence."""

    verb = "create_sequence"

    def __init__(self, name: str, *, schema: str | None = None, **options: Any) -> None:
        self.name = name
        self.schema = schema
        self._options = options

    @classmethod
    def create_sequence(
        cls,
        operations: Operations,
        name: str,
        *,
        schema: str | None = None,
        data_type: str | None = None,
        start: int | None = None,
        increment: int | None = None,
        minvalue: int | None = None,
        maxvalue: int | None = None,
        cache: int | None = None,
        cycle: bool | None = None,
    ) -> None:
        """Create the sequence ``name``; what is not given is as Postgres has it."""
        options = _named(data_type, start, increment, minvalue, maxvalue, cache, cycle)
        operations.invoke(cls(name, schema=schema, **options))

    def facts(self) -> tuple[str]:
        """Return the name."""
        return (self.name,)

    def options(self) -> Mapping[str, Any]:
        """Return what the sequence counts and how."""
        return self._options

    def reverse(self) -> DropSequenceOp:
        """Return the operation that drops the sequence."""
        return DropSequenceOp(self.name, schema=self.schema, existing=self._options)


@Operations.register_operation("drop_sequence")
class DropSequenceOp(Operation):
    """Drop a sequence; ``existing`` are the options with which its reverse makes it again."""

    verb = "drop_sequence"

    def __init__(
        self, name: str, *, schema: str | None = None, existing: Options | None = None
    ) -> None:
        self.name = name
        self.schema = schema
        self.existing = existing

    @classmethod
    def drop_sequence(cls, operations: Operations, name: str, *, schema: str | None = None) -> None:
        """Drop the sequence ``name``, and with it the number it had come to."""
        operations.invoke(cls(name, schema=schema))

    def facts(self) -> tuple[str]:
        """Return the name."""
        return (self.name,)

    def reverse(self) -> CreateSequenceOp:
        """Return the operation that creates the sequence again; it begins at its start."""
        existing: Options = self.reversible_by(self.existing)
        options = _options_of(existing)
        return CreateSequenceOp(self.name, schema=self.schema, **options)


@Operations.register_operation("alter_sequence")
class AlterSequenceOp(Operation):
    """Change what a sequence counts.

    Of ``options``, those that are in ``existing`` with the same value are left out.
    """

    verb = "alter_sequence"

    def __init__(
        self,
        name: str,
        options: Options,
        *,
        schema: str | None = None,
        existing: Options | None = None,
    ) -> None:
        self.name = name
        self.schema = schema
        self.existing = None if existing is None else _options_of(existing)
        given, known = _options_of(options), self.existing or {}
        self._options = {
            option: value
            for option, value in given.items()
            if option not in known or known[option] != value
        }

    @classmethod
    def alter_sequence(
        cls,
        operations: Operations,
        name: str,
        *,
        schema: str | None = None,
        data_type: str | None = None,
        start: int | None = None,
        increment: int | None = None,
        minvalue: int | None = None,
        maxvalue: int | None = None,
        cache: int | None = None,
        cycle: bool | None = None,
    ) -> None:
        """Change the sequence ``name``; what is not given stays, the number it is at too."""
        options = _named(data_type, start, increment, minvalue, maxvalue, cache, cycle)
        operations.invoke(cls(name, options, schema=schema))

    def facts(self) -> tuple[str]:
        """Return the name."""
        return (self.name,)

    def options(self) -> Mapping[str, Any]:
        """Return what changes."""
        return self._options

    def reverse(self) -> AlterSequenceOp:
        """Return the operation that changes the same options back."""
        known = self.reversible_by(self.existing)
        before = {option: known[option] for option in self._options if option in known}
        after = {**known, **self._options}
        return AlterSequenceOp(self.name, before, schema=self.schema, existing=after)


@Operations.implementation_for(CreateSequenceOp)
def _create_sequence(operations: Operations, operation: CreateSequenceOp) -> None:
    name = quoted(operation.name, operation.schema)
    run(operations, f"CREATE SEQUENCE {name}{clauses(operation.options())}")


@Operations.implementation_for(DropSequenceOp)
def _drop_sequence(operations: Operations, operation: DropSequenceOp) -> None:
    run(operations, f"DROP SEQUENCE {quoted(operation.name, operation.schema)}")


@Operations.implementation_for(AlterSequenceOp)
def _alter_sequence(operations: Operations, operation: AlterSequenceOp) -> None:
    name = quoted(operation.name, operation.schema)
    run(operations, f"ALTER SEQUENCE {name}{clauses(operation.options())}")


def clauses(options: Mapping[str, Any]) -> str:
    """Return options as ``CREATE SEQUENCE`` and its kin take them, with a space before each."""
    text = "".join(
        " " + clause.format(options[option])
        for option, clause in _CLAUSES.items()
        if options.get(option) is not None
    )
    cycle = options.get("cycle")
    return text if cycle is None else f"{text} {'CYCLE' if cycle else 'NO CYCLE'}"


def _options_of(options: Options) -> dict[str, Any]:
    if not isinstance(options, facts.Sequence):
        return dict(options)
    return _named(
        options.type,
        options.start,
        options.increment,
        options.minimum,
        options.maximum,
        options.cache,
        options.cycle,
    )


def _named(*values: Any) -> dict[str, Any]:
    names = ("data_type", "start", "increment", "minvalue", "maxvalue", "cache", "cycle")
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}
