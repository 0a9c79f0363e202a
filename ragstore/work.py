"""Work that is more than one transaction, as plain generators, and the two ways to do it.

A *work* yields steps (a transaction, a call of ``embed``, a pause, a call of something that takes
long) and is sent their results, or has their errors thrown into it: when to try again, and what to
leave out, is written once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ragstore.execution import Call, Operation

T = TypeVar("T")


@dataclass(frozen=True)
class Transact:
    """An operation to run in a transaction of its own; its result is sent back."""

    operation: Operation[Any]


@dataclass(frozen=True)
class Make:
    """Texts to embed; a vector for each is sent back."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Pause:
    """Seconds to wait."""

    seconds: float


Step = Transact | Make | Pause | Call
Work = Generator[Step, Any, T]


def transact(operation: Operation[T]) -> Work[T]:
    """Run an operation in a transaction of its own."""
    result: T = yield Transact(operation)
    return result


def do(work: Work[T], perform: Callable[[Step], Any]) -> T:
    """Do a work, each step by ``perform``."""
    try:
        step = next(work)
        while True:
            try:
                result = perform(step)
            except Exception as exc:  # noqa: BLE001, PERF203 - the work decides
                step = work.throw(exc)
            else:
                step = work.send(result)
    except StopIteration as done:
        value: T = done.value
        return value


async def do_async(work: Work[T], perform: Callable[[Step], Awaitable[Any]]) -> T:
    """Do a work, each step by the coroutine function ``perform``."""
    try:
        step = next(work)
        while True:
            try:
                result = await perform(step)
            except Exception as exc:  # noqa: BLE001, PERF203 - the work decides
                step = work.throw(exc)
            else:
                step = work.send(result)
    except StopIteration as done:
        value: T = done.value
        return value
