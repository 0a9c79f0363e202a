"""Every block of code in the documentation runs, page by page, on a database of the page's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
from sqlalchemy.engine import URL

from ragstore.conf import settings
from ragstore.migrations import upgrade

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "error", "-c"]}
NOT_RUN = {"text", "dotenv"}  # output, history, and variables, which a test below loads

# These two are run elsewhere, as they stand: by tests/packaging, and by .ci/run itself.
LINES_OF_README = ("ragstore quickstart", "pytest --cov -n auto")


class Block(NamedTuple):
    """A fenced block and the line it starts at."""

    language: str
    code: str
    line: int


def _blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(match[1], match[2], text[: match.start()].count("\n") + 2)
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Return a copy of what a clone has at its root, to write into."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("alembic", "docs", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    # A link, not a copy: found through it, the package takes the migrations beside the link.
    (tmp_path / "ragstore").symlink_to(ROOT / "ragstore")
    return tmp_path


def _environment(url: URL, root: Path = ROOT) -> dict[str, str]:
    text = url.render_as_string(hide_password=False)
    kit = url.set(database="ragstore_pages_test").render_as_string(hide_password=False)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "DB_DATABASE_URL": text,
        "DB_TEST_DATABASE_URL": kit,
        "PATH": path,
        "PYTHONPATH": str(root),
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_of_a_page_run_in_order(page: Path, workplace: Path, empty_database: URL) -> None:
    """Each bash and python block of the page ends without an error or a warning."""
    if page.name == "settings.md":
        upgrade(empty_database)
    for block in _blocks(page):
        if block.language in NOT_RUN or block.code.rstrip().endswith(LINES_OF_README):
            continue
        done = subprocess.run(
            [*RUN[block.language], block.code],
            cwd=workplace,
            env=_environment(empty_database, workplace),
            capture_output=True,
            text=True,
        )
        place = f"{page.relative_to(ROOT)}:{block.line}"
        assert done.returncode == 0, f"{place}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_variables_of_a_page_load(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each dotenv block is a file that the settings accept."""
    monkeypatch.setenv("HOST_IP", "127.0.0.1")
    for block in _blocks(page):
        if block.language != "dotenv":
            continue
        file = tmp_path / "page.env"
        file.write_text(block.code)
        monkeypatch.setenv("RAGSTORE_ENV_FILE", str(file))
        settings.reload()
        assert settings.POOL_SIZE >= 1, f"{page}:{block.line}"


def test_readme_has_the_two_lines_once() -> None:
    """The README's quickstart and test commands are there to be run, each a line of its own."""
    lines = [block.code.rstrip() for block in _blocks(ROOT / "README.md")]

    assert [sum(line.endswith(command) for line in lines) for command in LINES_OF_README] == [1, 1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    """Each relative link names a file, and each anchor a heading of it."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page}: {target}"
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, f"{page}: #{anchor}"


class Service(BaseHTTPRequestHandler):
    """An embedding service of the usual API, whose first answer is that it is busy."""

    asked: ClassVar[list[list[str]]] = []

    def do_POST(self) -> None:
        """Answer with a vector for each text, in an order of its own."""
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = question["input"]
        self.asked.append(texts)
        if len(self.asked) == 1:
            self.send_error(503)
            return
        data = [
            {"index": at, "embedding": [1.0, len(text), text.count("bread")]}
            for at, text in enumerate(texts)
        ]
        body = json.dumps({"data": data[::-1]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def service() -> Iterator[dict[str, str]]:
    """Yield the variables that lead the examples to a service on this machine."""
    Service.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/v1/embeddings"
        yield {"EMBEDDING_URL": url, "EMBEDDING_DIMENSIONS": "3", "NO_PROXY": "127.0.0.1"}
        server.shutdown()
        thread.join()


def test_service_is_asked_for_what_is_new(database: URL, service: dict[str, str]) -> None:
    """The example with a service asks in pieces, again when it is busy, and once for a text."""
    example = ROOT / "examples" / "embed_with_a_service.py"
    environment = {**_environment(database), **service}
    done = subprocess.run(
        [sys.executable, "-W", "error", example], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["2 new, 0 unchanged, 4 vectors", "0 new, 2 unchanged, 0 vectors"]
    assert "toast: " in lines[2]
    assert [len(texts) for texts in Service.asked] == [2, 2, 2, 1]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_example_runs(example: Path, database: URL, service: dict[str, str]) -> None:
    """Each example runs on a migrated database."""
    done = subprocess.run(
        [sys.executable, "-W", "error", example],
        env={**_environment(database), **service},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout
