"""A run of ingest: what is decided between its transactions.

Each batch is planned (checked, looked up, its vectors made) and then stored; the next one may be
planned while the former is stored. Nothing here opens a connection or waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar, get_args

from ragstore.analysis import analyze, analyze_keys
from ragstore.backfill import BELOW_ALL
from ragstore.collection import CollectionInfo, find_collection
from ragstore.content import NewDocument, PreparedDocument, prepare_batch
from ragstore.exceptions import (
    DatabaseUnavailable,
    InvalidInput,
    PermissionDenied,
    QueryFailed,
    RagstoreError,
    WriteConflict,
)
from ragstore.execution import Call, Operation, Row
from ragstore.indexing import index_after_load
from ragstore.ingest import (
    Batch,
    Circumstances,
    Place,
    find_circumstances,
    look_up,
    missing_vectors,
    write,
)
from ragstore.maintenance import PAGE as DELETED_AT_ONCE
from ragstore.maintenance import page_of_documents
from ragstore.procedure import Procedure
from ragstore.report import IngestReport, Problem, Refusals
from ragstore.retry import Patience, insist
from ragstore.seen import SeenKeys
from ragstore.syncing import Beginning, delete_since, find_beginning
from ragstore.vector import make_vectors
from ragstore.work import Work, transact

logger = logging.getLogger(__name__)

T = TypeVar("T")

OnError = Literal["abort", "skip"]
"""What becomes of a batch with a document that cannot be stored."""

BuildIndex = Literal["auto", "never"]
"""Whether what a large load calls for is done after it."""

FIRST_ANALYSIS = 100
"""After how many chunks of a run the planner may have to hear of them for the first time."""

FIRST_BATCH = 300
"""The most chunks of the first batch, so that the server begins early: until then it waits."""

LATE_SHARE = 0.1
"""The part of a load that its statistics may leave out, if they are gathered meanwhile."""

SYNC_PAGE = 5_000
"""How many stored keys are compared at a time with those of the source."""

# What the server says of a row: bad values, violated constraints, the limits of a row, and what
# somebody's own trigger raises.
_REFUSALS = frozenset({"22", "23", "44", "54", "P0"})


class Batcher:
    """Cuts documents into batches of about ``size`` chunks; a document is never divided.

    The first is smaller: the second is planned while it is stored.

    Raises:
        InvalidInput: ``size`` is below 1.
    """

    def __init__(self, size: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidInput(f"batch_size is {size!r}: it takes a whole number from 1")
        self._size = size
        self._next = min(size, FIRST_BATCH)
        self._chunks = 0
        self._batch: list[NewDocument] = []

    def add(self, document: NewDocument) -> list[NewDocument]:
        """Take a document; return the batch it fills, or an empty one."""
        self._batch.append(document)
        chunks = getattr(document, "chunks", ())
        # Anything else is refused, and named, with its batch.
        self._chunks += max(1, len(chunks) if isinstance(chunks, Sequence) else 1)
        if self._chunks < self._next:
            return []
        self._next = self._size
        return self.rest()

    def rest(self) -> list[NewDocument]:
        """Return what was taken since the last batch."""
        batch, self._batch, self._chunks = self._batch, [], 0
        return batch


@dataclass(frozen=True)
class Planned:
    """A batch that can be stored, and what is to be reported of it already."""

    batch: Batch
    report: IngestReport


class Load:
    """A run of ingest into one collection.

    ``start()`` it, ``plan()`` and ``store()`` each batch, and ``finish()`` it once everything was
    read.

    Raises:
        InvalidInput: ``on_error``, ``sync`` or ``build_index`` is none of its values.
    """

    def __init__(
        self,
        collection: str,
        *,
        can_embed: bool,
        on_error: OnError = "abort",
        sync: bool = False,
        build_index: BuildIndex = "auto",
    ) -> None:
        if on_error not in get_args(OnError):
            raise InvalidInput(f"on_error is {on_error!r}: it takes 'abort' or 'skip'")
        if build_index not in get_args(BuildIndex):
            raise InvalidInput(f"build_index is {build_index!r}: it takes 'auto' or 'never'")
        if not isinstance(sync, bool):  # it deletes
            raise InvalidInput(f"sync is {sync!r}: it takes True or False")
        self._name = collection
        self._can_embed = can_embed
        self._skip = on_error == "skip"
        self._seen = SeenKeys() if sync else None
        self._is_complete = True
        self._build_index = build_index
        self._just_written: frozenset[str] = frozenset()
        self._written = 0
        self._analyze_at = FIRST_ANALYSIS
        self._is_analyzed = False
        self.target: CollectionInfo
        self._now: Circumstances
        self._beginning: Beginning

    def start(self) -> Work[None]:
        """Look the collection up, and what holds for the run.

        Raises:
            CollectionNotFound: there is none of that name.
        """
        yield from insist(self._start, {"collection": self._name})

    def _start(self) -> Operation[None]:
        self.target = yield from find_collection(self._name)
        self._now = yield from find_circumstances()
        if self._seen is not None:
            self._beginning = yield from find_beginning()

    def plan(self, documents: Sequence[NewDocument]) -> Work[Planned]:
        """Check documents, find those that have changed, and make the vectors they need.

        Raises:
            InvalidInput: a document cannot be stored, and is not to be skipped.
            SpaceNotReady: the collection has no space for vectors.
            EmbeddingFailed: ``embed`` raised, or made something else than vectors.
        """
        refuse = Refusals(skip=self._skip)
        prepared = yield Call(prepare_batch, (documents, refuse))
        if self._seen is not None:
            self._seen.add([document.key for document in prepared])
            self._seen.add([key for key in refuse.keys if key is not None])
            self._is_complete &= None not in refuse.keys
        planned = yield from self._plan(prepared)
        return Planned(planned.batch, refuse.report + planned.report)

    def _plan(self, prepared: Sequence[PreparedDocument]) -> Work[Planned]:
        outlook = yield from self._insist(lambda: look_up(self.target, prepared))
        refuse = Refusals(skip=self._skip)
        for error in missing_vectors(self.target, outlook, can_embed=self._can_embed):
            refuse(error)
        vectors: dict[Place, bytes | None] = {}
        made = 0
        if self.target.space is not None and outlook.wanting:
            made = yield from make_vectors(self.target.space, outlook.wanting, vectors, refuse)
        changed = [each for each in outlook.changed if each.key not in refuse.keys]
        report = refuse.report + IngestReport(embedded=made)
        return Planned(Batch(changed, outlook.unchanged, vectors), report)

    def store(self, planned: Planned) -> Work[IngestReport]:
        """Write a batch in one transaction, or leave nothing of it.

        One that other writers stand in the way of, or whose connection is lost, is tried again.
        Documents that the server refuses are found by halving the batch, if they are to be skipped.

        Raises:
            SpaceChanged: the collection switched its space meanwhile.
            QueryFailed, PermissionDenied: the server refused it.
            WriteConflict, LockTimeout: other writers were in the way each time.
            DatabaseUnavailable: the server did not come back.
        """
        batch, report = planned.batch, planned.report
        yield from self._analyze_keys()
        if not self._just_written.isdisjoint(document.key for document in batch.unchanged):
            # A document that stands in the batch before, too: it was looked up before that was
            # written, and may have to be put back.
            batch, report = yield from self._plan_again(batch, report)
        self._just_written = frozenset(document.key for document in batch.changed)
        report += yield from self._store(batch)
        self._written += report.chunks
        return report

    def _analyze_keys(self) -> Work[None]:
        """Let the planner know of growing tables, each time that they have grown tenfold."""
        if self._written >= self._analyze_at:
            self._analyze_at = 10 * self._written
            yield from self._gather(lambda: analyze_keys(self.target, self._written))

    def _gather(self, analysis: Callable[[], Operation[tuple[str, ...]]]) -> Work[bool]:
        """Gather statistics, and tell whether; without them the load goes on, only slower."""
        try:
            return bool((yield from self._insist(analysis)))
        except QueryFailed as exc:
            extra = {"collection": self.target.name, "sqlstate": exc.sqlstate}
            logger.warning("The statistics were not gathered, run analyze(): %s", exc, extra=extra)
            return False

    def _plan_again(self, batch: Batch, report: IngestReport) -> Work[tuple[Batch, IngestReport]]:
        planned = yield from self._plan(_sorted([*batch.changed, *batch.unchanged]))
        return planned.batch, report + planned.report

    def _store(self, batch: Batch) -> Work[IngestReport]:
        try:
            return (yield from self._store_whole(batch))
        except RagstoreError as exc:
            if not self._is_refusal(exc):
                raise
            refusal = exc
        if len(batch.changed) == 1:
            problem = Problem.of(refusal, batch.changed[0].key)
            return IngestReport(unchanged=len(batch.unchanged), skipped=1, problems=(problem,))
        report = IngestReport()
        for half in _halves(batch):
            report += yield from self._store(half)
        return report

    def _store_whole(self, batch: Batch) -> Work[IngestReport]:
        report = IngestReport()
        patience = Patience({"collection": self.target.name, "documents": len(batch.changed)})
        while batch.changed:
            try:
                report += yield from transact(
                    write(self.target, batch, staged=self._now.is_secured)
                )
                break
            except (WriteConflict, QueryFailed, DatabaseUnavailable) as exc:
                pause, failure = patience.pause(exc), type(exc)
            yield pause
            if failure is WriteConflict:
                batch, report = yield from self._plan_again(batch, report)
            elif failure is DatabaseUnavailable:
                batch = yield from self._look_again(batch)
        return report + IngestReport(unchanged=len(batch.unchanged))

    def _look_again(self, batch: Batch) -> Work[Batch]:
        """Return what is left of a batch that may have been stored; no vector is made anew."""
        outlook = yield from self._insist(lambda: look_up(self.target, batch.changed))
        return Batch(outlook.changed, [*batch.unchanged, *outlook.unchanged], batch.vectors)

    def _insist(self, operation: Callable[[], Operation[T]]) -> Work[T]:
        return insist(operation, {"collection": self.target.name})

    def _is_refusal(self, exc: RagstoreError) -> bool:
        """Tell whether an error says something of a row, and rows are to be skipped."""
        if isinstance(exc, PermissionDenied):
            # Of a row, and not of the table, where the role has the right but a policy says no.
            return self._skip and self._now.is_secured and self._now.may_insert
        state = exc.sqlstate if isinstance(exc, QueryFailed) else None
        return self._skip and state is not None and state[:2] in _REFUSALS

    def finish(self, report: IngestReport) -> Procedure[IngestReport]:
        """Do what a run ends with, once the whole source was read; return what was deleted."""
        deleted = yield from self._delete_unseen()
        if self._build_index == "auto" and not self._is_analyzed:
            analysis = partial(analyze, self.target, written=report.chunks)
            self._is_analyzed = yield from self._gather(analysis)
        if not self._is_analyzed:
            yield from self._analyze_keys()
        if self._build_index == "auto" and report.chunks:
            yield from self._build()
        return IngestReport(deleted=deleted)

    def analyze_ahead(self, last: Planned) -> Work[None]:
        """Gather the statistics that the load calls for while its last batch is stored.

        Only if that is a small part of it, and nothing is deleted afterwards; or finish() does.
        """
        pending = sum(len(document.chunks) for document in last.batch.changed)
        written = self._written  # maybe with the last: then what is pending is counted twice
        if self._build_index == "never" or self._seen is not None:
            return
        if pending > LATE_SHARE * (written + pending):
            return
        with suppress(RagstoreError):  # finish() tries again, and tells
            done = yield from transact(analyze(self.target, written=written))
            self._is_analyzed = bool(done)

    def _build(self) -> Procedure[None]:
        """Build the index that is due; if that fails, all is stored, and searches stay exact."""
        try:
            yield from index_after_load(self.target)
        except QueryFailed as exc:
            extra = {"collection": self.target.name, "sqlstate": exc.sqlstate}
            logger.warning("The index was not built, run ensure_indexes(): %s", exc, extra=extra)

    def _delete_unseen(self) -> Work[int]:
        """Delete the documents that were not in the source, if that was asked for.

        Those that another writer has stored since the start stay. If a document was skipped that
        has no key, nothing is deleted: it may be any of them.
        """
        deleted = 0
        if self._seen is None or not self._is_complete:
            return deleted
        after = BELOW_ALL
        while page := (yield from self._insist(partial(self._page, after))):
            after = page[-1][0]
            gone = self._seen.missing(page)
            for at in range(0, len(gone), DELETED_AT_ONCE):
                some = gone[at : at + DELETED_AT_ONCE]
                deleted += yield from self._insist(partial(self._delete, some))
        return deleted

    def _page(self, after: int) -> Operation[list[Row]]:
        return page_of_documents(self.target, after, SYNC_PAGE)

    def _delete(self, ids: Sequence[int]) -> Operation[int]:
        return delete_since(self.target, ids, self._beginning)


def _sorted(documents: Iterable[PreparedDocument]) -> list[PreparedDocument]:
    return sorted(documents, key=lambda document: document.key)


def _halves(batch: Batch) -> Iterator[Batch]:
    middle = len(batch.changed) // 2
    yield Batch(batch.changed[:middle], batch.unchanged, batch.vectors)
    yield Batch(batch.changed[middle:], (), batch.vectors)
