"""A database in which operations are run, in each of the ways in which a revision runs them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import alembic.op
import pytest
import sqlalchemy as sa
from alembic.autogenerate import render_python_code
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import UpgradeOps
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from ragstore.driver import connect
from ragstore.migrations.render import render_item
from ragstore.testing.plugin import NewDatabase
from ragstore.testing.revisions import read_schemas, run_script

Catalog = dict[str, str]

_SCHEMAS = (
    "SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace"
    " WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
)


class Workbench:
    """A database that can be emptied, and an ``op`` for it."""

    def __init__(self, url: URL) -> None:
        self.url = url

    def reset(self, *statements: str) -> None:
        """Empty the database, and run statements in it."""
        gone = [statement for (statement,) in self.run(_SCHEMAS)]
        self.run(*gone, "CREATE SCHEMA public", *statements)

    def run(self, *statements: str) -> list[Any]:
        """Run statements, each by itself, and return the last one's rows."""
        with connect(self.url, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def catalog(self) -> Catalog:
        """Return the definition of every object."""
        return read_schemas(self.url)

    def engine(self, options: str = "") -> sa.Engine:
        """Return an engine without a pool; ``options`` are those of its sessions."""
        return sa.create_engine(
            self.url, poolclass=NullPool, connect_args={"options": options} if options else {}
        )

    def within(self, upgrade: Callable[[Operations], Any], options: str = "") -> None:
        """Run a function as the ``upgrade`` of a revision, in a transaction of its own."""
        with self.engine(options).connect() as connection:
            context = MigrationContext.configure(connection)
            with context.begin_transaction(), Operations.context(context) as op:
                upgrade(op)

    def online(self, *operations: MigrateOperation) -> None:
        """Invoke operations."""
        self.within(lambda op: [op.invoke(each) for each in _flat(operations)])

    def written(self, *operations: MigrateOperation) -> None:
        """Write operations as autogenerate does, and run what is written."""
        names: dict[str, Any] = {"op": alembic.op, "sa": sa}
        exec(compile(_function_of(operations), "<revision>", "exec"), names)
        self.within(lambda _op: names["upgrade"]())

    def script(self, *operations: MigrateOperation) -> None:
        """Let ``--sql`` make a script of operations, and run that."""
        run_script(self.url, _script_of(operations))


def _flat(operations: Iterable[MigrateOperation]) -> Iterator[MigrateOperation]:
    for operation in operations:
        if hasattr(operation, "ops"):
            yield from _flat(operation.ops)
        else:
            yield operation


def _function_of(operations: Iterable[MigrateOperation]) -> str:
    """Return operations as a file has them, with its imports."""
    imports: Any = set()
    body = render_python_code(
        UpgradeOps(list(operations)),
        migration_context=MigrationContext.configure(dialect_name="postgresql"),
        imports=imports,
        render_item=render_item,
    )
    lines = "\n".join(sorted(imports))
    return f"{lines}\ndef upgrade():\n    {body}\n"


def _script_of(operations: Iterable[MigrateOperation]) -> str:
    """Return what ``--sql`` makes of operations."""
    output = io.StringIO()
    options = {"as_sql": True, "output_buffer": output, "literal_binds": True}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with context.begin_transaction(), Operations.context(context) as op:
        for operation in _flat(operations):
            op.invoke(operation)
    return output.getvalue()


@pytest.fixture(scope="module")
def shared_workbench(ragstore_new_database: NewDatabase) -> Iterator[Workbench]:
    """Yield a database that the tests of a module share."""
    url = ragstore_new_database(empty=True)
    workbench = Workbench(url)
    # Nothing here outlives the run, so no statement need wait for the disk.
    workbench.run(f'ALTER DATABASE "{url.database}" SET synchronous_commit = off')
    yield workbench
    ragstore_new_database.drop(url)


@pytest.fixture
def workbench(shared_workbench: Workbench) -> Workbench:
    """Return the database, with nothing in it."""
    shared_workbench.reset()
    return shared_workbench
