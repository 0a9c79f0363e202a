"""What the tests of reading and building share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from ragstore.exceptions import CouldNotCompare
from ragstore.migrations import scratch
from ragstore.migrations.facts import Catalog, Name, Table

ITEM: Name = (None, "item")


class Unknown(sa.types.UserDefinedType[Any]):
    """A type that no server has."""

    def get_col_spec(self, **_: Any) -> str:
        """Return its name."""
        return "unheard_of"


def engine_of(url: URL) -> sa.Engine:
    """Return an engine that keeps no connection."""
    return sa.create_engine(url, poolclass=NullPool)


@contextmanager
def connected(url: URL, *statements: str) -> Iterator[sa.Connection]:
    """Yield a connection; what ``statements`` do is committed before."""
    with engine_of(url).connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()
        yield connection


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Return in what two facts differ, a line for each place."""
    if is_dataclass(one) and type(one) is type(other):
        names = [field.name for field in fields(one) if field.compare]
        one, other = ({name: getattr(each, name) for name in names} for each in (one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted(one.keys() | other.keys(), key=str)
            for line in differences(one.get(key), other.get(key), f"{path}[{key}]")
        ]
    return [] if one == other else [f"{path}: {one!r} != {other!r}"]


def comparable(catalog: Catalog) -> Catalog:
    """Return a catalog without what models and a database need not share."""
    nothing: frozenset[str] = frozenset()
    return replace(catalog, schemas=nothing, extensions=nothing, others=())


def without_given(catalog: Catalog) -> Catalog:
    """Return the rich database without the types that its models leave to others."""
    enums = {name: each for name, each in catalog.enums.items() if name[1] != "given"}
    return comparable(replace(catalog, enums=enums))


def left_behind(connection: sa.Connection) -> list[str]:
    """Return what a comparison must not leave: schemas, settings, transactions."""
    query = """SELECT nspname FROM pg_namespace WHERE nspname LIKE 'ragstore%%'
      UNION ALL SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()"""
    return list(connection.exec_driver_sql(query).scalars())


def placed(schema: str | None) -> sa.MetaData:
    """Return models with an enum, a sequence and a key in a schema."""
    metadata = sa.MetaData(schema=schema)
    prefix = f"{schema}." if schema else ""
    sa.Table(
        "item",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Enum("a", "b", name="kind"), server_default="a"),
        sa.Column("number", sa.Integer, sa.Sequence("number", metadata=metadata)),
        sa.Column("parent_id", sa.ForeignKey(f"{prefix}item.id")),
        sa.Index("item_kind", "kind", postgresql_where=sa.text("kind = 'a'")),
    )
    return metadata


def broken(**parts: Any) -> sa.MetaData:
    """Return models with one column or other part too many."""
    metadata = sa.MetaData()
    sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True), *parts.values())
    return metadata


@contextmanager
def role(url: URL, *rights: str) -> Iterator[URL]:
    """Yield the URL of a new role that owns the public schema, with some rights."""
    name = f"role_of_{url.database}"
    with engine_of(url).connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
        admin.exec_driver_sql(f"CREATE ROLE {name} LOGIN")
        try:
            admin.exec_driver_sql(f"REVOKE ALL ON DATABASE {url.database} FROM PUBLIC")
            for right in ("CONNECT", *rights):
                admin.exec_driver_sql(f"GRANT {right} ON DATABASE {url.database} TO {name}")
            admin.exec_driver_sql(f"ALTER SCHEMA public OWNER TO {name}")
            yield url.set(username=name)
        finally:
            admin.exec_driver_sql(f"DROP OWNED BY {name} CASCADE")
            admin.exec_driver_sql(f"DROP ROLE {name}")


def problems(
    connection: sa.Connection,
    models: Sequence[sa.MetaData],
    needed: Collection[sa.Table] | None = None,
) -> list[str]:
    """Return why models cannot be compared; nothing if they can."""
    try:
        with scratch.opened(connection) as bench:
            bench.build(models, needed)
    except CouldNotCompare as error:
        refused = error
    else:
        return []
    assert all(problem in str(refused) for problem in refused.problems)
    return refused.problems


Forms = dict[Name, Table]


def compared(
    connection: sa.Connection, models: Sequence[sa.MetaData]
) -> tuple[Catalog, Catalog, Forms, Forms]:
    """Return models and database, and the tables of both with their text read once more."""
    with scratch.opened(connection) as bench:
        wanted, found = bench.build(models), bench.read()
        return (
            wanted,
            found,
            bench.rebuild_models(wanted.tables),
            bench.rebuild(found, found.tables),
        )
