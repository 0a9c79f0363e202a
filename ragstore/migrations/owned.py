"""What a history made: the only objects that autogenerate may drop.

An object without a model may be a DBA's index, another application's table, or something that a
model of ours used to have. It is ours if an operation in the revision files made it, by that name,
and no later one dropped it. What ``op.execute`` runs is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alembic.operations import MigrateOperation
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from ragstore.migrations.effects import apply
from ragstore.migrations.facts import Constraint, Name
from ragstore.migrations.made import Made
from ragstore.migrations.recorder import replay


@dataclass(frozen=True)
class Owned:
    """What the operations of a history made and did not drop.

    ``unreadable`` has the error of each script that could not be run to its end, by revision: what
    it did before counts, the rest is unknown. A table's key is its schema and name.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    made: Made = field(default_factory=Made)

    def tables(self) -> set[Name]:
        """Return the keys of all tables that were made."""
        return {key for key, table in self.made.tables.items() if table.made}

    def owns_table(self, schema: str | None, name: str) -> bool:
        """Say if the table was made."""
        return self.made.parts((schema, name)).made

    def owns_column(self, table: Name, name: str) -> bool:
        """Say if the column was made, with its table or afterwards."""
        return name in self.made.parts(table).columns

    def owns_index(self, schema: str | None, name: str) -> bool:
        """Say if the index was made, with its table or afterwards."""
        return self.made.key(schema, name) in self.made.indexes

    def owns_constraint(self, table: Name, constraint: Constraint) -> bool:
        """Say if the constraint was made: by name, or one of its kind that was given no name."""
        return any(made.matches(constraint) for made in self.made.parts(table).constraints)

    def owns_comment(self, table: Name, column: str | None = None) -> bool:
        """Say if the comment of the table, or of a column, was made."""
        return column in self.made.parts(table).comments

    def owns_option(self, table: Name, option: str) -> bool:
        """Say if the storage parameter was set; ``unlogged`` counts as one."""
        return option in self.made.parts(table).options

    def owns_enum(self, schema: str | None, name: str) -> bool:
        """Say if the enum was made."""
        return self.made.key(schema, name) in self.made.enums

    def owns_sequence(self, schema: str | None, name: str) -> bool:
        """Say if the sequence was made; one behind a column is part of the column."""
        return self.made.key(schema, name) in self.made.sequences

    def owns_routine(self, schema: str | None, name: str) -> bool:
        """Say if a function of that name was made."""
        return self.made.key(schema, name) in self.made.routines

    def owns_schema(self, name: str) -> bool:
        """Say if the schema was made, or made sure of."""
        return name in self.made.schemas


def record(
    script: ScriptDirectory, *, target_metadata: Any = None, default_schema: str | None = None
) -> Owned:
    """Return what the history made, by running its scripts against a recording ``op``.

    No database is asked and nothing is printed; ``op`` and ``context`` are left as they were, also
    inside a running command. The naming convention is that of ``target_metadata``. Objects of
    ``default_schema`` are known by the schema None, as in a Catalog.
    """
    owned = Owned(made=Made(default_schema=default_schema))

    def keep(operation: MigrateOperation, context: MigrationContext) -> Any:
        return apply(owned.made, operation, context)

    owned.unreadable.update(replay(script, keep, target_metadata))
    return owned
