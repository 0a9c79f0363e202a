"""What each variable accepts, what it refuses, and that refusals show no secret."""

from __future__ import annotations

import traceback

import pytest

from ragstore.conf import settings
from ragstore.exceptions import ImproperlyConfigured

SECRET = "S3cr3t"  # the part of a URL that must never show


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("POOL_SIZE", "1", 1),
        ("POOL_SIZE", " 20 ", 20),
        ("MAX_OVERFLOW", "-1", -1),
        ("POOL_TIMEOUT", "1.5", 1.5),
        ("POOL_TIMEOUT", "0", 0.0),
        ("POOL_RECYCLE", "-1", -1),
        ("CONNECT_TIMEOUT", "3", 3),
        ("STATEMENT_TIMEOUT", "0.5", 0.5),
        ("MIGRATION_LOCK_TIMEOUT", "0", 0.0),
        ("MIGRATION_WAIT_TIMEOUT", "60", 60.0),
        ("ECHO", "on", True),
        ("ECHO", "TRUE", True),
        ("ECHO", "0", False),
        ("LEGACY_NAMES", "off", False),
        ("POOLER", "transaction", "transaction"),
        ("APPLICATION_NAME", "n" * 63, "n" * 63),
        ("APPLICATION_NAME", "büro 5", "büro 5"),
    ],
)
def test_accepted_values(
    name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable's text is the setting's value, of the setting's type."""
    monkeypatch.setenv(f"DB_{name}", text)
    got = getattr(settings, name)
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "expects"),
    [
        ("POOL_SIZE", "0", "1 or more"),
        ("POOL_SIZE", "five", "1 or more"),
        ("POOL_SIZE", "1.5", "whole number"),
        ("MAX_OVERFLOW", "-2", "-1 for no limit"),
        ("POOL_TIMEOUT", "-1", "seconds, 0 or more"),
        ("POOL_TIMEOUT", "nan", "seconds"),
        ("POOL_RECYCLE", "-5", "-1 for never"),
        ("CONNECT_TIMEOUT", "1.5", "whole number"),
        ("CONNECT_TIMEOUT", "0", "1 or more"),
        ("STATEMENT_TIMEOUT", "0.0001", "from 0.001 to 2147483, or 0"),
        ("STATEMENT_TIMEOUT", "2147484", "from 0.001 to 2147483, or 0"),
        ("STATEMENT_TIMEOUT", "10s", "seconds"),
        ("MIGRATION_LOCK_TIMEOUT", "inf", "seconds"),
        ("MIGRATION_WAIT_TIMEOUT", "-1", "seconds"),
        ("ECHO", "maybe", "on or off"),
        ("LEGACY_NAMES", "2", "on or off"),
        ("POOLER", "session", "none or transaction"),
        ("APPLICATION_NAME", "n" * 64, "1 to 63 bytes"),
        ("APPLICATION_NAME", "ü" * 32, "1 to 63 bytes"),
        ("APPLICATION_NAME", "a\tb", "printable"),
    ],
)
def test_refused_values(
    name: str, text: str, expects: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong value names its variable, shows itself and says what is expected."""
    monkeypatch.setenv(f"DB_{name}", text)
    with pytest.raises(ImproperlyConfigured) as caught:
        settings.POOL_SIZE  # noqa: B018 - the read is the test
    (problem,) = caught.value.problems
    assert problem.startswith(f"DB_{name} is ")
    assert repr(text)[1:9].removesuffix("'") in problem
    assert len(problem) < 160
    assert expects in problem


@pytest.mark.parametrize("text", ["", "   "])
def test_empty_variable_counts_as_unset(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable set to nothing leaves the default, or the URL unset."""
    monkeypatch.setenv("DB_POOL_SIZE", text)
    monkeypatch.setenv("DB_TEST_DATABASE_URL", text)
    assert settings.POOL_SIZE == 5
    assert settings.TEST_DATABASE_URL is None


def test_all_problems_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read raises one error with all problems, each naming its variable."""
    monkeypatch.setenv("DB_POOL_SIZE", "five")
    monkeypatch.setenv("DB_ECHO", "maybe")
    monkeypatch.setenv("DB_DATABASE_URL", f"mysql://u:{SECRET}@h/d")
    monkeypatch.setenv("DB_TEST_DATABASE_URL", "postgresql://${NO_SUCH_NAME}/d")
    seen = []
    for name in ("APPLICATION_NAME", "DATABASE_URL", "POOL_SIZE"):
        with pytest.raises(ImproperlyConfigured) as caught:
            getattr(settings, name)
        seen.append(caught.value.problems)
    assert seen[0] == seen[1] == seen[2]
    starts = [problem.split(" ", maxsplit=1)[0] for problem in seen[0]]
    assert sorted(starts) == ["DB_DATABASE_URL", "DB_ECHO", "DB_POOL_SIZE", "DB_TEST_DATABASE_URL"]


@pytest.mark.parametrize("variable", ["DB_DATABASE_URL", "DB_POOL_SIZE", "DB_APPLICATION_NAME"])
@pytest.mark.parametrize(
    "text",
    [
        f"mysql://user:{SECRET}@host/db",
        f"postgresql://user:{SECRET}@host:port/db",
        f"postgresql://user:{SECRET}@{SECRET}:x/{SECRET}" + "\t",
        f"postgresql://user:${{A}}@host:{SECRET}/db",
        f"embedded://user:{SECRET}@/x",
    ],
)
def test_no_error_shows_a_url(variable: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the message nor the traceback with its causes has the password, wherever it was."""
    monkeypatch.setenv("A", SECRET)
    monkeypatch.setenv(variable, text + "\t" * 64 if variable == "DB_APPLICATION_NAME" else text)
    with pytest.raises(ImproperlyConfigured) as caught:
        settings.POOL_SIZE  # noqa: B018 - the read is the test
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert SECRET not in "".join(traceback.format_exception(error))
    assert variable in str(error)
    assert SECRET not in repr(settings)
