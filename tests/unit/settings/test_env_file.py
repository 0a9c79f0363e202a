"""The .env file and ${NAME} references, from a line of the file to the value of a setting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from ragstore.conf import settings
from ragstore.exceptions import ImproperlyConfigured

WriteEnv = Callable[[str], Path]

PASSWORDS = [f"{a}{c}{b}" for c in "@:/%$=#? " for a, b in (("p", "w"), ("", "w"), ("p", ""))]
PASSWORDS += ["$5", "$$", "${", "$HOME", "p@ss:w/rd%$=# 1", "%", "%zz", "100%", "ü€", "a'b", 'a"b']
# Raw in a URL these mean something else, or nothing for sure: they must be encoded.
AMBIGUOUS = {"p@ss:w/rd%$=# 1"}


@pytest.fixture
def problem() -> Callable[[], str]:
    """Read a setting that must fail and return the one problem."""

    def read() -> str:
        with pytest.raises(ImproperlyConfigured) as caught:
            settings.POOL_SIZE  # noqa: B018 - the read is the test
        (text,) = caught.value.problems
        return text

    return read


# --- passwords ---------------------------------------------------------------------------------


@pytest.mark.parametrize("quotation", ["", "'", '"'], ids=["bare", "single", "double"])
@pytest.mark.parametrize("password", PASSWORDS)
def test_encoded_password_survives(password: str, quotation: str, write_env: WriteEnv) -> None:
    """A percent-encoded password arrives, with and without quotation marks."""
    encoded = quote(password, safe="")
    write_env(f"DB_DATABASE_URL={quotation}postgresql://app:{encoded}@db:5432/d{quotation}\n")
    url = settings.DATABASE_URL
    assert (url.password, url.host, url.port, url.database) == (password, "db", 5432, "d")


@pytest.mark.parametrize("exported", [False, True], ids=["file", "process"])
@pytest.mark.parametrize("password", [p for p in PASSWORDS if p not in AMBIGUOUS])
def test_raw_password_survives(
    password: str, exported: bool, write_env: WriteEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raw password arrives from a quoted line and from the process environment alike."""
    text = f"postgresql://app:{password}@db:5432/d"
    if exported:
        monkeypatch.setenv("DB_DATABASE_URL", text)
    else:
        mark = '"' if "'" in text else "'"
        write_env(f"DB_DATABASE_URL={mark}{text}{mark} # the database\n")
    url = settings.DATABASE_URL
    assert (url.password, url.host, url.port, url.database) == (password, "db", 5432, "d")


# --- finding and reading the file --------------------------------------------------------------


def test_file_is_searched_upwards(
    write_env: WriteEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest .env above the working directory is read; a directory of that name is not."""
    write_env("DB_POOL_SIZE=6")
    below = tmp_path / "a" / "b"
    (below / ".env").mkdir(parents=True)
    monkeypatch.chdir(below)
    assert settings.POOL_SIZE == 6
    (tmp_path / "a" / ".env").write_text("DB_POOL_SIZE=7")
    settings.reload()
    assert settings.POOL_SIZE == 7


@pytest.mark.parametrize("absolute", [False, True])
def test_env_file_variable_names_another_file(
    absolute: bool, write_env: WriteEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RAGSTORE_ENV_FILE is a path, or a name searched upwards; .env is then not read."""
    write_env("DB_POOL_SIZE=6\nDB_MAX_OVERFLOW=6")
    other = tmp_path / "production.env"
    other.write_text("DB_POOL_SIZE=7")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("RAGSTORE_ENV_FILE", str(other) if absolute else "production.env")
    assert (settings.POOL_SIZE, settings.MAX_OVERFLOW) == (7, 10)


def test_env_file_can_be_turned_off(write_env: WriteEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """RAGSTORE_ENV_FILE=/dev/null reads no file; set to nothing, it means .env."""
    write_env("DB_POOL_SIZE=6")
    monkeypatch.setenv("RAGSTORE_ENV_FILE", "/dev/null")
    assert settings.POOL_SIZE == 5
    monkeypatch.setenv("RAGSTORE_ENV_FILE", "")
    settings.reload()
    assert settings.POOL_SIZE == 6


def test_named_file_that_is_missing_is_an_error(
    problem: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A RAGSTORE_ENV_FILE that does not exist is not passed over."""
    monkeypatch.setenv("RAGSTORE_ENV_FILE", "no-such.env")
    assert problem() == "RAGSTORE_ENV_FILE names 'no-such.env', but there is no such file"


def test_unreadable_file_is_an_error(tmp_path: Path, problem: Callable[[], str]) -> None:
    """A file that is not UTF-8 is reported by its path, without its content."""
    (tmp_path / ".env").write_bytes(b"DB_APPLICATION_NAME=S3cr3t\xff")
    assert problem() == f"the file {tmp_path / '.env'} cannot be read: it is not UTF-8 text"


def test_file_that_cannot_be_opened_is_an_error(
    tmp_path: Path, problem: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the system refuses to open is reported with the reason."""
    monkeypatch.setenv("RAGSTORE_ENV_FILE", "/proc/self/mem")
    assert "the file /proc/self/mem cannot be read: " in problem()


def test_removed_and_forbidden_directories_hold_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A working directory that is gone, and a name that cannot be looked up, are no error."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert settings.POOL_SIZE == 5
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAGSTORE_ENV_FILE", "n" * 300)  # longer than a file name may be
    settings.reload()
    with pytest.raises(ImproperlyConfigured, match="there is no such file"):
        settings.POOL_SIZE  # noqa: B018 - the read is the test


def test_broken_line_of_ours_is_an_error(write_env: WriteEnv, problem: Callable[[], str]) -> None:
    """An unclosed quotation mark is reported by its line, without the text."""
    path = write_env("HOST_IP=x\n\nDB_DATABASE_URL='postgresql://u:S3cr3t@h/d\n")
    assert f"{path} cannot be read from line " in problem()
    assert "S3cr3t" not in problem()


def test_lines_of_other_programs_are_left_alone(write_env: WriteEnv) -> None:
    """Broken lines and unset references of other programs' variables are not our problem."""
    write_env("OTHER='open\nTHIRD=${NO_SUCH}\nNAME_ONLY\nDB_POOL_SIZE\nexport DB_MAX_OVERFLOW=3\n")
    assert (settings.POOL_SIZE, settings.MAX_OVERFLOW) == (5, 3)


def test_file_details(tmp_path: Path) -> None:
    """A byte order mark, CRLF, comments and spaces around = are read as people mean them."""
    text = '\ufeffDB_POOL_SIZE = 6 # six\r\nDB_APPLICATION_NAME="my app #1"\r\n'
    (tmp_path / ".env").write_bytes(text.encode())
    assert (settings.POOL_SIZE, settings.APPLICATION_NAME) == (6, "my app #1")


# --- references --------------------------------------------------------------------------------

EXPANSIONS = [
    ("${HOST_IP}", {"HOST_IP": "10.0.0.7"}, "10.0.0.7"),
    ("a${X}b${X}c", {"X": "1"}, "a1b1c"),
    ("${X:-d}", {}, "d"),
    ("${X:-d}", {"X": "x"}, "x"),
    ("${X:-d}", {"X": ""}, "d"),
    ("a${X:-}b", {}, "ab"),
    ("${X:-a:b-c}", {}, "a:b-c"),
    ("${X}", {"X": "${Y}", "Y": "${Z:-z}"}, "z"),
    ("${X}{Y}", {"X": "$", "Y": "y"}, "${Y}"),
    ("$${X}", {"X": "1"}, "$1"),
    ("$X $5 $$ $ ${} ${1} ${X ${a-b}", {"X": "1"}, "$X $5 $$ $ ${} ${1} ${X ${a-b}"),
]


@pytest.mark.parametrize("exported", [False, True], ids=["file", "process"])
@pytest.mark.parametrize(("text", "others", "expected"), EXPANSIONS)
def test_references_expand(
    text: str,
    others: dict[str, str],
    expected: str,
    exported: bool,
    write_env: WriteEnv,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same text means the same in the file, where it may stand first, and in the process."""
    values = {"DB_APPLICATION_NAME": text, **others}
    if exported:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
    else:
        write_env("".join(f"{name}='{value}'\n" for name, value in values.items()))
    assert expected == settings.APPLICATION_NAME


def test_reference_prefers_the_process_environment(
    write_env: WriteEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exported variable wins over one of the file, unless it is set to nothing."""
    write_env("X=file\nDB_APPLICATION_NAME=${X}")
    monkeypatch.setenv("X", "process")
    assert settings.APPLICATION_NAME == "process"
    monkeypatch.setenv("X", "")
    settings.reload()
    assert settings.APPLICATION_NAME == "file"


def test_old_names_expand_too(write_env: WriteEnv) -> None:
    """A reference under an old name is a reference."""
    write_env("DATABASE_URL=postgresql://${HOST_IP:-db}/d")
    with pytest.deprecated_call():
        assert settings.DATABASE_URL.host == "db"


@pytest.mark.parametrize("exported", [False, True], ids=["file", "process"])
@pytest.mark.parametrize(
    ("text", "others", "expected"),
    [
        ("${NOPE}", {}, "DB_ECHO refers to ${NOPE}, which is not set"),
        ("${NOPE}", {"NOPE": " "}, "DB_ECHO refers to ${NOPE}, which is not set"),
        ("${A}", {"A": "${NOPE}"}, "DB_ECHO (through A) refers to ${NOPE}, which is not set"),
        ("${A}", {"A": "${B}", "B": "${A}"}, "DB_ECHO (through A, B) refers to ${A}, which refers"),
        ("${DB_ECHO}", {}, "DB_ECHO refers to ${DB_ECHO}, which refers back"),
        ("${A:-${B}}", {"A": "x"}, "DB_ECHO refers to ${A} with another reference as its default"),
    ],
)
def test_references_that_lead_nowhere(
    text: str,
    others: dict[str, str],
    expected: str,
    exported: bool,
    write_env: WriteEnv,
    problem: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unset name, a circle and a nested default are problems that name both variables."""
    values = {"DB_ECHO": text, **others}
    if exported:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
    else:
        write_env("".join(f"{name}='{value}'\n" for name, value in values.items()))
    assert problem().startswith(expected)
