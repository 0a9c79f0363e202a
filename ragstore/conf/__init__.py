"""The settings of ragstore: ``from ragstore.conf import settings``.

Importing this package reads nothing. The first read of a setting looks at the settings module,
the process environment and the ``.env`` file, once; docs/settings.md tells what wins.
"""

from __future__ import annotations

import functools
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from ragstore.conf import defaults
from ragstore.exceptions import ImproperlyConfigured, LegacyVariableWarning

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy.engine import URL

    from ragstore.conf.environment import Loaded

__all__ = ["Settings", "configure", "override_settings", "settings"]

_F = TypeVar("_F", bound=Callable[..., Any])
_LEGACY_NAMES_END_IN = "2.0"
_NO_DATABASE_URL = (
    "DATABASE_URL is not set: set DB_DATABASE_URL=postgresql://user:password@host:5432/database,"
    " or DB_DATABASE_URL=embedded:// for the embedded server (which needs"
    ' pip install "ragstore[embedded]")'
)


class Settings:
    """Every setting as an attribute, read when it is first used; ``settings`` is the instance.

    The attributes cannot be assigned: ``configure()`` sets them for a program,
    ``override_settings()`` for a while. Their meaning and units are in ``ragstore.conf.defaults``.

    Reading one raises ``ImproperlyConfigured`` with every problem of every setting, not of that
    one alone; a missing DATABASE_URL is a problem only for who reads it.
    """

    DATABASE_URL: URL
    TEST_DATABASE_URL: URL | None
    MIGRATION_DATABASE_URL: URL
    POOL_SIZE: int
    MAX_OVERFLOW: int
    POOL_TIMEOUT: float
    POOL_RECYCLE: int
    POOLER: Literal["none", "transaction"]
    CONNECT_TIMEOUT: int
    STATEMENT_TIMEOUT: float
    APPLICATION_NAME: str
    ECHO: bool
    MIGRATION_LOCK_TIMEOUT: float
    MIGRATION_WAIT_TIMEOUT: float
    LEGACY_NAMES: bool

    def reload(self) -> None:
        """Forget what was read: the next read looks at the environment again.

        What ``configure()`` and ``override_settings()`` set stays, and a settings module that was
        imported is not imported anew. Legacy names warn again.
        """
        _sources.forget()

    if not TYPE_CHECKING:  # a type checker would take any name for an attribute

        def __getattr__(self, name: str) -> object:
            if name not in _NAMES:
                raise AttributeError(f"there is no setting {name}{_did_you_mean(name)}")
            return _sources.read(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"settings.{name} cannot be assigned: call ragstore.conf.configure({name}=...) before"
            f" the first use, or use override_settings({name}=...) for a while, as in a test"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"settings.{name} cannot be deleted: use override_settings()")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_NAMES})

    def __repr__(self) -> str:
        values, problems = _sources.survey()
        if problems:
            return f"<Settings: {ImproperlyConfigured(*problems)}>"
        return f"<Settings {' '.join(f'{name}={_shown(v)}' for name, v in values.items())}>"


_NAMES = tuple(Settings.__annotations__)


def configure(**values: object) -> None:
    """Set settings for the whole program, over the environment, once and before the first use.

    A URL is text or a ``sqlalchemy.URL``; None for a URL means that it is not set.

    Raises:
        ImproperlyConfigured: a name is unknown or a value is wrong (nothing is set then), settings
            were read already, or ``configure`` was called before.
    """
    checked = _checked("configure()", values)
    _sources.configure(checked)


class override_settings:  # noqa: N801 - reads as a verb, like Django's
    """Change settings for a while: ``with override_settings(POOL_SIZE=1): ...``, or ``@``.

    Decorates functions, async functions, methods and generator functions. It nests, and on the
    way out the former values are back, whatever happened inside. It holds for the whole process:
    other threads and tasks see it too.

    Raises:
        ImproperlyConfigured: a name is unknown (when called), or a value is wrong (on entering).
    """

    def __init__(self, **values: object) -> None:
        _refuse_unknown("override_settings()", values)
        self._values = values
        self._entered: list[Mapping[str, object]] = []

    def __enter__(self) -> Settings:
        """Put the values over all others."""
        layer = _checked("override_settings()", self._values)
        _sources.add(layer)
        self._entered.append(layer)
        return settings

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the values away again."""
        _sources.remove(self._entered.pop())

    def __call__(self, function: _F) -> _F:
        """Return the function, overriding the settings during each of its calls."""
        import inspect

        if inspect.isclass(function) or inspect.isasyncgenfunction(function):
            raise ImproperlyConfigured(
                "override_settings() decorates functions, async functions and generator functions:"
                " decorate the methods of a class, and use it as a context manager in an async"
                " generator"
            )
        if inspect.iscoroutinefunction(function):
            wrapper = self._around_coroutine(function)
        elif inspect.isgeneratorfunction(function):
            wrapper = self._around_generator(function)
        else:
            wrapper = self._around_call(function)
        return cast("_F", functools.wraps(function)(wrapper))

    def _around_call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with override_settings(**self._values):
                return function(*args, **kwargs)

        return call

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            with override_settings(**self._values):
                return await function(*args, **kwargs)

        return call

    def _around_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with override_settings(**self._values):
                return (yield from function(*args, **kwargs))

        return call


class _Sources:
    """Where values come from, the last first: the environment, configure(), the overrides."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loading = False
        self._loaded: Loaded | None = None
        self._configured: Mapping[str, object] | None = None
        self._layers: tuple[Mapping[str, object], ...] = ()
        self._warned: set[str] = set()

    def read(self, name: str) -> object:
        given, loaded = self._given(), self._load()
        problems = _problems(given, loaded)
        if problems:
            raise ImproperlyConfigured(*problems)
        if name == "MIGRATION_DATABASE_URL" and _follows(given):
            return self.read("DATABASE_URL")
        value, legacy = _resolve(name, given, loaded)
        if legacy is not None:
            self._warn(name, legacy)
        if value is None and name == "MIGRATION_DATABASE_URL":
            return self.read("DATABASE_URL")
        if value is None and name == "DATABASE_URL":
            raise ImproperlyConfigured(_NO_DATABASE_URL)
        return value

    def survey(self) -> tuple[dict[str, object], tuple[str, ...]]:
        """Return all values, or all problems, without counting as a use of the settings."""
        from ragstore.conf import environment

        given, loaded = self._given(), self._loaded or environment.load()
        problems = _problems(given, loaded)
        values = {} if problems else {n: _resolve(n, given, loaded)[0] for n in _NAMES}
        if values and (_follows(given) or values["MIGRATION_DATABASE_URL"] is None):
            values["MIGRATION_DATABASE_URL"] = values["DATABASE_URL"]
        return values, problems

    def configure(self, values: Mapping[str, object]) -> None:
        with self._lock:
            if self._configured is not None:
                raise ImproperlyConfigured("configure() was called before: it can be called once")
            if self._loaded is not None:
                raise ImproperlyConfigured(
                    "configure() comes too late, as settings were read already: call it before"
                    " anything uses ragstore, or use override_settings()"
                )
            self._configured = values

    def add(self, layer: Mapping[str, object]) -> None:
        with self._lock:
            self._layers = (*self._layers, layer)

    def remove(self, layer: Mapping[str, object]) -> None:
        with self._lock:  # by identity: another thread may have entered later and be still inside
            self._layers = tuple(other for other in self._layers if other is not layer)

    def forget(self) -> None:
        with self._lock:
            self._loaded = None
            self._warned.clear()

    def reset(self) -> None:
        """Forget configure() and the overrides too, as if the process began; for our tests."""
        with self._lock:
            self._configured, self._layers = None, ()
            self.forget()

    def _given(self) -> dict[str, object]:
        given = dict(self._configured or {})
        for layer in self._layers:
            given.update(layer)
        return given

    def _load(self) -> Loaded:
        loaded = self._loaded
        if loaded is not None:
            return loaded
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load_once()
            return self._loaded

    def _load_once(self) -> Loaded:
        from ragstore.conf import environment

        if self._loading:  # in this thread: no other gets past the lock
            raise ImproperlyConfigured(
                "a settings module cannot read settings while it is imported"
            )
        self._loading = True
        try:
            return environment.load()
        finally:
            self._loading = False

    def _warn(self, setting: str, legacy: str) -> None:
        with self._lock:
            if legacy in self._warned:
                return
            self._warned.add(legacy)
        warnings.warn(
            f"the variable {legacy} is an old name of DB_{setting}, which ragstore"
            f" {_LEGACY_NAMES_END_IN} will no longer read: rename it to DB_{setting}, or set"
            f" DB_LEGACY_NAMES=off if {legacy} is not meant for ragstore",
            LegacyVariableWarning,
            stacklevel=_caller_level(),
        )


def _resolve(name: str, given: Mapping[str, object], loaded: Loaded) -> tuple[object, str | None]:
    """Return a setting's value, and the old name it was found under, if it was."""
    if name in given:
        return given[name], None
    found = loaded.found.get(name)
    if found is None or (found.legacy and not _legacy_names(given, loaded)):
        return getattr(defaults, name), None
    return found.value, found.legacy


def _follows(given: Mapping[str, object]) -> bool:
    """Tell whether DATABASE_URL alone was overridden: what migrates must not be another one's."""
    return "DATABASE_URL" in given and "MIGRATION_DATABASE_URL" not in given


def _legacy_names(given: Mapping[str, object], loaded: Loaded) -> bool:
    return bool(_resolve("LEGACY_NAMES", given, loaded)[0])


def _problems(given: Mapping[str, object], loaded: Loaded) -> tuple[str, ...]:
    """Collect what is wrong with the values that count: an overridden one does not."""
    wrong = {n: f for n, f in loaded.found.items() if f.problem and n not in given}
    if "LEGACY_NAMES" not in wrong and not _legacy_names(given, loaded):
        wrong = {n: f for n, f in wrong.items() if not f.legacy}
    return (*loaded.problems, *(str(found.problem) for found in wrong.values()))


def _checked(caller: str, values: Mapping[str, object]) -> dict[str, object]:
    from ragstore.conf import environment

    _refuse_unknown(caller, values)
    unset = {name for name in _URLS if name in values and values[name] is None}
    found = environment.check(
        {
            name: environment.Given(f"{name} in {caller}", value)
            for name, value in values.items()
            if name not in unset
        }
    )
    problems = [item.problem for item in found.values() if item.problem]
    if problems:
        raise ImproperlyConfigured(*problems)
    return {name: None if name in unset else found[name].value for name in values}


_URLS = ("DATABASE_URL", "TEST_DATABASE_URL", "MIGRATION_DATABASE_URL")


def _refuse_unknown(caller: str, values: Mapping[str, object]) -> None:
    unknown = [name for name in values if name not in _NAMES]
    if unknown:
        raise ImproperlyConfigured(
            *(f"{caller}: there is no setting {name}{_did_you_mean(name)}" for name in unknown)
        )


def _did_you_mean(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name.upper().removeprefix("DB_"), _NAMES, cutoff=0.7)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _shown(value: object) -> str:
    if hasattr(value, "render_as_string"):
        from ragstore.url import display_url

        return display_url(cast("URL", value))
    return repr(value)


def _caller_level() -> int:
    """Return the stacklevel, for ``_warn``, of the first frame outside ragstore."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - inspect.stack() reads source files
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "ragstore":
        level, frame = level + 1, frame.f_back
    return level


_sources = _Sources()
settings = Settings()
