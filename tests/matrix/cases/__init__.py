"""The rows, a module for each theme."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import replace

from tests.matrix.case import Case


def _collect() -> list[Case]:
    found: list[Case] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        theme = importlib.import_module(f"{__name__}.{module}")
        topic = re.split("[:;,.]", theme.__doc__ or module)[0]
        found += [replace(case, topic=topic) for case in theme.CASES]
    names = [case.id for case in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two rows of one name: {twice}")
    return found


CASES: list[Case] = _collect()
"""Every row, by theme."""
