"""What is tried again by a run, how often, and after which pause.

Two things pass by themselves: another writer in the way, and a connection that is lost, as when the
server is started again or another takes its place.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ragstore.exceptions import DatabaseUnavailable, QueryFailed, RagstoreError, WriteConflict
from ragstore.execution import Operation
from ragstore.work import Pause, Work, transact

logger = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 8
"""How often a transaction is tried that other writers stand in the way of."""

FIRST_PAUSE = 0.02
"""Seconds before the second attempt, on average; each further pause is twice as long."""

LOST_ATTEMPTS = 5
"""How often a transaction is tried whose connection is lost."""

LOST_PAUSE = 0.25
"""Seconds before its second attempt, at most; each further pause is twice as long."""

TRY_AGAIN = frozenset({"40P01", "40001", "55P03"})
"""Deadlock, serialization failure, lock timeout: the same may succeed a moment later."""


class Patience:
    """Counts the failures of a transaction by their kind, and tells how long to wait after each."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = told
        self._failures = Counter[bool]()  # lost connections (True), and conflicts

    def pause(self, exc: RagstoreError) -> Pause:
        """Return the pause before the next attempt, and log it.

        Raises:
            RagstoreError: ``exc`` itself, as nothing is to be gained by another attempt.
        """
        is_lost = _is_lost(exc)
        attempts, first = (LOST_ATTEMPTS, LOST_PAUSE) if is_lost else (ATTEMPTS, FIRST_PAUSE)
        self._failures[is_lost] += 1
        failures = self._failures[is_lost]
        if failures >= attempts or not (is_lost or _is_conflict(exc)):
            raise exc
        chance = random.random()  # noqa: S311 - no secret
        longest = first * 2**failures
        seconds = longest * (1 + chance) / 4 if is_lost else longest * chance
        reason = "the connection was lost" if is_lost else "other writers were in the way"
        numbers = {"attempt": failures, "seconds": seconds}
        logger.info("%s: it is tried again", reason, extra={**self._told, **numbers})
        return Pause(seconds)


def _is_lost(exc: RagstoreError) -> bool:
    # Not those below it: a password that is refused will be refused again, and a pool that is
    # exhausted was waited for already.
    return type(exc) is DatabaseUnavailable


def _is_conflict(exc: RagstoreError) -> bool:
    return isinstance(exc, WriteConflict) or getattr(exc, "sqlstate", None) in TRY_AGAIN


def insist(operation: Callable[[], Operation[T]], told: Mapping[str, Any]) -> Work[T]:
    """Run an operation in a transaction, and another such if that may pass; see ``Patience``.

    For what may be done twice: a connection can be lost after the transaction has ended well.
    ``told`` goes into the log record.
    """
    patience = Patience(told)
    while True:
        try:
            return (yield from transact(operation()))
        except (DatabaseUnavailable, QueryFailed) as exc:
            pause = patience.pause(exc)
        yield pause
