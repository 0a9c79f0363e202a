"""Searches on a DatabaseConnection, sync and async: one round trip each, in the ordinary case.

What is sent is decided in ``ragstore.search``; here collections are remembered, vectors are made,
and what was remembered wrongly is looked up once more.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ragstore.collection import CollectionInfo, find_collection, measure
from ragstore.connection import DatabaseConnection
from ragstore.exceptions import (
    DatabaseUnavailable,
    InvalidQuery,
    InvalidVector,
    QueryFailed,
    RagstoreError,
    SpaceChanged,
    SpaceNotReady,
)
from ragstore.execution import (
    Operation,
    run,
    run_async,
    run_together,
    run_together_async,
)
from ragstore.search.answer import answer
from ragstore.search.memory import Memory
from ragstore.search.query import Search
from ragstore.search.result import SearchResult

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_TOGETHER = 100  # searches of one round trip

Answers = list[SearchResult | None]


class Searcher:
    """Answers searches, and remembers what makes the next one faster."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self.connection = connection
        self.memory = Memory()

    def search(self, collection: str, searches: Sequence[Search]) -> list[SearchResult]:
        """Answer searches on a collection, in their order, in as few round trips as it can."""
        begun = time.perf_counter()
        results: list[SearchResult] = []
        for at in range(0, len(searches), _TOGETHER):
            results += self._together(collection, searches[at : at + _TOGETHER])
        return _told(results, collection, begun)

    def _together(self, collection: str, searches: Sequence[Search]) -> list[SearchResult]:
        for attempt in range(_ATTEMPTS):
            target, is_fresh = self._target(collection, again=attempt > 0)
            try:
                answers = self._answer(target, searches)
            except (InvalidVector, SpaceNotReady, QueryFailed) as exc:
                if is_fresh or not _may_be_outdated(exc):
                    raise
            else:
                if (complete := _complete(answers)) is not None:
                    return complete
        raise _changed(collection)

    def _answer(self, target: CollectionInfo, searches: Sequence[Search]) -> Answers:
        vectors = [_made(each, target) for each in searches]
        operations = lambda: [  # noqa: E731 - a second attempt needs new ones
            answer(each, target, vector, self.memory)
            for each, vector in zip(searches, vectors, strict=True)
        ]
        return self._read(operations)

    def _read(self, operations: Callable[[], list[Operation[Any]]]) -> list[Any]:
        is_lent = False
        try:
            with self.connection.reading() as connection:
                is_lent = True
                return _run(connection, operations())
        except DatabaseUnavailable:
            if not is_lent:
                raise
        # The connection had died in the pool, which is found out only by using it.
        with self.connection.reading(ask=True) as connection:
            return _run(connection, operations())

    def _target(self, name: str, *, again: bool) -> tuple[CollectionInfo, bool]:
        known = None if again else _remembered(self.memory, name)
        if known is not None:
            return known, False
        target: CollectionInfo = self._read(lambda: [_look_up(name)])[0]
        self.memory.collections.put(name, target)
        return target, True


class AsyncSearcher:
    """``Searcher`` for asyncio."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self.connection = connection
        self.memory = Memory()

    async def search(self, collection: str, searches: Sequence[Search]) -> list[SearchResult]:
        """Answer searches on a collection; see ``Searcher.search``."""
        begun = time.perf_counter()
        results: list[SearchResult] = []
        for at in range(0, len(searches), _TOGETHER):
            results += await self._together(collection, searches[at : at + _TOGETHER])
        return _told(results, collection, begun)

    async def _together(self, collection: str, searches: Sequence[Search]) -> list[SearchResult]:
        for attempt in range(_ATTEMPTS):
            target, is_fresh = await self._target(collection, again=attempt > 0)
            try:
                answers = await self._answer(target, searches)
            except (InvalidVector, SpaceNotReady, QueryFailed) as exc:
                if is_fresh or not _may_be_outdated(exc):
                    raise
            else:
                if (complete := _complete(answers)) is not None:
                    return complete
        raise _changed(collection)

    async def _answer(self, target: CollectionInfo, searches: Sequence[Search]) -> Answers:
        vectors = [await _made_async(each, target) for each in searches]
        operations = lambda: [  # noqa: E731 - a second attempt needs new ones
            answer(each, target, vector, self.memory)
            for each, vector in zip(searches, vectors, strict=True)
        ]
        return await self._read(operations)

    async def _read(self, operations: Callable[[], list[Operation[Any]]]) -> list[Any]:
        is_lent = False
        try:
            async with self.connection.async_reading() as connection:
                is_lent = True
                return await _run_async(connection, operations())
        except DatabaseUnavailable:
            if not is_lent:
                raise
        async with self.connection.async_reading(ask=True) as connection:
            return await _run_async(connection, operations())

    async def _target(self, name: str, *, again: bool) -> tuple[CollectionInfo, bool]:
        known = None if again else _remembered(self.memory, name)
        if known is not None:
            return known, False
        target: CollectionInfo = (await self._read(lambda: [_look_up(name)]))[0]
        self.memory.collections.put(name, target)
        return target, True


def as_searches(queries: Iterable[Any]) -> list[Search]:
    """Return queries as searches; a mapping has the names of the arguments of ``search``.

    Raises:
        InvalidQuery: one is neither, or has a name that ``search`` does not take.
    """
    if isinstance(queries, str | Mapping) or not isinstance(queries, Iterable):
        raise InvalidQuery(
            f"search_many() takes a list of queries, not {type(queries).__name__}: pass [query]"
        )
    return [_as_search(each) for each in queries]


def _as_search(query: Any) -> Search:
    if isinstance(query, Search):
        return query
    try:
        return Search(**query)
    except TypeError as exc:
        raise InvalidQuery(
            f"a query is a Search, or a mapping of the arguments of search(): {exc}"
        ) from exc


def _may_be_outdated(exc: RagstoreError) -> bool:
    """Tell whether an error may be about a collection that is no longer as it was remembered.

    Of the server's, those about names and types: a statement that ran out of time is not repeated.
    """
    state = exc.sqlstate if isinstance(exc, QueryFailed) else None
    return not isinstance(exc, QueryFailed) or (state or "")[:2] in ("22", "42")


def _remembered(memory: Memory, name: str) -> CollectionInfo | None:
    # Anything else may have no hash; it is refused where it is looked up.
    return memory.collections.get(name) if isinstance(name, str) else None


def _look_up(name: str) -> Operation[CollectionInfo]:
    found = yield from find_collection(name)
    return (yield from measure(found))


def _run(connection: Any, operations: list[Operation[Any]]) -> list[Any]:
    if len(operations) == 1:
        return [run(connection, operations[0])]
    return run_together(connection, operations)


async def _run_async(connection: Any, operations: list[Operation[Any]]) -> list[Any]:
    if len(operations) == 1:
        return [await run_async(connection, operations[0])]
    return await run_together_async(connection, operations)


def _made(search: Search, target: CollectionInfo) -> Any:
    if not callable(search.vector):
        return search.vector
    return search.vector(target.require_space())


async def _made_async(search: Search, target: CollectionInfo) -> Any:
    if not callable(search.vector):
        return search.vector
    space = target.require_space()
    if inspect.iscoroutinefunction(search.vector):
        return await search.vector(space)
    made = await asyncio.to_thread(search.vector, space)
    return await made if inspect.isawaitable(made) else made


def _told(results: list[SearchResult], collection: str, begun: float) -> list[SearchResult]:
    """Log how each was searched, in numbers and names: no text, no vector, no filter."""
    if logger.isEnabledFor(logging.DEBUG):
        seconds = time.perf_counter() - begun
        for each in results:
            ways = {"collection": collection, "strategy": each.strategy, "scan": each.scan}
            numbers = {"hits": len(each), "searches": len(results), "seconds": seconds}
            logger.debug("searched", extra={**ways, **numbers})
    return results


def _complete(answers: Answers) -> list[SearchResult] | None:
    complete = [each for each in answers if each is not None]
    return complete if len(complete) == len(answers) else None


def _changed(collection: str) -> SpaceChanged:
    return SpaceChanged(
        f"The collection {collection!r} was changed at each of {_ATTEMPTS} attempts to search"
        " it: search again"
    )
