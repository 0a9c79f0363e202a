"""SQL that is known only as text: expressions and types as the server prints them.

Alembic writes such text into a revision file, or compiles it into a statement. Each has escapes of
its own, and SQLAlchemy's ``text()`` mixes them up: a ``%`` would be doubled in the file, and a
``:word`` lose its backslash.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import UserDefinedType

_BIND = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")


class Expression(ColumnElement[Any]):
    """An expression in SQL, the same in a statement and in the file that makes the statement.

    ``is_key`` says that it is the key of an index, which a file has in ``literal_column()``, where
    nothing is escaped, and not in ``text()``.
    """

    inherit_cache = False

    def __init__(self, sql: str, *, is_key: bool = False) -> None:
        self.sql = sql
        self.is_key = is_key

    def self_group(self, against: Any = None) -> Any:
        """Return it as it is: the server has put all the parentheses."""
        return self


@compiles(Expression)
def _compile(element: Expression, compiler: Any, **_options: Any) -> str:
    if compiler.statement is not element:  # a part of a statement
        return element.sql.replace("%", "%%")
    # By itself: Alembic is writing it into a file.
    return element.sql if element.is_key else _BIND.sub(r"\\:\1", element.sql)


class SqlType(UserDefinedType[Any]):
    """A type by its name in SQL: ``SqlType("int4range")``.

    Revision files use it for types that SQLAlchemy has no class for.
    """

    cache_ok = True

    def __init__(self, sql: str) -> None:
        self.sql = sql

    def get_col_spec(self, **_options: Any) -> str:
        """Return the name."""
        return self.sql
