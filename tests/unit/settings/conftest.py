"""Settings that begin anew in each test, away from the environment the tests are run in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ragstore import conf
from ragstore.conf.environment import VARIABLES

WriteEnv = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Unset every variable of ours and work in an empty directory; forget all settings."""
    ours = {name for v in VARIABLES for name in (v.name, *v.legacy)} | {"HOST_IP"}
    for name in [n for n in os.environ if n in ours or n.startswith("RAGSTORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    conf._sources.reset()
    yield
    conf._sources.reset()


@pytest.fixture
def write_env(tmp_path: Path) -> WriteEnv:
    """Write the .env file of the working directory."""

    def write(text: str) -> Path:
        path = tmp_path / ".env"
        path.write_text(text, encoding="utf-8")
        return path

    return write
