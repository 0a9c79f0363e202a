"""What is tried again, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from ragstore import exceptions, retry
from ragstore.execution import Operation
from ragstore.retry import insist
from ragstore.work import Pause, do

FAILURES = {
    "lost": (exceptions.DatabaseUnavailable("gone"), retry.LOST_ATTEMPTS),
    "password": (exceptions.AuthenticationFailed("no"), 1),
    "deadlock": (exceptions.QueryFailed("deadlock", sqlstate="40P01"), retry.ATTEMPTS),
    "lock timeout": (exceptions.LockTimeout("locked", sqlstate="55P03"), retry.ATTEMPTS),
    "refused": (exceptions.QueryFailed("bad value", sqlstate="22000"), 1),
    "not ours": (exceptions.CollectionNotFound("c", collection="c"), 1),
}


@pytest.mark.parametrize(("error", "attempts"), FAILURES.values(), ids=FAILURES)
def test_what_may_pass_is_tried_again(error: Exception, attempts: int) -> None:
    """Conflicts and lost connections, so often and no more, each after a longer pause at most."""
    made: list[Operation[None]] = []
    pauses: list[float] = []

    def perform(step: Any) -> None:
        if not isinstance(step, Pause):
            raise error
        pauses.append(step.seconds)

    def operation() -> Operation[None]:
        made.append(iter(()))  # type: ignore[arg-type]
        return made[-1]

    with pytest.raises(type(error)) as caught:
        do(insist(operation, {}), perform)
    assert caught.value is error
    assert len(made) == attempts
    assert len(pauses) == attempts - 1
    assert all(seconds < 5 for seconds in pauses)
