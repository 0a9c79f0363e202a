"""What a database of its own costs a test: the kit's clone beside the bare statement.

Each time is that of the copy and the first connection to it; the drop is timed apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from time import perf_counter
from uuid import uuid4

from psycopg import sql
from sqlalchemy.engine import URL

from ragstore.driver import connect
from ragstore.testing.history import plan_of
from ragstore.testing.template import Databases
from tests.benchmarks.table import NULL, Row, median_ms, ratio, shown_ratio, shuffled
from tests.benchmarks.testing.ground import Ground

MOST_RATIO = 1.5

Arm = tuple[Callable[[], URL], Callable[[URL], object]]
_numbers = count()


def rows(ground: Ground, rounds: int) -> list[Row]:
    """Make and drop databases in turn, and return their rows."""
    with (
        _databases(ground) as databases,
        closing(connect(ground.server.url, autocommit=True)) as admin,
    ):
        template = databases.template()

        def bare(strategy: str) -> Arm:
            def make() -> URL:
                url = template.set(database=f"bench_{next(_numbers)}")
                names = sql.Identifier(url.database or ""), sql.Identifier(template.database or "")
                statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY ").format(*names)
                admin.execute(statement + sql.SQL(strategy))
                return url

            def drop(url: URL) -> None:
                statement = sql.SQL("DROP DATABASE {}").format(sql.Identifier(url.database or ""))
                admin.execute(statement)

            return make, drop

        arms: dict[str, Arm] = {
            "wal_log": bare("wal_log"),
            "wal_log again": bare("wal_log"),
            "file_copy": bare("file_copy"),
            "file_copy again": bare("file_copy"),
            "the kit": (lambda: databases.clone(template), databases.drop),
        }
        return _rows(*_measured(arms, rounds))


@contextmanager
def _databases(ground: Ground) -> Iterator[Databases]:
    plan = plan_of((), Path(ground.directory))
    databases = Databases(ground.server, plan, worker="main", pid=os.getpid(), run=uuid4().hex)
    try:
        databases.test_database()
        yield databases
    finally:
        databases.close()


def _measured(
    arms: dict[str, Arm], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of making and of dropping, by arm."""
    made: dict[str, list[float]] = {name: [] for name in arms}
    dropped: dict[str, list[float]] = {name: [] for name in arms}
    for order in shuffled(list(arms), rounds + 1):
        for name in order:
            make, drop = arms[name]
            begun = perf_counter()
            url = make()
            connection = connect(url)
            made[name].append(perf_counter() - begun)
            connection.close()
            begun = perf_counter()
            drop(url)
            dropped[name].append(perf_counter() - begun)
    for times in (*made.values(), *dropped.values()):
        del times[0]  # the first round fills caches
    return made, dropped


def _rows(made: dict[str, list[float]], dropped: dict[str, list[float]]) -> list[Row]:
    faster, slower = sorted(
        ("wal_log", "file_copy"), key=lambda name: median_ms(made[name] + made[f"{name} again"])
    )
    kit, base, again = made["the kit"], made[faster], made[f"{faster} again"]
    return [
        Row(f"2. CREATE DATABASE, {faster}, and connect", median_ms(base)),
        Row(NULL, median_ms(again), shown_ratio(again, base)),
        Row(f"  {slower}", median_ms(made[slower]), shown_ratio(made[slower], base)),
        Row(
            "  a clone by the kit",
            median_ms(kit),
            shown_ratio(kit, base),
            f"<= {MOST_RATIO}x",
            ratio(kit, base) <= MOST_RATIO,
        ),
        Row("  DROP DATABASE", median_ms(dropped[faster])),
        Row("  drop by the kit", median_ms(dropped["the kit"])),
    ]
