"""Databases for rows: used one after another, emptied in between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool

from ragstore.driver import connect
from ragstore.exceptions import RagstoreError

OWNER = "matrix_owner"
"""The role of rows that own their database and have no other rights."""


class Bench:
    """The databases of one run on one server."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._admin = connect(url, autocommit=True)
        self._prefix = f"matrix_{os.getpid()}_{id(self) % 10**6}"
        self._numbers = count(1)
        self._idle: dict[frozenset[str], list[str]] = {}
        self._scratch: dict[frozenset[str], Engine] = {}
        self._around = ExitStack()
        self.version = self._admin.info.server_version // 10_000
        self.available = {str(name): str(found) for name, found in self._extensions()}

    @property
    def versions(self) -> str:
        """Return what the server is, for people."""
        server = self._admin.info.parameter_status("server_version") or ""
        vector = self.available.get("vector", "not installed")
        return f"PostgreSQL {server.split()[0]}, pgvector {vector}"

    @contextmanager
    def database(
        self, extensions: frozenset[str] = frozenset(), *, keep: bool = True
    ) -> Iterator[URL]:
        """Yield a database that has the extensions and nothing else.

        It is emptied afterwards and given out again; if not ``keep``, or something is left in it,
        dropped. To make one costs a hundred times what it costs to empty one.
        """
        idle = self._idle.setdefault(extensions, [])
        name = idle.pop() if keep and idle else self._make(extensions)
        url = self.url.set(database=name)
        try:
            yield url
        finally:
            if keep and _emptied(url):
                idle.append(name)
            else:
                self._run("DROP DATABASE {} WITH (FORCE)", name)

    def scratch(self, extensions: frozenset[str]) -> Engine:
        """Return an engine on a database that has the extensions, for work that is rolled back."""
        if extensions not in self._scratch:
            url = self._around.enter_context(self.database(extensions))
            self._scratch[extensions] = create_engine(url, poolclass=NullPool)
        return self._scratch[extensions]

    def own(self, url: URL) -> None:
        """Give a database to the role that has no other rights."""
        if not self._admin.execute(_ROLE, [OWNER]).fetchone():
            self._run("CREATE ROLE {}", OWNER)
        self._run("ALTER DATABASE {} OWNER TO {}", str(url.database), OWNER)

    def lacks(self, extensions: frozenset[str], version: int) -> str:
        """Return what a row needs and this server does not have; nothing if it has all."""
        if self.version < version:
            return f"needs PostgreSQL {version}"
        missing = sorted(extensions - self.available.keys())
        return f"needs {', '.join(missing)}" if missing else ""

    def close(self) -> None:
        """Drop what is left."""
        self._around.close()
        for name in [name for idle in self._idle.values() for name in idle]:
            self._run("DROP DATABASE {} WITH (FORCE)", name)
        self._admin.close()

    def _make(self, extensions: frozenset[str]) -> str:
        name = f"{self._prefix}_{next(self._numbers)}"
        self._run("CREATE DATABASE {} TEMPLATE template0", name)
        with connect(self.url.set(database=name), autocommit=True) as connection:
            for extension in sorted(extensions):
                statement = sql.SQL("CREATE EXTENSION {} CASCADE")
                connection.execute(statement.format(sql.Identifier(extension)))
        return name

    def _extensions(self) -> list[tuple[Any, ...]]:
        return self._admin.execute(_AVAILABLE).fetchall()

    def _run(self, statement: str, *names: str) -> None:
        quoted = [sql.Identifier(name).as_string() for name in names]
        self._admin.execute(statement.format(*quoted).encode())


_AVAILABLE = "SELECT name, default_version FROM pg_available_extensions"
_ROLE = "SELECT 1 FROM pg_roles WHERE rolname = %s"

# What hangs on a dropped object goes with it; so each is asked for anew, until there is none.
_OBJECTS = """
SELECT 'SCHEMA ' || quote_ident(nspname), 'pg_namespace'::regclass, oid FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
UNION ALL
SELECT 'SERVER ' || quote_ident(srvname), 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
UNION ALL
SELECT 'PUBLICATION ' || quote_ident(pubname), 'pg_publication'::regclass, oid FROM pg_publication
UNION ALL
SELECT CASE relkind WHEN 'v' THEN 'VIEW ' WHEN 'm' THEN 'MATERIALIZED VIEW ' WHEN 'S' THEN
  'SEQUENCE ' WHEN 'f' THEN 'FOREIGN TABLE ' ELSE 'TABLE ' END || oid::regclass,
  'pg_class'::regclass, oid
FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r','p','v','m','S','f')
UNION ALL
SELECT 'ROUTINE ' || oid::regprocedure, 'pg_proc'::regclass, oid FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'TYPE ' || oid::regtype, 'pg_type'::regclass, oid FROM pg_type t
WHERE typnamespace = 'public'::regnamespace AND typelem = 0 AND typtype IN ('e', 'd', 'c', 'r')
"""
_NEXT = f"""
SELECT name FROM ({_OBJECTS}) AS found (name, class, oid) WHERE NOT EXISTS (
  SELECT FROM pg_depend d WHERE d.classid = class AND d.objid = found.oid
    AND (d.deptype = 'e' OR d.deptype = 'i' AND d.refobjid <> d.objid))
"""
_EMPTY = f"""
DO $$
DECLARE next text;
BEGIN
  LOOP
    SELECT name INTO next FROM ({_NEXT}) AS left_over (name) LIMIT 1;
    EXIT WHEN next IS NULL;
    EXECUTE 'DROP ' || next || ' CASCADE';
  END LOOP;
END $$
"""


def _emptied(url: URL) -> bool:
    """Drop all that is in a database but its extensions; tell whether that has worked."""
    try:
        with connect(url, autocommit=True) as connection:
            connection.execute(_EMPTY.encode())
            return connection.execute(_NEXT.encode()).fetchone() is None
    except (RagstoreError, psycopg.Error):
        return False
