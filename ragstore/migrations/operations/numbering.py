"""How a column numbers its rows: as an identity, from a sequence of its own, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from alembic.operations import Operations

from ragstore.migrations.operations.base import Operation, dollar_quoted, literal, quoted, run

Numbering = Literal["always", "by default", "serial", "none"]
"""``GENERATED ALWAYS`` or ``BY DEFAULT AS IDENTITY``, a sequence of its own, or nothing."""

_IDENTITIES = ("always", "by default")
_OPTIONS = {
    "data_type": ("AS {0}", ""),
    "start": ("START WITH {0}", "START WITH 1"),
    "increment": ("INCREMENT BY {0}", "INCREMENT BY 1"),
    "minvalue": ("MINVALUE {0}", "NO MINVALUE"),
    "maxvalue": ("MAXVALUE {0}", "NO MAXVALUE"),
    "cache": ("CACHE {0}", "CACHE 1"),
    "cycle": ("CYCLE", "NO CYCLE"),
}
"""The words for an option of a sequence, and for what it is without one."""


@Operations.register_operation("set_numbering")
class SetNumberingOp(Operation):
    """Let a column number its rows in another way."""

    verb: ClassVar[str] = "set_numbering"

    def __init__(
        self,
        table: str,
        column: str,
        numbering: Numbering,
        *,
        was: Numbering,
        schema: str | None = None,
        sequence: Mapping[str, Any] | None = None,
        existing: Mapping[str, Any] | None = None,
    ) -> None:
        self.table_name = table
        self.column_name = column
        self.numbering = numbering
        self.was = was
        self.schema = schema
        self.sequence = dict(sequence or {})
        self.existing = dict(existing or {})

    @classmethod
    def set_numbering(
        cls,
        operations: Operations,
        table: str,
        column: str,
        numbering: Numbering,
        *,
        was: Numbering,
        schema: str | None = None,
        **sequence: Any,
    ) -> None:
        """Make the column an identity ("always", "by default"), serial, or neither ("none").

        New numbers follow the highest that is stored. ``sequence`` are the options of the sequence
        behind it: ``start``, ``increment``, ``minvalue``, ``maxvalue``, ``cache``, ``cycle``, and
        of a serial column ``data_type``.
        """
        operation = cls(table, column, numbering, was=was, schema=schema, sequence=sequence)
        operations.invoke(operation)

    def facts(self) -> tuple[Any, ...]:
        """Return the table, the column, and how it is to number."""
        return (self.table_name, self.column_name, self.numbering)

    def options(self) -> Mapping[str, Any]:
        """Return how it numbered before, and the options of the sequence."""
        return {"was": self.was, **self.sequence}

    def reverse(self) -> SetNumberingOp:
        """Return the operation that numbers as before."""
        return SetNumberingOp(
            self.table_name,
            self.column_name,
            self.was,
            was=self.numbering,
            schema=self.schema,
            sequence=self.existing,
            existing=self.sequence,
        )


@Operations.implementation_for(SetNumberingOp)
def _set_numbering(operations: Operations, operation: SetNumberingOp) -> None:
    for statement in _statements(operation):
        run(operations, statement)


def _statements(operation: SetNumberingOp) -> Iterator[str]:
    table = quoted(operation.table_name, operation.schema)
    alter = f"ALTER TABLE {table} ALTER COLUMN {quoted(operation.column_name)}"
    own = f"pg_get_serial_sequence({literal(table)}, {literal(operation.column_name)})"
    was, now = operation.was, operation.numbering
    if was in _IDENTITIES and now in _IDENTITIES:
        words = " ".join(f"SET {each}" for each in _all(operation.sequence))
        yield f"{alter} SET GENERATED {now.upper()} {words}"
    elif was == now:
        words = " ".join(_all(operation.sequence))
        yield _execute(f"'ALTER SEQUENCE ' || {own} || {literal(' ' + words)}")
    else:
        yield from _removed(operation, alter, own)
        yield from _made(operation, table, alter, own)


def _removed(operation: SetNumberingOp, alter: str, own: str) -> Iterator[str]:
    if operation.was == "serial":  # its sequence may have kept the name of another day
        yield _execute(f"{literal(f'{alter} DROP DEFAULT; DROP SEQUENCE ')} || {own}")
    elif operation.was in _IDENTITIES:
        yield f"{alter} DROP IDENTITY"


def _made(operation: SetNumberingOp, table: str, alter: str, own: str) -> Iterator[str]:
    column = quoted(operation.column_name)
    words = " ".join(_given(operation.sequence))
    if operation.numbering == "none":
        return
    if operation.numbering == "serial":
        name = f"{operation.table_name}_{operation.column_name}_seq"
        sequence = quoted(name, operation.schema)
        yield f"CREATE SEQUENCE {sequence} {words}".rstrip()
        yield f"{alter} SET DEFAULT nextval({literal(sequence)}::regclass)"
        yield f"ALTER SEQUENCE {sequence} OWNED BY {table}.{column}"
    else:
        options = f" ({words})" if words else ""
        yield f"{alter} ADD GENERATED {operation.numbering.upper()} AS IDENTITY{options}"
    if operation.sequence.get("increment", 1) > 0:
        start = operation.sequence.get("start", 1)
        yield (
            f"SELECT setval({own}, max({column})) FROM {table}"  # noqa: S608 - quoted names
            f" HAVING max({column}) >= {start}"
        )


def _given(sequence: Mapping[str, Any]) -> list[str]:
    return [_words(name, value) for name, value in sequence.items()]


def _all(sequence: Mapping[str, Any]) -> list[str]:
    return [
        words
        for name, (_, without) in _OPTIONS.items()
        for words in [_words(name, sequence[name]) if name in sequence else without]
        if words
    ]


def _words(name: str, value: Any) -> str:
    given, without = _OPTIONS[name]
    return given.format(value) if value is not False else without


def _execute(statement: str) -> str:
    return f"DO {dollar_quoted(f' BEGIN EXECUTE {statement}; END ')}"
