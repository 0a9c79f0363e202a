"""SQL functions: from their parts, as models declare them, or from a whole definition."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations

from ragstore.migrations.operations.base import IMPORT, Operation, prefix_of, quoted, run
from ragstore.migrations.operations.writing import block, call, is_plain, unblocked
from ragstore.types import Function

_LANGUAGE, _OPTIONS = "sql", "IMMUTABLE PARALLEL SAFE"


@Operations.register_operation("create_function")
class CreateFunctionOp(Operation):
    """Create an SQL function, or replace its body.

    ``existing`` is what it replaces: a Function, or a definition as the server prints it.
    """

    verb = "create_function"

    def __init__(
        self,
        function: Function,
        *,
        schema: str | None = None,
        existing: Function | str | None = None,
    ) -> None:
        self.function = function
        self.schema = schema
        self.existing = existing

    @classmethod
    def create_function(
        cls,
        operations: Operations,
        name: str,
        arguments: list[tuple[str, str]],
        returns: str,
        body: str,
        *,
        language: str = _LANGUAGE,
        options: str = _OPTIONS,
        schema: str | None = None,
    ) -> None:
        """Create the function ``name(arguments)``; see ``ragstore.types.function``."""
        function = Function(name, tuple(arguments), returns, body, language, options)
        operations.invoke(cls(function, schema=schema))

    def facts(self) -> tuple[Any, ...]:
        """Return the name, the arguments, the result and the body."""
        function = self.function
        arguments = [tuple(argument) for argument in function.arguments]
        return (function.name, arguments, function.returns, function.body)

    def options(self) -> Mapping[str, Any]:
        """Return what is not as ``ragstore.types.function`` has it."""
        language, options = self.function.language, self.function.options
        return {
            "language": None if language == _LANGUAGE else language,
            "options": None if options == _OPTIONS else options,
        }

    def reverse(self) -> MigrateOperation:
        """Return the operation that brings back what was there, or drops the function."""
        if isinstance(self.existing, str):
            return DefineFunctionOp(self.existing, back=self)
        if self.existing is not None:
            return CreateFunctionOp(self.existing, schema=self.schema, existing=self.function)
        types = [kind for _, kind in self.function.arguments]
        name = self.function.name
        folded = name if '"' in name else name.lower()
        return DropFunctionOp(folded, types, schema=self.schema, existing=self.function)


@Operations.register_operation("define_function")
class DefineFunctionOp(Operation):
    """Create a function from its definition, or replace it; ``back`` is what undoes that."""

    verb = "define_function"

    def __init__(self, definition: str, *, back: MigrateOperation | None = None) -> None:
        self.definition = unblocked(definition)
        self.back = back

    @classmethod
    def define_function(cls, operations: Operations, definition: str) -> None:
        """Run ``definition``: a whole ``CREATE OR REPLACE FUNCTION``, as the server prints it.

        The indentation of its first line is taken from every line.
        """
        operations.invoke(cls(definition))

    def facts(self) -> tuple[str]:
        """Return the definition."""
        return (self.definition,)

    def reverse(self) -> MigrateOperation:
        """Return the operation that this one is the reverse of."""
        back: MigrateOperation = self.reversible_by(self.back)
        return back


@renderers.dispatch_for(DefineFunctionOp)
def _render_define_function(context: AutogenContext, operation: DefineFunctionOp) -> str:
    context.imports.add(IMPORT)
    if is_plain(operation.definition):
        return f"{prefix_of(context)}define_function({block(operation.definition)})"
    return call(prefix_of(context), "define_function", operation.facts(), {})


@Operations.register_operation("drop_function")
class DropFunctionOp(Operation):
    """Drop an SQL function.

    ``existing`` is what its reverse brings back: a Function, or a definition as the server prints
    it.
    """

    verb = "drop_function"

    def __init__(
        self,
        name: str,
        argument_types: Sequence[str],
        *,
        schema: str | None = None,
        existing: Function | str | None = None,
    ) -> None:
        self.name = name
        self.argument_types = list(argument_types)
        self.schema = schema
        self.existing = existing

    @property
    def signature(self) -> str:
        """Return the name and argument types, as ``DROP FUNCTION`` takes them."""
        name = self.name if '"' in self.name else quoted(self.name)
        qualified = name if self.schema is None else f"{quoted(self.schema)}.{name}"
        return f"{qualified}({', '.join(self.argument_types)})"

    @classmethod
    def drop_function(
        cls,
        operations: Operations,
        name: str,
        argument_types: list[str],
        *,
        schema: str | None = None,
    ) -> None:
        """Drop the function ``name(argument_types)``, which nothing may use any more."""
        operations.invoke(cls(name, argument_types, schema=schema))

    def facts(self) -> tuple[str, list[str]]:
        """Return the name and the argument types."""
        return (self.name, self.argument_types)

    def reverse(self) -> MigrateOperation:
        """Return the operation that brings the function back."""
        existing: Function | str = self.reversible_by(self.existing)
        if isinstance(existing, str):
            return DefineFunctionOp(existing, back=self)
        return CreateFunctionOp(existing, schema=self.schema)


@Operations.implementation_for(CreateFunctionOp)
def _create_function(operations: Operations, operation: CreateFunctionOp) -> None:
    function = operation.function
    if operation.schema is not None:
        qualified = f"{quoted(operation.schema)}.{function.name}"
        function = dataclasses.replace(function, name=qualified)
    run(operations, function.create_sql())


@Operations.implementation_for(DefineFunctionOp)
def _define_function(operations: Operations, operation: DefineFunctionOp) -> None:
    run(operations, operation.definition)


@Operations.implementation_for(DropFunctionOp)
def _drop_function(operations: Operations, operation: DropFunctionOp) -> None:
    run(operations, f"DROP FUNCTION {operation.signature}")
