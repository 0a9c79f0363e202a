"""Many changes at once, whose order matters; and schemas as applications have them."""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    cast,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR

from ragstore.types import function, hnsw
from tests.matrix.case import Case, change, control, decision
from tests.matrix.models import item, number


def library(*, grown: bool = False) -> MetaData:
    """Return authors, books and loans; ``grown`` is a year later."""
    metadata = MetaData()
    Table(
        "author",
        metadata,
        number(),
        Column("name", Text, nullable=False, server_default="nobody"),
        *([Column("born", Integer)] if grown else [Column("age", Integer)]),
        CheckConstraint("born > 0" if grown else "age > 0", name="author_years"),
    )
    Table(
        "book",
        metadata,
        Column("id", BigInteger if grown else Integer, primary_key=True),
        Column("author_id", ForeignKey("author.id", ondelete="CASCADE" if grown else None)),
        Column("title", Text if grown else String(100), nullable=False, index=grown),
        Column("state", Enum("new", "old", *(["lost"] if grown else []), name="book_state")),
    )
    _loans(metadata, grown)
    return metadata


def _loans(metadata: MetaData, grown: bool) -> None:
    if grown:
        Table("reader", metadata, number(), Column("name", Text, unique=True))
    Table(
        "loan",
        metadata,
        Column("book_id", BigInteger if grown else Integer, ForeignKey("book.id")),
        Column("reader_id", *([ForeignKey("reader.id")] if grown else [Integer])),
        Column("day", DateTime, server_default=func.now()),
        *([UniqueConstraint("book_id", "day", name="loan_once")] if grown else []),
    )


def rag(*, dimensions: int = 3, later: bool = False) -> MetaData:
    """Return what a retrieval-augmented application keeps; ``later`` is the next release."""
    metadata = MetaData()
    Table(
        "source",
        metadata,
        Column("id", BigInteger, Identity(), primary_key=True),
        Column("uri", Text, nullable=False, unique=True),
        Column("meta", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
        Column(
            "state",
            Enum("new", "ready", *(["failed"] if later else []), name="source_state"),
            nullable=False,
            server_default="new",
        ),
        Column("seen_at", DateTime(timezone=True), server_default=func.now()),
        Index(
            "source_meta",
            "meta",
            postgresql_using="gin",
            postgresql_ops={"meta": "jsonb_path_ops"} if later else {},
        ),
    )
    passage = _passages(metadata, dimensions, later)
    hnsw("passage_near", passage.c.embedding, dimensions=dimensions, m=8 if later else 16)
    return metadata


def _passages(metadata: MetaData, dimensions: int, later: bool) -> Table:
    words = "to_tsvector('english', body || ' ' || coalesce(title, ''))"
    passage = Table(
        "passage",
        metadata,
        Column("source_id", ForeignKey("source.id", ondelete="CASCADE"), primary_key=True),
        Column("position", Integer, primary_key=True, autoincrement=False),
        Column("title", Text),
        Column("body", Text, nullable=False),
        Column("embedding", VECTOR(dimensions)),
        Column(
            "words",
            TSVECTOR,
            Computed(words if later else "to_tsvector('english', body)", persisted=True),
        ),
        CheckConstraint("octet_length(body) <= 100000", name="passage_size"),
        Index("passage_words", "words", postgresql_using="gin"),
        Index(
            "passage_title", func.lower(Column("title", Text)), postgresql_where=text("title <> ''")
        ),
    )
    if later:
        passage.append_column(Column("tokens", Integer, nullable=False, server_default="0"))
        passage.append_constraint(CheckConstraint("tokens >= 0", name="passage_tokens"))
    return passage


def memory(kind: Any, ops: str, *, body: str = "SELECT left(word, 9)") -> MetaData:
    """Return an agent's memories: a function, a generated column over it, vectors, a cycle."""
    metadata = MetaData()
    thread = Table("thread", metadata, number(), Column("last_id", Integer))
    Table(
        "memory",
        metadata,
        number(),
        Column("thread_id", ForeignKey("thread.id", ondelete="CASCADE"), index=True),
        Column("body", Text, nullable=False, server_default=""),
        Column("brief", Text, Computed("brief_of(body)", persisted=True)),
        Column("embedding", kind),
        Index(
            "memory_near", "embedding", postgresql_using="hnsw", postgresql_ops={"embedding": ops}
        ),
    )
    function(thread, "brief_of", [("word", "text")], "text", body)
    thread.append_constraint(
        ForeignKeyConstraint(["last_id"], ["memory.id"], name="thread_last", use_alter=True)
    )
    return metadata


def parts(*names: str, **changed: Any) -> MetaData:
    """Return as many tables, each with an index, a check and a key to the one before."""
    metadata, last = MetaData(), None
    for name in names:
        Table(
            name,
            metadata,
            number(),
            Column("code", changed.get(name, String(10)), index=True),
            Column("last_id", Integer, *([ForeignKey(f"{last}.id")] if last else [])),
            CheckConstraint("id > 0", name=f"{name}_positive"),
        )
        last = name
    return metadata


def swap(first: str, second: str) -> MetaData:
    """Return items whose two index names and two check names may change places."""
    return item(
        Column("a", Integer),
        Column("b", Integer),
        Index(first, "a"),
        Index(second, "b"),
        CheckConstraint("a > 0", name=f"{first}_positive"),
        CheckConstraint("b > 0", name=f"{second}_positive"),
    )


def shrunk(size: int) -> MetaData:
    """Return items with loose vectors, and an index for each of two sizes."""
    metadata = item(Column("embedding", VECTOR()), Column("model", Integer))
    table = metadata.tables["item"]
    for model, dimensions in ((1, 3), (2, size)):
        key = cast(table.c.embedding, HALFVEC(dimensions)).label("e")
        Index(
            f"item_near_{model}",
            key,
            postgresql_using="hnsw",
            postgresql_ops={"e": "halfvec_cosine_ops"},
            postgresql_where=table.c.model == model,
        )
    return metadata


def _with_items(metadata: MetaData) -> MetaData:
    for table in item().tables.values():
        table.to_metadata(metadata)
    return metadata


LENT = (
    "INSERT INTO author (name, age) VALUES ('a', 1), ('b', 2), ('c', 3);"
    "INSERT INTO book (author_id, title, state) VALUES (1, 'a', 'new'), (2, 'b', 'old');"
    "INSERT INTO loan (book_id, day) VALUES (1, '2024-01-01'), (2, '2024-01-01'), (1, NULL);"
)
"""Books lent to nobody: there is no table of readers that they could be in."""

NAMES = [f"part_{number:02}" for number in range(12)]

CASES: list[Case] = [
    change("many-a-year-of-a-library", library, lambda: library(grown=True), seed=LENT),
    decision("many-a-library-whose-readers-are-unknown", library, lambda: library(grown=True)),
    decision("many-a-library-grows-backwards", lambda: library(grown=True), library),
    change("many-tables-added", lambda: parts(*NAMES[:2]), lambda: parts(*NAMES)),
    change("many-tables-dropped", lambda: parts(*NAMES), lambda: parts(*NAMES[:2])),
    change("many-tables-turned-round", lambda: parts(*NAMES), lambda: parts(*reversed(NAMES))),
    change(
        "many-types",
        lambda: parts(*NAMES),
        lambda: parts(*NAMES, **dict.fromkeys(NAMES[::2], Text)),
    ),
    change(
        "many-names-change-places",
        lambda: swap("item_x", "item_y"),
        lambda: swap("item_y", "item_x"),
    ),
    change("rag-made", item, lambda: _with_items(rag()), needs="vector", bare=True),
    change("rag-next-release", rag, lambda: rag(later=True), needs="vector"),
    decision("rag-release-before", lambda: rag(later=True), rag, needs="vector"),
    change(
        "rag-memory-to-halfvec",
        lambda: memory(VECTOR(3), "vector_cosine_ops"),
        lambda: memory(HALFVEC(3), "halfvec_cosine_ops", body="SELECT left(word, 20)"),
        needs="vector",
    ),
    change(
        "rag-index-of-another-model",
        lambda: shrunk(4),
        lambda: shrunk(5),
        needs="vector",
        seed="INSERT INTO item (title, embedding, model) VALUES ('a', '[1,2,3]', 1),"
        " ('b', '[1,2,4]', 1), ('c', '[3,2,1]', 1)",
    ),
    change("rag-as-owner", rag, lambda: rag(later=True), needs="vector", as_owner=True),
    change("library-as-owner", library, lambda: library(grown=True), seed=LENT, as_owner=True),
    control("library-rebuilt", library),
    control("library-as-owner-rebuilt", lambda: library(grown=True), as_owner=True),
    control("rag-rebuilt", rag, needs="vector"),
    control("rag-later-rebuilt", lambda: rag(later=True), needs="vector"),
    control("rag-as-owner-rebuilt", rag, needs="vector", as_owner=True),
    control("rag-memory-rebuilt", lambda: memory(VECTOR(3), "vector_l2_ops"), needs="vector"),
    control(
        "rag-sizes-rebuilt",
        lambda: shrunk(4),
        needs="vector",
        seed="INSERT INTO item (title, embedding, model) VALUES ('a', '[1,2,3]', 1),"
        " ('b', '[1,2,3,4]', 2), ('c', '[3,2,1]', 1)",
    ),
    decision("rag-another-embedding-model", rag, lambda: rag(dimensions=4), needs="vector"),
    decision(
        "rag-memory-of-other-dimensions",
        lambda: memory(VECTOR(3), "vector_cosine_ops"),
        lambda: memory(VECTOR(4), "vector_cosine_ops"),
        needs="vector",
    ),
]
