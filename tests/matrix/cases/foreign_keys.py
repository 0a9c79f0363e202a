"""Foreign keys with every option."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
)

from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item, number, pair


def key(name: str | None = "item_owner", **options: Any) -> MetaData:
    """Return items that refer to their owner."""
    return pair(ForeignKeyConstraint(["owner_id"], ["owner.id"], name=name, **options))


def wide(columns: list[str] | None = None, **options: Any) -> MetaData:
    """Return items that refer to their owner by two columns."""
    columns = columns or ["owner_id", "region"]
    targets = {"owner_id": "owner.id", "region": "owner.region"}
    return pair(
        Column("region", Integer),
        ForeignKeyConstraint(
            columns, [targets[name] for name in columns], name="item_owner", **options
        ),
        owner=(UniqueConstraint("id", "region"), UniqueConstraint("region", "id")),
    )


def choice(target: str) -> MetaData:
    """Return items that refer to one of two tables."""
    metadata = pair(ForeignKeyConstraint(["owner_id"], [f"{target}.id"], name="item_owner"))
    Table("person", metadata, number())
    return metadata


ORPHANS = """
INSERT INTO owner (code, region) VALUES ('a', 1), ('b', 2), ('c', 3);
INSERT INTO item (title, owner_id) VALUES ('a', 1), ('b', 2), ('c', 99);
"""

CASES: list[Case] = [
    change("fk-added", pair, key),
    change("fk-dropped", key, pair),
    change("fk-unnamed-added", pair, lambda: key(None)),
    change("fk-unnamed-dropped", lambda: key(None), pair),
    change("fk-ondelete-added", key, lambda: key(ondelete="CASCADE")),
    change(
        "fk-ondelete-changed", lambda: key(ondelete="CASCADE"), lambda: key(ondelete="SET NULL")
    ),
    change("fk-ondelete-removed", lambda: key(ondelete="CASCADE"), key),
    change("fk-ondelete-restrict", key, lambda: key(ondelete="RESTRICT")),
    change("fk-ondelete-default", key, lambda: key(ondelete="SET DEFAULT")),
    change("fk-ondelete-unnamed", lambda: key(None), lambda: key(None, ondelete="CASCADE")),
    change("fk-onupdate-added", key, lambda: key(onupdate="CASCADE")),
    change(
        "fk-onupdate-changed", lambda: key(onupdate="CASCADE"), lambda: key(onupdate="SET NULL")
    ),
    change("fk-match-full", wide, lambda: wide(match="FULL")),
    change("fk-match-simple", lambda: wide(match="FULL"), wide),
    change("fk-deferrable", key, lambda: key(deferrable=True)),
    change(
        "fk-deferred",
        lambda: key(deferrable=True),
        lambda: key(deferrable=True, initially="DEFERRED"),
    ),
    change("fk-not-deferrable", lambda: key(deferrable=True, initially="DEFERRED"), key),
    change(
        "fk-set-null-of-one-column",
        lambda: wide(ondelete="SET NULL"),
        lambda: wide(ondelete="SET NULL (owner_id)"),
    ),
    change(
        "fk-set-null-of-another-column",
        lambda: wide(ondelete="SET NULL (owner_id)"),
        lambda: wide(ondelete="SET NULL (region)"),
    ),
    change("fk-target-table", lambda: choice("owner"), lambda: choice("person")),
    change(
        "fk-target-column",
        lambda: pair(ForeignKeyConstraint(["owner_id"], ["owner.id"], name="item_owner")),
        lambda: pair(
            ForeignKeyConstraint(["owner_id"], ["owner.number"], name="item_owner"),
            owner=(Column("number", Integer, unique=True),),
        ),
        seed="INSERT INTO owner (code, region) VALUES ('a', 1), ('b', 2), ('c', 3);"
        "INSERT INTO item (title) VALUES ('a'), ('b'), ('c');",
    ),
    change(
        "fk-columns",
        wide,
        lambda: pair(
            Column("region", Integer),
            ForeignKeyConstraint(["owner_id"], ["owner.id"], name="item_owner"),
            owner=(UniqueConstraint("id", "region"), UniqueConstraint("region", "id")),
        ),
    ),
    change("fk-order", wide, lambda: wide(["region", "owner_id"])),
    change("fk-name", key, lambda: key("item_of_owner")),
    change("fk-gets-name", lambda: key(None), key),
    change("fk-comment", key, lambda: key(comment="who has it")),
    change("fk-use-alter-and-cascade", key, lambda: key(use_alter=True, ondelete="CASCADE")),
    change(
        "fk-with-its-column-added",
        item,
        lambda: item(Column("up", ForeignKey("item.id", ondelete="SET NULL"), index=True)),
    ),
    change(
        "fk-with-its-column-dropped",
        lambda: item(Column("up", ForeignKey("item.id", ondelete="SET NULL"), index=True)),
        item,
    ),
    control("fk-unnamed-rebuilt", lambda: key(None)),
    control(
        "fk-spelling",
        lambda: item(Column("up", ForeignKey("item.id"))),
        lambda: item(Column("up", Integer), ForeignKeyConstraint(["up"], ["item.id"])),
    ),
    control("fk-no-action", key, lambda: key(ondelete="NO ACTION", onupdate="NO ACTION")),
    control("fk-immediate", key, lambda: key(deferrable=False, initially="IMMEDIATE")),
    control("fk-match-written-out", wide, lambda: wide(match="SIMPLE")),
    control("fk-use-alter", key, lambda: key(use_alter=True)),
    control(
        "fk-lower-case-options", lambda: key(ondelete="CASCADE"), lambda: key(ondelete="cascade")
    ),
    control("fk-generated-name-written-out", lambda: key(None), lambda: key("item_owner_id_fkey")),
    control("fk-options-rebuilt", lambda: wide(ondelete="SET NULL (owner_id)", match="SIMPLE")),
    decision("fk-over-orphans", pair, key, seed=ORPHANS),
]
