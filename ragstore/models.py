"""The tables: import them and use them like any SQLModel class.

A *collection* is a corpus; it holds *documents*, a document holds *chunks* of text, and a chunk
has an *embedding* in each *embedding space* it was embedded for::

    EmbeddingSpace <-- Collection <-> Document <-> Chunk <-> Embedding --> EmbeddingSpace

Each table class has a base of the same fields without a table (``DocumentBase``), to build API
schemas from. The classes live in ``SQLModel.metadata``, so that a table of yours can refer to
``ragstore_collection.id``, but in a registry of their own, so that a class of yours may be called
``Document`` too. Whatever stands in a Python attribute ``meta`` is in a column ``metadata``:
SQLAlchemy keeps the name ``metadata`` for itself.
"""

# No `from __future__ import annotations`: SQLModel and pydantic evaluate the annotations.

from datetime import datetime, timezone
from typing import Any, ClassVar, Optional

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    Connection,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    event,
    func,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.ext.orderinglist import ordering_list
from sqlalchemy.orm import Mapper, deferred, registry
from sqlalchemy.sql.elements import conv
from sqlmodel import Field, Relationship, SQLModel

from ragstore.types import (
    INDEX_TYPES,
    METRICS,
    IndexType,
    Metric,
    UtcDateTime,
    Vector,
    function,
    verbatim,
)

MAX_TEXT_BYTES = 262_144
"""The longest text of a chunk, in bytes of UTF-8.

The worst of 17 kinds of hostile text overflows a tsvector, which ends at 1 MiB, at 329 KB.
"""

MAX_KEY_BYTES = 1_024
"""The longest key or title of a document, in bytes: a btree entry must fit a third of a page."""

MAX_NAME_BYTES = 255
"""The longest name of a collection, a space or a model, in bytes."""

DEFAULT_LANGUAGE = "english"
"""The text search configuration of a collection that names none."""

DEFAULT_EXACT_LIMIT = 4_000
"""How many vectors of a collection are compared one by one, in a space that names no limit.

An index of the collection's own is faster from 3,000 on at 384 dimensions (2.3 times at 5,000, 7 at
10,000), and dearer to write to.
"""


class RagstoreModel(SQLModel, registry=registry(metadata=SQLModel.metadata)):
    """Base of the table classes: SQLModel's MetaData, but class names of our own."""

    # A hash is no UTF-8, which JSON would be written with otherwise.
    model_config = {**SQLModel.model_config, "ser_json_bytes": "hex"}

    def __setattr__(self, name: str, value: Any) -> None:
        # SQLModel would put the plain dict back over SQLAlchemy's, which sees in-place changes.
        super().__setattr__(name, MutableDict.coerce(name, value) if name == "meta" else value)


def _json() -> Any:
    return Field(
        default_factory=dict,
        sa_type=MutableDict.as_mutable(JSONB()),
        sa_column_kwargs={
            "name": "metadata",
            "nullable": False,
            "server_default": text("'{}'::jsonb"),
        },
    )


def _identity() -> Any:
    # Both are needed in a composite key: without Identity there is none, and without
    # autoincrement the ORM inserts row by row.
    return Field(
        default=None,
        primary_key=True,
        sa_type=BigInteger,
        sa_column_args=[Identity(always=False)],
        sa_column_kwargs={"autoincrement": True},
    )


def _timestamp(**options: Any) -> Any:
    return Field(
        default=None,
        sa_type=UtcDateTime,
        nullable=False,
        sa_column_kwargs={"server_default": func.now(), **options},
    )


def _bytes(column: str, most: int, *, name: str, least: int = 1) -> CheckConstraint:
    return CheckConstraint(
        f"octet_length({column}) BETWEEN {least} AND {most}"
        if least
        else f"octet_length({column}) <= {most}",
        name=conv(name),
    )


def _is_object(table: str) -> CheckConstraint:
    return CheckConstraint(
        "jsonb_typeof(metadata) = 'object'", name=conv(f"{table}_metadata_check")
    )


# The keys stand in classes of their own so that they come first in the tables: behind a text
# column, Postgres would have to measure the text of every row to find them.


def _key() -> Any:
    return Field(default=None, primary_key=True, sa_type=BigInteger)


class _SpaceKey(SQLModel):
    id: Optional[int] = _identity()


class _CollectionKey(SQLModel):
    id: Optional[int] = _identity()
    space_id: Optional[int] = Field(default=None, sa_type=BigInteger)
    next_space_id: Optional[int] = Field(default=None, sa_type=BigInteger)


class _DocumentKey(SQLModel):
    collection_id: Optional[int] = _key()
    id: Optional[int] = _identity()


class _ChunkKey(SQLModel):
    collection_id: Optional[int] = _key()
    id: Optional[int] = _identity()
    document_id: Optional[int] = Field(default=None, sa_type=BigInteger, nullable=False)
    ordinal: Optional[int] = Field(default=None, nullable=False)


class _EmbeddingKey(SQLModel):
    collection_id: Optional[int] = _key()
    chunk_id: Optional[int] = _key()
    space_id: Optional[int] = _key()


# A column that a later migration adds stands last in the table, hence three classes in a row: the
# reversed order of their resolution in EmbeddingSpace is the order of its columns.


class _SpaceModel(SQLModel):
    name: str = Field(min_length=1, max_length=MAX_NAME_BYTES, sa_type=Text)
    model: str = Field(min_length=1, max_length=MAX_NAME_BYTES, sa_type=Text)
    dimensions: int = Field(ge=1, le=16_000)
    metric: Metric = Field(
        default="cosine", sa_type=Text, sa_column_kwargs={"server_default": text("'cosine'")}
    )


class _SpaceCreated(_SpaceModel):
    created_at: Optional[datetime] = _timestamp()


class _SpaceIndex(SQLModel):
    index_type: IndexType = Field(
        default="halfvec", sa_type=Text, sa_column_kwargs={"server_default": text("'halfvec'")}
    )
    exact_limit: int = Field(
        default=DEFAULT_EXACT_LIMIT,
        ge=0,
        sa_column_kwargs={"server_default": text(str(DEFAULT_EXACT_LIMIT))},
    )


class EmbeddingSpaceBase(_SpaceIndex, _SpaceModel):
    """The fields of an embedding space that its maker chooses."""


class EmbeddingSpace(EmbeddingSpaceBase, _SpaceCreated, _SpaceKey, RagstoreModel, table=True):
    """A vector space: one embedding model at one dimension. Another model is another row.

    A row alone cannot hold vectors: ``Store.create_space`` also makes its partition.

    - ``id``: the number of its partition, ``ragstore_embedding_<id>``
    - ``name``: unique, how collections and searches call it
    - ``model``: the embedding model, for people
    - ``dimensions``: the length of every vector in it, 1 to 16,000
    - ``metric``: ``cosine``, ``l2``, ``inner_product`` or ``l1``
    - ``index_type``: ``halfvec``, ``vector``, ``binary``, ``ivfflat`` or ``none``; see
      ``ragstore.ann``
    - ``exact_limit``: a collection of up to so many vectors is searched without an index
    - ``created_at``: when the row was made
    """

    __tablename__: ClassVar[str] = "ragstore_embedding_space"
    __table_args__ = (
        PrimaryKeyConstraint("id", name=conv("ragstore_embedding_space_pkey")),
        UniqueConstraint("name", name=conv("ragstore_embedding_space_name_key")),
        _bytes("name", MAX_NAME_BYTES, name="ragstore_embedding_space_name_check"),
        _bytes("model", MAX_NAME_BYTES, name="ragstore_embedding_space_model_check"),
        CheckConstraint(
            "dimensions BETWEEN 1 AND 16000", name=conv("ragstore_embedding_space_dimensions_check")
        ),
        CheckConstraint(
            f"metric IN ({', '.join(repr(metric) for metric in METRICS)})",
            name=conv("ragstore_embedding_space_metric_check"),
        ),
        CheckConstraint(
            f"index_type IN ({', '.join(repr(index) for index in INDEX_TYPES)})",
            name=conv("ragstore_embedding_space_index_type_check"),
        ),
        CheckConstraint(
            "exact_limit >= 0", name=conv("ragstore_embedding_space_exact_limit_check")
        ),
    )

    collections: list["Collection"] = Relationship(
        sa_relationship_kwargs={
            "viewonly": True,
            "primaryjoin": "EmbeddingSpace.id == foreign(Collection.space_id)",
        }
    )


class CollectionBase(SQLModel):
    """The fields of a collection that its maker chooses."""

    name: str = Field(min_length=1, max_length=MAX_NAME_BYTES, sa_type=Text)
    language: str = Field(
        default=DEFAULT_LANGUAGE,
        sa_type=Text,
        sa_column_kwargs={"server_default": text(f"'{DEFAULT_LANGUAGE}'")},
    )
    meta: dict[str, Any] = _json()


class Collection(CollectionBase, _CollectionKey, RagstoreModel, table=True):
    """A corpus: the unit of isolation, of search, and of switching the embedding model.

    - ``id``: what documents and a table of yours refer to
    - ``name``: unique
    - ``space_id``: the embedding space that searches use, or none yet
    - ``next_space_id``: the space being filled, while the model is switched
    - ``language``: the text search configuration of its chunks; one outside pg_catalog needs its
      schema (``public.medical``), or a restored dump cannot index
    - ``meta``: anything of yours, as JSON
    - ``created_at``: when the row was made
    """

    __tablename__: ClassVar[str] = "ragstore_collection"
    __table_args__ = (
        PrimaryKeyConstraint("id", name=conv("ragstore_collection_pkey")),
        UniqueConstraint("name", name=conv("ragstore_collection_name_key")),
        ForeignKeyConstraint(
            ["space_id"],
            ["ragstore_embedding_space.id"],
            name=conv("ragstore_collection_space_id_fkey"),
        ),
        ForeignKeyConstraint(
            ["next_space_id"],
            ["ragstore_embedding_space.id"],
            name=conv("ragstore_collection_next_space_id_fkey"),
        ),
        _bytes("name", MAX_NAME_BYTES, name="ragstore_collection_name_check"),
        _is_object("ragstore_collection"),
    )

    created_at: Optional[datetime] = _timestamp()

    space: Optional[EmbeddingSpace] = Relationship(
        sa_relationship_kwargs={"foreign_keys": "Collection.space_id"}
    )
    next_space: Optional[EmbeddingSpace] = Relationship(
        sa_relationship_kwargs={"foreign_keys": "Collection.next_space_id"}
    )
    documents: list["Document"] = Relationship(
        back_populates="collection", cascade_delete=True, passive_deletes=True
    )
    chunks: list["Chunk"] = Relationship(
        sa_relationship_kwargs={
            "viewonly": True,
            "primaryjoin": "Collection.id == foreign(Chunk.collection_id)",
            "order_by": "(Chunk.document_id, Chunk.ordinal)",
        }
    )


class DocumentBase(SQLModel):
    """The fields of a document that its writer chooses."""

    key: str = Field(min_length=1, max_length=MAX_KEY_BYTES, sa_type=Text)
    title: Optional[str] = Field(default=None, max_length=MAX_KEY_BYTES, sa_type=Text)
    meta: dict[str, Any] = _json()


class Document(DocumentBase, _DocumentKey, RagstoreModel, table=True):
    """One source text, named by a key of yours and cut into chunks.

    - ``collection_id``, ``id``: the key; a document never moves to another collection
    - ``key``: your own name for it (a path, a URI), unique in the collection
    - ``title``: shown with a hit
    - ``content_hash``: SHA-256 of what ``Store.ingest`` last stored, so that it recognises an
      unchanged document; none for one written otherwise
    - ``meta``: anything of yours, as JSON
    - ``created_at``, ``updated_at``: when the row was made, and last changed
    """

    __tablename__: ClassVar[str] = "ragstore_document"
    __table_args__ = (
        PrimaryKeyConstraint("collection_id", "id", name=conv("ragstore_document_pkey")),
        UniqueConstraint("collection_id", "key", name=conv("ragstore_document_key_key")),
        ForeignKeyConstraint(
            ["collection_id"],
            ["ragstore_collection.id"],
            name=conv("ragstore_document_collection_id_fkey"),
            ondelete="CASCADE",
        ),
        _bytes("key", MAX_KEY_BYTES, name="ragstore_document_key_check"),
        _bytes("title", MAX_KEY_BYTES, name="ragstore_document_title_check", least=0),
        _is_object("ragstore_document"),
    )

    content_hash: Optional[bytes] = Field(default=None, sa_type=LargeBinary)
    created_at: Optional[datetime] = _timestamp()
    updated_at: Optional[datetime] = _timestamp(onupdate=lambda: datetime.now(timezone.utc))

    collection: Optional[Collection] = Relationship(back_populates="documents")
    chunks: list["Chunk"] = Relationship(
        back_populates="document",
        cascade_delete=True,
        passive_deletes=True,
        sa_relationship_kwargs={
            # A chunk without an ordinal takes its place in the list.
            "collection_class": ordering_list("ordinal"),
            "order_by": "Chunk.ordinal",
        },
    )


# A column of the table, not a field of the model: no dump, INSERT or SELECT carries it.
_TSV = Column("tsv", TSVECTOR, Computed("ragstore_tsvector(language, text)", persisted=True))


class ChunkBase(SQLModel):
    """The fields of a chunk that its writer chooses."""

    text: str = Field(min_length=1, max_length=MAX_TEXT_BYTES, sa_type=Text)
    token_count: Optional[int] = Field(default=None)
    meta: dict[str, Any] = _json()


class Chunk(ChunkBase, _ChunkKey, RagstoreModel, table=True):
    """A passage of a document: what is embedded, indexed for text search, and found.

    - ``collection_id``, ``id``: the key
    - ``document_id``: the document it is cut from
    - ``ordinal``: its place in the document, from 0; given by its place in ``document.chunks``
      if you give none
    - ``text``: the passage
    - ``language``: the text search configuration of ``tsv``; the collection's if you give none
    - ``content_hash``: SHA-256 of what ``Store.ingest`` stored; none for one written otherwise
    - ``token_count``: for your own accounting
    - ``meta``: anything of yours, as JSON; ``Chunk.meta["lang"].astext == "en"`` filters by it
    - ``tsv``: the words of ``text``, made by the database; only in queries (``Chunk.tsv``),
      not a field of the model
    """

    __tablename__: ClassVar[str] = "ragstore_chunk"
    __mapper_args__: ClassVar[dict[str, Any]] = {
        "properties": {"tsv": deferred(_TSV)},
        "eager_defaults": False,  # or INSERT ... RETURNING would bring tsv back
    }
    __table_args__ = (
        PrimaryKeyConstraint("collection_id", "id", name=conv("ragstore_chunk_pkey")),
        # Deferred: the ORM renumbers and inserts before it deletes.
        UniqueConstraint(
            "collection_id",
            "document_id",
            "ordinal",
            name=conv("ragstore_chunk_ordinal_key"),
            deferrable=True,
            initially="DEFERRED",
        ),
        ForeignKeyConstraint(
            ["collection_id", "document_id"],
            ["ragstore_document.collection_id", "ragstore_document.id"],
            name=conv("ragstore_chunk_document_id_fkey"),
            ondelete="CASCADE",
        ),
        _bytes("text", MAX_TEXT_BYTES, name="ragstore_chunk_text_check"),
        _is_object("ragstore_chunk"),
        _TSV,
        Index(conv("ragstore_chunk_tsv_idx"), "tsv", postgresql_using="gin"),
        Index(
            conv("ragstore_chunk_metadata_idx"),
            "metadata",
            postgresql_using="gin",
            postgresql_ops={"metadata": "jsonb_path_ops"},
        ),
    )

    language: Optional[str] = Field(
        default=None,
        sa_type=Text,
        nullable=False,
        sa_column_kwargs={"server_default": text(f"'{DEFAULT_LANGUAGE}'")},
    )
    content_hash: Optional[bytes] = Field(default=None, sa_type=LargeBinary)

    document: Optional[Document] = Relationship(back_populates="chunks")
    collection: Optional[Collection] = Relationship(
        sa_relationship_kwargs={
            "viewonly": True,
            "primaryjoin": "Collection.id == foreign(Chunk.collection_id)",
        }
    )
    embeddings: list["Embedding"] = Relationship(
        back_populates="chunk", cascade_delete=True, passive_deletes=True
    )


class EmbeddingBase(SQLModel):
    """The field of an embedding that its writer chooses."""

    vector: list[float] = Field(sa_type=Vector, nullable=False)


class Embedding(EmbeddingBase, _EmbeddingKey, RagstoreModel, table=True):
    """A chunk's vector in one embedding space.

    The table is partitioned by space. **Name the space in every query** (``Embedding.space_id ==
    space.id``): it picks the partition, and the index is over its dimension.

    - ``collection_id``, ``chunk_id``, ``space_id``: the key
    - ``vector``: as many numbers as the space has dimensions
    """

    __tablename__: ClassVar[str] = "ragstore_embedding"
    __table_args__ = (
        PrimaryKeyConstraint(
            "collection_id", "chunk_id", "space_id", name=conv("ragstore_embedding_pkey")
        ),
        ForeignKeyConstraint(
            ["collection_id", "chunk_id"],
            ["ragstore_chunk.collection_id", "ragstore_chunk.id"],
            name=conv("ragstore_embedding_chunk_id_fkey"),
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["space_id"],
            ["ragstore_embedding_space.id"],
            name=conv("ragstore_embedding_space_id_fkey"),
        ),
        {"postgresql_partition_by": "LIST (space_id)"},
    )

    chunk: Optional[Chunk] = Relationship(back_populates="embeddings")
    space: Optional[EmbeddingSpace] = Relationship()


TABLES = tuple(
    SQLModel.metadata.tables[model.__tablename__]
    for model in (EmbeddingSpace, Collection, Document, Chunk, Embedding)
)
"""The tables of ragstore, each after those it refers to."""

SPACES, COLLECTIONS, DOCUMENTS, CHUNKS, EMBEDDINGS = TABLES

TSVECTOR_FUNCTION = function(
    CHUNKS,
    "ragstore_tsvector",
    [("language", "text"), ("body", "text")],
    "tsvector",
    # A regconfig column would block pg_upgrade, hence the text and the cast. The CHECK that
    # refuses an oversized text runs only after this, and a tsvector over 1 MiB would be an error
    # of its own that names no row: so nothing is indexed for one.
    f"SELECT CASE WHEN octet_length(body) <= {MAX_TEXT_BYTES}"
    " THEN to_tsvector(language::regconfig, body) ELSE ''::tsvector END",
)
"""What makes ``Chunk.tsv``: IMMUTABLE, as a generated column needs."""

# For a plain create_all() in somebody's test; a migration checks the version first.
event.listen(EMBEDDINGS, "before_create", verbatim("CREATE EXTENSION IF NOT EXISTS vector"))


@event.listens_for(Chunk, "before_insert")
def _inherit_language(_mapper: Mapper[Any], connection: Connection, chunk: Chunk) -> None:
    """Give a chunk its collection's language, which its text is searched in."""
    if chunk.language is not None:
        return
    document = chunk.__dict__.get("document")
    collection = document.__dict__.get("collection") if document is not None else None
    if collection is not None:
        chunk.language = collection.language
        return
    chunk.language = connection.scalar(
        select(COLLECTIONS.c.language).where(COLLECTIONS.c.id == chunk.collection_id)
    )


@event.listens_for(Chunk, "after_insert")
@event.listens_for(Chunk, "after_update")
@event.listens_for(Chunk, "after_delete")
def _forget_hash_of_document(_mapper: Mapper[Any], connection: Connection, chunk: Chunk) -> None:
    """Let ingest see that a document is no longer what it stored."""
    document = chunk.__dict__.get("document")
    if document is not None and document.__dict__.get("content_hash", b"unknown") is None:
        return
    owner = DOCUMENTS.c.collection_id == chunk.collection_id, DOCUMENTS.c.id == chunk.document_id
    hashed = DOCUMENTS.c.content_hash.is_not(None)
    connection.execute(update(DOCUMENTS).where(*owner, hashed).values(content_hash=None))


@event.listens_for(Chunk, "before_update")
def _forget_hash_of_chunk(_mapper: Mapper[Any], _connection: Connection, chunk: Chunk) -> None:
    """Let ingest see that a chunk is no longer what it stored, and write it anew."""
    state = inspect(chunk).attrs
    if any(state[name].history.has_changes() for name in ("text", "meta", "token_count")):
        chunk.content_hash = None


@event.listens_for(Document, "before_update")
def _forget_hash(_mapper: Mapper[Any], _connection: Connection, document: Document) -> None:
    """Let ingest see that a document is no longer what it stored."""
    changed = inspect(document).attrs
    if changed.title.history.has_changes() or changed.meta.history.has_changes():
        document.content_hash = None
