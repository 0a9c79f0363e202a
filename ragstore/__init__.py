"""The Postgres storage layer of a retrieval-augmented application.

Importing this package costs milliseconds: each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ragstore.async_store import AsyncStore as AsyncStore
    from ragstore.conf import settings as settings
    from ragstore.connection import DatabaseConnection as DatabaseConnection
    from ragstore.content import NewChunk as NewChunk
    from ragstore.content import NewDocument as NewDocument
    from ragstore.exceptions import RagstoreError as RagstoreError
    from ragstore.indexing import IndexReport as IndexReport
    from ragstore.recall import RecallReport as RecallReport
    from ragstore.reembed import ReembedReport as ReembedReport
    from ragstore.report import IngestReport as IngestReport
    from ragstore.search.query import Search as Search
    from ragstore.search.result import Hit as Hit
    from ragstore.search.result import SearchResult as SearchResult
    from ragstore.stats import SpaceStats as SpaceStats
    from ragstore.store import Store as Store

_HOME = {
    "AsyncStore": "ragstore.async_store",
    "DatabaseConnection": "ragstore.connection",
    "Hit": "ragstore.search.result",
    "IndexReport": "ragstore.indexing",
    "IngestReport": "ragstore.report",
    "NewChunk": "ragstore.content",
    "NewDocument": "ragstore.content",
    "RagstoreError": "ragstore.exceptions",
    "RecallReport": "ragstore.recall",
    "ReembedReport": "ragstore.reembed",
    "Search": "ragstore.search.query",
    "SearchResult": "ragstore.search.result",
    "SpaceStats": "ragstore.stats",
    "Store": "ragstore.store",
    "settings": "ragstore.conf",
}

__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604 - the names are strings


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(set(globals()) | set(__all__))
