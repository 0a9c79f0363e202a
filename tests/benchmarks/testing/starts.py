"""What the kit costs a run of pytest: its start, and the import of the plugin alone."""

from __future__ import annotations

import statistics
import subprocess
import sys

from tests.benchmarks.table import NULL, Row, median_ms, shown_ratio, shuffled
from tests.benchmarks.testing.ground import Ground

MOST_START, MOST_IMPORT = 500, 10  # milliseconds

BARE = """
import sqlmodel

def test_one():
    engine = sqlmodel.create_engine({url!r})
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    engine.dispose()
"""
KIT = """
import sqlmodel

def test_one(db_session):
    db_session.connection().exec_driver_sql("SELECT 1")
"""
IMPORT = "import pytest; import ragstore.testing.plugin"


def rows(ground: Ground, rounds: int) -> list[Row]:
    """Start pytest in turn with and without the kit; server and template are there."""
    source = BARE.format(url=ground.server.url.render_as_string(hide_password=False))
    times: dict[str, list[float]] = {"bare": [], "again": [], "kit": []}
    for order in shuffled(list(times), rounds + 1):
        for name in order:
            run = ground.run_kit("kit", KIT) if name == "kit" else ground.run_bare("bare", source)
            times[name].append(run)
    bare, again, kit = (seconds[1:] for seconds in times.values())  # the first compiles
    over = median_ms(mine - theirs for mine, theirs in zip(kit, bare, strict=True))
    null = median_ms(mine - theirs for mine, theirs in zip(again, bare, strict=True))
    target = f"<= {MOST_START} ms more"
    return [
        Row("3. pytest, sqlmodel and one connection", median_ms(bare)),
        Row(NULL, median_ms(again), f"{null:+.0f} ms, {shown_ratio(again, bare)}"),
        Row("  one db_session test", median_ms(kit), f"{over:+.0f} ms", target, over <= MOST_START),
    ]


def import_rows(rounds: int) -> list[Row]:
    """Return the row of the plugin's import: all that it takes beyond pytest's."""
    taken = statistics.median(_import_ms() for _ in range(rounds))
    target = f"<= {MOST_IMPORT} ms"
    return [Row("5. import of the plugin", taken, "", target, taken <= MOST_IMPORT)]


def _import_ms() -> float:
    """Add up the modules that were imported after pytest was."""
    command = [sys.executable, "-X", "importtime", "-c", IMPORT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split("|") for line in done.stderr.splitlines() if line.count("|") == 2]
    names = [name.strip() for _, _, name in lines]
    after = lines[names.index("pytest") + 1 :]
    return sum(int(own.rpartition(":")[2]) for own, _, _ in after) / 1_000
