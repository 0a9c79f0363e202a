"""How types are written into a revision file, and what Alembic is told in words of ours."""

from __future__ import annotations

import io
from typing import Any

import pytest
from alembic.autogenerate import render_python_code
from alembic.autogenerate.api import AutogenContext
from alembic.migration import MigrationContext
from alembic.operations import ops
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy import Column, DateTime, Integer, MetaData, PickleType, Table, Text
from sqlmodel import AutoString

from ragstore import migrations
from ragstore.exceptions import MigrationError
from ragstore.migrations import configure_options
from ragstore.migrations.operations import Remark
from ragstore.types import UtcDateTime, Vector

PGVECTOR = {"import pgvector.sqlalchemy"}

TYPES: list[tuple[Any, str, set[str]]] = [
    (VECTOR(3), "pgvector.sqlalchemy.VECTOR(3)", PGVECTOR),
    (VECTOR(), "pgvector.sqlalchemy.VECTOR()", PGVECTOR),
    (HALFVEC(3), "pgvector.sqlalchemy.HALFVEC(3)", PGVECTOR),
    (SPARSEVEC(3), "pgvector.sqlalchemy.SPARSEVEC(3)", PGVECTOR),
    (BIT(3), "pgvector.sqlalchemy.BIT(3)", PGVECTOR),
    (Vector(3), "pgvector.sqlalchemy.VECTOR(3)", PGVECTOR),
    (Vector(), "pgvector.sqlalchemy.VECTOR()", PGVECTOR),
    (UtcDateTime(), "sa.DateTime(timezone=True)", set()),
    (AutoString(), "sa.String()", set()),
    (AutoString(length=20), "sa.String(length=20)", set()),
    (Text(), "sa.Text()", set()),
    (DateTime(), "sa.DateTime()", set()),
    (PickleType(), "sa.PickleType()", set()),
]


@pytest.fixture
def context() -> AutogenContext:
    """Give what a revision of one table is written with."""
    metadata = MetaData()
    Table("items", metadata, Column("id", Integer))
    migration = MigrationContext.configure(
        dialect_name="postgresql", opts=configure_options(metadata)
    )
    return AutogenContext(migration, opts={**migration.opts, **ALEMBIC})


# What Alembic gives by itself to a revision that it renders.
ALEMBIC = {
    "sqlalchemy_module_prefix": "sa.",
    "alembic_module_prefix": "op.",
    "user_module_prefix": None,
    "render_as_batch": False,
}


@pytest.mark.parametrize(("item", "code", "imports"), TYPES, ids=[row[1] for row in TYPES])
def test_types(context: AutogenContext, item: Any, code: str, imports: set[str]) -> None:
    """A type is written by its public name, with the import that it needs and no other."""
    migration: Any = context.migration_context
    column = ops.AddColumnOp("items", Column("c", item))

    written = render_python_code(
        ops.UpgradeOps([column]),
        render_item=migration.opts["render_item"],
        migration_context=migration,
        imports=sorted(context.imports),
    )

    assert f"op.add_column('items', sa.Column('c', {code}, nullable=True))" in written
    assert rendered_imports(context, item) == imports


def rendered_imports(context: AutogenContext, item: Any) -> set[str]:
    """Return the imports that rendering a type asks for."""
    context.imports.clear()
    context.opts["render_item"]("type", item, context)
    return set(context.imports)


def test_only_types(context: AutogenContext) -> None:
    """Everything but a type is left to Alembic."""
    assert context.opts["render_item"]("server_default", VECTOR(3), context) is False


def test_offline_hooks(context: AutogenContext) -> None:
    """Without a connection nothing is looked up and nothing taken out: remarks are added."""
    migration: Any = context.migration_context
    script = ops.MigrationScript("x", ops.UpgradeOps([ops.DropTableOp("t")]), ops.DowngradeOps([]))

    migration.opts["process_revision_directives"](migration, None, [script])

    assert script.upgrade_ops is not None
    assert [type(each) for each in script.upgrade_ops.ops] == [Remark, ops.DropTableOp]


def test_what_alembic_refuses() -> None:
    """A refusal of Alembic's own that has no class with us keeps its text."""
    with pytest.raises(MigrationError, match="downgrade with --sql requires"):
        migrations.downgrade(revision="base", sql=io.StringIO())
