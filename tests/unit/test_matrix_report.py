"""What the documentation says of the matrix: written by its command, and never stale."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.matrix import report
from tests.matrix.case import Case
from tests.matrix.cases import CASES
from tests.matrix.harness import Mode, Outcome
from tests.matrix.models import item

PAGE = """# By hand

Written before.

<!-- matrix: begin -->
old
<!-- matrix: end -->

Written after.
"""


def generated(page: Path, mark: str = "matrix") -> str:
    """Return what a run has written between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    return text.partition(f"<!-- {mark}: begin -->")[2].partition(f"<!-- {mark}: end -->")[0]


def rows_of(table: str) -> dict[str, list[str]]:
    """Return the cells of each line of Markdown tables, by the first."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {line[0]: line[1:] for line in cells if len(line) > 1}


def counted(table: str) -> dict[str, int]:
    """Return of how many rows each line of the summary speaks."""
    found = {name: re.match(r"\d+ of (\d+)", cells[0]) for name, cells in rows_of(table).items()}
    return {name: int(match[1]) for name, match in found.items() if match}


def outcome(case: Case, mode: Mode, **facts: object) -> Outcome:
    """Return the outcome of a row, of which some facts are known."""
    made = Outcome(case, mode)
    vars(made).update(facts)
    return made


ROWS: list[tuple[Case, dict[str, object], str]] = [
    (Case("a", item, item, topic="One"), {"detected": True}, "both ways"),
    (Case("b", item, item, topic="One"), {"detected": False, "problems": ["no"]}, "**missed**"),
    (
        Case("c", item, item, topic="Two"),
        {"detected": True, "upgrades": False, "problems": ["no"]},
        "**fails**",
    ),
    (Case("d", item, item, "control", topic="Two"), {"problems": ["no"]}, "**found something**"),
    (Case("e", item, item, "decision", topic="Two"), {"detected": True, "asks": True}, "asks"),
]
OURS = [outcome(case, "ours", **facts) for case, facts, _ in ROWS]


def test_the_pages_have_the_rows_that_there_are() -> None:
    """The summary counts, and the listing names, exactly the rows of the matrix."""
    kinds = Counter(report.KINDS[case.kind] for case in CASES)
    topics = Counter(case.topic for case in CASES)
    skipped = re.search(r"Not run on this server: (.*)\.", generated(report.PAGE))
    left = skipped[1].split(", ") if skipped else []
    listed = rows_of(generated(report.ROWS_PAGE))

    assert left == []
    assert counted(generated(report.PAGE)) == {**kinds, **topics}
    assert {case.id: case.kind for case in CASES} == {
        name: cells[0] for name, cells in listed.items() if cells[0] in report.KINDS
    }


def test_verdicts() -> None:
    """Each row is told in a word or two: the first thing that went wrong, if anything did."""
    assert [report.verdict(each) for each in OURS] == [word for *_, word in ROWS]


def test_figures() -> None:
    """Rows are counted by what became of them."""
    assert report.figures(OURS) == "2 of 5 (1 missed, 1 wrong, 1 false)"
    assert report.figures(OURS[:1]) == "1 of 1"


def test_tables() -> None:
    """The summary is by kind and by topic; the listing has every row, with its kind."""
    summary = report.summary({"ours": OURS, "stock": OURS}, "PostgreSQL 99", ["f"])
    listing = report.listing({"ours": OURS})
    assert counted(summary) == {
        "changes": 3,
        "changes that need a decision": 1,
        "controls": 1,
        "One": 2,
        "Two": 3,
    }
    assert summary.endswith("Not run on this server: f.")
    assert rows_of(listing)["b"] == ["change", "**missed**"]
    assert listing.startswith("## One\n")
    line = (
        "PostgreSQL 16: 2 of 5 (1 missed, 1 wrong, 1 false); 1 need what this server does not have"
    )
    assert report.one_line({"ours": OURS}, "PostgreSQL 16", ["f"]) == (
        f"{line}; not as it should be: `b`, `c`, `d`."
    )


def test_written_by_hand_stays(tmp_path: Path) -> None:
    """A run replaces what is between its marks, however often, and nothing else of the page."""
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    for text in ("first", "new"):
        report.write(text, "matrix", page)

    assert page.read_text(encoding="utf-8") == PAGE.replace("old", "new")


@pytest.mark.parametrize(
    "broken",
    [
        PAGE.replace("<!-- matrix: end -->", ""),
        PAGE.replace("<!-- matrix: begin -->", ""),
        PAGE + PAGE,
        "<!-- matrix: end --> <!-- matrix: begin -->",
    ],
)
def test_a_page_without_its_marks(broken: str, tmp_path: Path) -> None:
    """A page that lost a mark is refused, and not changed."""
    page = tmp_path / "page.md"
    page.write_text(broken, encoding="utf-8")

    with pytest.raises(ValueError, match="lacks the marks"):
        report.write("new", "matrix", page)
    assert page.read_text(encoding="utf-8") == broken
