"""Expressions as the models write them, for files that people read.

The server prints ``kind IN ('a', 'b')`` as an array of casts. What it printed is compared; what a
revision creates is written as in the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from alembic.util.sqla_compat import _get_constraint_final_name
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.dialects.postgresql.named_types import CreateDomainType
from sqlalchemy.exc import SQLAlchemyError

from ragstore.migrations.facts import Column, Constraint, Domain, Index, Table

# Without the paramstyle of a driver, which would double every percent sign.
_DIALECT = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


def spelled(table: Table, model: sa.Table) -> Table:
    """Return the table with its expressions as its model has them."""
    models = dict(_named(model))
    indexes = {str(index.name): index for index in model.indexes}
    columns = {column.name: column for column in model.columns}
    return replace(
        table,
        columns={name: _column(each, columns.get(name)) for name, each in table.columns.items()},
        constraints={
            name: _constraint(each, models.get(name)) for name, each in table.constraints.items()
        },
        indexes={name: _index(each, indexes.get(name)) for name, each in table.indexes.items()},
    )


def spelled_domain(domain: Domain, model: DOMAIN) -> Domain:
    """Return the domain with its definition and its check as the model has them."""
    check = "" if model.check is None else _sql(model.check, "")
    definition = str(CreateDomainType(model).compile(dialect=_DIALECT)).partition(" AS ")[2]
    return replace(domain, written=definition.strip(), written_check=check)


def _named(model: sa.Table) -> Iterator[tuple[str, sa.Constraint]]:
    for constraint in model.constraints:
        name = _get_constraint_final_name(constraint, _DIALECT)
        if name is not None:
            yield str(name), constraint


def _constraint(constraint: Constraint, model: sa.Constraint | None) -> Constraint:
    if isinstance(model, sa.CheckConstraint) and constraint.kind == "c":
        constraint = replace(constraint, expression=_sql(model.sqltext, constraint.expression))
    # A constraint made with its table is valid whatever the model says; one added later is not.
    if model is not None and model.dialect_options["postgresql"].get("not_valid"):
        definition = constraint.definition.removesuffix(" NOT VALID") + " NOT VALID"
        constraint = replace(constraint, validated=False, definition=definition)
    return constraint


def _column(column: Column, model: sa.Column[Any] | None) -> Column:
    default: Any = None if model is None else model.server_default
    if column.default is None or default is None:
        return column
    if isinstance(default, sa.Computed):
        return replace(column, default=_sql(default.sqltext, column.default))
    argument = getattr(default, "arg", None)
    if isinstance(argument, str):
        return replace(column, default="'" + argument.replace("'", "''") + "'")
    return replace(column, default=_sql(argument, column.default))


def _index(index: Index, model: sa.Index | None) -> Index:
    if index.where is None or model is None:
        return index
    return replace(index, where=_sql(model.dialect_options["postgresql"]["where"], index.where))


def _sql(element: Any, printed: str) -> str:
    """Return an expression as DDL has it, or as the server printed it where that is not known."""
    try:
        compiled = element.compile(
            dialect=_DIALECT, compile_kwargs={"literal_binds": True, "include_table": False}
        )
    except (AttributeError, SQLAlchemyError):
        return printed
    return str(compiled).strip()
