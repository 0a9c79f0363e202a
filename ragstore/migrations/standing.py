"""Where a database stands, in one answer for scripts: its revision, and how its schema differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ragstore.exceptions import (
    CouldNotCompare,
    DependencyMissing,
    ImproperlyConfigured,
    RagstoreError,
    SchemaBehind,
    SchemaDrift,
    UnknownRevision,
)

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

Status = Literal["clean", "drift", "behind", "unknown"]


@dataclass(frozen=True)
class Standing:
    """What ``check`` found, whatever it is.

    ``current`` is None where the database could not be asked. ``foreign`` names what no revision
    made and no model has: it is left alone. ``problems`` say why something could not be compared.
    ``message`` says all of it to a person.
    """

    status: Status
    message: str
    current: tuple[str, ...] | None
    head: tuple[str, ...]
    differences: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as what is written as JSON: names and lists, the same keys always."""
        return {
            "status": self.status,
            "revision": {
                "current": None if self.current is None else list(self.current),
                "head": list(self.head),
            },
            "differences": list(self.differences),
            "foreign": list(self.foreign),
            "problems": list(self.problems),
        }


def standing(url: str | URL | None = None, *, connection: Connection | None = None) -> Standing:
    """Return where a database stands: what ``check`` would return, or raise.

    Raises:
        ImproperlyConfigured, DependencyMissing: there is no database to look at.
    """
    from ragstore import migrations

    head = tuple(step.id for step in migrations.history() if step.is_head)
    try:
        foreign = migrations.check(url, connection=connection)
    except (ImproperlyConfigured, DependencyMissing):
        raise
    except RagstoreError as exc:
        return _of(exc, head)
    message = "The database is at the newest revision, and its schema is the models'."
    return Standing("clean", message, head, head, foreign=foreign)


def _of(error: RagstoreError, head: tuple[str, ...]) -> Standing:
    message = str(error)
    if isinstance(error, SchemaDrift):
        return Standing("drift", message, head, head, error.differences, error.foreign)
    if isinstance(error, SchemaBehind):
        return Standing("behind", message, error.current, head)
    if isinstance(error, CouldNotCompare):  # it was found to be at the newest revision before
        return Standing("unknown", message, head, head, problems=tuple(error.problems))
    current = (error.revision,) if isinstance(error, UnknownRevision) else None
    return Standing("unknown", message, current, head, problems=(message,))
