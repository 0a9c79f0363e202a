"""The machine a benchmark runs on: what must not leak in from it, and who it is."""

from __future__ import annotations

import os
import platform
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL

from ragstore.driver import connect

SHOWN = ("fsync", "full_page_writes", "synchronous_commit", "shared_buffers")
"""The settings of the server that every header shows."""

_OF_SETTINGS = ("DB_", "RAGSTORE_", "DATABASE_URL", "DATABASE_TEST_URL", "TEST_DATABASE_URL")


def forget_settings(directory: Path) -> None:
    """Let ragstore's settings, here and in the processes started here, be the defaults."""
    empty = directory / "empty.env"
    empty.touch()
    for name in [name for name in os.environ if name.startswith(_OF_SETTINGS)]:
        del os.environ[name]
    os.environ["RAGSTORE_ENV_FILE"] = str(empty)


def described(url: URL, data: Path, versions: str, shown: tuple[str, ...] = SHOWN) -> list[str]:
    """Return lines that say what the numbers were measured on."""
    with closing(connect(url)) as connection:
        rows = [(name, connection.execute(f"SHOW {name}").fetchone()) for name in shown]
    settings = ", ".join(f"{name} {value[0]}" for name, value in rows if value)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return [
        f"{os.cpu_count()} CPUs, load {load}; Python {platform.python_version()}; {versions}",
        f"data directory on {_filesystem(data)}; {settings}",
    ]


def _filesystem(path: Path) -> str:
    """Return the type of the file system that holds a path, where the system tells it."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "an unknown file system"
    found = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    holding = [(len(at), kind) for at, kind in found if path.resolve().is_relative_to(at)]
    return max(holding, default=(0, "an unknown file system"))[1]
