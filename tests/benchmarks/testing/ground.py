"""What the benchmark runs on: a server of its own, and runs of pytest against it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import ragstore
from ragstore.embedded import EmbeddedServer
from ragstore.testing.server import TestServer
from tests.benchmarks.machine import described, forget_settings

PLUGIN = ("-p", "no:ragstore", "-p", "ragstore.testing.plugin")
"""The plugin by its module, whether or not ragstore is installed with its entry point."""

_CHECKOUT = Path(ragstore.__file__).parents[1]
# Kept out of the runs because they only take time there.
_OTHERS = ("asyncio", "anyio", "hypothesispytest", "cov", "pytest_cov", "xdist", "cacheprovider")
_POSTGRESQL = ("-p", "no:pytest_postgresql")


@dataclass(frozen=True)
class Ground:
    """The server, a directory for test files, and who the machine is."""

    server: TestServer
    directory: Path
    data: Path

    @property
    def url(self) -> str:
        """Return the URL of the test database."""
        return self.server.test_url.render_as_string(hide_password=False)

    def described(self) -> list[str]:
        """Return lines that say what the numbers were measured on."""
        return described(self.server.url, self.data, self.server.versions)

    def run(self, name: str, source: str, *arguments: str) -> float:
        """Return the seconds that a run of pytest on one module takes, process and all.

        The plugin is there if the arguments name it.
        """
        path = self.directory / f"test_{name}.py"
        if not path.exists() or path.read_text() != source:
            path.write_text(source)
        options = [word for other in _OTHERS for word in ("-p", f"no:{other}")]
        command = [sys.executable, "-m", "pytest", "-qq", "--rootdir", str(self.directory)]
        begun = perf_counter()
        done = subprocess.run(
            [*command, *options, *arguments, str(path)],
            cwd=self.directory,
            env=_environment(),
            capture_output=True,
            text=True,
        )
        seconds = perf_counter() - begun
        if done.returncode:
            raise SystemExit(f"the run of {path.name} failed:\n{done.stdout}{done.stderr}")
        return seconds

    def run_kit(self, name: str, source: str) -> float:
        """Return the seconds of a run that uses the test kit."""
        return self.run(name, source, *PLUGIN, f"--ragstore-db={self.url}", *_POSTGRESQL)

    def run_bare(self, name: str, source: str) -> float:
        """Return the seconds of a run without the test kit."""
        return self.run(name, source, "-p", "no:ragstore", *_POSTGRESQL)


@contextmanager
def prepared() -> Iterator[Ground]:
    """Yield a ground in a temporary directory; the server stops at the end."""
    with tempfile.TemporaryDirectory(prefix="ragstore-bench-") as directory:
        root = Path(directory)
        forget_settings(root)
        # Python compiles once, as it does for packages that are installed.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(root / "bytecode")
        (root / "tests").mkdir()
        with EmbeddedServer(root / "data") as server:
            yield Ground(TestServer.at(server.url("ragstore_test")), root / "tests", root / "data")


def _environment() -> dict[str, str]:
    paths = [str(_CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
