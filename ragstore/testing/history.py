"""What the test databases are migrated with: ragstore's revisions, then the application's.

The fingerprint is made from the content of the migration files, without importing Alembic: a run
whose template exists already needs no migration tool.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from configparser import ConfigParser, Error
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from ragstore.exceptions import ImproperlyConfigured, MigrationNotApplied

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import URL

Step = Callable[["URL"], object]

OPTION = "ragstore_migrations"
"""The ini option of pytest that names the application's migrations."""

_EXAMPLE = "alembic.ini, or package.module:callable"
_FORMAT = b"1"  # of the template databases: another number, and none of the old ones is used
_SUFFIXES = {".py", ".sql"}
_SEPARATORS = {"space": " ", "newline": "\n", "os": os.pathsep, ":": ":", ";": ";"}


@dataclass(frozen=True)
class MigrationPlan:
    """The migrations of a test run.

    ``fingerprint`` is 12 hexadecimal digits that change with the content of a migration file;
    ``steps`` are called with the database's URL after ragstore's own migrations.
    """

    fingerprint: str
    steps: tuple[Step, ...] = field(default=(), repr=False)

    def upgrade(self, url: URL) -> None:
        """Bring the database to the newest revision of every history.

        The settings DATABASE_URL and MIGRATION_DATABASE_URL name it meanwhile, so that an env.py
        which reads them migrates the same database.

        Raises:
            MigrationError, DatabaseError: what a migration raises.
        """
        from ragstore import migrations
        from ragstore.conf import override_settings

        with override_settings(DATABASE_URL=url, MIGRATION_DATABASE_URL=url):
            migrations.upgrade(url)
            for step in self.steps:
                step(url)


def plan_of(entries: Sequence[str], root: Path) -> MigrationPlan:
    """Return the plan: ragstore's migrations, then the entries in their order.

    An entry is the path of an alembic.ini, from ``root``, or ``package.module:callable``.

    Raises:
        ImproperlyConfigured: an entry names nothing that can be used.
    """
    from ragstore.migrations import script_location

    digest = hashlib.sha256(_FORMAT + _content(script_location()))
    steps: list[Step] = []
    for entry in entries:
        step, content = _callable(entry, root) if ":" in entry else _history(root / entry, entry)
        steps.append(step)
        digest.update(hashlib.sha256(content).digest())
    return MigrationPlan(digest.hexdigest()[:12], tuple(steps))


def _content(*directories: Path) -> bytes:
    """Return the digest of the migration files under the directories, wherever those are."""
    digest = hashlib.sha256()
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                content = path.read_bytes()
                name = path.relative_to(directory).as_posix()
                digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.digest()


# --- a callable --------------------------------------------------------------------------------


def _callable(entry: str, root: Path) -> tuple[Step, bytes]:
    module_name, _, name = entry.partition(":")
    with _on_path(root):
        try:
            found = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError) as exc:
            raise ImproperlyConfigured(
                f"{OPTION}: {entry!r} cannot be imported ({exc}): write {_EXAMPLE}"
            ) from exc
    if not callable(found):
        raise ImproperlyConfigured(f"{OPTION}: {entry!r} is not callable: write {_EXAMPLE}")
    fingerprint = getattr(found, "fingerprint", None)
    if fingerprint is not None:
        return found, str(fingerprint).encode()
    source = getattr(sys.modules[module_name], "__file__", None)  # a builtin module has none
    return found, Path(source).read_bytes() if source else b""


@contextmanager
def _on_path(directory: Path) -> Iterator[None]:
    """Let modules beside pytest's configuration be imported, after all others."""
    saved = sys.path[:]
    sys.path.append(str(directory))
    try:
        yield
    finally:
        sys.path[:] = saved


# --- a history of Alembic's --------------------------------------------------------------------


def _history(ini: Path, entry: str) -> tuple[Step, bytes]:
    if not ini.is_file():
        raise ImproperlyConfigured(f"{OPTION}: there is no file {entry!r}: write {_EXAMPLE}")

    def step(url: URL) -> None:
        _upgrade(ini, url)

    return step, _content(*_directories(ini))


def _directories(ini: Path) -> list[Path]:
    """Return the directories of a history's files, as Alembic would find them."""
    parser = ConfigParser({"here": ini.parent.absolute().as_posix()})
    try:
        parser.read(ini, encoding="utf-8")
        location = parser.get("alembic", "script_location")
        versions = parser.get("alembic", "version_locations", fallback="")
    except Error as exc:
        raise ImproperlyConfigured(
            f"{OPTION}: {ini.name} has no usable script_location in its section [alembic]: {exc}"
        ) from exc
    kind = parser.get("alembic", "path_separator", fallback=None) or parser.get(
        "alembic", "version_path_separator", fallback=""
    )
    parts = (
        versions.split(_SEPARATORS[kind]) if kind in _SEPARATORS else re.split(r"[\s,]+", versions)
    )
    places = [location, *(part.strip() for part in parts if part.strip())]
    return [_directory(ini, place) for place in places]


def _directory(ini: Path, place: str) -> Path:
    """Find ``package:directory``, or a path from the directory of the ini file."""
    package, colon, inner = place.partition(":")
    path = ini.parent / place
    if colon and not Path(place).is_absolute():
        top, *below = package.split(".")
        spec = PathFinder.find_spec(top, [str(ini.parent), *sys.path])
        roots = (spec and spec.submodule_search_locations) or ()
        path = next((Path(root, *below, inner) for root in roots), path)
    if path.is_dir():
        return path
    raise ImproperlyConfigured(f"{OPTION}: {ini.name} names {place!r}, which is no directory")


def _upgrade(ini: Path, url: URL) -> None:
    """Run ``alembic upgrade head`` as from the ini file's directory, on the given database."""
    from alembic import command

    with configured(ini, url) as config:
        command.upgrade(config, "heads")
        _check_arrived(config, ini, url)


@contextmanager
def configured(ini: Path, url: URL | None) -> Iterator[Config]:
    """Work as from the ini file's directory; yield the Config, which names the database if any."""
    from alembic.config import Config

    with _surroundings_kept(ini.parent):
        config = Config(str(ini))
        if url is not None:
            text = url.render_as_string(hide_password=False)
            config.set_main_option("sqlalchemy.url", text.replace("%", "%%"))
            config.attributes["url"] = url
        yield config


def _check_arrived(config: Config, ini: Path, url: URL) -> None:
    """Refuse an env.py that has migrated some other database.

    Raises:
        MigrationNotApplied: no version table of this one holds the newest revisions.
    """
    from alembic.script import ScriptDirectory

    heads = set(ScriptDirectory.from_config(config).get_heads())
    if not heads <= set(revisions_in(url)):
        raise MigrationNotApplied(
            f"{ini} was run, but the test database is not at its newest revision"
            f" ({', '.join(sorted(heads))}): its env.py must migrate the database named by"
            ' sqlalchemy.url or config.attributes["url"], or by the settings of ragstore'
        )


_VERSION_TABLES = """
SELECT space.nspname, class.relname
FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = class.relnamespace
JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid
WHERE class.relkind = 'r' AND attribute.attnum = 1 AND attribute.attname = 'version_num'
ORDER BY 1, 2
"""


def revisions_in(url: URL) -> list[str]:
    """Return the revisions that the version tables of a database hold, whatever their names."""
    from psycopg import sql

    from ragstore.driver import connect, translate_errors

    with translate_errors(url), connect(url) as connection:
        found: list[str] = []
        for names in connection.execute(_VERSION_TABLES).fetchall():
            query = sql.SQL("SELECT version_num FROM {} ORDER BY 1").format(sql.Identifier(*names))
            found += [row[0] for row in connection.execute(query)]
    return found


@contextmanager
def _surroundings_kept(directory: Path) -> Iterator[None]:
    """Work in a directory; give back it, sys.path and the logging that an env.py configures.

    Only a run that builds a template executes an env.py: what that changes must not make the
    tests of such a run differ from those of the next.
    """
    here, path = Path.cwd(), sys.path[:]
    root = logging.getLogger()
    named = [log for log in root.manager.loggerDict.values() if isinstance(log, logging.Logger)]
    saved = [
        (log, log.level, log.handlers[:], log.disabled, log.propagate) for log in (root, *named)
    ]
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path
        for log, level, handlers, disabled, propagate in saved:
            log.setLevel(level)
            log.handlers[:] = handlers
            log.disabled, log.propagate = disabled, propagate
