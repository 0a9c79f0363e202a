"""SQLModel and SQLAlchemy classes, and a host's naming convention."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import declarative_base, registry
from sqlmodel import Field, SQLModel

from ragstore.types import UtcDateTime, Vector, hnsw
from tests.matrix.case import Case, change, control
from tests.matrix.models import number

CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def declared(**fields: tuple[Any, Any]) -> MetaData:
    """Return a SQLModel class with these further fields, in a registry of its own."""
    metadata = MetaData()
    mapped = registry(metadata=metadata)
    base = type("Base", (SQLModel,), {"__module__": __name__}, registry=mapped)
    body: dict[str, Any] = {
        "__module__": __name__,
        "__tablename__": "note",
        "__annotations__": {
            "id": int | None,
            "title": str,
            **{name: kind for name, (kind, _) in fields.items()},
        },
        "id": Field(default=None, primary_key=True),
        **{name: field for name, (_, field) in fields.items()},
    }
    type("Note", (base,), body, table=True)
    return metadata


def mapped(**columns: Any) -> MetaData:
    """Return a declarative class with these further columns."""
    base: Any = declarative_base(metadata=MetaData())
    body = {"__tablename__": "note", "id": Column(Integer, primary_key=True), **columns}
    type("Note", (base,), body)
    metadata: MetaData = base.metadata
    return metadata


def near(**options: Any) -> MetaData:
    """Return a SQLModel class with vectors of ours and an index over them."""
    metadata = declared(embedding=(list[float] | None, Field(default=None, sa_type=Vector(3))))
    hnsw("note_near", metadata.tables["note"].c.embedding, dimensions=3, **options)
    return metadata


def named(*more: Any, convention: dict[str, str] | None = None) -> MetaData:
    """Return two tables under a naming convention."""
    metadata = MetaData(naming_convention=CONVENTION if convention is None else convention)
    Table("owner", metadata, number(), Column("code", String(9), unique=True))
    Table(
        "item",
        metadata,
        number(),
        Column("rank", Integer, CheckConstraint("rank > 0", name="positive"), index=True),
        Column("owner_id", ForeignKey("owner.id")),
        *more,
    )
    return metadata


def explicit() -> MetaData:
    """Return the same tables with the names written out."""
    metadata = MetaData()
    Table(
        "owner",
        metadata,
        Column("id", Integer),
        Column("code", String(9)),
        UniqueConstraint("code", name="uq_owner_code"),
        PrimaryKeyConstraint("id", name="pk_owner"),
    )
    Table(
        "item",
        metadata,
        Column("id", Integer),
        Column("rank", Integer),
        Column("owner_id", ForeignKey("owner.id", name="fk_item_owner_id_owner")),
        CheckConstraint("rank > 0", name="ck_item_positive"),
        Index("ix_item_rank", "rank"),
        PrimaryKeyConstraint("id", name="pk_item"),
    )
    return metadata


def _more(metadata: MetaData, name: str) -> MetaData:
    Table(
        name,
        metadata,
        number(),
        Column("code", Text, unique=True),
        CheckConstraint("code <> ''", name="filled"),
    )
    return metadata


CASES: list[Case] = [
    change("sqlmodel-field-added", declared, lambda: declared(rank=(int | None, None))),
    change("sqlmodel-text-added", declared, lambda: declared(body=(str | None, None))),
    change(
        "sqlmodel-time-added",
        declared,
        lambda: declared(at=(datetime | None, None)),
    ),
    change(
        "sqlmodel-of-ours-added",
        declared,
        lambda: declared(at=(datetime | None, Field(default=None, sa_type=UtcDateTime))),
    ),
    change("sqlmodel-field-dropped", lambda: declared(rank=(int | None, None)), declared),
    change(
        "sqlmodel-field-indexed",
        lambda: declared(code=(str | None, None)),
        lambda: declared(code=(str | None, Field(default=None, index=True))),
    ),
    change(
        "sqlmodel-field-length",
        lambda: declared(code=(str | None, Field(default=None, max_length=20))),
        lambda: declared(code=(str | None, Field(default=None, max_length=40))),
    ),
    change(
        "sqlmodel-json-added",
        declared,
        lambda: declared(extra=(dict[str, Any] | None, Field(default=None, sa_type=JSONB))),
    ),
    change("sqlmodel-vector-added", declared, near, needs="vector"),
    change("sqlmodel-vector-metric", near, lambda: near(metric="l2"), needs="vector"),
    change(
        "sqlmodel-foreign-key-added",
        lambda: declared(up=(int | None, None)),
        lambda: declared(up=(int | None, Field(default=None, foreign_key="note.id"))),
    ),
    change("declarative-column-added", mapped, lambda: mapped(body=Column(Text, index=True))),
    change("convention-index-added", named, lambda: named(Column("more", Integer, index=True))),
    change("convention-unique-added", named, lambda: named(Column("code", Text, unique=True))),
    change(
        "convention-check-added",
        named,
        lambda: named(CheckConstraint("rank < 100", name="small")),
    ),
    change(
        "convention-check-changed",
        lambda: named(CheckConstraint("rank < 100", name="small")),
        lambda: named(CheckConstraint("rank < 200", name="small")),
    ),
    change(
        "convention-check-dropped",
        lambda: named(CheckConstraint("rank < 100", name="small")),
        named,
    ),
    change(
        "convention-foreign-key-added",
        named,
        lambda: named(Column("second_id", ForeignKey("owner.id", ondelete="CASCADE"))),
    ),
    change(
        "convention-list-type-added",
        named,
        lambda: named(
            Column(
                "kind",
                Enum("draft", "done", native_enum=False, name="kind", create_constraint=True),
            )
        ),
    ),
    change("convention-adopted", lambda: named(convention={}), named),
    change("convention-given-up", named, lambda: named(convention={})),
    change(
        "convention-changed",
        named,
        lambda: named(
            convention={
                **CONVENTION,
                "pk": "%(table_name)s_pk",
                "ck": "%(table_name)s_%(constraint_name)s_check",
            }
        ),
    ),
    change(
        "convention-table-added",
        named,
        lambda: _more(named(), "note"),
    ),
    control("sqlmodel-rebuilt", lambda: declared(code=(str | None, Field(default=None)))),
    control("sqlmodel-vector-rebuilt", near, needs="vector"),
    control(
        "sqlmodel-of-ours-or-sqlalchemy",
        lambda: declared(at=(datetime | None, Field(default=None, sa_type=UtcDateTime))),
        lambda: declared(
            at=(datetime | None, Field(default=None, sa_type=DateTime(timezone=True)))
        ),
    ),
    control(
        "sqlmodel-of-ours-or-pgvector",
        lambda: declared(embedding=(list[float] | None, Field(sa_type=Vector(3)))),
        lambda: declared(embedding=(list[float] | None, Field(sa_type=VECTOR(3)))),
        needs="vector",
    ),
    control(
        "sqlmodel-python-side",
        lambda: declared(code=(str | None, None)),
        lambda: declared(
            code=(str | None, Field(default="x", description="its code", min_length=1))
        ),
    ),
    control("declarative-rebuilt", lambda: mapped(body=Column(Text, index=True))),
    control(
        "declarative-or-sqlmodel",
        lambda: mapped(title=Column(String, nullable=False)),
        declared,
    ),
    control("convention-rebuilt", named),
    control("convention-or-names-written-out", named, explicit),
]
