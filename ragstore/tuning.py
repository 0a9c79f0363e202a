"""How an index is built: what is given for it, checked, and what follows from its rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ragstore.exceptions import InvalidInput
from ragstore.space import Space

EF_CONSTRUCTION = 128
"""How many candidates a vector's neighbours are chosen from, unless it is said.

Of 100,000 vectors in 200 clusters a graph of pgvector's 64 answered one query in twenty with
another cluster: recall@10 of 0.95 at ``ef_search`` 64, 0.93 at 40. One of 128 has 0.99 at both, and
took about twice as long to build.
"""


@dataclass(frozen=True)
class IndexOptions:
    """How an index is built; pgvector's and the server's own values where nothing is given.

    ``m`` and ``ef_construction`` (128, twice pgvector's) are HNSW's, ``lists`` IVFFlat's (a
    thousandth of the vectors, the square root beyond a million). ``memory`` is what Postgres takes,
    such as ``"2GB"``; ``workers`` build beside the first, 0 for none.

    Raises:
        InvalidInput: one of them is out of pgvector's or Postgres's range.
    """

    m: int | None = None
    ef_construction: int | None = None
    lists: int | None = None
    memory: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuse what the server would refuse after it had waited for other sessions."""
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            is_number = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (is_number and least <= value <= most):
                raise InvalidInput(f"{name} is {value!r}: it takes a number, {least} to {most:,}")
        if self.memory is not None and not (
            isinstance(self.memory, str) and _MEMORY.fullmatch(self.memory)
        ):
            raise InvalidInput(
                f"memory is {self.memory!r}: it takes a size as Postgres reads it, such as '2GB'"
            )
        m = self.m or _DEFAULT_M
        if self.ef_construction is not None and self.ef_construction < 2 * m:
            raise InvalidInput(
                f"ef_construction is {self.ef_construction}: pgvector takes no less than twice m,"
                f" which is {m}"
            )

    @property
    def settings(self) -> dict[str, str]:
        """Return the settings of the session that builds: it waits as long as it takes.

        A build that gives up leaves an invalid index.
        """
        given = {
            "maintenance_work_mem": self.memory,
            "max_parallel_maintenance_workers": None if self.workers is None else str(self.workers),
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        return {"lock_timeout": "0", "statement_timeout": "0", **chosen}

    def of(self, space: Space, rows: int) -> dict[str, int]:
        """Return the options of the index itself."""
        if space.index_type == "ivfflat":
            few = rows <= _LISTS_BY_ROOT_BEYOND
            return {"lists": self.lists or max(1, rows // 1_000 if few else int(rows**0.5))}
        m = {} if self.m is None else {"m": self.m}
        least = 2 * (self.m or _DEFAULT_M)
        return {**m, "ef_construction": self.ef_construction or max(EF_CONSTRUCTION, least)}


_RANGES = {
    "m": (2, 100),
    "ef_construction": (4, 1_000),
    "lists": (1, 32_768),
    "workers": (0, 1_024),
}
_MEMORY = re.compile(r"\d+(\.\d+)? *(B|kB|MB|GB|TB)?")
_DEFAULT_M = 16  # pgvector's
_LISTS_BY_ROOT_BEYOND = 1_000_000
