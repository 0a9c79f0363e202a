"""Search as statements: each function returns a SQLAlchemy ``Select`` and runs nothing.

``Store.search`` builds on them; a statement of yours may too. Every one names the collection, and
one that looks at vectors names the space, because the partitions and indexes are found by them.
"""

from __future__ import annotations

from ragstore.search.filter import condition
from ragstore.search.hits import hits, of_matching, of_nearest
from ragstore.search.hybrid import fused
from ragstore.search.operators import path
from ragstore.search.text import matching
from ragstore.search.vector import approximate, nearest, scan_settings

__all__ = [
    "approximate",
    "condition",
    "fused",
    "hits",
    "matching",
    "nearest",
    "of_matching",
    "of_nearest",
    "path",
    "scan_settings",
]
