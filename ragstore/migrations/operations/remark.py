"""A comment in a revision file, where an operation would stand."""

from __future__ import annotations

import textwrap

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import OpContainer

_WIDTH = 94  # and "# " before it


class Remark(OpContainer):
    """Words for the reader of a file: comment lines that do nothing and are no difference.

    Without text it is an operation that does nothing, the opposite of one that has none. A file's
    function needs something besides remarks with text: Python has no function of comments alone.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.text = text

    def reverse(self) -> Remark:
        """Return nothing to say: what holds for one direction does not for the other."""
        return Remark()


@renderers.dispatch_for(Remark)
def _render(_context: AutogenContext, remark: Remark) -> list[str]:
    paragraphs = remark.text.split("\n") if remark.text else []
    lines = [line for each in paragraphs for line in textwrap.wrap(each, _WIDTH) or [""]]
    return [f"# {line}".rstrip() for line in lines]
