"""Choose the index of a space.

Revision: 0002_a3f19c
Revises: 0001_67eb18
Created: 2026-11-25 22:20:00

Two columns with constant defaults on a table of a few rows: nothing is rewritten. Spaces of more
dimensions than halfvec can index are set to have none, which is what they had.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_a3f19c"
down_revision = "0001_67eb18"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "ragstore_embedding_space",
        sa.Column("index_type", sa.Text(), server_default=sa.text("'halfvec'"), nullable=False),
    )
    op.add_column(
        "ragstore_embedding_space",
        sa.Column("exact_limit", sa.Integer(), server_default=sa.text("4000"), nullable=False),
    )
    op.execute("UPDATE ragstore_embedding_space SET index_type = 'none' WHERE dimensions > 4000")
    op.create_check_constraint(
        op.f("ragstore_embedding_space_index_type_check"),
        "ragstore_embedding_space",
        "index_type IN ('halfvec', 'vector', 'binary', 'ivfflat', 'none')",
    )
    op.create_check_constraint(
        op.f("ragstore_embedding_space_exact_limit_check"),
        "ragstore_embedding_space",
        "exact_limit >= 0",
    )


def downgrade() -> None:
    op.drop_constraint(
        op.f("ragstore_embedding_space_exact_limit_check"), "ragstore_embedding_space"
    )
    op.drop_constraint(
        op.f("ragstore_embedding_space_index_type_check"), "ragstore_embedding_space"
    )
    op.drop_column("ragstore_embedding_space", "exact_limit")
    op.drop_column("ragstore_embedding_space", "index_type")
