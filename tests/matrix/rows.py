"""Rows in the tables of a model, and whether a migration has kept them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ARRAY, Column, Connection, Enum, Interval, MetaData, Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

COUNT = 3
"""How many rows a table gets."""

# Its names and values go to the server as they are, without parameters.
_DIALECT = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]

# What row number n holds, by what the type is called in DDL.
_VALUES = {
    "BOOLEAN": "{truth}",
    "DATE": "2024-01-0{n}",
    "TIME": "0{n}:00",
    "TIMESTAMP": "2024-01-0{n} 12:34:56.7891",
    "INTERVAL": "{n} hours",
    "UUID": "00000000-0000-0000-0000-00000000000{n}",
    "JSON": '{{"n": {n}}}',
    "JSONB": '{{"n": {n}}}',
    "BYTEA": "\\x0{n}",
    "INET": "10.0.0.{n}",
    "CIDR": "10.0.{n}.0/24",
    "TSVECTOR": "word{n}",
    "HSTORE": '"n"=>"{n}"',
    "INT4RANGE": "[{n}0,{n}5)",
    "INT8RANGE": "[{n}0,{n}5)",
    "NUMRANGE": "[{n}0,{n}5)",
    "DATERANGE": "[2024-0{n}-01,2024-0{n}-05)",
    "TSTZRANGE": "[2024-0{n}-01 00:00+00,2024-0{n}-05 00:00+00)",
    "VECTOR": "[{numbers}]",
    "HALFVEC": "[{numbers}]",
    "SPARSEVEC": "{{1:{n}}}/{size}",
    "BIT": "{n:0{size}b}",
    "VARCHAR": "value {n}",
    "TEXT": "value {n}",
    "CITEXT": "value {n}",
    "CHAR": "value {n}",
}
_CUT = {"VARCHAR", "CHAR", "BIT"}


def fill(connection: Connection, metadata: MetaData) -> None:
    """Put three rows into every table; row n holds what follows from n and the column's type.

    Equal types hold equal values, so foreign keys are met. A partitioned table without partitions
    stays empty.
    """
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    for table in metadata.tables.values():
        if connection.scalar(text(_TAKES_ROWS), {"table": _name(table)}):
            for number in range(1, COUNT + 1):
                connection.exec_driver_sql(_insert(table, number).replace("%", "%%"))


def empty(connection: Connection, metadata: MetaData) -> None:
    """Take all rows out again."""
    names = ", ".join(_name(table) for table in metadata.tables.values())
    connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY CASCADE")


_TAKES_ROWS = """
SELECT relkind = 'r' OR EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid)
FROM pg_class c WHERE oid = to_regclass(:table)
"""


def _insert(table: Table, number: int) -> str:
    prepare = _DIALECT.identifier_preparer
    columns = [column for column in table.columns if column.computed is None]
    names = ", ".join(prepare.format_column(column) for column in columns)
    values = ", ".join(_quoted(_value(column.type, number)) for column in columns)
    return f"INSERT INTO {_name(table)} ({names}) OVERRIDING SYSTEM VALUE VALUES ({values})"


def _name(table: Table) -> str:
    return str(_DIALECT.identifier_preparer.format_table(table))


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _value(kind: TypeEngine[Any], number: int) -> str:
    while isinstance(kind, TypeDecorator) and not isinstance(kind, Interval):
        kind = kind.impl_instance
    if isinstance(kind, ARRAY):
        return f'{{"{_value(kind.item_type, number)}"}}'
    if isinstance(kind, (Enum, postgresql.ENUM)):
        return str(kind.enums[(number - 1) % len(kind.enums)])
    if isinstance(kind, postgresql.DOMAIN):
        return _value(kind.data_type, number)
    name, _, rest = kind.compile(dialect=_DIALECT).partition("(")
    name, given = name.split()[0], rest.partition(")")[0].partition(",")[0]
    size = int(given) if given.isdigit() else 1 if name in ("BIT", "CHAR") else 3
    value = _VALUES.get(name, "{n}").format(
        n=number,
        size=size,
        truth="true" if number % 2 else "false",
        numbers=",".join([str(number)] * size),
    )
    return value[-size:] if name in _CUT and rest + name != "VARCHAR" else value


# --- what is there -----------------------------------------------------------------------------


@dataclass
class TableRows:
    """The rows of one table as JSON, and the type of each of its columns."""

    types: dict[str, str] = field(default_factory=dict)
    generated: set[str] = field(default_factory=set)
    rows: list[dict[str, Any]] = field(default_factory=list)


def read_rows(connection: Connection) -> dict[str, TableRows]:
    """Return the rows of all tables, by the tables' names as ``MetaData.tables`` has them."""
    found: dict[str, TableRows] = {}
    for name, quoted, column, kind, generated in connection.execute(text(_COLUMNS)):
        if name not in found:
            rows = connection.execute(text(f"SELECT to_jsonb(t) FROM {quoted} t"))
            found[name] = TableRows(rows=[row[0] for row in rows])
        found[name].types[column] = kind
        if generated:
            found[name].generated.add(column)
    return found


_COLUMNS = """
SELECT CASE nspname WHEN 'public' THEN '' ELSE nspname || '.' END || relname,
  format('%I.%I', nspname, relname), attname,
  concat_ws(' ', format_type(atttypid, atttypmod), (SELECT string_agg(enumlabel, ',' ORDER BY
    enumsortorder) FROM pg_enum WHERE enumtypid IN (atttypid, typelem))),
  attgenerated <> ''
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
JOIN pg_type t ON t.oid = atttypid
WHERE relkind IN ('r', 'p') AND NOT relispartition AND nspname !~ '^pg_'
  AND nspname <> 'information_schema' AND relname <> 'alembic_version'
"""


def lost(before: dict[str, TableRows], after: dict[str, TableRows], model: MetaData) -> list[str]:
    """Return what is no longer there of the tables and columns that ``model`` has.

    It knows by ``renamed_from`` what they were called. Where a column has another type now, its
    values may be written differently, and only their number counts.
    """
    problems = []
    for table in model.tables.values():
        old, new = before.get(_former(table, before)), after.get(table.fullname)
        if old is None or new is None:
            continue
        if len(old.rows) != len(new.rows):
            problems.append(f"{table.fullname}: {len(old.rows)} rows, now {len(new.rows)}")
            continue
        problems += [f"{table.fullname}.{name}" for name in _changed(table, old, new)]
    return problems


def _former(table: Table, before: dict[str, TableRows]) -> str:
    name = table.info.get("renamed_from")
    if name is None or table.fullname in before:
        return str(table.fullname)
    return f"{table.schema}.{name}" if table.schema else str(name)


def _changed(table: Table, old: TableRows, new: TableRows) -> Iterable[str]:
    pairs = [(_former_column(column, old), column.name) for column in table.columns]
    pairs = [
        (was, now)
        for was, now in pairs
        if was in old.types and now in new.types and now not in new.generated
    ]
    same = [(was, now) for was, now in pairs if old.types[was] == new.types[now]]
    if _counted(old.rows, [was for was, _ in same]) != _counted(new.rows, [n for _, n in same]):
        yield "{" + ", ".join(now for _, now in same) + "}"
    for was, now in set(pairs) - set(same):
        if _present(old.rows, was) != _present(new.rows, now):
            yield now


def _former_column(column: Column[Any], old: TableRows) -> str:
    name = column.info.get("renamed_from")
    return str(name) if name in old.types and column.name not in old.types else str(column.name)


def _counted(rows: list[dict[str, Any]], columns: list[str]) -> Counter[str]:
    return Counter(json.dumps([row[column] for column in columns]) for row in rows)


def _present(rows: list[dict[str, Any]], column: str) -> int:
    return sum(row[column] is not None for row in rows)
