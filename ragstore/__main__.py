"""The ``ragstore`` command as ``python -m ragstore``."""

from __future__ import annotations

from ragstore.cli import main

if __name__ == "__main__":
    main()
