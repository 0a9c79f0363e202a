"""Indexes of every method, with every option."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index, Integer, MetaData, String, Text, column, func, text
from sqlalchemy.dialects.postgresql import INT4RANGE, JSONB, TSVECTOR

from tests.matrix.case import Case, change, control
from tests.matrix.models import item


def bare(*more: Any) -> MetaData:
    """Return items with a column for each method."""
    return item(
        Column("uri", Text),
        Column("rank", Integer),
        Column("span", INT4RANGE),
        Column("extra", JSONB),
        Column("words", TSVECTOR),
        *more,
    )


def by(*keys: Any, name: str | None = "item_by", **options: Any) -> MetaData:
    """Return such items with an index."""
    return bare(Index(name, *keys, **options))


def gin(**ops: str) -> MetaData:
    """Return such items with a GIN index on their JSON."""
    return by("extra", postgresql_using="gin", postgresql_ops=ops)


def _row(name: str, before: Any, after: Any, **more: Any) -> Case:
    return change(f"index-{name}", before, after, **more)


def _same(name: str, before: Any, after: Any = None, **more: Any) -> Case:
    return control(f"index-{name}", before, after, **more)


URI: Any = column("uri", Text)
RANK: Any = column("rank", Integer)

CASES: list[Case] = [
    _row("added", bare, lambda: by("uri")),
    _row("dropped", lambda: by("uri"), bare),
    _row("name", lambda: by("uri"), lambda: by("uri", name="item_uri")),
    _row("columns", lambda: by("uri"), lambda: by("uri", "rank")),
    _row("order-of-columns", lambda: by("uri", "rank"), lambda: by("rank", "uri")),
    _row("made-unique", lambda: by("uri"), lambda: by("uri", unique=True)),
    _row("no-longer-unique", lambda: by("uri", unique=True), lambda: by("uri")),
    _row(
        "nulls-not-distinct",
        lambda: by("uri", unique=True),
        lambda: by("uri", unique=True, postgresql_nulls_not_distinct=True),
    ),
    _row("descending", lambda: by("rank"), lambda: by(RANK.desc())),
    _row("nulls-first", lambda: by(RANK), lambda: by(RANK.nulls_first())),
    _row("nulls-last", lambda: by(RANK.desc()), lambda: by(RANK.desc().nulls_last())),
    _row("method-hash", lambda: by("uri"), lambda: by("uri", postgresql_using="hash")),
    _row("method-brin", lambda: by("rank"), lambda: by("rank", postgresql_using="brin")),
    _row("method-btree-again", lambda: by("rank", postgresql_using="brin"), lambda: by("rank")),
    _row("method-gist", lambda: by("span"), lambda: by("span", postgresql_using="gist")),
    _row("gin-added", bare, gin),
    _row("gin-dropped", gin, bare),
    _row("gin-operator-class", gin, lambda: gin(extra="jsonb_path_ops")),
    _row("gin-operator-class-removed", lambda: gin(extra="jsonb_path_ops"), gin),
    _row("words-added", bare, lambda: by("words", postgresql_using="gin")),
    _row(
        "spgist",
        lambda: by("span", postgresql_using="gist"),
        lambda: by("span", postgresql_using="spgist"),
    ),
    _row(
        "operator-class",
        lambda: by("uri"),
        lambda: by("uri", postgresql_ops={"uri": "text_pattern_ops"}),
    ),
    _row(
        "operator-class-of-the-other-column",
        lambda: by("uri", "title", postgresql_ops={"uri": "text_pattern_ops"}),
        lambda: by("uri", "title", postgresql_ops={"title": "varchar_pattern_ops"}),
    ),
    _row(
        "trigrams",
        lambda: by("uri"),
        lambda: by("uri", postgresql_using="gin", postgresql_ops={"uri": "gin_trgm_ops"}),
        needs="pg_trgm",
    ),
    _row(
        "trigram-options",
        lambda: by("uri", postgresql_using="gist", postgresql_ops={"uri": "gist_trgm_ops"}),
        lambda: by(text("uri gist_trgm_ops (siglen='64')"), postgresql_using="gist"),
        needs="pg_trgm",
    ),
    _row("collation", lambda: by("uri"), lambda: by(URI.collate("C"))),
    _row("collation-changed", lambda: by(URI.collate("C")), lambda: by(URI.collate("POSIX"))),
    _row("with-added", lambda: by("uri"), lambda: by("uri", postgresql_with={"fillfactor": 70})),
    _row(
        "with-changed",
        lambda: by("uri", postgresql_with={"fillfactor": 70}),
        lambda: by("uri", postgresql_with={"fillfactor": 90}),
    ),
    _row("with-removed", lambda: by("uri", postgresql_with={"fillfactor": 70}), lambda: by("uri")),
    _row(
        "gin-with",
        gin,
        lambda: by("extra", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
    ),
    _row(
        "brin-with",
        lambda: by("rank", postgresql_using="brin"),
        lambda: by("rank", postgresql_using="brin", postgresql_with={"pages_per_range": 32}),
    ),
    _row("where-added", lambda: by("uri"), lambda: by("uri", postgresql_where=text("rank > 0"))),
    _row(
        "where-changed",
        lambda: by("uri", postgresql_where=text("rank > 0")),
        lambda: by("uri", postgresql_where=text("rank > 1")),
    ),
    _row("where-removed", lambda: by("uri", postgresql_where=text("rank > 0")), lambda: by("uri")),
    _row("include-added", lambda: by("uri"), lambda: by("uri", postgresql_include=["rank"])),
    _row(
        "include-changed",
        lambda: by("uri", postgresql_include=["rank"]),
        lambda: by("uri", postgresql_include=["rank", "title"]),
    ),
    _row("include-removed", lambda: by("uri", postgresql_include=["rank"]), lambda: by("uri")),
    _row("expression", lambda: by(func.lower(URI)), lambda: by(func.upper(URI))),
    _row("column-to-expression", lambda: by("uri"), lambda: by(func.lower(URI))),
    _row("expression-added", bare, lambda: by(func.lower(URI), "rank")),
    _row("expression-dropped", lambda: by(func.lower(URI), "rank"), bare),
    _row(
        "expression-text",
        lambda: by(text("(extra ->> 'a')")),
        lambda: by(text("(extra ->> 'b')")),
    ),
    _row(
        "expression-cast",
        lambda: by(text("((extra ->> 'a')::integer)")),
        lambda: by(text("((extra ->> 'a')::bigint)")),
        seed="INSERT INTO item (title) VALUES ('a'), ('b'), ('c')",
    ),
    _row(
        "expression-language",
        lambda: by(text("to_tsvector('english', title)"), postgresql_using="gin"),
        lambda: by(text("to_tsvector('simple', title)"), postgresql_using="gin"),
    ),
    _row(
        "expression-operator-class",
        lambda: by(func.lower(URI).label("low")),
        lambda: by(func.lower(URI).label("low"), postgresql_ops={"low": "text_pattern_ops"}),
    ),
    _row(
        "unique-expression", lambda: by(func.lower(URI)), lambda: by(func.lower(URI), unique=True)
    ),
    _row(
        "everything",
        lambda: by("uri"),
        lambda: by(
            func.lower(URI).label("low"),
            RANK.desc().nulls_last(),
            unique=True,
            postgresql_ops={"low": "text_pattern_ops"},
            postgresql_where=text("title <> '50% :off'"),
            postgresql_include=["title"],
            postgresql_with={"fillfactor": 80},
            postgresql_nulls_not_distinct=True,
        ),
    ),
    _same("function-or-text", lambda: by(func.lower(URI)), lambda: by(text("lower(uri)"))),
    _same(
        "language-cast",
        lambda: by(text("to_tsvector('english', title)"), postgresql_using="gin"),
        lambda: by(text("to_tsvector('english'::regconfig, title::text)"), postgresql_using="gin"),
    ),
    _same("method-written-out", lambda: by("uri"), lambda: by("uri", postgresql_using="btree")),
    _same("ascending-written-out", lambda: by(RANK), lambda: by(RANK.asc().nulls_last())),
    _same(
        "operator-class-written-out",
        lambda: by("uri"),
        lambda: by("uri", postgresql_ops={"uri": "text_ops"}),
    ),
    _same(
        "where-spelling",
        lambda: by("uri", postgresql_where=text("rank > 0 AND title = 'x'")),
        lambda: by("uri", postgresql_where=(RANK > 0) & (column("title", String) == "x")),
    ),
    _same(
        "with-spelling",
        lambda: by("uri", postgresql_with={"fillfactor": 70}),
        lambda: by("uri", postgresql_with={"fillfactor": "70"}),
    ),
    _same(
        "declaration-order",
        lambda: bare(Index("item_a", "uri"), Index("item_b", "rank")),
        lambda: bare(Index("item_b", "rank"), Index("item_a", "uri")),
    ),
    _same("info", lambda: by("uri"), lambda: by("uri", info={"why": "searched"})),
    _same("text-with-operator-class", lambda: by(text("uri text_pattern_ops"))),
    _same(
        "text-spelling",
        lambda: by(text("uri text_pattern_ops DESC")),
        lambda: by(text("uri   text_pattern_ops desc nulls first")),
    ),
    _same(
        "json-path", lambda: by(text("(extra ->> 'a')")), lambda: by(text("((extra->>'a'::text))"))
    ),
    _same(
        "of-a-column",
        lambda: item(Column("code", Text, index=True)),
        lambda: item(Column("code", Text), Index("ix_item_code", "code")),
    ),
    _same("collation-of-the-column", lambda: by("uri"), lambda: by(URI.collate("default"))),
]
