"""The small process that ends an embedded server when none of its users is left.

A user that exits leaves the server, and the last one stops it; one that is ended by a signal does
not get to. The watcher is started with the server, in a session of its own, and looks once a second
whether the lock of the users is free: the kernel takes it from whoever ends, in whatever way.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ragstore import cluster

USERS = "ragstore.users"
"""The file that each user of a server holds a shared lock on."""

KEEP = b"keep"
"""What the lock file begins with if the server is to stay without users."""

INTERVAL = 1.0
"""Seconds between two looks."""

# Neither the user's site-packages nor their variables: only ragstore's own directory, at the end.
_CODE = "import sys; sys.path.append(sys.argv[1]); from ragstore import watcher; watcher.main()"


def start(directory: Path, server: int) -> None:
    """Start the watcher of a server, given its process id; the caller is a user already.

    In a program that is not Python's own there is none: it could not run this.
    """
    if not Path(sys.executable or "").name.startswith(("python", "pypy")):
        return
    shell: list[str | Path] = ["/bin/sh", "-c", cluster.BACKGROUND, "ragstore", os.devnull]
    package = Path(__file__).parents[1]
    cluster.run([*shell, sys.executable, "-I", "-S", "-c", _CODE, package, directory, str(server)])


def main() -> None:
    """Watch the server that the command line names."""
    directory, server = Path(sys.argv[2]), int(sys.argv[3])
    while not is_over(directory, server):
        time.sleep(INTERVAL)


def is_over(directory: Path, server: int) -> bool:
    """End the server if it has no users; tell whether there is nothing left to watch."""
    try:
        with (
            _locked(directory / cluster.LOCK) as lock,  # nobody joins or leaves meanwhile
            _locked(directory / USERS),
        ):
            found = cluster.Postmaster.read(directory)
            if os.pread(lock, len(KEEP), 0) == KEEP or not found or found.pid != server:
                return True  # it is to stay, or was ended already
            if found.is_ours(directory):
                cluster.end(found, directory)
            return True
    except BlockingIOError:  # it has users; if it died, the next one has a watcher of its own
        return _has_died(server)
    except FileNotFoundError:  # the directory was deleted: Postgres notices that itself
        return True


def _has_died(server: int) -> bool:
    try:
        os.kill(server, 0)
    except ProcessLookupError:
        return True
    return False


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold a lock that nobody else has.

    Raises:
        BlockingIOError: somebody has it.
        FileNotFoundError: there is no such file.
    """
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle
    finally:
        os.close(handle)  # and with it the lock: nobody else has this description
