"""What the operations share: how they run a statement, and how they are written into a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

from ragstore.migrations.operations.writing import call
from ragstore.types import verbatim

IMPORT = "import ragstore.migrations.operations  # noqa: F401"
"""What a revision file that uses one of the operations needs."""

# "named" because the drivers' own styles double every % in a name, for text with parameters.
_preparer = postgresql.dialect(paramstyle="named").identifier_preparer  # type: ignore[no-untyped-call]  # no annotations there


class Operation(MigrateOperation):
    """One of ours: written into a file as ``op.verb(facts)``, and known by the same facts.

    An argument ``existing`` holds what was there before. It is for ``reverse()`` alone and is not
    written: the file has the opposite in its other function.
    """

    verb: ClassVar[str]
    schema: str | None = None

    def facts(self) -> tuple[Any, ...]:
        """Return the positional arguments, without the schema."""
        raise NotImplementedError

    def options(self) -> Mapping[str, Any]:
        """Return the keyword arguments besides the schema; those that are None do not count."""
        return {}

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return ``(verb, schema, *facts)``, and the options if there are any."""
        options = _given(self.options())
        return (self.verb, self.schema, *self.facts(), *([options] if options else []))

    def reversible_by(self, fact: Any) -> Any:
        """Return what the reverse needs.

        Raises:
            NotImplementedError: the operation was made without it, as one in a file is.
        """
        if fact is None:
            raise NotImplementedError(
                f"{self.verb} of {self.facts()[0]} does not know what was there before:"
                " pass existing= to the operation"
            )
        return fact


@renderers.dispatch_for(Operation)
def _render(context: AutogenContext, operation: Operation) -> str:
    context.imports.add(IMPORT)
    keywords = _given({**operation.options(), "schema": operation.schema})
    return call(prefix_of(context), operation.verb, operation.facts(), keywords)


def prefix_of(context: AutogenContext) -> str:
    """Return what stands before a verb in the file: ``op.`` unless env.py says otherwise."""
    return context.opts.get("alembic_module_prefix") or ""


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def run(operations: Operations, statement: str) -> None:
    """Run a statement to the letter, or write it to the script."""
    if operations.migration_context.as_sql:
        implementation: Any = operations.impl  # never that of a batch, which only collects
        implementation.static_output(statement + implementation.command_terminator)
    else:
        operations.execute(verbatim(statement))


def select(connection: Connection, query: str, *parameters: Any) -> Sequence[Any]:
    """Return the rows of a query; without parameters it is sent to the letter, ``%`` included."""
    if parameters:
        return connection.exec_driver_sql(query, parameters).all()
    return connection.exec_driver_sql(query, None, {"no_parameters": True}).all()


def quoted(name: str, schema: str | None = None) -> str:
    """Return a name as SQL has it, in quotes if it needs them."""
    own = _preparer.quote(name)
    return own if schema is None else f"{_preparer.quote(schema)}.{own}"


def literal(value: object) -> str:
    """Return a value as a string literal of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def dollar_quoted(body: str) -> str:
    """Return a text between dollar quotes that do not occur in it."""
    tag = "do"
    while f"${tag}$" in body:
        tag += "_"
    return f"${tag}${body}${tag}$"
