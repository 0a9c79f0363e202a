"""A statement compiled once, and the values that a search puts into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect

from ragstore.execution import Numbered
from ragstore.search.filter import Filter

_DIALECT = psycopg_dialect.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

Process = Callable[[Any], Any]


@dataclass(frozen=True)
class Prepared:
    """SQL with ``$1``, ``$2``, …; the names behind the numbers, and the values that never change.

    ``slots`` has, for each parameter of the filter, its names (several for a list that is written
    out) and what makes a value of its type.
    """

    statement: bytes
    names: tuple[str, ...]
    fixed: Mapping[str, Any]
    slots: tuple[tuple[tuple[str, ...], bool, Process | None], ...]

    def with_values(
        self, values: Mapping[str, Any], where: Filter | None, *, keep_plan: bool
    ) -> Numbered:
        """Return the statement with the values of one search, its plan kept for the next or not."""
        every = {**self.fixed, **values}
        if where is not None:
            for (names, is_list, process), value in zip(self.slots, where.values, strict=True):
                if not names:
                    continue
                members = value if is_list else [value]
                made = members if process is None else map(process, members)
                every.update(zip(names, made, strict=True))
        numbered = [every[name] for name in self.names]
        return Numbered(self.statement, numbered, None if keep_plan else False)


def prepare(statement: Select[Any], where: Filter | None) -> Prepared:
    """Compile a statement whose filter has the parameters of ``where``."""
    text = statement.compile(dialect=_DIALECT)
    state = text.construct_expanded_state(escape_names=False)
    binders: dict[str, Any] = {**text._bind_processors, **state.processors}  # noqa: SLF001 - as in execution
    fixed = {
        name: binders[name](value) if name in binders and value is not None else value
        for name, value in state.parameters.items()
    }
    slots: list[tuple[tuple[str, ...], bool, Process | None]] = []
    for parameter in where.parameters if where is not None else ():
        # SQLAlchemy leaves out what cannot matter, as all beside a false in a conjunction.
        name = text.bind_names.get(parameter)
        if name is None:
            slots.append(((), False, None))
            continue
        is_list = name in state.parameter_expansion
        names = tuple(state.parameter_expansion[name]) if is_list else (name,)
        slots.append((names, is_list, binders.get(names[0]) if names else None))
    order = tuple(state.positiontup or ())
    return Prepared(state.statement.encode(), order, fixed, tuple(slots))
