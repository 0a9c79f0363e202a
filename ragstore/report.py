"""What an ingest did, in numbers, and which documents it left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from ragstore.exceptions import InvalidInput, RagstoreError

MAX_PROBLEMS = 1_000
"""The most problems that a report keeps; ``skipped`` counts all."""


@dataclass(frozen=True)
class Problem:
    """A document that was left out, and why; ``reason`` quotes no text and no vector.

    ``field`` is what of it is wrong: ``key``, ``title``, ``meta``, ``chunks``, ``text``,
    ``vector`` or ``token_count``, or None where the server refused it; ``chunk`` is the position
    of the chunk it is in. ``key`` is None for what has no key that is a string.
    """

    key: str | None
    chunk: int | None
    field: str | None
    reason: str

    @classmethod
    def of(cls, error: RagstoreError, key: str | None = None) -> Problem:
        """Return what an error says of a document."""
        if isinstance(error, InvalidInput):
            return cls(error.key, error.chunk, error.field, str(error))
        return cls(key, None, None, str(error))


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did: documents by fate, chunks written, vectors made, and the time.

    ``inserted + updated + unchanged + skipped`` is the number of documents seen. ``chunks`` are
    those written, and not those kept of a changed document. ``problems`` has the first of the
    skipped documents, ``MAX_PROBLEMS`` at most.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    chunks: int = 0
    embedded: int = 0
    skipped: int = 0
    problems: tuple[Problem, ...] = ()
    seconds: float = 0.0

    @property
    def documents(self) -> int:
        """Return the number of documents seen."""
        return self.inserted + self.updated + self.unchanged + self.skipped

    @property
    def chunks_per_second(self) -> float:
        """Return the chunks written per second, 0 if none were."""
        return self.chunks / self.seconds if self.seconds else 0.0

    @property
    def numbers(self) -> dict[str, float]:
        """Return the figures by name, as they stand in a log record: no keys, no reasons."""
        return {
            "documents": self.documents,
            **{
                each.name: getattr(self, each.name)
                for each in fields(self)
                if each.name != "problems"
            },
        }

    def __add__(self, other: IngestReport) -> IngestReport:
        """Return both together."""
        return IngestReport(
            inserted=self.inserted + other.inserted,
            updated=self.updated + other.updated,
            unchanged=self.unchanged + other.unchanged,
            deleted=self.deleted + other.deleted,
            chunks=self.chunks + other.chunks,
            embedded=self.embedded + other.embedded,
            skipped=self.skipped + other.skipped,
            problems=(self.problems + other.problems)[:MAX_PROBLEMS],
            seconds=self.seconds + other.seconds,
        )


Progress = Callable[[IngestReport], object]
"""Called after each batch with the report so far."""


class Refusals:
    """What was wrong with documents; without ``skip`` the first of it is raised."""

    def __init__(self, *, skip: bool) -> None:
        self.skip = skip
        self.problems: list[Problem] = []
        self.keys: set[str | None] = set()

    def __call__(self, error: InvalidInput) -> None:
        """Note what is wrong, or raise it."""
        if not self.skip:
            raise error
        self.problems.append(Problem.of(error))
        self.keys.add(error.key)

    @property
    def report(self) -> IngestReport:
        """Return the documents that are left out."""
        return IngestReport(skipped=len(self.problems), problems=tuple(self.problems))
