"""Check and exclusion constraints."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Enum,
    Integer,
    MetaData,
    String,
    and_,
    column,
    func,
    or_,
    text,
)
from sqlalchemy.dialects.postgresql import DATERANGE, ExcludeConstraint

from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item


def bare(*more: Any) -> MetaData:
    """Return items with a rank and a state."""
    return item(Column("rank", Integer), Column("state", String(20)), *more)


def checked(expression: Any, name: str | None = "item_rank", **options: Any) -> MetaData:
    """Return such items with a check."""
    return bare(CheckConstraint(expression, name=name, **options))


def booked(*more: Any) -> MetaData:
    """Return bookings of rooms."""
    return item(Column("room", Integer), Column("days", DATERANGE), *more)


def excluded(*pairs: tuple[Any, str], name: str | None = "item_days", **options: Any) -> MetaData:
    """Return bookings that may not overlap."""
    pairs = pairs or ((column("days"), "&&"),)
    return booked(ExcludeConstraint(*pairs, name=name, **options))


BOTH: Any = ((column("room"), "="), (column("days"), "&&"))
NEGATIVE = "INSERT INTO item (title, rank) VALUES ('a', -1), ('b', 1), ('c', 2);"
OVERLAP = """
INSERT INTO item (title, room, days) VALUES ('a', 1, '[2024-01-01,2024-01-05)'),
  ('b', 1, '[2024-01-03,2024-01-09)'), ('c', 2, '[2024-02-01,2024-02-05)');
"""

CASES: list[Case] = [
    change("check-added", bare, lambda: checked("rank > 0")),
    change("check-dropped", lambda: checked("rank > 0"), bare),
    change("check-expression", lambda: checked("rank > 0"), lambda: checked("rank >= 0")),
    change("check-number", lambda: checked("rank < 10"), lambda: checked("rank < 100")),
    change(
        "check-list",
        lambda: checked("state IN ('value 1', 'value 2', 'value 3')"),
        lambda: checked("state IN ('value 1', 'value 2', 'value 3', 'done')"),
    ),
    change(
        "check-case-of-a-string",
        lambda: checked("state <> 'Draft'"),
        lambda: checked("state <> 'draft'"),
    ),
    change("check-unnamed-added", bare, lambda: checked("rank > 0", None)),
    change("check-unnamed-dropped", lambda: checked("rank > 0", None), bare),
    change(
        "check-unnamed-expression",
        lambda: checked("rank > 0", None),
        lambda: checked("rank > -1", None),
    ),
    change("check-name", lambda: checked("rank > 0"), lambda: checked("rank > 0", "item_ranked")),
    change(
        "check-second-condition",
        lambda: checked("rank > 0"),
        lambda: checked("rank > 0 AND rank < 1000"),
    ),
    change(
        "check-with-percent-and-colon",
        bare,
        lambda: checked("title NOT LIKE 'x%' AND title <> 'a:b' AND title::text ~ '^[^%]+$'"),
    ),
    change("check-comment", lambda: checked("rank > 0"), lambda: checked("rank > 0", comment="up")),
    change(
        "check-of-a-column-added-with-it",
        item,
        lambda: item(Column("rank", Integer, CheckConstraint("rank > 0", name="item_rank"))),
    ),
    change(
        "check-of-a-list-type",
        lambda: item(Column("state", String(9))),
        lambda: item(
            Column(
                "state",
                Enum(
                    "value 1",
                    "value 2",
                    "value 3",
                    native_enum=False,
                    length=9,
                    create_constraint=True,
                    name="item_state",
                ),
            )
        ),
    ),
    change("exclusion-added", booked, excluded),
    change("exclusion-dropped", excluded, booked),
    change("exclusion-columns", excluded, lambda: excluded(*BOTH), needs="btree_gist"),
    change(
        "exclusion-where",
        excluded,
        lambda: excluded(where=text("title <> 'free'")),
    ),
    change(
        "exclusion-where-changed",
        lambda: excluded(where=text("title <> 'free'")),
        lambda: excluded(where=text("title <> 'open'")),
    ),
    change(
        "exclusion-operator",
        lambda: excluded(*BOTH),
        lambda: excluded((column("room"), "="), (column("days"), "-|-")),
        needs="btree_gist",
    ),
    change(
        "exclusion-method",
        lambda: excluded((column("room"), "="), using="gist"),
        lambda: excluded((column("room"), "="), using="btree"),
        needs="btree_gist",
    ),
    change(
        "exclusion-deferrable",
        excluded,
        lambda: excluded(deferrable=True, initially="DEFERRED"),
    ),
    change(
        "exclusion-expression",
        lambda: excluded((text("(room + 1)"), "="), using="btree"),
        lambda: excluded((text("(room + 2)"), "="), using="btree"),
    ),
    change("exclusion-name", excluded, lambda: excluded(name="item_no_overlap")),
    control("check-whitespace", lambda: checked("rank > 0"), lambda: checked("( rank  >  0 )")),
    control(
        "check-in-or-any",
        lambda: checked("state IN ('value 1', 'value 2', 'value 3')"),
        lambda: checked(
            "state::text = ANY (ARRAY['value 1'::character varying, 'value 2'::character varying,"
            " 'value 3'::character varying]::text[])"
        ),
    ),
    control(
        "check-text-or-expression",
        lambda: checked("rank > 0 AND rank < 100"),
        lambda: checked(and_(column("rank", Integer) > 0, column("rank", Integer) < 100)),
    ),
    control(
        "check-not-equal-spelling",
        lambda: checked("title != 'x'"),
        lambda: checked(column("title", String) != "x"),
    ),
    control(
        "check-between",
        lambda: checked("rank BETWEEN 1 AND 9"),
        lambda: checked("rank >= 1 AND rank <= 9"),
    ),
    control(
        "check-function-case",
        lambda: checked("LENGTH(title) > 0"),
        lambda: checked(func.length(column("title")) > 0),
    ),
    control(
        "check-cast-spelling",
        lambda: checked("rank::text <> ''"),
        lambda: checked("CAST(rank AS text) <> ''"),
    ),
    control(
        "check-not-valid-in-a-new-table",
        lambda: checked("rank > 0", postgresql_not_valid=True),
        lambda: checked("rank > 0"),
    ),
    control("check-unnamed-rebuilt", lambda: checked("rank > 0", None)),
    control(
        "check-unnamed-twice",
        lambda: bare(CheckConstraint("rank > 0"), CheckConstraint("rank < 9")),
        lambda: bare(CheckConstraint("rank > 0"), CheckConstraint("rank < 9")),
    ),
    control(
        "check-generated-name-written-out",
        lambda: checked("rank > 0", None),
        lambda: checked("rank > 0", "item_rank_check"),
    ),
    control(
        "check-like-spelling",
        lambda: checked("title LIKE 'v%'"),
        lambda: checked(column("title", String).like("v%")),
    ),
    control(
        "check-boolean-brackets",
        lambda: checked("rank > 0 OR rank IS NULL AND title <> ''"),
        lambda: checked(
            or_(
                column("rank", Integer) > 0,
                and_(column("rank", Integer).is_(None), column("title", String) != ""),
            )
        ),
    ),
    control(
        "exclusion-rebuilt",
        lambda: excluded(*BOTH, where=text("title <> 'free'"), deferrable=True),
        needs="btree_gist",
    ),
    decision("check-over-rows-that-fail-it", bare, lambda: checked("rank > 0"), seed=NEGATIVE),
    decision("exclusion-over-overlap", booked, excluded, seed=OVERLAP),
    decision(
        "check-narrowed-over-rows-that-fail-it",
        lambda: checked("rank > -10"),
        lambda: checked("rank > 0"),
        seed=NEGATIVE,
    ),
]
