"""Create the tables.

Revision: 0001_67eb18
Revises:
Created: 2026-11-22 21:16:30

The extension is made first and stays behind in a downgrade. Partitions of ragstore_embedding are
made at run time, one for each space, and go with it.
"""

from __future__ import annotations

import pgvector.sqlalchemy
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

import ragstore.migrations.operations  # noqa: F401 - registers op.ensure_extension and others

revision = "0001_67eb18"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.ensure_extension("vector", minimum="0.8.2", warn_below="0.8.4")
    op.create_function(
        "ragstore_tsvector",
        [("language", "text"), ("body", "text")],
        "tsvector",
        "SELECT CASE WHEN octet_length(body) <= 262144"
        " THEN to_tsvector(language::regconfig, body) ELSE ''::tsvector END",
    )
    op.create_table(
        "ragstore_embedding_space",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), server_default=sa.text("'cosine'"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "metric IN ('cosine', 'l2', 'inner_product', 'l1')",
            name=op.f("ragstore_embedding_space_metric_check"),
        ),
        sa.CheckConstraint(
            "dimensions BETWEEN 1 AND 16000", name=op.f("ragstore_embedding_space_dimensions_check")
        ),
        sa.CheckConstraint(
            "octet_length(name) BETWEEN 1 AND 255", name=op.f("ragstore_embedding_space_name_check")
        ),
        sa.CheckConstraint(
            "octet_length(model) BETWEEN 1 AND 255",
            name=op.f("ragstore_embedding_space_model_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("ragstore_embedding_space_pkey")),
        sa.UniqueConstraint("name", name=op.f("ragstore_embedding_space_name_key")),
    )
    op.create_table(
        "ragstore_collection",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False
        ),
        sa.Column("space_id", sa.BigInteger(), nullable=True),
        sa.Column("next_space_id", sa.BigInteger(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), server_default=sa.text("'english'"), nullable=False),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "jsonb_typeof(metadata) = 'object'", name=op.f("ragstore_collection_metadata_check")
        ),
        sa.CheckConstraint(
            "octet_length(name) BETWEEN 1 AND 255", name=op.f("ragstore_collection_name_check")
        ),
        sa.ForeignKeyConstraint(
            ["next_space_id"],
            ["ragstore_embedding_space.id"],
            name=op.f("ragstore_collection_next_space_id_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["space_id"],
            ["ragstore_embedding_space.id"],
            name=op.f("ragstore_collection_space_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("ragstore_collection_pkey")),
        sa.UniqueConstraint("name", name=op.f("ragstore_collection_name_key")),
    )
    op.create_table(
        "ragstore_document",
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False
        ),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("content_hash", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "jsonb_typeof(metadata) = 'object'", name=op.f("ragstore_document_metadata_check")
        ),
        sa.CheckConstraint(
            "octet_length(key) BETWEEN 1 AND 1024", name=op.f("ragstore_document_key_check")
        ),
        sa.CheckConstraint(
            "octet_length(title) <= 1024", name=op.f("ragstore_document_title_check")
        ),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["ragstore_collection.id"],
            name=op.f("ragstore_document_collection_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection_id", "id", name=op.f("ragstore_document_pkey")),
        sa.UniqueConstraint("collection_id", "key", name=op.f("ragstore_document_key_key")),
    )
    op.create_table(
        "ragstore_chunk",
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False
        ),
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("token_count", sa.Integer(), nullable=True),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("language", sa.Text(), server_default=sa.text("'english'"), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=True),
        sa.Column(
            "tsv",
            postgresql.TSVECTOR(),
            sa.Computed("ragstore_tsvector(language, text)", persisted=True),
            nullable=True,
        ),
        sa.CheckConstraint(
            "jsonb_typeof(metadata) = 'object'", name=op.f("ragstore_chunk_metadata_check")
        ),
        sa.CheckConstraint(
            "octet_length(text) BETWEEN 1 AND 262144", name=op.f("ragstore_chunk_text_check")
        ),
        sa.ForeignKeyConstraint(
            ["collection_id", "document_id"],
            ["ragstore_document.collection_id", "ragstore_document.id"],
            name=op.f("ragstore_chunk_document_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection_id", "id", name=op.f("ragstore_chunk_pkey")),
        sa.UniqueConstraint(
            "collection_id",
            "document_id",
            "ordinal",
            deferrable=True,
            initially="DEFERRED",
            name=op.f("ragstore_chunk_ordinal_key"),
        ),
    )
    op.create_index(
        op.f("ragstore_chunk_metadata_idx"),
        "ragstore_chunk",
        ["metadata"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )
    op.create_index(
        op.f("ragstore_chunk_tsv_idx"),
        "ragstore_chunk",
        ["tsv"],
        unique=False,
        postgresql_using="gin",
    )
    op.create_table(
        "ragstore_embedding",
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("chunk_id", sa.BigInteger(), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("vector", pgvector.sqlalchemy.VECTOR(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id", "chunk_id"],
            ["ragstore_chunk.collection_id", "ragstore_chunk.id"],
            name=op.f("ragstore_embedding_chunk_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["space_id"],
            ["ragstore_embedding_space.id"],
            name=op.f("ragstore_embedding_space_id_fkey"),
        ),
        sa.PrimaryKeyConstraint(
            "collection_id", "chunk_id", "space_id", name=op.f("ragstore_embedding_pkey")
        ),
        postgresql_partition_by="LIST (space_id)",
    )


def downgrade() -> None:
    op.drop_table("ragstore_embedding")
    op.drop_index(
        op.f("ragstore_chunk_tsv_idx"), table_name="ragstore_chunk", postgresql_using="gin"
    )
    op.drop_index(
        op.f("ragstore_chunk_metadata_idx"),
        table_name="ragstore_chunk",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )
    op.drop_table("ragstore_chunk")
    op.drop_table("ragstore_document")
    op.drop_table("ragstore_collection")
    op.drop_table("ragstore_embedding_space")
    op.drop_function("ragstore_tsvector", ["text", "text"])
