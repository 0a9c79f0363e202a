"""What a newcomer does first, in a clean environment with nothing but Python."""

from __future__ import annotations

import re
import sys
import venv
from pathlib import Path

from .conftest import run


def test_readme_quickstart_line_answers(checkout: Path, tmp_path: Path) -> None:
    """The README's first line, run in a clone, installs, ingests and answers; and again at once."""
    readme = (checkout / "README.md").read_text()
    line = next(line for line in readme.splitlines() if line.endswith("ragstore quickstart"))
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    variables = {
        "XDG_DATA_HOME": str(tmp_path),
        "PATH": path,
        "DB_DATABASE_URL": f"embedded://{tmp_path}/data",
    }

    first = run("bash", "-c", line, cwd=checkout, **variables)
    second = run("bash", "-c", line, cwd=checkout, **variables)

    assert re.search(r"how do I catch an exception", first)
    assert re.search(r"\b(try|compound)\b", first)
    assert re.search(r"79 unchanged", second)


def test_wheel_in_a_clean_environment_migrates_checks_and_searches(
    distributions: dict[str, Path], tmp_path: Path
) -> None:
    """The wheel and its declared dependencies alone are enough for the whole job."""
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv" / "bin"
    variables = {"DB_DATABASE_URL": f"embedded://{tmp_path}/data?keep_running=true"}
    run(bin_ / "pip", "install", "-q", f"{distributions['wheel']}[local]", cwd=tmp_path)
    try:
        run(bin_ / "ragstore", "migrate", "upgrade", cwd=tmp_path, **variables)
        run(bin_ / "ragstore", "migrate", "check", cwd=tmp_path, **variables)
        answer = run(
            bin_ / "ragstore",
            "quickstart",
            "--ask",
            "what does yield do",
            cwd=tmp_path,
            **variables,
        )
    finally:
        stop = f"from ragstore.embedded import EmbeddedServer as S; S('{tmp_path}/data').shutdown()"
        run(bin_ / "python", "-c", stop, cwd=tmp_path)

    assert "yield" in answer
