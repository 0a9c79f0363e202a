"""What a database consists of, for comparing two of them: read apart from what is proved here.

Left aside are extensions, the version table, the order of storage options, the names of not-null
constraints (PostgreSQL 18 names them after the table they were made with) and the names of
sequences behind serial columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ragstore.testing.revisions import differences, schemas_of

Catalog = dict[str, str]

# What somebody else may have made beside the models' objects.
_FURTHER = """
SELECT 'partition ' || c.oid::regclass, pg_get_expr(relpartbound, c.oid)
FROM pg_class c WHERE relispartition AND relkind NOT IN ('i', 'I')
UNION ALL
SELECT 'foreign table ' || c.oid::regclass, s.srvname
FROM pg_class c JOIN pg_foreign_table f ON f.ftrelid = c.oid JOIN pg_foreign_server s
  ON s.oid = f.ftserver
UNION ALL
SELECT 'statistics ' || stxname, pg_get_statisticsobjdef(oid) FROM pg_statistic_ext
UNION ALL
SELECT 'schema-comment ' || nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
  AND obj_description(oid, 'pg_namespace') IS NOT NULL
"""
# The order in which storage options were given, in an index or a table, means nothing.
_OPTIONS = re.compile(r"( WITH \(|^plain(?: unlogged)? \{)([^()}]*)([)}])")
_NUMBERED = re.compile(r"nextval\('[^']*(?:''[^']*)*'::regclass\)")


def read(connection: Connection) -> Catalog:
    """Return the definition of every object of the connection's database."""
    found = {
        name: definition
        for name, definition in schemas_of(connection).items()
        if not (name.startswith("constraint ") and definition.startswith("NOT NULL"))
    }
    found |= {row[0]: row[1] for row in connection.execute(text(_FURTHER))}
    found = {name: _OPTIONS.sub(_in_order, definition) for name, definition in found.items()}
    for name in [name for name in found if name.startswith("numbering ")]:
        column = "column " + name.removeprefix("numbering ")
        found[column] = _NUMBERED.sub("nextval(its own)", found[column])
    return found


def _in_order(options: re.Match[str]) -> str:
    return options[1] + ", ".join(sorted(re.split(", ?", options[2]))) + options[3]


def compare(expected: Mapping[str, str], found: Catalog, engine: Engine) -> list[str]:
    """Return in what ``found``, the catalog of the engine's database, is not as expected.

    A check, default, index or generated column that the server printed once, and made again from
    what it printed, may print otherwise the next time, and means the same: ``IN`` over a varchar
    does. So where two texts differ, and there only, both are made again in a transaction that is
    rolled back until the server prints what it was given, and the results are compared.
    """
    unequal = [name for name in expected if name in found and expected[name] != found[name]]
    settled, wanted = dict(found), dict(expected)
    if unequal:
        with engine.connect() as connection:
            for name in unequal:
                if _means_the_same(connection, name, expected[name], found[name]):
                    settled[name] = wanted[name]
    return differences(wanted, settled)


def _means_the_same(connection: Connection, name: str, one: str, other: str) -> bool:
    kind, _, rest = name.partition(" ")
    rebuild = {"constraint": _constraint, "index": _index, "column": _column}.get(kind)
    if rebuild is None:
        return False
    try:
        return _settled(connection, rebuild, rest, one) == _settled(
            connection, rebuild, rest, other
        )
    except DBAPIError:
        return False  # it cannot be made there: then it is not the same


Rebuild = Callable[[Connection, str, str], str]


def _settled(connection: Connection, rebuild: Rebuild, name: str, definition: str) -> str:
    """Make it again from its own text until the text stays."""
    for _ in range(4):
        with connection.begin_nested() as savepoint:
            printed = rebuild(connection, name, definition)
            savepoint.rollback()
        if printed == definition:
            break
        definition = printed
    return definition


def _constraint(connection: Connection, name: str, definition: str) -> str:
    if not definition.startswith(("CHECK", "EXCLUDE")):
        return definition
    table = _quoted(name.rpartition(".")[0])
    connection.exec_driver_sql(
        _literal(f"ALTER TABLE {table} ADD CONSTRAINT matrix_x {definition}")
    )
    query = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'matrix_x'"
    return str(connection.scalar(text(query)))


def _index(connection: Connection, name: str, definition: str) -> str:
    own = f"INDEX {_quoted(name.rpartition('.')[2])} ON "
    connection.exec_driver_sql(_literal(definition.replace(own, "INDEX matrix_x ON ", 1)))
    query = "SELECT pg_get_indexdef(oid, 0, true) FROM pg_class WHERE relname = 'matrix_x'"
    return str(connection.scalar(text(query))).replace("INDEX matrix_x ON ", own, 1)


_EXPRESSION = re.compile(
    r"^(.*?) (default|stored|virtual) (.*?)((?: collate .*| comment .*)?)$", re.DOTALL
)


def _column(connection: Connection, name: str, definition: str) -> str:
    parts = _EXPRESSION.match(definition)
    if parts is None:
        return definition
    table, (kind, word, expression, rest) = _quoted(name.rpartition(".")[0]), parts.groups()
    bare = kind.removesuffix(" not null")
    made = f"DEFAULT {expression}"
    if word != "default":
        made = f"GENERATED ALWAYS AS ({expression}) {word.upper()}"
    connection.exec_driver_sql(_literal(f"ALTER TABLE {table} ADD matrix_x {bare} {made}"))
    found = connection.scalar(text(_PRINTED))
    return f"{kind} {word} {found}{rest}"


_PRINTED = """
SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef d
JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE attname = 'matrix_x'
"""


def _quoted(name: str) -> str:
    """Quote the parts of a name where they need it."""
    plain = re.compile(r"[a-z_][a-z0-9_]*")
    return ".".join(part if plain.fullmatch(part) else f'"{part}"' for part in name.split("."))


def _literal(statement: str) -> str:
    return statement.replace("%", "%%")
