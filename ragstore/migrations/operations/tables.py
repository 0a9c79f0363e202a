"""What belongs to a table as a whole: its storage options, and whether it is logged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from alembic.operations import Operations

from ragstore.migrations.operations.base import Operation, literal, quoted, run

Value = str | int | float | bool


@Operations.register_operation("set_table_options")
class SetTableOptionsOp(Operation):
    """Set storage options of a table.

    ``existing`` are its options before. One that is there and not in ``options`` is taken away, as
    one that is None in ``options``; one that stays as it is, is left out.
    """

    verb = "set_table_options"

    def __init__(
        self,
        table: str,
        options: Mapping[str, Value | None],
        *,
        schema: str | None = None,
        existing: Mapping[str, Value | None] | None = None,
    ) -> None:
        self.table = table
        self.schema = schema
        self.existing = dict(existing or {})
        wanted = {**dict.fromkeys(self.existing), **options}
        self.changes = {
            option: value
            for option, value in wanted.items()
            if option not in self.existing or self.existing[option] != value
        }

    @classmethod
    def set_table_options(
        cls,
        operations: Operations,
        table: str,
        options: Mapping[str, Value | None],
        *,
        schema: str | None = None,
    ) -> None:
        """Set storage options of ``table``, such as ``{"fillfactor": 70}``.

        None takes an option away. Rows that are there are not written anew.
        """
        operations.invoke(cls(table, options, schema=schema))

    def facts(self) -> tuple[str, dict[str, Value | None]]:
        """Return the table and the options that change."""
        return (self.table, self.changes)

    def reverse(self) -> SetTableOptionsOp:
        """Return the operation that sets the options of before."""
        before = {option: self.existing.get(option) for option in self.changes}
        return SetTableOptionsOp(self.table, before, schema=self.schema, existing=self.changes)


@Operations.register_operation("reset_table_options")
class ResetTableOptionsOp(Operation):
    """Take storage options of a table away; ``existing`` are their values before."""

    verb = "reset_table_options"

    def __init__(
        self,
        table: str,
        options: Sequence[str],
        *,
        schema: str | None = None,
        existing: Mapping[str, Value | None] | None = None,
    ) -> None:
        self.table = table
        self.names = list(options)
        self.schema = schema
        self.existing = existing

    @classmethod
    def reset_table_options(
        cls,
        operations: Operations,
        table: str,
        options: Sequence[str],
        *,
        schema: str | None = None,
    ) -> None:
        """Let Postgres decide again about storage options of ``table``."""
        operations.invoke(cls(table, options, schema=schema))

    def facts(self) -> tuple[str, list[str]]:
        """Return the table and the options."""
        return (self.table, self.names)

    def reverse(self) -> SetTableOptionsOp:
        """Return the operation that sets the options of before."""
        known = self.reversible_by(self.existing)
        before = {option: known[option] for option in self.names if option in known}
        return SetTableOptionsOp(self.table, before, schema=self.schema)


@Operations.register_operation("set_logged")
@Operations.register_operation("set_unlogged")
class SetLoggedOp(Operation):
    """Make a table survive a crash of the server, or not."""

    def __init__(self, table: str, logged: bool = True, *, schema: str | None = None) -> None:
        self.table = table
        self.logged = logged
        self.schema = schema
        self.verb = "set_logged" if logged else "set_unlogged"  # type: ignore[misc]  # two verbs, one class

    @classmethod
    def set_logged(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Make ``table`` a logged one; it is written anew."""
        operations.invoke(cls(table, True, schema=schema))

    @classmethod
    def set_unlogged(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Make ``table`` an unlogged one: it is written anew, and emptied by a crash."""
        operations.invoke(cls(table, False, schema=schema))

    def facts(self) -> tuple[str]:
        """Return the table."""
        return (self.table,)

    def reverse(self) -> SetLoggedOp:
        """Return the operation that makes it what it was."""
        return SetLoggedOp(self.table, not self.logged, schema=self.schema)


@Operations.implementation_for(SetTableOptionsOp)
def _set_table_options(operations: Operations, operation: SetTableOptionsOp) -> None:
    table = quoted(operation.table, operation.schema)
    gone = [option for option, value in operation.changes.items() if value is None]
    kept = {name: value for name, value in operation.changes.items() if value is not None}
    if gone:
        _reset(operations, table, gone)
    if kept:
        values = ", ".join(f"{_option(name)} = {_value(value)}" for name, value in kept.items())
        run(operations, f"ALTER TABLE {table} SET ({values})")


@Operations.implementation_for(ResetTableOptionsOp)
def _reset_table_options(operations: Operations, operation: ResetTableOptionsOp) -> None:
    _reset(operations, quoted(operation.table, operation.schema), operation.names)


@Operations.implementation_for(SetLoggedOp)
def _set_logged(operations: Operations, operation: SetLoggedOp) -> None:
    kind = "LOGGED" if operation.logged else "UNLOGGED"
    run(operations, f"ALTER TABLE {quoted(operation.table, operation.schema)} SET {kind}")


def _reset(operations: Operations, table: str, options: Iterable[str]) -> None:
    run(operations, f"ALTER TABLE {table} RESET ({', '.join(map(_option, options))})")


def _option(name: str) -> str:
    """Return an option's name, which may be one of the table behind: ``toast.vacuum_truncate``."""
    return ".".join(map(quoted, name.split(".")))


def _value(value: Value | None) -> str:
    return literal(str(value).lower() if isinstance(value, bool) else value)
