"""The .env.example and the documentation say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ragstore.conf import defaults, environment, settings

ROOT = Path(__file__).parents[3]
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
NAMES = {name for name in vars(defaults) if name.isupper()}
OLD_NAMES = {name for variable in environment.VARIABLES for name in variable.legacy}


def _table() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `([A-Z_]+)` \|(.*)\|$", PAGE, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}


def test_example_defaults_and_page_name_the_same_variables() -> None:
    """The three places have the same variables, each of them once."""
    example = re.findall(r"^(?:# )?(DB_[A-Z_]+)=", EXAMPLE, re.MULTILINE)
    variables = {f"DB_{name}" for name in NAMES}
    assert sorted(example) == sorted(variables)
    assert {name: cells[0] for name, cells in _table().items()} == {
        name: f"`DB_{name}`" for name in NAMES
    }
    mentioned = set(re.findall(r"\bDB_[A-Z_]+\b", EXAMPLE + PAGE))
    assert mentioned <= variables


def test_page_names_the_old_names() -> None:
    """The table of the page has the old names of the table in the code, in its order."""
    rows = _table()
    for variable in environment.VARIABLES:
        assert tuple(re.findall(r"`([A-Z_]+)`", rows[variable.setting][-1])) == variable.legacy


def test_page_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each default that the page's table shows, set as the variable, is the default."""
    for name, cells in _table().items():
        if not name.endswith("_URL"):
            monkeypatch.setenv(f"DB_{name}", cells[1].strip("`"))
            settings.reload()
            assert getattr(settings, name) == getattr(defaults, name)


@pytest.mark.parametrize("uncommented", [False, True], ids=["as it is", "uncommented"])
def test_example_loads_and_shows_the_defaults(
    uncommented: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file loads with HOST_IP set, also with every default uncommented; the values agree."""
    text = re.sub(r"^# (?=DB_[A-Z_]+=)", "", EXAMPLE, flags=re.MULTILINE)
    (tmp_path / ".env").write_text(text if uncommented else EXAMPLE, encoding="utf-8")
    monkeypatch.setenv("HOST_IP", "10.0.0.7")
    shown = settings.DATABASE_URL.render_as_string(hide_password=False)
    assert shown == "postgresql+psycopg://rag_user:rag_password@10.0.0.7:5432/rag_factory"
    assert settings.DATABASE_URL == settings.MIGRATION_DATABASE_URL
    for name in NAMES - {"DATABASE_URL", "MIGRATION_DATABASE_URL"}:
        assert getattr(settings, name) == getattr(defaults, name)


def test_example_shows_the_reference_form() -> None:
    """The form with ${HOST_IP} is there, as the documentation has it."""
    line = "DB_DATABASE_URL=postgresql://rag_user:rag_password@${HOST_IP}:5432/rag_factory"
    assert line in EXAMPLE.splitlines()
    assert line in PAGE.splitlines()


def test_each_variable_of_the_example_has_its_meaning() -> None:
    """A comment line stands right above every variable."""
    lines = EXAMPLE.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"(# )?DB_", line):
            assert re.match(r"# (?!DB_|HOST_IP)\S", lines[number - 1]), line
