"""The rules that keep the schema fit for one server today and for Citus tomorrow."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Constraint,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import configure_mappers
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.elements import conv
from sqlmodel import SQLModel

from ragstore import models
from ragstore.models import TABLES, TSVECTOR_FUNCTION

configure_mappers()

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
REFERENCE = {"ragstore_embedding_space", "ragstore_collection"}
GROWING = [table for table in TABLES if table.name not in REFERENCE]
CONSTRAINTS = [
    pytest.param(constraint, id=str(constraint.name))
    for table in TABLES
    for constraint in sorted(table.constraints, key=lambda constraint: str(constraint.name))
]
INDEXES = [
    pytest.param(index, id=str(index.name))
    for table in TABLES
    for index in sorted(table.indexes, key=lambda index: str(index.name))
]
COLUMNS = [pytest.param(column, id=str(column)) for table in TABLES for column in table.columns]
MODELS = [mapper.class_ for mapper in models.RagstoreModel._sa_registry.mappers]
tables = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
growing = pytest.mark.parametrize("table", GROWING, ids=lambda table: table.name)


def of_kind(table: Table, *kinds: type[Constraint]) -> list[Any]:
    """Return the constraints of a table that are of some kinds."""
    return [constraint for constraint in table.constraints if isinstance(constraint, kinds)]


def test_every_model_is_here() -> None:
    """TABLES holds the table of every model, each after those it refers to."""
    assert {model.__table__ for model in MODELS} == set(TABLES)
    assert [table for table in SQLModel.metadata.sorted_tables if table in TABLES] == list(TABLES)


@tables
def test_prefix(table: Table) -> None:
    """Every table is called ragstore_, and has no schema of its own."""
    assert table.name.startswith("ragstore_")
    assert table.schema is None


@growing
def test_collection_is_first_everywhere(table: Table) -> None:
    """In a table that grows, every key starts with collection_id, a bigint."""
    keys = of_kind(table, PrimaryKeyConstraint, UniqueConstraint)

    assert [next(iter(key.columns)).name for key in keys] == ["collection_id"] * len(keys)
    assert len(table.primary_key.columns) > 1
    assert isinstance(table.c.collection_id.type, BigInteger)
    assert not table.c.collection_id.nullable
    assert next(iter(table.columns)).name == "collection_id"
    assert not [index for index in table.indexes if index.unique]


@growing
def test_foreign_keys_stay_in_the_collection(table: Table) -> None:
    """A key to a table that grows is composite, collection_id first, and cascades."""
    for key in of_kind(table, ForeignKeyConstraint):
        local, remote = list(key.column_keys), [element.column for element in key.elements]
        if remote[0].table.name in REFERENCE:
            continue
        assert local[0] == "collection_id"
        assert remote[0].name == "collection_id"
        assert len(local) == 2
        assert key.ondelete == "CASCADE"


@tables
def test_foreign_keys_cascade_or_refuse(table: Table) -> None:
    """No foreign key sets anything to NULL or to a default, nor updates a key."""
    keys = of_kind(table, ForeignKeyConstraint)

    assert {key.ondelete for key in keys} <= {"CASCADE", None}
    assert {key.onupdate for key in keys} <= {None}


@tables
def test_foreign_key_types(table: Table) -> None:
    """Both ends of a foreign key are of one type."""
    for key in of_kind(table, ForeignKeyConstraint):
        assert all(type(e.parent.type) is type(e.column.type) for e in key.elements)


def test_global_uniqueness() -> None:
    """Only the small tables have a uniqueness that is not inside a collection."""
    loose = {
        table.name
        for table in TABLES
        for key in of_kind(table, UniqueConstraint)
        if "collection_id" not in key.columns
    }

    assert loose == REFERENCE


@tables
def test_identity(table: Table) -> None:
    """Every id is a bigint that the database gives and a caller may give instead."""
    if "id" not in table.c:
        assert table.name == "ragstore_embedding"
        return
    column = table.c.id

    assert isinstance(column.type, BigInteger)
    assert isinstance(column.identity, Identity)
    assert column.identity.always is False
    assert column.autoincrement is True


@pytest.mark.parametrize("item", [*CONSTRAINTS, *INDEXES])
def test_names(item: Any) -> None:
    """Every constraint and index has a name that no naming convention changes, of its table."""
    assert isinstance(item.name, conv)
    assert item.name.startswith(f"{item.table.name}_")
    assert len(item.name.encode()) <= 48
    assert item.name.endswith(suffix_of(item))


def suffix_of(item: Constraint | Index) -> str:
    """Return the suffix that Postgres itself gives to such a name."""
    suffixes = {
        PrimaryKeyConstraint: "_pkey",
        UniqueConstraint: "_key",
        ForeignKeyConstraint: "_fkey",
        CheckConstraint: "_check",
        Index: "_idx",
    }
    return suffixes[type(item)]


@pytest.mark.parametrize("column", COLUMNS)
def test_columns(column: Any) -> None:
    """Names are short; text is text, time has a zone; a default is the database's too."""
    assert len(column.name) <= 48
    assert not hasattr(column.type, "length") or column.type.length is None
    if isinstance(getattr(column.type, "impl", column.type), DateTime):
        assert column.type.impl.timezone is True
    scalar = column.default is not None and not callable(getattr(column.default, "arg", None))
    assert not scalar or column.server_default is not None


@tables
def test_no_index_takes_a_lock_or_a_transaction(table: Table) -> None:
    """No index of a model is CONCURRENTLY, which create_all and a migration cannot run."""
    assert not [i for i in table.indexes if i.dialect_options["postgresql"]["concurrently"]]


@tables
def test_generated_columns(table: Table) -> None:
    """A generated column is stored, and calls only our function, which is IMMUTABLE."""
    for column in table.columns:
        if column.computed is not None:
            call = str(column.computed.sqltext)
            assert re.fullmatch(rf"{TSVECTOR_FUNCTION.name}\(\w+, \w+\)", call)
            assert column.computed.persisted is True
    assert "IMMUTABLE" in TSVECTOR_FUNCTION.options


def test_functions_are_declared() -> None:
    """Autogenerate finds the function in the metadata; its name is short."""
    assert SQLModel.metadata.info["functions"][TSVECTOR_FUNCTION.name] is TSVECTOR_FUNCTION
    assert len(TSVECTOR_FUNCTION.name) <= 48


@tables
def test_no_trigger(table: Table) -> None:
    """Creating a table makes no trigger, only a function and an extension."""
    listeners = [*table.dispatch.before_create, *table.dispatch.after_create]
    statements = [getattr(listener, "statement", "") for listener in listeners]

    assert not [one for one in statements if "trigger" in one.lower()]
    assert list(table.dispatch.after_create) == []


@pytest.mark.parametrize(
    "model", sorted(MODELS, key=lambda model: model.__name__), ids=lambda model: model.__name__
)
def test_every_column_is_explained(model: type[SQLModel]) -> None:
    """The docstring of a model explains each of its columns."""
    explained = re.findall(r"``(\w+)``", model.__doc__ or "")
    attributes = {attribute.key for attribute in model.__mapper__.column_attrs}  # type: ignore[attr-defined]  # the ORM's

    assert attributes <= set(explained)


@tables
def test_limits(table: Table) -> None:
    """Every text of a user's has a limit in the database."""
    checks = " ".join(str(check.sqltext) for check in of_kind(table, CheckConstraint))
    limited = set(re.findall(r"octet_length\((\w+)\)", checks)) | set(
        re.findall(r"(\w+) IN \(", checks)
    )
    texts = {column.name for column in table.columns if isinstance(column.type, Text)}

    assert texts - limited <= UNLIMITED.get(table.name, set())
    assert "metadata" not in table.c or "jsonb_typeof(metadata) = 'object'" in checks


# The name of a text search configuration: Postgres itself refuses an unknown one in a chunk.
UNLIMITED = {
    "ragstore_collection": {"language"},
    "ragstore_chunk": {"language"},
}


def test_embeddings_are_partitioned_by_space() -> None:
    """The embeddings are one partition for each space."""
    statement = str(CreateTable(models.EMBEDDINGS).compile(dialect=DIALECT))

    assert statement.strip().endswith("PARTITION BY LIST (space_id)")


def test_ordinals_are_deferred() -> None:
    """The uniqueness of ordinals waits for the commit: the ORM inserts before it deletes."""
    ordinal = next(key for key in of_kind(models.CHUNKS, UniqueConstraint))

    assert (ordinal.deferrable, ordinal.initially) == (True, "DEFERRED")


def test_shortcuts_do_not_write() -> None:
    """Relationships that write are the chain from collection to embedding, and the spaces."""
    writing = {
        f"{mapper.class_.__name__}.{relationship.key}"
        for mapper in models.RagstoreModel._sa_registry.mappers
        for relationship in mapper.relationships
        if not relationship.viewonly
    }

    assert writing == {
        "Collection.documents",
        "Collection.next_space",
        "Collection.space",
        "Document.chunks",
        "Document.collection",
        "Chunk.document",
        "Chunk.embeddings",
        "Embedding.chunk",
        "Embedding.space",
    }
