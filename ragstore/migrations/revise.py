"""What is done to a revision after the comparison, for those who will read and run it."""

from __future__ import annotations

from typing import Any

from alembic.runtime.migration import MigrationContext

from ragstore.migrations.compare import x_arguments
from ragstore.migrations.remarks import allowed_rules, annotate


def annotate_revision(context: MigrationContext, _revision: Any, directives: list[Any]) -> None:
    """Mark what locks or rewrites a table. A ``process_revision_directives`` of Alembic."""
    allowed = allowed_rules(x_arguments(context))
    for script in directives:
        for operations in (*script.upgrade_ops_list, *script.downgrade_ops_list):
            annotate(operations, allowed)
