"""configure() and override_settings()."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import make_url

from ragstore.conf import configure, override_settings, settings
from ragstore.exceptions import ImproperlyConfigured

# --- configure() -------------------------------------------------------------------------------


def test_configure_sets_values_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text URLs are parsed, values win over the environment, the rest comes from there."""
    monkeypatch.setenv("DB_POOL_SIZE", "6")
    monkeypatch.setenv("DB_MAX_OVERFLOW", "7")
    configure(DATABASE_URL="postgres://u:a%40b@h/d", POOL_SIZE=9, STATEMENT_TIMEOUT="1.5")
    assert settings.DATABASE_URL.password == "a@b"
    assert settings.MIGRATION_DATABASE_URL.database == "d"
    assert (settings.POOL_SIZE, settings.MAX_OVERFLOW) == (9, 7)
    assert settings.STATEMENT_TIMEOUT == 1.5


def test_configure_once() -> None:
    """A second call is refused and changes nothing, also after reload()."""
    configure(POOL_SIZE=9)
    settings.reload()
    with pytest.raises(ImproperlyConfigured, match="called before"):
        configure(POOL_SIZE=10)
    assert settings.POOL_SIZE == 9


def test_configure_before_first_use() -> None:
    """A call after a setting was read is refused."""
    assert settings.POOL_SIZE == 5
    with pytest.raises(ImproperlyConfigured, match="too late"):
        configure(POOL_SIZE=9)
    assert settings.POOL_SIZE == 5


def test_configure_refuses_all_that_is_wrong_at_once() -> None:
    """Wrong values are reported together, no URL shown, nothing set; unknown names likewise."""
    with pytest.raises(ImproperlyConfigured) as caught:
        configure(POOL_SIZE=0, DATABASE_URL="mysql://u:S3cr3t@h/d", ECHO=None)
    places = [f"{name} in configure() " for name in ("POOL_SIZE", "DATABASE_URL", "ECHO")]
    assert [p[: len(q)] for p, q in zip(caught.value.problems, places, strict=True)] == places
    assert "S3cr3t" not in str(caught.value)
    with pytest.raises(ImproperlyConfigured, match=r"no setting POOLSIZE; did you mean POOL_SIZE"):
        configure(POOLSIZE=3)
    configure(POOL_SIZE=4)
    assert settings.POOL_SIZE == 4


def test_none_unsets_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """None for a URL hides the environment's."""
    monkeypatch.setenv("DB_DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv("DB_MIGRATION_DATABASE_URL", "postgresql://h/m")
    configure(MIGRATION_DATABASE_URL=None)
    assert settings.MIGRATION_DATABASE_URL.database == "d"
    with (
        override_settings(DATABASE_URL=None),
        pytest.raises(ImproperlyConfigured, match="DATABASE_URL is not set"),
    ):
        settings.DATABASE_URL  # noqa: B018 - the read is the test


# --- override_settings() -----------------------------------------------------------------------


def test_override_nests_and_restores() -> None:
    """The innermost value holds; each way out brings the former values back."""
    with override_settings(POOL_SIZE=1, ECHO=True) as inside:
        assert inside is settings
        with override_settings(POOL_SIZE=2):
            assert (settings.POOL_SIZE, settings.ECHO) == (2, True)
        assert (settings.POOL_SIZE, settings.ECHO) == (1, True)
    assert (settings.POOL_SIZE, settings.ECHO) == (5, False)


def test_override_is_exception_safe() -> None:
    """An error inside passes through, and the former values are back."""

    def fail() -> None:
        with override_settings(POOL_SIZE=1):
            raise LookupError(settings.POOL_SIZE)

    with pytest.raises(LookupError, match="1"):
        fail()
    assert settings.POOL_SIZE == 5


def test_override_of_the_database_moves_migrations_too() -> None:
    """MIGRATION_DATABASE_URL follows DATABASE_URL; a URL object is taken as it is."""
    url = make_url("postgresql+psycopg://u:p@h/other")
    with override_settings(DATABASE_URL=url):
        assert url == settings.DATABASE_URL
        assert url == settings.MIGRATION_DATABASE_URL


def test_override_refuses_unknown_names_when_called() -> None:
    """The misspelt name is refused before anything is entered or decorated."""
    with pytest.raises(ImproperlyConfigured, match="did you mean ECHO"):
        override_settings(ECO=True)


def test_override_refuses_wrong_values_on_entering() -> None:
    """A wrong value is refused on entering, and leaves no trace."""
    override = override_settings(POOL_SIZE="five", ECHO=True)
    with pytest.raises(ImproperlyConfigured, match=r"POOL_SIZE in override_settings\(\) is 'five'"):
        override.__enter__()
    assert settings.ECHO is False


def test_one_override_can_be_entered_again() -> None:
    """The same object works twice in a row and inside itself."""
    override = override_settings(POOL_SIZE=1)
    with override:
        with override:
            assert settings.POOL_SIZE == 1
        assert settings.POOL_SIZE == 1
    with override:
        assert settings.POOL_SIZE == 1
    assert settings.POOL_SIZE == 5


def test_overrides_that_end_out_of_order() -> None:
    """The first of two can end first, as threads and tasks do; nothing stays behind."""
    first, second = override_settings(POOL_SIZE=1), override_settings(POOL_SIZE=2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert settings.POOL_SIZE == 2
    second.__exit__(None, None, None)
    assert settings.POOL_SIZE == 5


def test_decorated_function() -> None:
    """The override holds during the call; name, arguments and result pass through."""

    @override_settings(POOL_SIZE=2)
    def add(number: int, *, times: int = 1) -> int:
        """Add."""
        return settings.POOL_SIZE + number * times

    assert add(3, times=2) == 8
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert settings.POOL_SIZE == 5


def test_decorated_function_may_call_itself() -> None:
    """Recursion enters and leaves one override for each call."""

    @override_settings(POOL_SIZE=2)
    def deep(levels: int) -> int:
        return deep(levels - 1) if levels else settings.POOL_SIZE

    assert deep(3) == 2
    assert settings.POOL_SIZE == 5


async def test_decorated_coroutine() -> None:
    """The override holds until the coroutine ends, not until it is made."""

    @override_settings(POOL_SIZE=2)
    async def read() -> int:
        await asyncio.sleep(0)
        return settings.POOL_SIZE

    pending = read()
    assert settings.POOL_SIZE == 5
    assert await pending == 2
    assert settings.POOL_SIZE == 5


def test_decorated_generator() -> None:
    """The override holds from the first value to the end, as a fixture needs it."""

    @override_settings(POOL_SIZE=2)
    def values() -> Iterator[int]:
        yield settings.POOL_SIZE
        yield settings.POOL_SIZE

    assert list(values()) == [2, 2]
    assert settings.POOL_SIZE == 5


class TestMethod:
    """A class of tests whose methods are decorated."""

    @override_settings(POOL_SIZE=2)
    def test_decorated_method(self, tmp_path: object) -> None:
        """A method keeps its self and its fixtures."""
        assert tmp_path
        assert settings.POOL_SIZE == 2


def test_classes_and_async_generators_are_refused() -> None:
    """What could not be overridden to its end is refused when decorated."""

    async def values() -> AsyncIterator[int]:
        yield 1

    for target in (TestMethod, values):
        with pytest.raises(ImproperlyConfigured, match="decorates functions"):
            override_settings(POOL_SIZE=2)(target)


def test_migration_url_follows_an_overridden_database_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Overriding DATABASE_URL alone never leaves migrations on the environment's database."""
    monkeypatch.setenv("DB_DATABASE_URL", "postgresql://app/one")
    monkeypatch.setenv("DB_MIGRATION_DATABASE_URL", "postgresql://owner/one")
    with override_settings(DATABASE_URL="postgresql://app/two"):
        assert settings.MIGRATION_DATABASE_URL.database == "two"
        assert "owner" not in repr(settings)
        with override_settings(MIGRATION_DATABASE_URL="postgresql://boss/two"):
            assert settings.MIGRATION_DATABASE_URL.host == "boss"
    assert settings.MIGRATION_DATABASE_URL.host == "owner"
