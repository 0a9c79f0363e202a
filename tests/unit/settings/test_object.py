"""The settings object: lazy, typed, read-only, masked."""

from __future__ import annotations

import subprocess
import sys
import threading
import typing
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from ragstore import conf
from ragstore.conf import Settings, defaults, environment, settings
from ragstore.exceptions import ImproperlyConfigured

SERVER = "postgresql://app:S3cr3t@db.example:5432/app"


def test_importing_settings_loads_none_of_the_heavy_packages() -> None:
    """Importing ragstore.conf brings in neither SQLAlchemy nor environs, and reads nothing."""
    code = (
        "import os, sys; os.environ['DB_POOL_SIZE'] = 'bad'\n"
        "from ragstore.conf import settings, configure, override_settings\n"
        "heavy = {'sqlalchemy', 'environs', 'pydantic', 'marshmallow', 'dotenv', 'sqlmodel'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    home = Path(conf.__file__).parents[2]  # "python -c" imports from the working directory
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_defaults_hold_without_any_source() -> None:
    """Every setting but the URLs reads as conf/defaults.py says, of the annotated type."""
    hints = typing.get_type_hints(Settings, localns={"URL": URL})
    for name in set(hints) - {"DATABASE_URL", "MIGRATION_DATABASE_URL"}:
        value = getattr(settings, name)
        assert value == getattr(defaults, name)
        if name not in {"TEST_DATABASE_URL", "POOLER"}:
            assert type(value) is hints[name]
    assert settings.TEST_DATABASE_URL is None


def test_design_defaults() -> None:
    """The defaults are the documented numbers."""
    assert (settings.POOL_SIZE, settings.MAX_OVERFLOW) == (5, 10)
    assert (settings.POOL_TIMEOUT, settings.POOL_RECYCLE) == (30, 1800)
    assert (settings.CONNECT_TIMEOUT, settings.STATEMENT_TIMEOUT) == (10, 0)
    assert (settings.MIGRATION_LOCK_TIMEOUT, settings.MIGRATION_WAIT_TIMEOUT) == (3, 900)
    assert (settings.ECHO, settings.LEGACY_NAMES) == (False, True)
    assert (settings.APPLICATION_NAME, settings.POOLER) == ("ragstore", "none")


def test_class_table_and_defaults_name_the_same_settings() -> None:
    """The annotations, the table of variables and the defaults have the same names, in order."""
    names = [name for name in vars(defaults) if name.isupper()]
    assert sorted(Settings.__annotations__) == sorted(names)
    assert [v.setting for v in environment.VARIABLES] == list(Settings.__annotations__)
    assert all(v.name == f"DB_{v.setting}" for v in environment.VARIABLES)


@pytest.mark.parametrize("name", ["DATABASE_URL", "MIGRATION_DATABASE_URL"])
def test_missing_database_url_names_both_ways_out(name: str) -> None:
    """Without a URL the error says how to set a server's, and how to use the embedded one."""
    with pytest.raises(ImproperlyConfigured) as caught:
        getattr(settings, name)
    text = str(caught.value)
    assert "DB_DATABASE_URL=postgresql://user:password@host:5432/database" in text
    assert "DB_DATABASE_URL=embedded://" in text
    assert 'pip install "ragstore[embedded]"' in text
    assert settings.POOL_SIZE == 5


def test_urls_are_sqlalchemy_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL setting is a URL on psycopg; the one for migrations is DATABASE_URL by default."""
    monkeypatch.setenv("DB_DATABASE_URL", SERVER)
    url = settings.DATABASE_URL
    assert isinstance(url, URL)
    assert (url.drivername, url.password, url.port) == ("postgresql+psycopg", "S3cr3t", 5432)
    assert url == settings.MIGRATION_DATABASE_URL
    monkeypatch.setenv("DB_MIGRATION_DATABASE_URL", "postgres://owner@db.example/app")
    assert url == settings.MIGRATION_DATABASE_URL
    settings.reload()
    assert settings.MIGRATION_DATABASE_URL.username == "owner"


@pytest.mark.parametrize(
    ("name", "meant"), [("POOLSIZE", "POOL_SIZE"), ("pool_size", "POOL_SIZE"), ("DB_ECHO", "ECHO")]
)
def test_unknown_attribute_names_close_matches(name: str, meant: str) -> None:
    """A misspelt setting is an AttributeError that names the right one."""
    with pytest.raises(AttributeError, match=rf"no setting {name}; did you mean {meant}"):
        getattr(settings, name)


def test_unknown_attribute_without_a_match() -> None:
    """A name like no setting gets no advice, and reads no environment."""
    with pytest.raises(AttributeError, match=r"there is no setting __wrapped__$"):
        settings.__wrapped__  # type: ignore[attr-defined]  # noqa: B018 - the read is the test


def test_attributes_cannot_be_changed() -> None:
    """Assigning or deleting is refused, with the ways that there are."""
    with pytest.raises(AttributeError, match=r"configure\(POOL_SIZE=.*override_settings\("):
        settings.POOL_SIZE = 3
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del settings.POOL_SIZE
    assert settings.POOL_SIZE == 5


def test_dir_lists_the_settings() -> None:
    """Completion in a shell offers every setting, and reload()."""
    assert {*Settings.__annotations__, "reload"} <= set(dir(settings))


def test_repr_shows_values_and_masks_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repr has names and values, no password, and does not count as a use."""
    monkeypatch.setenv("DB_DATABASE_URL", SERVER)
    shown = repr(settings)
    assert "POOL_SIZE=5" in shown
    assert shown.count("=postgresql://app:***@db.example:5432/app") == 2
    assert "S3cr3t" not in shown
    monkeypatch.setenv("DB_POOL_SIZE", "7")
    assert settings.POOL_SIZE == 7


def test_repr_masks_passwords_in_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that libpq takes from the query does not show either."""
    monkeypatch.setenv("DB_DATABASE_URL", "postgresql://h/d?password=S3cr3t&sslpassword=S3cr3t")
    assert "S3cr3t" not in repr(settings)
    assert settings.DATABASE_URL.password == "S3cr3t"


def test_repr_shows_problems_instead_of_raising(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repr of wrong settings is the list of problems; of unset URLs, None."""
    assert "MIGRATION_DATABASE_URL=None" in repr(settings)
    monkeypatch.setenv("DB_POOL_SIZE", "five")
    assert "DB_POOL_SIZE is 'five'" in repr(settings)


def test_environment_is_read_once_until_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the environment shows after reload(), and only then."""
    assert settings.POOL_SIZE == 5
    monkeypatch.setenv("DB_POOL_SIZE", "9")
    assert settings.POOL_SIZE == 5
    settings.reload()
    assert settings.POOL_SIZE == 9


def test_first_load_happens_once_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads that read at the same time share one look at the environment."""
    calls: list[int] = []
    real = environment.load
    started = threading.Barrier(8)

    def counted() -> environment.Loaded:
        calls.append(1)
        return real()

    def read() -> None:
        started.wait()
        assert settings.POOL_SIZE == 5

    monkeypatch.setattr(environment, "load", counted)
    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
