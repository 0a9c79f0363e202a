"""What a thousand tests cost, each of which stores a row and commits it.

The same test runs with ``db_session``; with a flush, as pytest-django's transactional tests do it:
work is committed, and after each test every table is truncated; and with pytest-postgresql, which
clones its template for each test. Fewer tests of the slow kinds are run, and scaled up.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from tests.benchmarks.table import NULL, Row, median_ms, shown_ratio, shuffled
from tests.benchmarks.testing.ground import Ground

TOTAL = 1_000

EMPTY = """
import pytest, sqlmodel

@pytest.fixture
def stored(): return lambda: None
"""
KIT = """
import pytest
from ragstore.models import Collection

@pytest.fixture
def session(db_session): return db_session
"""
FLUSH = """
import pytest
from sqlmodel import Session, SQLModel, create_engine, text
from ragstore.models import Collection

TABLES = ", ".join(t.name for t in SQLModel.metadata.sorted_tables if "ragstore_" in t.name)

@pytest.fixture(scope="session")
def engine(ragstore_database):
    engine = create_engine(ragstore_database)
    yield engine
    engine.dispose()

@pytest.fixture
def session(engine):
    with Session(engine) as session:
        yield session
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {TABLES}"))
"""
CLONE = """
import pytest
from pytest_postgresql import factories
from sqlmodel import Session, create_engine
from sqlalchemy.pool import StaticPool
from ragstore.migrations import upgrade
from ragstore.models import Collection
from ragstore.url import parse_url

URL = parse_url(%(url)r)

def migrate(*, dbname, **_): upgrade(URL.set(database=dbname))

WHERE = {"host": URL.query["host"], "port": URL.query["port"], "user": URL.username}
server = factories.postgresql_noproc(dbname="bench_peer", load=[migrate], **WHERE)
clone = factories.postgresql("server")

@pytest.fixture
def session(clone):
    engine = create_engine("postgresql+psycopg://", creator=lambda: clone, poolclass=StaticPool)
    with Session(engine) as session:
        yield session
"""
STORED = """
@pytest.fixture
def stored(session):
    def store():
        session.add(Collection(name="a"))
        session.commit()
    return store
"""
TEST = """
@pytest.mark.parametrize("number", range({tests}))
def test_one(stored, number): stored()
"""


@dataclass(frozen=True)
class Suite:
    """One kind of tests, and how many of them are run."""

    name: str
    module: str
    tests: int
    source: str

    def seconds(self, ground: Ground) -> float:
        """Return the seconds of the whole thousand: the start, and a thousand tests."""
        if self.tests == TOTAL:
            return self._run(ground, TOTAL)
        start = self._run(ground, 1)
        each = (self._run(ground, self.tests) - start) / (self.tests - 1)
        return start + each * (TOTAL - 1)

    def _run(self, ground: Ground, tests: int) -> float:
        source = self.source + TEST.format(tests=tests)
        if self.module == "clone":
            return ground.run(f"{self.module}_{tests}", source, "-p", "no:ragstore")
        return ground.run_kit(f"{self.module}_{tests}", source)

    @property
    def title(self) -> str:
        """Return the name, with how much of it was run."""
        factor = TOTAL / self.tests
        return self.name if factor == 1 else f"{self.name} ({self.tests} run, x{factor:g})"


def rows(ground: Ground, rounds: int) -> list[Row]:
    """Run each kind in turn, and return the rows."""
    suites = _suites(ground)
    times: list[list[float]] = [[] for _ in suites]
    for order in shuffled(range(len(suites)), rounds):
        for place in order:
            times[place].append(suites[place].seconds(ground))
    ours = times[1]
    found = [
        Row(suite.title, median_ms(seconds), "" if place < 2 else shown_ratio(seconds, ours))
        for place, (suite, seconds) in enumerate(zip(suites, times, strict=True))
    ]
    if find_spec("pytest_postgresql") is None:
        found.append(Row("  pytest-postgresql: see tests/benchmarks/requirements.txt"))
    return found


def _suites(ground: Ground) -> list[Suite]:
    suites = [
        Suite("4. 1,000 tests that do nothing", "empty", TOTAL, EMPTY),
        Suite("  1,000 tests with db_session", "session", TOTAL, KIT + STORED),
        Suite(NULL, "session", TOTAL, KIT + STORED),
        Suite("  flushed", "flush", 100, FLUSH + STORED),
    ]
    if find_spec("pytest_postgresql") is not None:
        source = CLONE % {"url": ground.url} + STORED
        suites.append(Suite("  pytest-postgresql", "clone", 20, source))
    return suites
