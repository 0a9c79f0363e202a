"""What autogenerate costs: ``python -m tests.benchmarks.autogenerate [rounds]`` prints a table.

A schema of a hundred tables with vectors, four hundred indexes and three hundred constraints is
compared with a database that has it, by ragstore and by stock Alembic in turns: once where nothing
changed, and once after a release that touches every tenth table. A ratio is the median of the
pairs, with the second lowest and second highest of them in brackets. The null band is stock
Alembic beside itself: a difference within that is noise.

It starts an embedded server in a temporary directory and asserts nothing.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from ragstore.types import Vector, hnsw
from tests.benchmarks.table import (
    NULL,
    Row,
    median_ms,
    print_table,
    ratio,
    shown_ratio,
    shuffled,
)
from tests.matrix import servers
from tests.matrix.databases import Bench
from tests.matrix.harness import Mode, Project

ROUNDS = 15
TABLES = 100
GOAL, SECONDS = 3.0, 3.0


def schema(release: int = 1) -> sa.MetaData:
    """Return the models; the second release changes every tenth table, each in another way."""
    metadata = sa.MetaData()
    for number in range(TABLES):
        changes = release > 1 and number % 10 == 0
        _table(metadata, number, changed=number // 10 if changes else None)
    return metadata


def _table(metadata: sa.MetaData, number: int, changed: int | None) -> None:
    name = f"thing_{number:03}"
    parent = f"thing_{max(number - 1, 0):03}.id"
    kinds = "'plain', 'odd', 'new'" if changed == 3 else "'plain', 'odd'"
    size = 300 if changed == 1 else 200
    table = sa.Table(
        name,
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("parent_id", sa.ForeignKey(parent, name=f"{name}_parent_fkey")),
        sa.Column("key", sa.String(size), nullable=False),
        sa.Column("title", sa.Text, nullable=changed != 2),
        sa.Column("kind", sa.String(20), nullable=False, server_default="plain"),
        sa.Column("price", sa.Numeric(10, 2), server_default="0"),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()),
        sa.Column("meta", pg.JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column(
            "words",
            pg.TSVECTOR,
            sa.Computed("to_tsvector('english'::regconfig, coalesce(title, ''))", persisted=True),
        ),
        sa.Column("vector", Vector(384)),
        sa.UniqueConstraint("key", name=f"{name}_key_key"),
        sa.CheckConstraint(f"kind IN ({kinds})", name=f"{name}_kind"),
        sa.Index(f"{name}_words", "words", postgresql_using="gin"),
        sa.Index(
            f"{name}_at",
            sa.text("at DESC"),
            "kind",
            postgresql_where=sa.text("price > 0" if changed == 4 else "price >= 0"),
        ),
        sa.Index(f"{name}_lower", sa.text("lower(title)")),
        *([sa.Column("more", sa.Text)] if changed == 5 else []),
    )
    hnsw(f"{name}_near", table.c.vector, dimensions=384, m=24 if changed == 6 else 16)


def main() -> None:
    """Measure, and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    warnings.simplefilter("ignore")
    with _projects() as (bench, project):
        packages = ", ".join(f"{name} {version(name)}" for name in ("alembic", "sqlalchemy"))
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        ground = [
            f"{os.cpu_count()} CPUs, load {load}; Python {platform.python_version()}; {packages}",
            f"{bench.versions}; {TABLES} tables, {rounds} rounds",
        ]
        rows = [
            *_rows("nothing changed", lambda mode: _seconds(project, 1, mode), rounds),
            *_rows("a release of changes", lambda mode: _seconds(project, 2, mode), rounds),
        ]
    print_table(ground, rows)


@contextmanager
def _projects() -> Iterator[tuple[Bench, Project]]:
    """Yield a project whose first revision has made the schema."""
    with servers.server(18) as url, tempfile.TemporaryDirectory() as directory:
        bench = Bench(url)
        with bench.database(frozenset({"vector"}), keep=False) as database:
            project = Project(Path(directory), database)
            project.revision(schema(), "ours", "0001")
            project.upgrade(schema(), "ours")
            yield bench, project
            project.engine.dispose()
        bench.close()


def _seconds(project: Project, release: int, mode: Mode) -> float:
    """Return what writing a revision takes, connecting and reading the history included."""
    models = schema(release)
    begun = perf_counter()
    _, path = project.revision(models, mode, "0002")
    seconds = perf_counter() - begun
    path.unlink()
    return seconds


def _rows(name: str, measure: Callable[[Mode], float], rounds: int) -> Iterator[Row]:
    modes: dict[str, Mode] = {"stock": "stock", "again": "stock", "ours": "ours"}
    found: dict[str, list[float]] = {each: [] for each in modes}
    for order in shuffled(list(modes), rounds):
        for each in order:
            found[each].append(measure(modes[each]))
    times = ratio(found["ours"], found["stock"])
    milliseconds = median_ms(found["ours"])
    yield Row(f"stock Alembic, {name}", median_ms(found["stock"]))
    yield Row(NULL, median_ms(found["again"]), shown_ratio(found["again"], found["stock"]))
    yield Row(
        f"ragstore, {name}",
        milliseconds,
        shown_ratio(found["ours"], found["stock"]),
        f"{GOAL:.0f}x and {SECONDS:.0f} s",
        is_met=times <= GOAL and milliseconds <= SECONDS * 1_000,
    )


if __name__ == "__main__":
    main()
