"""Domains: types that are another type with a default and checks."""

from __future__ import annotations

from alembic.operations import Operations

from ragstore.migrations.operations.base import Operation, quoted, run


@Operations.register_operation("create_domain")
class CreateDomainOp(Operation):
    """Create a domain."""

    verb = "create_domain"

    def __init__(self, name: str, definition: str, *, schema: str | None = None) -> None:
        self.name = name
        self.definition = definition
        self.schema = schema

    @classmethod
    def create_domain(
        cls, operations: Operations, name: str, definition: str, *, schema: str | None = None
    ) -> None:
        """Create the domain ``name``; ``definition`` is what stands after ``AS`` in SQL."""
        operations.invoke(cls(name, definition, schema=schema))

    def facts(self) -> tuple[str, str]:
        """Return the name and the definition."""
        return (self.name, self.definition)

    def reverse(self) -> DropDomainOp:
        """Return the operation that drops the domain."""
        return DropDomainOp(self.name, schema=self.schema, existing=self.definition)


@Operations.register_operation("drop_domain")
class DropDomainOp(Operation):
    """Drop a domain; ``existing`` is the definition that its reverse brings back."""

    verb = "drop_domain"

    def __init__(
        self, name: str, *, schema: str | None = None, existing: str | None = None
    ) -> None:
        self.name = name
        self.schema = schema
        self.existing = existing

    @classmethod
    def drop_domain(cls, operations: Operations, name: str, *, schema: str | None = None) -> None:
        """Drop the domain ``name``, which no column may have."""
        operations.invoke(cls(name, schema=schema))

    def facts(self) -> tuple[str]:
        """Return the name."""
        return (self.name,)

    def reverse(self) -> CreateDomainOp:
        """Return the operation that creates the domain again."""
        return CreateDomainOp(self.name, self.reversible_by(self.existing), schema=self.schema)


@Operations.register_operation("alter_domain")
class AlterDomainOp(Operation):
    """Change a domain; ``existing`` is the action that takes the change back."""

    verb = "alter_domain"

    def __init__(
        self, name: str, action: str, *, schema: str | None = None, existing: str | None = None
    ) -> None:
        self.name = name
        self.action = action
        self.schema = schema
        self.existing = existing

    @classmethod
    def alter_domain(
        cls, operations: Operations, name: str, action: str, *, schema: str | None = None
    ) -> None:
        """Do to the domain ``name`` what stands after it in ``ALTER DOMAIN``: ``SET NOT NULL``.

        The server refuses a check that a row does not meet.
        """
        operations.invoke(cls(name, action, schema=schema))

    def facts(self) -> tuple[str, str]:
        """Return the name and the action."""
        return (self.name, self.action)

    def reverse(self) -> AlterDomainOp:
        """Return the operation that takes the change back."""
        back = self.reversible_by(self.existing)
        return AlterDomainOp(self.name, back, schema=self.schema, existing=self.action)


@Operations.implementation_for(CreateDomainOp)
def _create_domain(operations: Operations, operation: CreateDomainOp) -> None:
    name = quoted(operation.name, operation.schema)
    run(operations, f"CREATE DOMAIN {name} AS {operation.definition}")


@Operations.implementation_for(DropDomainOp)
def _drop_domain(operations: Operations, operation: DropDomainOp) -> None:
    run(operations, f"DROP DOMAIN {quoted(operation.name, operation.schema)}")


@Operations.implementation_for(AlterDomainOp)
def _alter_domain(operations: Operations, operation: AlterDomainOp) -> None:
    name = quoted(operation.name, operation.schema)
    run(operations, f"ALTER DOMAIN {name} {operation.action}")
