"""Database URLs: what people write, and what comes of it."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import URL, make_url

from ragstore.exceptions import ImproperlyConfigured
from ragstore.url import DRIVER, display_url, is_embedded, parse_url

SECRET = "s3cr3t"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_schemes(scheme: str) -> None:
    """Every spelling of Postgres becomes psycopg 3's; the rest stays."""
    url = parse_url(f" {scheme}://me:{SECRET}@db.example:5433/rag?sslmode=require\n")

    assert url == URL.create(
        DRIVER, "me", SECRET, "db.example", 5433, "rag", {"sslmode": "require"}
    )


def test_takes_url_objects() -> None:
    """A URL object is taken as it is, whatever its password holds."""
    given = URL.create("postgresql", "me", "a@b:/%$=# ", "host", database="rag")

    assert parse_url(given) == given.set(drivername=DRIVER)


@pytest.mark.parametrize(
    ("text", "password", "host"),
    [
        ("p%40ss", "p@ss", "host"),
        ("p%25ss", "p%ss", "host"),
        ("p%2Fss%3A%23%20", "p/ss:# ", "host"),
        ("p@ss", "p@ss", "host"),
        ("p@ss@word", "p@ss@word", "host"),
        ("p@s%40s", "p@s@s", "host"),
        ("a:b", "a:b", "host"),
        ("a/b", "a/b", "host"),
        ("$x=y", "$x=y", "host"),
    ],
)
def test_passwords(text: str, password: str, host: str) -> None:
    """A password comes out as it was meant, encoded, or with a raw @ where that is clear."""
    url = parse_url(f"postgresql://me:{text}@{host}:5432/rag")

    assert (url.password, url.host, url.port, url.database) == (password, host, 5432, "rag")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is not a database URL"),
        ("rag", "is not a database URL"),
        (f"postgresql://me:{SECRET}@host:port/rag", "is not a database URL"),
        (f"postgresql://me:p@{SECRET}/x@host/rag", "percent-encoded"),
        (f"mysql://me:{SECRET}@host/rag", "starts with mysql://"),
        (f"postgresql+asyncpg://me:{SECRET}@host/rag", "psycopg 3"),
        (f"postgresql+psycopg2://me:{SECRET}@host/rag", "psycopg 3"),
        ("embedded://host/data", "names a host or user"),
        (f"embedded://me:{SECRET}@/data", "names a host or user"),
        ("embedded://:5432/data", "names a host or user"),
    ],
)
def test_refused(text: str, part: str) -> None:
    """What is no URL of ours is refused by the name of the setting, and never repeated."""
    with pytest.raises(ImproperlyConfigured, match=part) as caught:
        parse_url(text, name="DB_DATABASE_URL")

    assert str(caught.value).startswith("DB_DATABASE_URL ")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "text",
    ["embedded://", "embedded:///data", "embedded:////data", "embedded:///a/b?database=x"],
)
def test_embedded(text: str) -> None:
    """An embedded URL is kept for the embedded server to read."""
    url = parse_url(text)

    assert is_embedded(url)
    assert url == make_url(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgres://me:{SECRET}@host:5432/rag", "postgresql://me:***@host:5432/rag"),
        ("postgresql://host/rag", "postgresql://host/rag"),
        (f"postgresql://me@host/rag?password={SECRET}", "postgresql://me:***@host/rag"),
        (
            f"postgresql://host/rag?sslpassword={SECRET}",
            "postgresql://host/rag?sslpassword=***",
        ),
        ("embedded:///data", "embedded:///data"),
    ],
)
def test_display(text: str, shown: str) -> None:
    """A URL for people has no password and no driver."""
    assert not is_embedded(parse_url(text)) or shown.startswith("embedded")
    assert display_url(parse_url(text)) == shown
