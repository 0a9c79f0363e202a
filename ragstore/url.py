"""Database URLs: from what people write to what SQLAlchemy and psycopg take.

No error raised here repeats the URL: whatever is wrong with it, it may hold a password.
"""

from __future__ import annotations

from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ragstore.exceptions import ImproperlyConfigured

DRIVER = "postgresql+psycopg"
EMBEDDED = "embedded"
_SCHEMES = {"postgres": DRIVER, "postgresql": DRIVER, "postgresql+psycopg": DRIVER}
_EXAMPLE = "postgresql://user:password@host:5432/database"


def parse_url(value: str | URL, *, name: str = "the database URL") -> URL:
    """Return ``value`` as a URL for psycopg 3, or as an ``embedded://`` URL.

    ``postgres://`` and ``postgresql://`` become ``postgresql+psycopg://``. ``name`` is how errors
    call the value: a variable, an option.

    Raises:
        ImproperlyConfigured: it is no URL, or one of another database or driver.
    """
    url = value if isinstance(value, URL) else _parse(value.strip(), name)
    if url.drivername == EMBEDDED:
        return _checked_embedded(url, name)
    if url.drivername not in _SCHEMES:
        raise ImproperlyConfigured(
            f"{name} starts with {url.drivername}://, but ragstore speaks to Postgres through"
            f" psycopg 3: write {_EXAMPLE}"
        )
    return _with_password_in_place(url.set(drivername=DRIVER))


def is_embedded(url: URL) -> bool:
    """Tell whether the URL names the embedded server."""
    return url.drivername == EMBEDDED


def display_url(url: URL) -> str:
    """Return the URL for people: passwords masked wherever they stand, the driver left out."""
    masked = url.update_query_dict({name: "***" for name in url.query if "password" in name})
    text = masked.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")
    return text.replace(f"{DRIVER}://", "postgresql://", 1)


def _parse(text: str, name: str) -> URL:
    try:
        return _with_raw_at_sign(make_url(text))
    except (ArgumentError, ValueError):
        pass  # not chained: SQLAlchemy's message repeats the URL, password and all
    raise ImproperlyConfigured(
        f"{name} is not a database URL: write {_EXAMPLE}, with the characters @ : / % of a user"
        " or password percent-encoded, or embedded:// for the embedded server"
    )


def _with_raw_at_sign(url: URL) -> URL:
    """Give back to the password what an unescaped ``@`` in it moved into the host.

    No host name has an ``@``, so the last one ends the password. A ``/`` after it is ambiguous.

    Raises:
        ValueError: the password's tail, or a part of it, may have become the database's name.
    """
    if url.password and url.database and "@" in url.database:
        raise ValueError
    if not url.host or "@" not in url.host:
        return url
    tail, _, host = url.host.rpartition("@")
    return url.set(password=f"{url.password or ''}@{unquote(tail)}", host=host or None)


def _with_password_in_place(url: URL) -> URL:
    """Move libpq's ``?password=`` to where SQLAlchemy masks it."""
    password = url.query.get("password")
    if not isinstance(password, str):
        return url
    return url.difference_update_query(["password"]).set(password=url.password or password)


def _checked_embedded(url: URL, name: str) -> URL:
    if url.host or url.port or url.username or url.password:
        raise ImproperlyConfigured(
            f"{name} names a host or user, which the embedded server has not: write embedded://"
            " or embedded:///absolute/path?database=name"
        )
    return url
