"""Run revision scripts without a database, to learn which operations they have.

Alembic's ``op`` and ``context`` are module-level proxies. While the scripts run, both stand for
objects that note each operation and have a connection that answers nothing.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import alembic.context
import alembic.op
from alembic.config import Config
from alembic.operations import BatchOperations, MigrateOperation, Operations
from alembic.operations.batch import BatchOperationsImpl
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Dialect, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.inspection import _inspects
from sqlalchemy.orm import ORMExecuteState, Session

Keep = Callable[[MigrateOperation, MigrationContext], Any]
"""Takes an operation and returns what its ``op`` function returns, or NotImplemented."""

_COUNTS = re.compile(
    r"\s*select\s+(count|exists)\s*\((?!.*\bgroup\s+by\b)", re.IGNORECASE | re.DOTALL
)


class NamedTypeOp(MigrateOperation):
    """A named type that was made or dropped through the connection: ``Enum(…).create(bind)``."""

    def __init__(self, name: str, schema: str | None, *, dropped: bool) -> None:
        self.name = name
        self.schema = schema
        self.dropped = dropped


class Inert:
    """A result from a database without tables, and all that can be had from it.

    Anything can be asked and called, and nothing comes of it: it is empty, false, and 0. A query
    has no first row, except one that counts, where a script is right to expect one.
    """

    def __init__(self, *, counts: bool = False) -> None:
        self._counts = counts

    def scalar(self, *_args: Any, **_options: Any) -> Inert | None:
        """Return nothing, or 0 if something was counted."""
        return self if self._counts else None

    # `while row := cursor.fetchone()` and its kin must end.
    first = fetchone = one_or_none = scalar_one_or_none = scalar

    def __getattr__(self, name: str) -> Inert:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_args: Any, **_options: Any) -> Inert:
        """Return itself: whatever is called on a connection that does not exist gives nothing."""
        return self

    def __getitem__(self, _key: object) -> Inert:
        return self

    def __enter__(self) -> Inert:  # noqa: PYI034 - typing.Self is of Python 3.11
        return self

    def __exit__(self, *_exc: object) -> None:
        return None

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __contains__(self, _item: object) -> bool:
        return False

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __index__(self) -> int:
        return 0

    def __float__(self) -> float:
        return 0.0

    def __str__(self) -> str:
        return ""

    def __eq__(self, other: object) -> bool:
        return other is self or other == 0

    def __hash__(self) -> int:
        return id(self)

    def __lt__(self, other: Any) -> bool:
        return bool(other > 0)

    def __gt__(self, other: Any) -> bool:
        return bool(other < 0)

    def __le__(self, other: Any) -> bool:
        return bool(other >= 0)

    def __ge__(self, other: Any) -> bool:
        return bool(other <= 0)

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__


class InertConnection(Inert):
    """A connection, or its engine, to a database without tables. Unlike a result, it is true."""

    def __init__(self, dialect: Dialect, note: Callable[[NamedTypeOp], Any]) -> None:
        super().__init__()
        self.dialect = dialect
        self._note = note

    def execute(self, statement: object, *_args: Any, **_options: Any) -> Inert:
        """Return an empty result."""
        return Inert(counts=_COUNTS.match(str(statement)) is not None)

    exec_driver_sql = execute

    def scalar(self, statement: object = None, *_args: Any, **_options: Any) -> Inert | None:
        """Return nothing, or 0 if something was counted."""
        return self.execute(statement).scalar()

    def connect(self, *_args: Any, **_options: Any) -> InertConnection:
        """Return itself, as it does for every way to another connection or a transaction."""
        return self

    begin = begin_nested = execution_options = get_transaction = connect

    @property
    def engine(self) -> InertConnection:
        """Return itself."""
        return self

    def _run_ddl_visitor(self, visitor: Any, element: Any, **_options: Any) -> None:
        """Note an enum that is created or dropped; tables are created by operations."""
        if isinstance(element, postgresql.ENUM) and element.name:
            dropped = visitor is element.DDLDropper
            self._note(NamedTypeOp(element.name, element.schema, dropped=dropped))

    def __getattr__(self, name: str) -> Inert:
        if name.startswith("__"):
            raise AttributeError(name)
        return Inert()

    def __enter__(self) -> InertConnection:  # noqa: PYI034 - typing.Self is of Python 3.11
        return self

    def __bool__(self) -> bool:
        return True


@_inspects(InertConnection)
def _inspected(_bind: InertConnection) -> Inert:
    """Let ``sa.inspect(op.get_bind())`` find no tables, columns or indexes."""
    return Inert()


class _NoRows(IteratorResult[Any]):
    """The result of a query or statement for mapped classes."""

    rowcount = 0

    def __init__(self) -> None:
        super().__init__(SimpleResultMetaData(["nothing"]), iter(()))


def _answer(state: ORMExecuteState) -> _NoRows | None:
    """Answer a session on an inert connection: mapped classes need more of a result than words."""
    return _NoRows() if _is_idle(state.session) else None


def _forget(session: Session, *_state: Any) -> None:
    """Let a session on an inert connection have nothing to insert, update or delete."""
    if _is_idle(session):
        session.expunge_all()


def _is_idle(session: Session) -> bool:
    bind: object = session.bind
    return isinstance(bind, InertConnection)


@contextlib.contextmanager
def _idle_sessions() -> Iterator[None]:
    event.listen(Session, "do_orm_execute", _answer)
    event.listen(Session, "before_flush", _forget)
    try:
        yield
    finally:
        event.remove(Session, "do_orm_execute", _answer)
        event.remove(Session, "before_flush", _forget)


class _Context(MigrationContext):
    """A migration context that runs nothing."""

    @contextlib.contextmanager
    def autocommit_block(self) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def begin_transaction(self, _per_migration: bool = False) -> Iterator[None]:
        yield

    def execute(self, sql: Any, execution_options: dict[str, Any] | None = None) -> None:
        return

    def get_current_revision(self) -> None:
        return

    def get_current_heads(self) -> tuple[str, ...]:
        return ()


class _Environment(EnvironmentContext):
    """What a script finds in ``alembic.context``: its own arguments, and no database."""

    def __init__(self, config: Config, script: ScriptDirectory, context: MigrationContext) -> None:
        super().__init__(config, script)
        self._migration_context = context

    def configure(self, *_args: Any, **_options: Any) -> None:
        """Configure nothing."""

    def run_migrations(self, **_options: Any) -> None:
        """Run nothing."""


class _Recorder(Operations):
    """An ``op`` that hands each operation to ``keep`` instead of running it."""

    def __init__(self, context: MigrationContext, keep: Keep) -> None:
        super().__init__(context)
        self._keep = keep

    def invoke(self, operation: MigrateOperation) -> Any:
        result = self._keep(operation, self.migration_context)
        # An operation of the project's own may consist of others.
        return super().invoke(operation) if result is NotImplemented else result

    @contextlib.contextmanager
    def batch_alter_table(
        self, table_name: str, schema: str | None = None, *_args: Any, **_options: Any
    ) -> Iterator[BatchOperations]:
        make: Any = BatchOperationsImpl  # which has no types
        impl = make(self, table_name, schema, "never", None, (), {}, (), {}, None, None)
        yield _Batch(self, impl)

    def run_async(self, *_args: Any, **_options: Any) -> Any:
        """Run nothing."""


class _Batch(BatchOperations):
    """The operations of one table, for the same ``keep``."""

    def __init__(self, recorder: _Recorder, impl: BatchOperationsImpl) -> None:
        super().__init__(recorder.migration_context, impl)
        self._recorder = recorder

    def invoke(self, operation: MigrateOperation) -> Any:
        return self._recorder.invoke(operation)


def replay(script: ScriptDirectory, keep: Keep, target_metadata: Any = None) -> dict[str, str]:
    """Run the upgrades of the whole history and hand each operation to ``keep``, the oldest first.

    No database is asked, and nothing is printed or logged; what else a script does, it does. The
    names of constraints follow the naming convention of ``target_metadata``. Returns the error of
    each script that failed, by revision.
    """
    with _silence():
        recorder = _recorder(keep, target_metadata)
        config = vars(alembic.context).get("config") or Config()
        environment = _Environment(config, script, recorder.migration_context)
        with (
            _idle_sessions(),
            _standing_in(alembic.op, _proxy=recorder),
            _standing_in(alembic.context, _proxy=environment, config=config, script=script),
        ):
            steps = reversed(list(script.walk_revisions()))
            errors = [(step.revision, _run(step)) for step in steps]
    return {revision: error for revision, error in errors if error is not None}


def _recorder(keep: Keep, target_metadata: Any) -> _Recorder:
    # Not what stands in alembic.op: a command that failed leaves its own there.
    make_dialect: Any = postgresql.dialect  # which has no types
    dialect: Dialect = make_dialect()
    bind: Any = InertConnection(dialect, lambda operation: keep(operation, context))
    context = _Context(dialect, bind, {"target_metadata": target_metadata})
    return _Recorder(context, keep)


def _run(step: Script) -> str | None:
    """Run the upgrade of one script and return its error."""
    try:
        for function in _upgrades(step.module):
            function()
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - it is kept, and the caller decides
        return f"{type(exc).__name__}: {exc}".strip()
    return None


def _upgrades(module: ModuleType) -> list[Callable[[], Any]]:
    """Return ``upgrade``; with Alembic's template for several databases, that of each of them."""
    wanted = inspect.signature(module.upgrade).parameters.values()
    if not any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in wanted):
        return [module.upgrade]
    return [function for name, function in vars(module).items() if name.startswith("upgrade_")]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Print, log and warn nothing."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _standing_in(module: ModuleType, **names: Any) -> Iterator[None]:
    """Replace names of a module, and leave it exactly as it was."""
    before = {name: vars(module)[name] for name in names if name in vars(module)}
    vars(module).update(names)
    try:
        yield
    finally:
        for name in names:
            vars(module).pop(name, None)
        vars(module).update(before)
