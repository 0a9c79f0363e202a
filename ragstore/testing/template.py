"""The databases of a test run: the test database, templates of it, and clones of those.

For a test database called ``rag_test`` these are::

    rag_test                          made if missing, migrated, never dropped or emptied
    rag_test_template_<fingerprint>   migrated once, cloned often, shared by every run
    rag_test_<worker>_<pid>[_<n>]     of one pytest process, dropped at its end

Who makes one of the last shape first takes an advisory lock of that name and keeps it, on a
connection that stays open. A process that dies lets go of it, wherever it ran; so a database whose
lock is free is a leftover, and the next run drops it. A template is migrated under a name of that
shape too and renamed when it is complete: one that exists is whole.

The comment of a database tells what the kit knows of it: that it was made here, which run built a
template, and which migrations the test database has. A comment of anybody else's is left alone;
the test database is then migrated in each run.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from psycopg import sql

from ragstore.database import MAX_NAME_BYTES, clone_database, create_database, drop_database
from ragstore.driver import connect, translate_errors
from ragstore.exceptions import (
    DatabaseExists,
    DatabaseNotFound,
    DatabaseUnavailable,
    ExtensionNotPermitted,
    InvalidInput,
    InvalidName,
    LockTimeout,
    PermissionDenied,
    UnsafeTestDatabase,
)
from ragstore.testing.history import MigrationPlan, revisions_in
from ragstore.testing.server import TestServer, refuse_application_database

if TYPE_CHECKING:
    from psycopg.rows import TupleRow
    from sqlalchemy.engine import URL

MARK = "ragstore test kit: "
"""What the comments of the kit's databases begin with."""

KEPT_TEMPLATES = 4
"""How many templates of a test database stay: one for each of the last states of its migrations."""

_OWN, _CLONE, _TEMPLATE = f"{MARK}test database", f"{MARK}clone", f"{MARK}template of run "
_LONGEST_SUFFIX = len("_template_0123456789ab")
_POLL = 0.05  # seconds between two attempts to take a lock, give or take half of it

_SETTINGS = "SELECT set_config('idle_session_timeout', '0', false)"
_COMMENT = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
_ALL = """
SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database
WHERE starts_with(datname, %s) ORDER BY oid DESC
"""
# The view has the locks of every database, while a lock itself is known in its own alone.
_HELD = """
SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1
"""
_END_SESSIONS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"


class Databases:
    """The databases that one pytest process makes, and the connection that holds their locks.

    ``worker`` is pytest-xdist's name of the process or ``main``; ``run`` is the same in every
    worker of a run. With ``renew`` a template that another run has built is built anew.
    """

    def __init__(
        self,
        server: TestServer,
        plan: MigrationPlan,
        *,
        worker: str,
        pid: int,
        run: str,
        renew: bool = False,
    ) -> None:
        self.server = server
        self._plan, self._run, self._renew = plan, run, renew
        self._names = Names(server.database)
        self._base = self._names.clone(worker, pid)
        self._numbers = count(1)
        self._made: list[str] = []
        self._swept = False
        self._connection = connect(server.url, autocommit=True, application_name="ragstore tests")
        self._execute(_SETTINGS)  # a server that ends idle sessions would free the locks

    # --- the three kinds

    def test_database(self) -> URL:
        """Return the URL of the test database, having made and migrated it if need be.

        Raises:
            UnsafeTestDatabase: it is the application's, or somebody's that is no test database.
            PermissionDenied: it does not exist, and the role may not make it.
            MigrationError: its migrations do not apply.
        """
        refuse_application_database(self.server, self._connection)
        if self.server.can_create_databases:
            self._names.check_length()
        if not self._is_migrated():
            with self._locked(self.server.database):
                if not self._is_migrated():
                    self._migrate_test_database()
        return self.server.test_url

    def template(self) -> URL:
        """Return the URL of the template, having built it if there is none of these migrations.

        Raises:
            PermissionDenied: the role may not make databases, or not the extension in them.
            MigrationError: the migrations do not apply.
        """
        name = self._names.template(self._plan.fingerprint)
        if not self._has_template(name):
            with self._locked(name):
                if not self._has_template(name):
                    self._build(name)
        return self.server.url.set(database=name)

    def clone(self, template: URL, *, numbered: bool = True) -> URL:
        """Return the URL of a new copy of a template; the worker's own if it is not numbered."""
        copy = lambda url: clone_database(template, url)  # noqa: E731 - a name for two uses
        try:
            return self._make(copy, numbered=numbered)
        except DatabaseNotFound:  # another run has just dropped it, to build it anew
            if template.database != self._names.template(self._plan.fingerprint):
                raise
            self.template()
            return self._make(copy, numbered=numbered)

    def empty(self) -> URL:
        """Return the URL of a new database without tables."""
        return self._make(create_database)

    def drop(self, url: URL) -> None:
        """Drop a database that was made here; do nothing if that was done already.

        Raises:
            InvalidInput: it was not made here.
        """
        name = url.database or ""
        if name in self._made:
            drop_database(url, missing_ok=True)
            self._made.remove(name)
            self._unlock(name)
        elif name != self._base and not name.startswith(f"{self._base}_"):
            raise InvalidInput(f"the database {name!r} was not made by this test run")

    def close(self) -> None:
        """Drop what was made here, as far as the server still answers, and let go of the locks."""
        with suppress(DatabaseUnavailable):
            for name in reversed(self._made[:]):
                self.drop(self.server.url.set(database=name))
        self._connection.close()

    # --- the test database

    def _is_migrated(self) -> bool:
        """Tell whether the comment says so, and the version tables are still as it says."""
        exists, comment = self._look(self.server.database)
        claim = f"{_OWN}, migrated by {self._plan.fingerprint}"
        return exists and comment.startswith(claim) and comment == self._state()

    def _state(self) -> str:
        revisions = hashlib.sha256(repr(revisions_in(self.server.test_url)).encode())
        return f"{_OWN}, migrated by {self._plan.fingerprint} to {revisions.hexdigest()[:12]}"

    def _migrate_test_database(self) -> None:
        name, url = self.server.database, self.server.test_url
        if not self._look(name)[0] and create_database(url, exists_ok=True):
            self._say(name, _OWN)
        _, comment = self._look(name)
        if "test" not in name.lower() and not comment.startswith(_OWN):
            raise UnsafeTestDatabase(
                f"the database {name!r} was not made by the test kit, and its name does not say"
                " test: name one that does, or one that does not exist yet"
            )
        self._plan.upgrade(url)
        if not comment or comment.startswith(_OWN):
            with suppress(PermissionDenied):  # it is the database of another role
                self._say(name, self._state())

    # --- templates

    def _has_template(self, name: str) -> bool:
        exists, comment = self._look(name)
        return exists and (not self._renew or comment == f"{_TEMPLATE}{self._run}")

    def _build(self, name: str) -> None:
        draft = self.empty()
        try:
            self._plan.upgrade(draft)
        except ExtensionNotPermitted as exc:
            raise ExtensionNotPermitted(
                f"The role may make databases but not the extension in them. A superuser makes it"
                f" in template1, once, and new databases have it: {exc.statement}",
                statement=exc.statement,
            ) from exc
        drop_database(self.server.url.set(database=name), missing_ok=True)
        drafted = draft.database or ""
        self._execute(_END_SESSIONS, (drafted,))  # of migrations that forgot to close theirs
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        self._execute(rename.format(sql.Identifier(drafted), sql.Identifier(name)))
        self._say(name, f"{_TEMPLATE}{self._run}")
        self._made.remove(drafted)
        self._unlock(drafted)
        self._drop_old_templates()

    def _drop_old_templates(self) -> None:
        """Keep the youngest. A run that misses its template meanwhile builds it again."""
        templates = [name for name, _ in self._all() if self._names.is_template(name)]
        for name in templates[KEPT_TEMPLATES:]:
            with suppress(PermissionDenied):  # it is another role's
                drop_database(self.server.url.set(database=name), missing_ok=True)

    # --- clones

    def _make(self, create: Callable[[URL], object], *, numbered: bool = True) -> URL:
        """Make a database under the first name that nobody uses, its lock being held before."""
        self._sweep()
        names = self._candidates(numbered=numbered)
        while True:  # the candidates never end
            name = next(names)
            if not self._try_lock(name):
                continue  # of a process with the same id on another machine
            url = self.server.url.set(database=name)
            try:
                create(url)
            except DatabaseExists:  # made by somebody else, or left by a process that died early
                self._unlock(name)
                continue
            except BaseException:
                self._unlock(name)
                raise
            self._made.append(name)
            self._say(name, _CLONE)
            return url

    def _candidates(self, *, numbered: bool) -> Iterator[str]:
        if not numbered:
            yield self._base
        for number in self._numbers:
            yield f"{self._base}_{number}"

    def _sweep(self) -> None:
        """Drop what killed runs have left, once."""
        if self._swept:
            return
        self._swept = True
        ours = [n for n, comment in self._all() if self._names.is_clone(n) and comment == _CLONE]
        held = {key for (key,) in self._execute(_HELD)} if ours else set()
        for name in ours:
            if lock_key(name) not in held and self._try_lock(name):
                with suppress(PermissionDenied):  # it is another role's
                    drop_database(self.server.url.set(database=name), missing_ok=True)
                self._unlock(name)

    # --- the connection

    def _execute(self, statement: Any, parameters: tuple[object, ...] = ()) -> list[TupleRow]:
        with translate_errors(self.server.url):
            cursor = self._connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def _look(self, name: str) -> tuple[bool, str]:
        """Tell whether a database exists, and what its comment is."""
        rows = self._execute(_COMMENT, (name,))
        return bool(rows), (rows[0][0] or "") if rows else ""

    def _all(self) -> list[tuple[str, str | None]]:
        """Return the databases whose names begin like ours with their comments, youngest first."""
        return [(name, comment) for name, comment in self._execute(_ALL, (self.server.database,))]

    def _say(self, name: str, comment: str) -> None:
        statement = sql.SQL("COMMENT ON DATABASE {} IS {}")
        self._execute(statement.format(sql.Identifier(name), sql.Literal(comment)))

    def _try_lock(self, name: str) -> bool:
        return self._execute("SELECT pg_try_advisory_lock(%s)", (lock_key(name),)) == [(True,)]

    def _unlock(self, name: str) -> None:
        self._execute("SELECT pg_advisory_unlock(%s)", (lock_key(name),))

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Be the only process that makes or migrates the database of that name.

        Raises:
            LockTimeout: another one was at it for MIGRATION_WAIT_TIMEOUT seconds.
        """
        from ragstore.conf import settings

        deadline = monotonic() + settings.MIGRATION_WAIT_TIMEOUT
        while not self._try_lock(name):
            if monotonic() > deadline:
                raise LockTimeout(
                    f"another test run has been making the database {name!r} for"
                    f" {settings.MIGRATION_WAIT_TIMEOUT:g} s: end it, or raise"
                    " DB_MIGRATION_WAIT_TIMEOUT"
                )
            sleep(_POLL * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        try:
            yield
        finally:
            self._unlock(name)


class Names:
    """The names of the databases that belong to a test database."""

    def __init__(self, database: str) -> None:
        self._database = database
        begin = re.escape(database)
        self._clone = re.compile(rf"{begin}_(main|gw[0-9]+)_[0-9]+(_[0-9]+)?", re.ASCII)
        self._template = re.compile(rf"{begin}_template_[0-9a-f]{{12}}", re.ASCII)

    def template(self, fingerprint: str) -> str:
        """Return the name of the template for the migrations of a fingerprint."""
        return f"{self._database}_template_{fingerprint}"

    def clone(self, worker: str, pid: int) -> str:
        """Return the name of a process's own clone; xdist lets a user call workers anything."""
        known = worker if re.fullmatch(r"main|gw[0-9]{1,3}", worker) else "gw0"
        return f"{self._database}_{known}_{pid}"

    def is_template(self, name: str) -> bool:
        """Tell whether a database is named like a template."""
        return self._template.fullmatch(name) is not None

    def is_clone(self, name: str) -> bool:
        """Tell whether a database is named like a clone."""
        return self._clone.fullmatch(name) is not None

    def check_length(self) -> None:
        """Refuse a name that leaves no room for the others.

        Raises:
            InvalidName: it is too long.
        """
        size, room = len(self._database.encode()), MAX_NAME_BYTES - _LONGEST_SUFFIX
        if size > room:
            raise InvalidName(
                f"the test database's name {self._database!r} has {size} bytes, but the names of"
                f" its clones add up to {_LONGEST_SUFFIX}, and Postgres keeps {MAX_NAME_BYTES}:"
                f" give it a name of at most {room}"
            )


def lock_key(name: str) -> int:
    """Return the key of the advisory lock that belongs to a database's name."""
    digest = hashlib.sha256(f"ragstore test database {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
