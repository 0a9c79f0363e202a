"""What is tried again, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from ragstore import exceptions, retry
from ragstore.execution import Operation
from ragstore.retry import insist
from ragstore.work import Pause, do

FAILURES: dict[str, tuple[exceptions.RagstoreError, int]] = {
    "lost": (exceptions.DatabaseUnavailable("gone"), retry.LOST_ATTEMPTS),
    "password": (exceptions.AuthenticationFailed("no"), 1),
    "pool": (exceptions.PoolExhausted("all in use"), 1),
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


def test_writers_in_the_way_leave_all_attempts_for_a_lost_connection() -> None:
    """Each kind of failure has its own number of attempts, and pauses that begin anew."""
    lost, deadlock = FAILURES["lost"][0], FAILURES["deadlock"][0]
    patience = retry.Patience({})
    for _ in range(retry.ATTEMPTS - 1):
        patience.pause(deadlock)
    assert patience.pause(lost).seconds <= retry.LOST_PAUSE
    for _ in range(retry.LOST_ATTEMPTS - 2):
        patience.pause(lost)
    for error in (lost, deadlock):
        with pytest.raises(type(error)):
            patience.pause(error)
