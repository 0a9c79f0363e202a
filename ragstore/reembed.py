"""Moving a collection to another embedding space while it is read and written.

The space it comes from stays the active one until every chunk has a vector in the other: passes
over the chunks that lack one, each batch a transaction, until next to none are left; the index; the
word of who may refuse; then, with the collection's row locked against writers, what came since and
the switch. Whatever ends the work on the way leaves the collection as it was for searches, and the
next run goes on from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from psycopg import sql

from ragstore import backfill
from ragstore.backfill import BELOW_ALL, Chunk, check_exists, check_on_the_way
from ragstore.collection import CollectionInfo, find_collection
from ragstore.exceptions import (
    EmbeddingFailed,
    InvalidInput,
    ReembedUnderWay,
    ReembedUnfinished,
    SwitchRefused,
)
from ragstore.execution import Call, Operation, Query
from ragstore.indexing import IndexReport, index_after_load
from ragstore.packing import Matrix, check_vectors
from ragstore.procedure import LOCK_PAUSES, Procedure, Tell, patiently
from ragstore.recall import Comparison, compare_spaces
from ragstore.retry import insist
from ragstore.space import Space, check_attached, find_space
from ragstore.tuning import IndexOptions
from ragstore.work import Make, Transact

logger = logging.getLogger(__name__)

T = TypeVar("T")

LAST = 100
"""How many chunks at most are embedded while writers wait; most often none are."""

INDEXED_BATCH = 100
"""How many vectors at most are stored at a time where the space has an index already.

It costs some milliseconds for each, and writers of the same chunks wait meanwhile.
"""

MAX_PASSES = 50
"""How many passes are made at most until so few are left, and attempts to switch."""

LOCK_TIMEOUT = "2s"
"""How long the switch waits for writers, who queue behind it, before it lets them by."""

# A lock timeout, a deadlock, and a chunk deleted while the last ones were embedded: by a writer
# that does not lock the collection, as ingest does.
_TRY_AGAIN = frozenset({"55P03", "40P01", "23503"})


@dataclass(frozen=True)
class ReembedReport:
    """What a move to another space did, or has done so far.

    - ``collection``, ``replaced`` and ``space``: what was moved, from where (none if it had no
      space) and where to
    - ``embedded``: chunks that this run made vectors for; ``last`` of them while writers waited
    - ``lacking``: chunks that still had none at the start of the pass under way
    - ``passes``: over the collection; ``seconds``: of all; ``stall``: those that writers waited
    - ``index``: what became of the index of the collection in its new space
    - ``comparison``: answers before and after, on sampled chunks
    - ``switched``: whether searches use the new space now, by this run
    """

    collection: str
    replaced: str | None
    space: str
    embedded: int = 0
    last: int = 0
    lacking: int = 0
    passes: int = 0
    seconds: float = 0.0
    stall: float = 0.0
    index: IndexReport | None = None
    comparison: Comparison | None = None
    switched: bool = False

    @property
    def numbers(self) -> dict[str, float]:
        """Return what is counted and timed, by name."""
        names = ("embedded", "last", "passes", "stall", "seconds")
        return {name: getattr(self, name) for name in names}


Progress = Callable[[ReembedReport], object]
"""Called after each batch with the report so far."""

Approve = Callable[[ReembedReport], Any]
"""Called before the switch with the report so far; returns whether to switch. May be a coroutine
function for AsyncStore."""


def check_function(name: str, value: object) -> None:
    """Refuse what cannot be called, before anything is done that would call it in the end.

    Raises:
        InvalidInput: naming the argument.
    """
    if not callable(value):
        raise InvalidInput(f"{name} is {type(value).__name__}: it takes a function")


@dataclass(frozen=True)
class Move:
    """A move as it was asked for.

    Its texts are embedded by ``Make`` steps; those that are left while writers wait by ``once``,
    which calls the model without trying again. If that fails they are let by before the next
    attempt, of ``retries``.
    """

    collection: str
    to: str
    once: Callable[[Sequence[str]], Any]
    retries: int = 2
    batch_size: int = 1_000
    last: int = LAST
    sample: int = 20
    approve: Approve | None = None
    on_progress: Progress | None = None
    options: IndexOptions = field(default_factory=IndexOptions)

    def __post_init__(self) -> None:
        """Refuse numbers that are none, and what cannot be called."""
        for name, least in (("batch_size", 1), ("last", 0), ("sample", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInput(f"{name} is {value!r}: it takes a whole number from {least}")
        for name in ("approve", "on_progress"):
            if (value := getattr(self, name)) is not None:
                check_function(name, value)

    def run(self) -> Procedure[ReembedReport]:
        """Move the collection; see ``Store.reembed``."""
        started = time.perf_counter()
        source, target = yield from _patiently(lambda: _begin(self.collection, self.to), self._told)
        replaced = source.space.name if source.space else None
        report = ReembedReport(source.name, replaced, target.name)
        if source.space == target:
            return report
        report = yield from self._fill(source, target, report)
        moved = replace(source, space=target)
        report = replace(report, index=(yield from index_after_load(moved, self.options)))
        if self.sample and source.space is not None:
            compare = partial(compare_spaces, source.id, source.space, target, sample=self.sample)
            report = replace(report, comparison=(yield from insist(compare, self._told)))
        if self.approve is not None:
            yield from self._ask(self.approve, report)
        report = yield from self._switch(source, target, report)
        if report.last and report.index is not None and report.index.state == "not needed":
            index = yield from index_after_load(moved, self.options)  # the last were many
            report = replace(report, index=index)
        report = replace(report, seconds=time.perf_counter() - started)
        logger.info("reembedded", extra={**self._told, **report.numbers})
        return report

    @property
    def _told(self) -> dict[str, Any]:
        """Return what stands in each log record."""
        return {"collection": self.collection, "space": self.to}

    def _fill(
        self, source: CollectionInfo, target: Space, report: ReembedReport
    ) -> Procedure[ReembedReport]:
        """Embed what lacks a vector in the target, until that is next to nothing.

        Few are embedded here too: what comes meanwhile, and is left for the lock, is less still.
        """
        enough = 0
        for _ in range(MAX_PASSES):
            look = partial(backfill.look, source.id, target)
            lacking, upto, is_indexed = yield from insist(look, self._told)
            report = replace(report, lacking=lacking)
            if lacking <= enough:
                return report
            enough = self.last if lacking <= self.last else 0
            report = replace(report, passes=report.passes + 1)
            size = min(self.batch_size, INDEXED_BATCH) if is_indexed else self.batch_size
            report = yield from self._pass(source, target, upto, size, report)
        raise _unfinished(report)

    def _pass(
        self, source: CollectionInfo, target: Space, upto: int, size: int, report: ReembedReport
    ) -> Procedure[ReembedReport]:
        """Embed what was there when the pass began: what comes meanwhile would never end."""
        after = BELOW_ALL
        while after < upto:
            look = partial(backfill.lacking, source.id, target, after, size)
            page = yield from insist(look, self._told)
            if not page:
                break
            after = page[-1].id
            texts = _texts(page)
            vectors = _matrix(target, page, texts, (yield Make(texts)))
            store = partial(backfill.store, source, target, page, vectors)
            stored = yield from insist(store, self._told)  # what is there already is left out
            report = replace(report, embedded=report.embedded + stored)
            if self.on_progress is not None:
                yield Tell(self.on_progress, report)
        return report

    def _ask(self, approve: Approve, report: ReembedReport) -> Procedure[None]:
        """Ask whether to switch; nothing is locked meanwhile."""
        answer = yield Call(approve, [report])
        if not isinstance(answer, bool | np.bool_):
            raise InvalidInput(
                f"approve() returned {type(answer).__name__}: it must return True or False."
                " Nothing was switched"
            )
        if not answer:
            raise SwitchRefused(
                f"approve() refused to switch {self.collection!r} to space {self.to!r}: searches"
                " use the space they used. The vectors are kept: reembed() without approve=, or"
                " with one that agrees, switches; cancel_reembed() gives the move up",
                report=report,
            )

    def _switch(
        self, source: CollectionInfo, target: Space, report: ReembedReport
    ) -> Procedure[ReembedReport]:
        """Switch, after filling up again each time that too much was written meanwhile."""
        failures = 0
        for _ in range(MAX_PASSES):
            report = yield from self._fill(source, target, report)
            try:
                done = yield from _patiently(lambda: self._locked(source, target), self._told)
            except EmbeddingFailed:
                failures += 1
                if failures > self.retries:
                    raise
                continue  # the writers are let by, and the texts tried again without the lock
            if done is not None:
                last, stall = done
                embedded = report.embedded + last
                logger.info(
                    "The collection %r is in space %r now",
                    source.name,
                    target.name,
                    extra={**self._told, "last": last, "stall": stall},
                )
                return replace(report, embedded=embedded, last=last, stall=stall, switched=True)
        raise _unfinished(replace(report, lacking=self.last + 1))  # at least

    def _locked(self, source: CollectionInfo, target: Space) -> Operation[tuple[int, float] | None]:
        """Embed the last chunks and switch in one transaction, or return None if they are many."""
        started = time.perf_counter()
        rows = yield Query(_LOCK_FOR_SWITCH, [source.id])
        check_on_the_way(source, target, rows)
        page = yield from backfill.lacking(source.id, target, BELOW_ALL, self.last + 1)
        if len(page) > self.last:
            return None
        if page:
            texts = _texts(page)
            vectors = _matrix(target, page, texts, (yield Call(self.once, [texts])))
            yield from backfill.copy(source.id, target, [chunk.id for chunk in page], vectors)
        yield Query(_SWITCH, {"space": target.id, "collection": source.id})
        return len(page), time.perf_counter() - started


def _texts(page: Sequence[Chunk]) -> list[str]:
    """Return the texts to embed: equal ones once."""
    return list(dict.fromkeys(chunk.text for chunk in page))


def _matrix(target: Space, page: Sequence[Chunk], texts: list[str], made: Sequence[Any]) -> Matrix:
    """Return the vector of each chunk, if it fits the target; the error names the chunk."""
    vectors = dict(zip(texts, made, strict=True))
    return check_vectors(
        target,
        [vectors[chunk.text] for chunk in page],
        lambda at: (page[at].key, page[at].ordinal),
    )


def _unfinished(report: ReembedReport) -> ReembedUnfinished:
    return ReembedUnfinished(
        f"After {report.passes} passes {report.lacking} chunks of {report.collection!r} still lack"
        f" a vector in space {report.space!r}: writers add them faster than they are embedded."
        " Nothing is lost: call reembed() again when less is written, or with a higher last=",
        collection=report.collection,
        lacking=report.lacking,
    )


def cancel(collection_name: str) -> Procedure[str | None]:
    """Give a move up that was begun; return the name of the space it was going to, if it was.

    Raises:
        CollectionNotFound: there is none of that name.
        LockTimeout: writers held the collection each time.
    """
    name = yield from _patiently(lambda: _cancel(collection_name), {"collection": collection_name})
    return name


def _patiently(operation: Callable[[], Operation[T]], told: Mapping[str, Any]) -> Procedure[T]:
    """Do what locks the collection against writers, letting them by if it has to wait for long."""
    result: T = yield from patiently(
        lambda: Transact(_with_lock_timeout(operation())), LOCK_PAUSES, _TRY_AGAIN, told
    )
    return result


def _with_lock_timeout(operation: Operation[T]) -> Operation[T]:
    # In any other, what writers committed while this waited for its lock would not be seen.
    yield Query(sql.SQL("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
    yield Query(sql.SQL("SELECT set_config('lock_timeout', %s, true)"), [LOCK_TIMEOUT])
    return (yield from operation)


def _cancel(collection_name: str) -> Operation[str | None]:
    collection = yield from find_collection(collection_name)
    rows = yield Query(_CANCEL, [collection.id])
    return rows[0][0] if rows else None


# --- operations --------------------------------------------------------------------------------


# One statement decides who moves where; a second run to the same space joins the first.
_BEGIN = sql.SQL("""
UPDATE ragstore_collection SET next_space_id = %(space)s
WHERE id = %(collection)s AND space_id IS DISTINCT FROM %(space)s
  AND (next_space_id IS NULL OR next_space_id = %(space)s)
RETURNING id
""")
_STATE = sql.SQL("""
SELECT c.space_id, n.name FROM ragstore_collection c
LEFT JOIN ragstore_embedding_space n ON n.id = c.next_space_id WHERE c.id = %s
""")
_LOCK_FOR_SWITCH = sql.SQL(
    "SELECT space_id, next_space_id FROM ragstore_collection WHERE id = %s FOR UPDATE"
)
_SWITCH = sql.SQL(
    "UPDATE ragstore_collection SET space_id = %(space)s, next_space_id = NULL"
    " WHERE id = %(collection)s"
)
_CANCEL = sql.SQL("""
UPDATE ragstore_collection c SET next_space_id = NULL FROM ragstore_embedding_space s
WHERE c.id = %s AND s.id = c.next_space_id RETURNING s.name
""")


def _begin(collection_name: str, space_name: str) -> Operation[tuple[CollectionInfo, Space]]:
    """Set where the collection goes, unless it is there or on its way elsewhere."""
    collection = yield from find_collection(collection_name)
    target = yield from find_space(space_name)
    yield from check_attached(target)
    values = {"space": target.id, "collection": collection.id}
    if (yield Query(_BEGIN, values)):
        return collection, target
    rows = yield Query(_STATE, [collection.id])
    if rows and rows[0][0] == target.id:
        return replace(collection, space=target), target
    check_exists(collection, rows)
    raise ReembedUnderWay(
        f"The collection {collection.name!r} is being moved to space {rows[0][1]!r}: finish that"
        f" with reembed(…, to={rows[0][1]!r}), or give it up with cancel_reembed()",
        collection=collection.name,
        space=rows[0][1],
    )
