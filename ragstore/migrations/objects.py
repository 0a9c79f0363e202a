"""SQLAlchemy's objects for what facts say: the arguments of operations.

The operations of both directions are made here. What an upgrade makes is taken from the scratch
copy of the models, and what a downgrade brings back from the database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import conv
from sqlalchemy.types import NullType, TypeEngine

from ragstore.migrations.facts import Column, Constraint, Enum, Index, Name, Sequence, Table
from ragstore.migrations.sqltext import Expression, SqlType

Enums = Mapping[Name, Enum]

_SERIALS = {"smallint": "smallserial", "integer": "serial", "bigint": "bigserial"}
_LARGEST = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}

_PLAIN: dict[str, Callable[[], TypeEngine[Any]]] = {
    "smallint": sa.SmallInteger,
    "integer": sa.Integer,
    "bigint": sa.BigInteger,
    "text": sa.Text,
    "character varying": sa.String,
    "boolean": sa.Boolean,
    "date": sa.Date,
    "real": sa.REAL,
    "double precision": sa.Double,
    "numeric": sa.Numeric,
    "bytea": sa.LargeBinary,
    "uuid": sa.Uuid,
    "json": postgresql.JSON,
    "jsonb": postgresql.JSONB,
    "tsvector": postgresql.TSVECTOR,
    "tsquery": postgresql.TSQUERY,
    "inet": postgresql.INET,
    "cidr": postgresql.CIDR,
    "macaddr": postgresql.MACADDR,
    "hstore": postgresql.HSTORE,
    "interval": postgresql.INTERVAL,
    "int4range": postgresql.INT4RANGE,
    "int8range": postgresql.INT8RANGE,
    "numrange": postgresql.NUMRANGE,
    "daterange": postgresql.DATERANGE,
    "tsrange": postgresql.TSRANGE,
    "tstzrange": postgresql.TSTZRANGE,
    "timestamp without time zone": sa.DateTime,
    "timestamp with time zone": lambda: sa.DateTime(timezone=True),
    "time without time zone": sa.Time,
    "vector": VECTOR,
    "halfvec": HALFVEC,
    "sparsevec": SPARSEVEC,
}
_SIZED: dict[str, Callable[..., TypeEngine[Any]]] = {
    "character varying": sa.String,
    "character": sa.CHAR,
    "numeric": sa.Numeric,
    "vector": VECTOR,
    "halfvec": HALFVEC,
    "sparsevec": SPARSEVEC,
    "bit": BIT,
}
_SIZE = re.compile(r"([a-z ]+)\((\d+)(?:,(\d+))?\)")
_quote = postgresql.dialect(paramstyle="named").identifier_preparer.quote  # type: ignore[no-untyped-call]  # no annotations there
_SIMPLE_NAME = re.compile(r'"?([^".]+)"?')
_TIMESTAMP = re.compile(r"timestamp\((\d)\) with(out)? time zone")


def type_of(sql: str, enums: Enums) -> TypeEngine[Any]:
    """Return the type that the server prints as ``sql``."""
    if sql.endswith("[]"):
        return postgresql.ARRAY(type_of(sql.removesuffix("[]"), enums))
    if sql in _PLAIN:
        return _PLAIN[sql]()
    sized = _SIZE.fullmatch(sql)
    if sized and sized[1] in _SIZED:
        return _SIZED[sized[1]](*(int(number) for number in sized.groups()[1:] if number))
    timestamp = _TIMESTAMP.fullmatch(sql)
    if timestamp:
        return postgresql.TIMESTAMP(timezone=not timestamp[2], precision=int(timestamp[1]))
    for enum in enums.values():
        if sql == printed(enum.schema, enum.name):
            return enum_type(enum)
    return SqlType(sql)


def enum_type(enum: Enum) -> postgresql.ENUM:
    """Return the enumerated type, as a column has it: made and dropped by other operations."""
    return postgresql.ENUM(*enum.values, name=enum.name, schema=enum.schema, create_type=False)


def printed(schema: str | None, name: str) -> str:
    """Return a name as the server prints it, quoted where it must be."""
    return ".".join(_quote(part) for part in (schema, name) if part is not None)


def column_of(column: Column, enums: Enums, *, is_key: bool = False) -> sa.Column[Any]:
    """Return the column, without the keys and indexes that it is in.

    ``is_key`` says that it is the whole primary key of the table it is created with: SQLAlchemy
    makes an integer key serial by itself, unless it is told not to.
    """
    arguments: list[Any] = []
    if column.identity:
        arguments = [identity_of(column)]
    elif column.generated:
        expression = Expression(column.default or "")
        arguments = [sa.Computed(expression, persisted=column.generated == "s")]
    is_serial = column.serial and not is_key
    kind = SqlType(_SERIALS[column.type]) if is_serial else _collated(column, enums)
    counts: Any = bool(column.identity) or "auto"
    if is_key and not column.serial and not column.identity and column.type in _SERIALS:
        counts = False
    return sa.Column(
        column.name,
        kind,
        *arguments,
        nullable=column.nullable,
        server_default=default_of(column) if not column.generated else None,
        comment=column.comment,
        autoincrement=counts,
    )


def default_of(column: Column) -> Expression | None:
    """Return the default's expression, None without one; a generated column has none."""
    if column.generated or column.default is None:
        return None
    return Expression(column.default)


def identity_of(column: Column) -> sa.Identity:
    """Return the identity with the options that are not what Postgres would take."""
    always = column.identity == "a"
    if column.sequence is None:
        return sa.Identity(always=always)
    return sa.Identity(always=always, **sequence_options(column.sequence))


def sequence_options(sequence: Sequence) -> dict[str, Any]:
    """Return the options of a sequence that are not what Postgres would take."""
    rises = sequence.increment > 0
    largest = _LARGEST.get(sequence.type, 0)
    least, most = (1, largest) if rises else (-largest - 1, -1)
    start = sequence.minimum if rises else sequence.maximum
    given = {
        "start": (sequence.start, start),
        "increment": (sequence.increment, 1),
        "minvalue": (sequence.minimum, least),
        "maxvalue": (sequence.maximum, most),
        "cache": (sequence.cache, 1),
        "cycle": (sequence.cycle, False),
    }
    return {name: value for name, (value, default) in given.items() if value != default}


def table_of(table: Table, enums: Enums, **options: Any) -> sa.Table:
    """Return the table with its columns and those constraints that ``create_table`` can make."""
    key = _sole_key(table)
    made = sa.Table(
        table.name,
        sa.MetaData(),
        *(column_of(each, enums, is_key=each.name == key) for each in table.columns.values()),
        schema=table.schema,
        comment=table.comment,
        prefixes=["UNLOGGED"] if table.unlogged else [],
        **_table_options(table),
        **options,
    )
    for constraint in table.constraints.values():
        if not is_special(constraint):
            made.append_constraint(constraint_of(constraint))
    return made


def is_special(constraint: Constraint) -> bool:
    """Tell whether SQLAlchemy, or Alembic's writing of it, would lose a part of a constraint."""
    return (
        constraint.kind == "x"
        or (constraint.kind == "p" and (constraint.deferrable or bool(constraint.included)))
        or (constraint.kind == "c" and constraint.no_inherit)
        or "NOT ENFORCED" in constraint.definition
        or "WITHOUT OVERLAPS" in constraint.definition
        or "PERIOD" in constraint.definition
    )


def constraint_of(constraint: Constraint) -> sa.Constraint:
    """Return a constraint that is not special."""
    name = conv(constraint.name)
    if constraint.kind == "p":
        return sa.PrimaryKeyConstraint(*constraint.columns, name=name)
    when: dict[str, Any] = {}
    if constraint.deferrable:
        when = {"deferrable": True, "initially": "DEFERRED" if constraint.deferred else None}
    if constraint.kind == "u":
        return sa.UniqueConstraint(*constraint.columns, name=name, **when, **_unique(constraint))
    loose: dict[str, Any] = {} if constraint.validated else {"postgresql_not_valid": True}
    if constraint.kind == "c":
        return sa.CheckConstraint(Expression(constraint.expression), name=name, **loose)
    return sa.ForeignKeyConstraint(
        constraint.columns,
        _targets(constraint),
        name=name,
        onupdate=constraint.on_update or None,
        ondelete=constraint.on_delete or None,
        match=constraint.match or None,
        **when,
        **loose,
    )


def index_of(index: Index, table: Table) -> sa.Index:
    """Return an index, attached to a table that has its columns and nothing else."""
    shell = sa.Table(
        table.name,
        sa.MetaData(),
        *(sa.Column(name, NullType()) for name in table.columns),
        schema=table.schema,
    )
    simple = {printed(None, name): shell.c[name] for name in table.columns}
    keys = [simple[key] if key in simple else Expression(key, is_key=True) for key in index.keys]
    made = sa.Index(conv(index.name), *keys, unique=index.unique, **_index_options(index))
    if made.table is None:  # all of it is text
        shell.append_constraint(made)
        made._set_parent(shell)  # noqa: SLF001 - Index has no public way to name its table
    return made


def _sole_key(table: Table) -> str | None:
    """Return the one column of the primary key, if it refers to no other table."""
    constraints = table.constraints.values()
    keys = [each.columns for each in constraints if each.kind == "p" and not is_special(each)]
    referring = {name for each in constraints if each.kind == "f" for name in each.columns}
    sole = keys[0][0] if keys and len(keys[0]) == 1 else None
    return None if sole in referring else sole


def _collated(column: Column, enums: Enums) -> TypeEngine[Any]:
    kind = type_of(column.type, enums)
    if column.collation is None:
        return kind
    simple = _SIMPLE_NAME.fullmatch(column.collation)
    if isinstance(kind, sa.String) and simple:
        return type(kind)(length=kind.length, collation=simple[1])
    return SqlType(f"{column.type} COLLATE {column.collation}")


def _table_options(table: Table) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if table.partition_key:
        options["postgresql_partition_by"] = table.partition_key
    if table.options:
        options["postgresql_with"] = _numbers(table.options)
    return options


def _unique(constraint: Constraint) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if constraint.nulls_not_distinct:
        options["postgresql_nulls_not_distinct"] = True
    if constraint.included:
        options["postgresql_include"] = list(constraint.included)
    return options


def _index_options(index: Index) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if index.method != "btree":
        options["postgresql_using"] = index.method
    if index.options:
        options["postgresql_with"] = _numbers(index.options)
    if index.included:
        options["postgresql_include"] = list(index.included)
    if index.nulls_not_distinct:
        options["postgresql_nulls_not_distinct"] = True
    if index.where is not None:
        options["postgresql_where"] = Expression(index.where)
    return options


def _numbers(options: Iterable[tuple[str, str]]) -> dict[str, str | int]:
    return {name: int(value) if value.isdigit() else value for name, value in options}


def _targets(constraint: Constraint) -> list[str]:
    schema, table = constraint.refers_to or (None, "")
    prefix = f"{schema}.{table}" if schema else table
    return [f"{prefix}.{column}" for column in constraint.referred]
