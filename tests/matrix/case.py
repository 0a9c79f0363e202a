"""One row of the matrix: a model before, a model after, and what is to be expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import MetaData

Kind = Literal["change", "control", "decision"]
Model = Callable[[], MetaData]


@dataclass(frozen=True)
class Case:
    """A row.

    ``topic`` is the theme of the module that it stands in. ``before`` and ``after`` build a
    MetaData anew at each call. ``seed`` is SQL that fills the tables of ``before``; None means
    three rows in each. ``clear`` takes out what it put in; without it the tables are truncated.
    ``needs`` are extensions, and ``pg17`` for PostgreSQL 17 or newer. ``prepare`` is SQL run in
    the database before anything else, ``beside`` SQL that somebody else runs after the base
    revision: what it makes must stay as it is, whatever the models do. ``holds`` is a query
    that must give true after the upgrade, ``says`` what the revision file must contain. With
    ``bare`` the extensions are not in the database before the migrations run. ``as_owner`` runs
    the migrations as a role that owns the database and has no other rights.
    """

    id: str
    before: Model
    after: Model
    kind: Kind = "change"
    seed: str | None = None
    clear: str = ""
    needs: frozenset[str] = frozenset()
    prepare: str = ""
    beside: str = ""
    holds: str = ""
    says: str = ""
    bare: bool = False
    as_owner: bool = False
    topic: str = ""

    @property
    def extensions(self) -> frozenset[str]:
        """Return the extensions that the models need."""
        return frozenset(need for need in self.needs if not need.startswith("pg1"))

    @property
    def version(self) -> int:
        """Return the oldest major version of PostgreSQL that has what the models need."""
        return max((int(need[2:]) for need in self.needs if need.startswith("pg1")), default=15)


def change(id: str, before: Model, after: Model, **more: Any) -> Case:  # noqa: A002 - pytest's word
    """Return a row whose difference must be found and migrated both ways."""
    return _case("change", id, before, after, **more)


def control(id: str, before: Model, after: Model | None = None, **more: Any) -> Case:  # noqa: A002
    """Return a row in which nothing may be found; without ``after`` the model is only rebuilt."""
    return _case("control", id, before, after or before, **more)


def decision(id: str, before: Model, after: Model, **more: Any) -> Case:  # noqa: A002
    """Return a row that cannot be migrated without somebody's decision where there are rows."""
    return _case("decision", id, before, after, **more)


def _case(kind: Kind, name: str, before: Model, after: Model, **more: Any) -> Case:
    needs = frozenset(str(more.pop("needs", "")).split())
    return Case(name, before, after, kind, needs=needs, **more)
