"""Which source wins, and what each of them may hold: module, environment, old names."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from ragstore.conf import configure, override_settings, settings
from ragstore.exceptions import ImproperlyConfigured, LegacyVariableWarning

WriteEnv = Callable[[str], Path]
WriteModule = Callable[[str], str]
_NUMBERS = count()


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Write an importable module and name it in RAGSTORE_SETTINGS_MODULE."""
    names: list[str] = []
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        names.append(f"site_settings_{next(_NUMBERS)}")
        (tmp_path / f"{names[-1]}.py").write_text(text, encoding="utf-8")
        monkeypatch.setenv("RAGSTORE_SETTINGS_MODULE", names[-1])
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


def problems() -> tuple[str, ...]:
    """Read a setting that must fail and return what is wrong."""
    with pytest.raises(ImproperlyConfigured) as caught:
        settings.POOL_SIZE  # noqa: B018 - the read is the test
    return caught.value.problems


def test_precedence_from_default_to_override(
    write_env: WriteEnv, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source, added in turn, wins over all before it."""
    assert settings.POOL_SIZE == 5
    write_env("DB_POOL_SIZE=6")
    settings.reload()
    assert settings.POOL_SIZE == 6
    monkeypatch.setenv("DB_POOL_SIZE", "7")
    settings.reload()
    assert settings.POOL_SIZE == 7
    write_module("POOL_SIZE = 8")
    settings.reload()
    assert settings.POOL_SIZE == 8
    settings.reload()
    configure(POOL_SIZE=9)
    assert settings.POOL_SIZE == 9
    with override_settings(POOL_SIZE=10):
        assert settings.POOL_SIZE == 10
    settings.reload()
    assert settings.POOL_SIZE == 9


def test_reading_changes_nothing_in_the_process_environment(write_env: WriteEnv) -> None:
    """The .env file is read for ragstore alone."""
    write_env("DB_POOL_SIZE=6\nHOST_IP=x\nDB_DATABASE_URL=postgresql://${HOST_IP}/d")
    before = dict(os.environ)
    assert settings.POOL_SIZE == 6
    assert dict(os.environ) == before


def test_a_losing_value_is_not_validated(
    write_env: WriteEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another source wins over may be wrong, also under an override."""
    write_env("DB_POOL_SIZE=five")
    monkeypatch.setenv("DB_POOL_SIZE", "7")
    assert settings.POOL_SIZE == 7
    monkeypatch.setenv("DB_POOL_SIZE", "seven")
    settings.reload()
    with override_settings(POOL_SIZE=3):
        assert (settings.POOL_SIZE, settings.MAX_OVERFLOW) == (3, 10)
    assert problems()


# --- the settings module -----------------------------------------------------------------------


def test_module_values_are_typed_and_others_ignored(write_module: WriteModule) -> None:
    """Python values and text are taken; unknown names are not ours; None and "" are unset."""
    write_module(
        "from sqlalchemy import make_url\n"
        "DATABASE_URL = make_url('postgresql://u:p@h/d')\n"
        "TEST_DATABASE_URL = 'postgres://h/t'\n"
        "ECHO, STATEMENT_TIMEOUT, POOL_TIMEOUT, MAX_OVERFLOW = True, 2, '1.5', None\n"
        "APPLICATION_NAME, pool_size, DB_POOL_SIZE, SECRET_KEY = '', 1, 2, 'x'\n"
    )
    assert settings.DATABASE_URL.drivername == "postgresql+psycopg"
    assert settings.TEST_DATABASE_URL is not None
    assert settings.TEST_DATABASE_URL.database == "t"
    assert (settings.ECHO, settings.STATEMENT_TIMEOUT, settings.POOL_TIMEOUT) == (True, 2.0, 1.5)
    assert (settings.MAX_OVERFLOW, settings.APPLICATION_NAME) == (10, "ragstore")
    assert settings.POOL_SIZE == 5


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("POOL_SIZE = 0", "is '0', but must be a whole number, 1 or more"),
        ("POOL_SIZE = 1.5", "is of type float, but must be a whole number, 1 or more"),
        ("POOL_SIZE = True", "is of type bool, but must be a whole number, 1 or more"),
        ("POOL_TIMEOUT = True", "is of type bool, but must be a number of seconds"),
        ("ECHO = 1", "is of type int, but must be on or off"),
        ("APPLICATION_NAME = 5", "is of type int, but must be 1 to 63 bytes"),
        ("DATABASE_URL = {'password': 'S3cr3t'}", "is of type dict, but must be a URL"),
        ("DATABASE_URL = 'oracle://u:S3cr3t@h'", "starts with oracle://"),
    ],
)
def test_module_values_are_validated(line: str, expected: str, write_module: WriteModule) -> None:
    """A wrong value in the module names the setting and the module."""
    module = write_module(line)
    (problem,) = problems()
    assert problem.startswith(f"{line.split(maxsplit=1)[0]} in {module} ")
    assert expected in problem
    assert "S3cr3t" not in problem


def test_module_may_be_named_in_the_env_file(
    write_env: WriteEnv, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RAGSTORE_SETTINGS_MODULE works from .env, and the module wins over that file."""
    name = write_module("POOL_SIZE = 8")
    monkeypatch.delenv("RAGSTORE_SETTINGS_MODULE")
    write_env(f"DB_POOL_SIZE=6\nRAGSTORE_SETTINGS_MODULE={name}")
    assert settings.POOL_SIZE == 8


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_package.x", "there is no module 'no_such_package'"),
        ("POOL_SIZE = 3\nraise ValueError('S3cr3t')", "ValueError in .*, line 2"),
        ("raise ModuleNotFoundError('S3cr3t')", "ModuleNotFoundError in .*, line 1"),
        ("x = S3cr3t'", "SyntaxError in .*, line 1"),
        ("from ragstore.conf import settings\nsettings.ECHO", "cannot read settings while"),
    ],
)
def test_unimportable_module_is_named(text: str, reason: str, write_module: WriteModule) -> None:
    """A module that fails at import is a problem that says why, without quoting its error."""
    module = write_module(text)
    (problem,) = problems()
    assert f"RAGSTORE_SETTINGS_MODULE names '{module}', which cannot be imported" in problem
    assert "S3cr3t" not in problem
    with pytest.raises(ImproperlyConfigured, match=reason):
        settings.POOL_SIZE  # noqa: B018 - the read is the test


def test_missing_module_is_reported_with_the_other_problems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The module's absence hides no other problem."""
    monkeypatch.setenv("RAGSTORE_SETTINGS_MODULE", "no_such_module_here")
    monkeypatch.setenv("DB_POOL_SIZE", "five")
    assert [p.split()[0] for p in problems()] == ["RAGSTORE_SETTINGS_MODULE", "DB_POOL_SIZE"]


# --- old names ---------------------------------------------------------------------------------

OLD_NAMES = [
    ("DATABASE_URL", "DATABASE_URL"),
    ("DATABASE_TEST_URL", "TEST_DATABASE_URL"),
    ("TEST_DATABASE_URL", "TEST_DATABASE_URL"),
]


@pytest.mark.parametrize("in_file", [False, True], ids=["process", "file"])
@pytest.mark.parametrize(("old", "setting"), OLD_NAMES)
def test_old_name_alone_works_and_warns_once(
    old: str, setting: str, in_file: bool, write_env: WriteEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value is used; one warning, at the caller's line, names old, new and the release."""
    if in_file:
        write_env(f"{old}=postgresql://h/old")
    else:
        monkeypatch.setenv(old, "postgresql://h/old")
    with pytest.warns(LegacyVariableWarning) as caught:
        assert [getattr(settings, setting).database for _ in range(3)] == ["old"] * 3
    (warning,) = caught
    assert warning.filename == __file__
    for part in (f"variable {old} ", f"DB_{setting}", "2.0"):
        assert part in str(warning.message)


def test_old_name_warns_again_after_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading MIGRATION_DATABASE_URL through an old name warns too, and reload() starts over."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/old")
    with pytest.warns(LegacyVariableWarning):
        assert settings.MIGRATION_DATABASE_URL.database == "old"
    assert settings.DATABASE_URL.database == "old"
    settings.reload()
    with pytest.warns(LegacyVariableWarning):
        assert settings.DATABASE_URL.database == "old"


@pytest.mark.parametrize("in_file", [False, True], ids=["process", "file"])
@pytest.mark.parametrize(("old", "setting"), OLD_NAMES)
def test_new_name_wins_silently(
    old: str, setting: str, in_file: bool, write_env: WriteEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both set nothing is said, also with the new name in .env only."""
    monkeypatch.setenv(old, "postgresql://h/old")
    if in_file:
        write_env(f"DB_{setting}=postgresql://h/new")
    else:
        monkeypatch.setenv(f"DB_{setting}", "postgresql://h/new")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert getattr(settings, setting).database == "new"
    assert caught == []


def test_first_old_name_wins_and_the_process_before_the_file(
    write_env: WriteEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DATABASE_TEST_URL wins over TEST_DATABASE_URL, unless only the latter is exported."""
    write_env("DATABASE_TEST_URL=postgresql://h/a\nTEST_DATABASE_URL=postgresql://h/b")
    with pytest.warns(LegacyVariableWarning, match="variable DATABASE_TEST_URL "):
        assert settings.TEST_DATABASE_URL == settings.TEST_DATABASE_URL
    monkeypatch.setenv("TEST_DATABASE_URL", "postgresql://h/c")
    settings.reload()
    with pytest.warns(LegacyVariableWarning, match="variable TEST_DATABASE_URL "):
        assert "h/c" in str(settings.TEST_DATABASE_URL)


def test_old_names_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """DB_LEGACY_NAMES=off, or an override, ignores them, right or wrong."""
    monkeypatch.setenv("DATABASE_TEST_URL", "postgresql://h/old")
    monkeypatch.setenv("DATABASE_URL", "mysql://h/theirs")
    with override_settings(LEGACY_NAMES=False):
        assert settings.TEST_DATABASE_URL is None
    (problem,) = problems()
    assert problem.startswith("DATABASE_URL starts with mysql://")
    assert problem.endswith("if DATABASE_URL is not meant for ragstore, set DB_LEGACY_NAMES=off")
    monkeypatch.setenv("DB_LEGACY_NAMES", "off")
    settings.reload()
    assert settings.TEST_DATABASE_URL is None
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL is not set"):
        settings.DATABASE_URL  # noqa: B018 - the read is the test
    with override_settings(LEGACY_NAMES=True):
        assert problems() == (problem,)


def test_wrong_legacy_switch_is_one_problem_among_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong DB_LEGACY_NAMES hides no problem of an old name."""
    monkeypatch.setenv("DATABASE_URL", "mysql://h/theirs")
    monkeypatch.setenv("DB_LEGACY_NAMES", "perhaps")
    assert [p.split()[0] for p in problems()] == ["DATABASE_URL", "DB_LEGACY_NAMES"]
