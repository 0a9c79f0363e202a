"""What a session costs a test: the fixture beside the same calls by hand.

All kinds run in one pytest process, in turn; each writes nothing and commits once. The time of a
test is that of setup, call and teardown. By hand is: begin, a Session on a savepoint, commit,
close, rollback, on a connection that stays open as the fixture's does.
"""

from __future__ import annotations

import statistics
from contextlib import redirect_stdout
from io import StringIO

import pytest

from tests.benchmarks.table import NULL, Row, shown_ratio, shuffled
from tests.benchmarks.testing.ground import PLUGIN, Ground

TESTS = """
import pytest
from sqlalchemy import create_engine, text
from sqlmodel import Session

@pytest.fixture(scope="session")
def engine(ragstore_database):
    engine = create_engine(ragstore_database)
    yield engine
    engine.dispose()

@pytest.fixture(scope="session")
def kept(engine):
    with engine.connect() as connection:
        yield connection

@pytest.fixture
def by_hand(kept):
    transaction = kept.begin()
    session = Session(kept, join_transaction_mode="create_savepoint")
    yield session
    session.close()
    transaction.rollback()

@pytest.mark.parametrize("round", range({rounds}))
class TestRounds:
    def test_empty(self, round): pass

    def test_by_hand(self, by_hand, round):
        by_hand.execute(text("SELECT 1"))
        by_hand.commit()

    def test_by_hand_again(self, by_hand, round):
        by_hand.execute(text("SELECT 1"))
        by_hand.commit()

    def test_db_session(self, db_session, round):
        db_session.execute(text("SELECT 1"))
        db_session.commit()

    async def test_async_empty(self, round): pass

    async def test_db_async_session(self, db_async_session, round):
        await db_async_session.exec(text("SELECT 1"))
        await db_async_session.commit()
"""
KINDS = ("empty", "by_hand", "by_hand_again", "db_session", "async_empty", "db_async_session")
BLOCKS = 10  # the pairs are medians of a tenth of the rounds each: single tests are too short
WARM = 20  # rounds that open connections and fill caches

MOST_RATIO, MOST_MS = 1.3, 2.0


class Times:
    """The pytest plugin that adds up the phases of each test."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase."""
        if report.failed:
            raise RuntimeError(report.longreprtext)
        kind, number = _parts(report.nodeid.rpartition("::")[2])
        times = self._seconds[kind]
        times[number] = times.get(number, 0) + report.duration

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Interleave the kinds."""
        orders = list(shuffled(KINDS, len(items) // len(KINDS)))

        def place(item: pytest.Item) -> tuple[int, int]:
            kind, number = _parts(item.name)
            return number, orders[number].index(kind)

        items.sort(key=place)

    def blocks(self, kind: str) -> list[float]:
        """Return the milliseconds of a kind: the medians of successive blocks of rounds."""
        times = [seconds for number, seconds in sorted(self._seconds[kind].items())][WARM:]
        size = len(times) // BLOCKS
        parts = [times[at * size : (at + 1) * size] for at in range(BLOCKS)]
        return [statistics.median(part) * 1_000 for part in parts]

    def added(self, kind: str, empty: str = "empty") -> list[float]:
        """Return what a kind adds to an empty test, block by block."""
        return [a - b for a, b in zip(self.blocks(kind), self.blocks(empty), strict=True)]


def _parts(name: str) -> tuple[str, int]:
    kind, _, number = name.removeprefix("test_").partition("[")
    return kind, int(number.rstrip("]"))


def rows(ground: Ground, rounds: int) -> list[Row]:
    """Run the tests and return their rows."""
    times = Times()
    path = ground.directory / "test_rounds.py"
    path.write_text(TESTS.format(rounds=rounds + WARM))
    options = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    arguments = ["-qq", "--rootdir", str(ground.directory), "-p", "no:cacheprovider", *options]
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # this process has ragstore
    database = f"--ragstore-db={ground.url}"
    with redirect_stdout(StringIO()) as printed:
        code = pytest.main([str(path), *PLUGIN, *arguments, *quiet, database], plugins=[times])
    if code:
        raise SystemExit(f"the tests of the sessions failed:\n{printed.getvalue()}")
    return _rows(times)


def _rows(times: Times) -> list[Row]:
    by_hand, again, ours = map(times.added, ("by_hand", "by_hand_again", "db_session"))
    async_ours = times.added("db_async_session", "async_empty")
    middle = statistics.median
    added = middle(ours)
    is_met = added <= MOST_MS and added <= MOST_RATIO * middle(by_hand)
    target = f"<= {MOST_RATIO}x, <= {MOST_MS:g} ms"
    return [
        Row("1. a test without fixtures", middle(times.blocks("empty"))),
        Row("  added by a session made by hand", middle(by_hand)),
        Row(NULL, middle(again), shown_ratio(again, by_hand)),
        Row("  added by db_session", added, shown_ratio(ours, by_hand), target, is_met),
        Row("  added by db_async_session to an async test", middle(async_ours)),
    ]
