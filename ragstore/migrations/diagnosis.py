"""What it means that the server refuses a statement of the models, and what helps."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlalchemy.exc import DBAPIError

_EXTENSION_OF = {
    "vector": ("vector", "halfvec", "sparsevec", "hnsw", "ivfflat"),
    "citext": ("citext",),
    "hstore": ("hstore",),
    "ltree": ("ltree", "lquery"),
    "pg_trgm": ("gin_trgm_ops", "gist_trgm_ops"),
    "cube": ("cube",),
    "postgis": ("geometry", "geography"),
}
"""What people know each extension by: types, access methods, operator classes."""

_MISSING = re.compile(
    r'(?:type|access method|operator class) "?(?:\w+\.)?([\w]+)(?:\[\])?"? does not exist'
)
_OPERATOR_CLASS = re.compile(r"^(?:bit|vector|halfvec|sparsevec)_\w+_ops$")
_NO_DEFAULT = re.compile(r'has no default operator class for access method "(\w+)"')

_REMEDIES: Mapping[str, str] = {
    "42883": "if it is a function of yours, declare it with ragstore.types.function(),"
    " so that it is made before the table",
    "42704": "a type of yours is made if a column has it as Enum or DOMAIN; of what comes from an"
    ' extension, name that: metadata.info["extensions"] = ["name"]',
    "42P01": "what an expression mentions must be in the models, or in the database",
    "25006": "connect to the primary server, in a transaction that may write",
}
"""What helps, by the SQLSTATE of the error."""


def described(subject: str, error: DBAPIError, sql: str = "", *, remedy: bool = True) -> str:
    """Say what cannot be made, where the server stumbled, its own words, and what helps."""
    line = _line(error, sql.replace("%%", "%"))
    problem = f"{subject}{f', at {line!r}' if line else ''}: {_words(error)}"
    helps = _REMEDIES.get(getattr(error.orig, "sqlstate", None) or "", "") if remedy else ""
    return f"{problem} ({helps})" if helps else problem


def of_extension(name: str, error: DBAPIError) -> str:
    """Say why an extension that the models need could not be created, and what helps."""
    allowed = getattr(error.orig, "sqlstate", None) != "42501"
    remedy = (
        "install it on the server" if allowed else f"a superuser must run CREATE EXTENSION {name};"
    )
    return f"the extension {name} is not in the database: {_words(error)}: {remedy}"


def missing_extension(error: DBAPIError) -> str | None:
    """Return the extension that has what the server does not know, if it is a common one."""
    message = _words(error)
    method = _NO_DEFAULT.search(message)
    if method is not None:
        return {"gist": "btree_gist", "gin": "btree_gin"}.get(method[1])
    missing = _MISSING.search(message)
    if missing is None:
        return None
    if _OPERATOR_CLASS.match(missing[1]):
        return "vector"
    return next((name for name, has in _EXTENSION_OF.items() if missing[1] in has), None)


def _words(error: DBAPIError) -> str:
    """Return the server's primary message; its detail and the statement are left out."""
    message = getattr(getattr(error.orig, "diag", None), "message_primary", None)
    return str(message or str(error.orig).partition("\n")[0])


def _line(error: DBAPIError, sql: str) -> str:
    """Return the line of a statement that the server points at: each column has its own."""
    position = getattr(getattr(error.orig, "diag", None), "statement_position", None)
    if position is None or "\n" not in sql:
        return ""
    return sql.splitlines()[sql[: int(position)].count("\n")].strip().rstrip(", ")
