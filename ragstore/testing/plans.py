"""Does the planner use an index for a statement?"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from typing import Any, overload

from sqlalchemy import Connection, Executable, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ragstore.exceptions import InvalidQuery
from ragstore.execution import compiled

# A test's tables are so small that reading them whole is cheaper than any index.
_DISCOURAGE = text("SELECT set_config('enable_seqscan', 'off', true)")
# What a plan names is the index of a partition, not that of the table above it.
_OF_NAME = text(
    "SELECT i.oid::regclass::text FROM pg_class i WHERE i.relkind IN ('i', 'I') AND i.oid = any("
    "  SELECT to_regclass(:name) UNION SELECT relid FROM pg_partition_tree(to_regclass(:name)))"
)

Statement = Executable | str


@overload
def assert_uses_index(
    where: Session | Connection,
    statement: Statement,
    index: str | None = ...,
    parameters: Mapping[str, Any] | None = ...,
) -> None: ...


@overload
def assert_uses_index(
    where: AsyncSession,
    statement: Statement,
    index: str | None = ...,
    parameters: Mapping[str, Any] | None = ...,
) -> Awaitable[None]: ...


def assert_uses_index(
    where: Session | Connection | AsyncSession,
    statement: Statement,
    index: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Awaitable[None] | None:
    """Fail unless the plan of ``statement`` scans an index, or the one named.

    Sequential scans are discouraged while it is planned, as a test's tables are tiny; it is not
    executed, and the transaction is left as it was. ``statement`` is SQLAlchemy's, or SQL with
    ``:name`` for each of ``parameters``. ``index`` may be that of a partitioned table: those of
    its partitions count. With an AsyncSession it is awaited.

    Raises:
        AssertionError: it does not; the message shows the plan.
        InvalidQuery: there is no index of that name.
    """
    __tracebackhide__ = True
    if isinstance(where, AsyncSession):
        return where.run_sync(lambda session: _check(session, statement, index, parameters))
    _check(where, statement, index, parameters)
    return None


def _check(
    where: Session | Connection,
    statement: Statement,
    index: str | None,
    parameters: Mapping[str, Any] | None,
) -> None:
    __tracebackhide__ = True
    if isinstance(where, Session):
        where.flush()
        where = where.connection()
    accepted = _indexes_called(where, index) if index is not None else None
    nested = where.begin_nested()
    try:
        where.execute(_DISCOURAGE)
        plan = json.loads(_explain(where, statement, parameters, "FORMAT JSON, VERBOSE")[0])
        used = _indexes_in(plan)
        is_right = bool(used if accepted is None else used & accepted)
        shown = "" if is_right else "\n".join(_explain(where, statement, parameters, "COSTS OFF"))
    finally:
        nested.rollback()
    wanted = f"the index {index}" if index is not None else "an index"
    assert is_right, f"the plan does not use {wanted}:\n{shown}"  # noqa: S101 - its purpose


def _explain(
    connection: Connection,
    statement: Statement,
    parameters: Mapping[str, Any] | None,
    options: str,
) -> list[str]:
    bound: Any = statement
    if isinstance(statement, str):
        bound = text(statement).bindparams(**(parameters or {}))
    query = compiled(bound)
    values: Any = query.parameters
    sql = f"EXPLAIN ({options}) {bytes(query.statement).decode()}"  # type: ignore[arg-type]
    rows = connection.exec_driver_sql(sql, values).scalars()
    return [row if isinstance(row, str) else json.dumps(row) for row in rows]


def _indexes_in(plan: Any) -> set[str]:
    """Return the names of the indexes that a plan, or a part of one, scans."""
    if isinstance(plan, list):
        return set().union(*map(_indexes_in, plan))
    if not isinstance(plan, dict):
        return set()
    inside = set().union(*map(_indexes_in, plan.values()))
    return inside | ({plan["Index Name"]} if "Index Name" in plan else set())


def _indexes_called(connection: Connection, name: str) -> set[str]:
    found = {_bare(row) for row in connection.execute(_OF_NAME, {"name": name}).scalars()}
    if not found:
        raise InvalidQuery(f"there is no index {name}: look at \\di, or at the model")
    return found


def _bare(name: str) -> str:
    """Return a regclass without its schema and quotation marks, as a plan names an index."""
    return name.rpartition(".")[2].strip('"')
