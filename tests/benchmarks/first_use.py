"""What a newcomer waits for: ``python -m tests.benchmarks.first_use [rounds]`` prints a table.

Each command is run beside an empty interpreter, in turns, and the median counts.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

EMPTY = ["-c", "pass"]
COMMANDS = {
    "import ragstore": (["-c", "import ragstore"], "50 ms over an empty interpreter"),
    "import ragstore.conf": (["-c", "import ragstore.conf"], ""),
    "ragstore --help": (["-m", "ragstore", "--help"], "500 ms"),
}


def seconds(arguments: list[str], **variables: str) -> float:
    """Run Python once and return the time it took."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def quickstart() -> tuple[float, float]:
    """Return the time of a quickstart that makes its server, and of the next one."""
    with tempfile.TemporaryDirectory(prefix="ragstore-", ignore_cleanup_errors=True) as directory:
        variables = {"DB_DATABASE_URL": f"embedded://{Path(directory) / 'data'}"}
        first = seconds(["-m", "ragstore", "quickstart"], **variables)
        return first, seconds(["-m", "ragstore", "quickstart"], **variables)


def main(rounds: int) -> None:
    """Print the table."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, medians of {rounds} rounds")
    times: dict[str, list[float]] = {name: [] for name in ("empty interpreter", *COMMANDS)}
    for _ in range(rounds):
        times["empty interpreter"].append(seconds(EMPTY))
        for name, (arguments, _goal) in COMMANDS.items():
            times[name].append(seconds(arguments))
    for name, found in times.items():
        goal = COMMANDS[name][1] if name in COMMANDS else ""
        print(f"{name:<40} {median(found) * 1000:8.0f} ms   {goal}")
    first, second = quickstart()
    print(f"{'ragstore quickstart, nothing there':<40} {first * 1000:8.0f} ms   20,000 ms")
    print(f"{'ragstore quickstart, again':<40} {second * 1000:8.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
