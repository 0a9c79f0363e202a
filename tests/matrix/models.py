"""The models that rows start from; each call builds them anew."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, Text
from sqlalchemy.schema import SchemaItem


def item(*more: SchemaItem, **options: Any) -> MetaData:
    """Return one table with a key and a title, and what is added to it."""
    return table("item", *_start(), *more, **options)


def table(name: str, *columns: SchemaItem, **options: Any) -> MetaData:
    """Return a model of one table."""
    metadata = MetaData()
    Table(name, metadata, *columns, **options)
    return metadata


def number(name: str = "id") -> Column[int]:
    """Return a serial primary key."""
    return Column(name, Integer, primary_key=True)


def pair(*more: SchemaItem, owner: tuple[SchemaItem, ...] = (), **options: Any) -> MetaData:
    """Return an owner and its items, without the key between them: the rows add that."""
    metadata = MetaData()
    Table(
        "owner",
        metadata,
        number(),
        Column("code", String(20), nullable=False, unique=True),
        Column("region", Integer, nullable=False),
        *owner,
    )
    Table("item", metadata, *_start(), Column("owner_id", Integer), *more, **options)
    return metadata


def with_tag() -> MetaData:
    """Return items, and tags that refer to them."""
    metadata = item()
    Table(
        "tag",
        metadata,
        number(),
        Column("item_id", ForeignKey("item.id"), nullable=False),
        Column("word", Text, nullable=False, index=True),
    )
    return metadata


def _start() -> tuple[SchemaItem, ...]:
    return number(), Column("title", String(50), nullable=False)
