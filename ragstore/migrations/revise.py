"""What is done to a revision after the comparison, for those who will read and run it."""

from __future__ import annotations

from typing import Any

from alembic.runtime.migration import MigrationContext


def annotate_revision(context: MigrationContext, _revision: Any, directives: list[Any]) -> None:
    """Mark what locks or rewrites a table. A ``process_revision_directives`` of Alembic."""
