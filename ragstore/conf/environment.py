"""What the settings module, the process environment and the ``.env`` file say.

``load()`` looks at all of them once and returns what it found together with everything that is
wrong with it. It never changes ``os.environ``, and no problem it reports repeats a URL.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from dotenv.parser import parse_stream
from environs import Env, EnvValidationError, ValidationError, validate
from sqlalchemy.engine import URL

from ragstore.exceptions import ImproperlyConfigured
from ragstore.url import parse_url

ENV_FILE = "RAGSTORE_ENV_FILE"
SETTINGS_MODULE = "RAGSTORE_SETTINGS_MODULE"

_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}", re.ASCII)
# Postgres counts its timeouts in milliseconds, in 32 bits; less than one would mean "no limit".
_SHORTEST, _LONGEST = 0.001, 2_147_483
_APPLICATION_NAME_BYTES = 63


@dataclass(frozen=True)
class Kind:
    """How a value is read: environs' parser, the Python types taken beside text, and in words.

    Without ``expects`` the parser's own message is the problem.
    """

    read: Callable[[Env, str], Any]
    types: tuple[type, ...]
    expects: str = ""


@dataclass(frozen=True)
class Variable:
    """One setting: its environment variable, its kind, and the variable's former names."""

    setting: str
    name: str
    kind: Kind
    legacy: tuple[str, ...] = ()


def _timeout(value: float) -> None:
    if value != 0 and not _SHORTEST <= value <= _LONGEST:
        raise ValidationError("out of range")


def _application_name(value: str) -> None:
    if not value.isprintable() or not 1 <= len(value.encode()) <= _APPLICATION_NAME_BYTES:
        raise ValidationError("unfit")


def _whole(minimum: int, expects: str) -> Kind:
    check = validate.Range(min=minimum)
    return Kind(lambda env, name: env.int(name, validate=check), (int,), expects)


_URL = Kind(lambda env, name: env.database_url(name, called=name), (URL,))
_FLAG = Kind(lambda env, name: env.bool(name), (bool,), "on or off (true, false, yes, no, 1, 0)")
_SECONDS = Kind(
    lambda env, name: env.float(name, validate=validate.Range(min=0)),
    (int, float),
    "a number of seconds, 0 or more",
)
_TIMEOUT = Kind(
    lambda env, name: env.float(name, validate=_timeout),
    (int, float),
    f"a number of seconds from {_SHORTEST} to {_LONGEST}, or 0 for no limit",
)
_POOLER = Kind(
    lambda env, name: env.str(name, validate=validate.OneOf(["none", "transaction"])),
    (),
    "none or transaction",
)
_NAME = Kind(
    lambda env, name: env.str(name, validate=_application_name),
    (),
    f"1 to {_APPLICATION_NAME_BYTES} bytes of printable text",
)
_POSITIVE = _whole(1, "a whole number, 1 or more")
_LIMIT = _whole(-1, "a whole number, 0 or more, or -1 for no limit")
_RECYCLE = _whole(-1, "a whole number of seconds, or -1 for never")

VARIABLES = (
    Variable("DATABASE_URL", "DB_DATABASE_URL", _URL, ("DATABASE_URL",)),
    Variable(
        "TEST_DATABASE_URL",
        "DB_TEST_DATABASE_URL",
        _URL,
        ("DATABASE_TEST_URL", "TEST_DATABASE_URL"),
    ),
    Variable("MIGRATION_DATABASE_URL", "DB_MIGRATION_DATABASE_URL", _URL),
    Variable("POOL_SIZE", "DB_POOL_SIZE", _POSITIVE),
    Variable("MAX_OVERFLOW", "DB_MAX_OVERFLOW", _LIMIT),
    Variable("POOL_TIMEOUT", "DB_POOL_TIMEOUT", _SECONDS),
    Variable("POOL_RECYCLE", "DB_POOL_RECYCLE", _RECYCLE),
    Variable("POOLER", "DB_POOLER", _POOLER),
    Variable("CONNECT_TIMEOUT", "DB_CONNECT_TIMEOUT", _POSITIVE),
    Variable("STATEMENT_TIMEOUT", "DB_STATEMENT_TIMEOUT", _TIMEOUT),
    Variable("APPLICATION_NAME", "DB_APPLICATION_NAME", _NAME),
    Variable("ECHO", "DB_ECHO", _FLAG),
    Variable("MIGRATION_LOCK_TIMEOUT", "DB_MIGRATION_LOCK_TIMEOUT", _TIMEOUT),
    Variable("MIGRATION_WAIT_TIMEOUT", "DB_MIGRATION_WAIT_TIMEOUT", _SECONDS),
    Variable("LEGACY_NAMES", "DB_LEGACY_NAMES", _FLAG),
)
_BY_SETTING = {variable.setting: variable for variable in VARIABLES}


# --- validation --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """One setting's value, or what is wrong with it, and the old name it went by, if it did."""

    value: Any = None
    problem: str | None = None
    legacy: str | None = None


@dataclass(frozen=True)
class Given:
    """A value before validation; ``label`` is how problems call the place it stands in."""

    label: str
    raw: Any
    legacy: str | None = None
    problem: str | None = None


class _FoundEnv(Env):
    """An Env over the values that were found, rather than over ``os.environ``.

    environs has no public hook for that: dotenv would interpolate its file in its own way, and
    the process environment would not be expanded. ``_get_value`` is what FileAwareEnv overrides.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        super().__init__(eager=False)
        self._raw = raw
        self.add_parser("database_url", _database_url)

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self._raw.get(env_key, default)


def check(given: Mapping[str, Given]) -> dict[str, Found]:
    """Parse and validate values by setting; every problem is in the result, none is raised."""
    problems = {s: g.problem or _wrong_type(_BY_SETTING[s].kind, g) for s, g in given.items()}
    sound = {s: g for s, g in given.items() if not problems[s]}
    env = _FoundEnv({g.label: _as_text(g.raw) for g in sound.values()})
    values = {s: _BY_SETTING[s].kind.read(env, g.label) for s, g in sound.items()}
    messages = _messages(env)
    for setting, item in sound.items():
        if item.label in messages:
            problems[setting] = _problem(setting, item, messages[item.label])
    return {s: Found(values.get(s), _hinted(problems[s], g), g.legacy) for s, g in given.items()}


def _hinted(problem: str | None, item: Given) -> str | None:
    if problem is None or item.legacy is None:
        return problem
    return f"{problem}; if {item.legacy} is not meant for ragstore, set DB_LEGACY_NAMES=off"


def _as_text(raw: Any) -> Any:
    """Give numbers and flags to environs as text: marshmallow would truncate 1.5 to 1."""
    return raw if isinstance(raw, URL) else str(raw)


def _wrong_type(kind: Kind, item: Given) -> str | None:
    odd_flag = isinstance(item.raw, bool) and bool not in kind.types
    if isinstance(item.raw, (str, *kind.types)) and not odd_flag:
        return None
    expects = kind.expects or "a URL, as text or as a sqlalchemy URL"
    return f"{item.label} is of type {type(item.raw).__name__}, but must be {expects}"


def _messages(env: Env) -> Mapping[str, list[str]]:
    try:
        env.seal()
    except EnvValidationError as error:
        return cast("Mapping[str, list[str]]", error.error_messages)  # seal() gives them by name
    return {}


def _problem(setting: str, item: Given, messages: list[str]) -> str:
    expects = _BY_SETTING[setting].kind.expects
    problem = f"{item.label} is {_shown(item.raw)}, but must be {expects}"
    return problem if expects else " ".join(messages)


def _shown(raw: Any) -> str:
    """Show a value that holds no secret, unless a URL was put into the wrong variable."""
    text = str(raw)
    if "://" in text:
        return "a URL"
    return repr(text if len(text) <= _APPLICATION_NAME_BYTES else text[:30] + "…")


def _database_url(value: str | URL, *, called: str) -> URL:
    try:
        return parse_url(value, name=called)
    except ImproperlyConfigured as error:
        raise ValidationError(str(error)) from None


# --- sources -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded:
    """What the sources below ``configure()`` hold, by setting, and what is wrong beside that."""

    found: Mapping[str, Found]
    problems: tuple[str, ...] = ()


def load() -> Loaded:
    """Read the settings module, the process environment and the ``.env`` file, in this order.

    Nothing is raised and nothing is kept: what is wrong is part of the result.
    """
    problems: list[str] = []
    texts = _Texts(dict(os.environ), _read_env_file(problems))
    given: dict[str, Given] = {}
    module_name = texts.get(SETTINGS_MODULE)
    if module_name is not None:
        given.update(_from_module(module_name, problems))
    for variable in VARIABLES:
        item = texts.given(variable) if variable.setting not in given else None
        if item is not None:
            given[variable.setting] = item
    return Loaded(check(given), tuple(problems))


def _set(text: str | None) -> str | None:
    """Return None for a variable that is set to nothing: it counts as not set."""
    return text if text is not None and text.strip() else None


@dataclass(frozen=True)
class _Texts:
    """The process environment over the ``.env`` file."""

    process: Mapping[str, str]
    file: Mapping[str, str]

    def get(self, name: str) -> str | None:
        return _set(self.process.get(name)) or _set(self.file.get(name))

    def given(self, variable: Variable) -> Given | None:
        """Find a variable under its name or, failing that, under one of its former names."""
        text = self.get(variable.name)
        if text is not None:
            return self._given(variable.name, text)
        for source in (self.process, self.file):
            for name in variable.legacy:
                text = _set(source.get(name))
                if text is not None:
                    return self._given(name, text, legacy=name)
        return None

    def _given(self, name: str, text: str, legacy: str | None = None) -> Given:
        try:
            return Given(name, self._expand(text, (name,)), legacy)
        except ImproperlyConfigured as error:
            return Given(name, None, legacy, str(error))

    def _expand(self, text: str, chain: tuple[str, ...]) -> str:
        """Replace ``${NAME}`` and ``${NAME:-default}``; the result is not looked at again."""
        return _REFERENCE.sub(lambda match: self._referred(match, chain), text)

    def _referred(self, match: re.Match[str], chain: tuple[str, ...]) -> str:
        name, default = match[1], match[2]
        through = f" (through {', '.join(chain[1:])})" if len(chain) > 1 else ""
        refers = f"{chain[0]}{through} refers to ${{{name}}}"
        if name in chain:
            raise ImproperlyConfigured(f"{refers}, which refers back to it")
        if default is not None and "${" in default:
            raise ImproperlyConfigured(
                f"{refers} with another reference as its default: write a plain default, or set"
                f" {name}"
            )
        text = self.get(name)
        if text is not None:
            return self._expand(text, (*chain, name))
        if default is None:
            raise ImproperlyConfigured(
                f"{refers}, which is not set: set {name}, or write ${{{name}:-default}}"
            )
        return default


# --- the .env file -----------------------------------------------------------------------------


def _read_env_file(problems: list[str]) -> dict[str, str]:
    named = _set(os.environ.get(ENV_FILE))
    path = _find_upwards(named or ".env")
    if path is None:
        if named:
            problems.append(f"{ENV_FILE} names {named!r}, but there is no such file")
        return {}
    try:
        return dict(_statements(path, problems))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        problems.append(f"the file {path} cannot be read: {reason}")
        return {}


def _find_upwards(name: str) -> Path | None:
    try:
        here = Path.cwd()
    except OSError:  # the working directory was removed
        here = Path("/")
    candidates = (folder / name for folder in (here, *here.parents))
    return next((path for path in candidates if _is_file(path)), None)


def _is_file(path: Path) -> bool:
    """Tell whether to read the path: a pipe and /dev/null, yes; a directory called .env, no."""
    try:
        return path.exists() and not path.is_dir()
    except OSError:  # a parent directory that may not be searched
        return False


def _statements(path: Path, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of the file, quotes removed and ``${NAME}`` left as it is."""
    with path.open(encoding="utf-8") as stream:
        for binding in parse_stream(stream):
            if binding.key is not None and binding.value is not None:
                yield binding.key, binding.value
            elif binding.error and _OURS.search(binding.original.string):
                problems.append(
                    f"the file {path} cannot be read from line {binding.original.line}: look for"
                    " a quotation mark without its partner"
                )


# What else the file holds is for other programs, and so is what is wrong with it.
_OURS = re.compile(
    "|".join(n for v in VARIABLES for n in (v.name, *v.legacy)) + f"|{SETTINGS_MODULE}"
)


# --- the settings module -----------------------------------------------------------------------


def _from_module(name: str, problems: list[str]) -> dict[str, Given]:
    """Take our settings out of a module; other names in it are its own affair."""
    try:
        module = import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with the rest
        problems.append(
            f"{SETTINGS_MODULE} names {name!r}, which cannot be imported: {_why(error)}"
        )
        return {}
    raw = {variable.setting: getattr(module, variable.setting, None) for variable in VARIABLES}
    return {
        setting: Given(f"{setting} in {name}", value)
        for setting, value in raw.items()
        if value is not None and not (isinstance(value, str) and _set(value) is None)
    }


def _why(error: Exception) -> str:
    """Say what went wrong and where, without the message: it may quote a URL."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"there is no module {error.name!r} (is its directory on PYTHONPATH?)"
    if isinstance(error, ImproperlyConfigured):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in {error.filename}, line {error.lineno}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.filename}, line {frame.lineno}"
