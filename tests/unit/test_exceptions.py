"""The error tree: what its docstring draws is what the classes are."""

from __future__ import annotations

import ast
import builtins
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from ragstore import exceptions

PACKAGE = Path(exceptions.__file__).parent
CLASSES: dict[str, Any] = {
    name: item
    for name, item in vars(exceptions).items()
    if inspect.isclass(item) and item.__module__ == exceptions.__name__
}
_ENTRY = re.compile(r"^(?P<lead>[ │├└─]*)(?P<name>[A-Z]\w+)(?: \((?P<builtin>\w+)\))?(?: {2,}|$)")

# Not ours, but what Python, or the library that is called, expects of such code.
EVERYWHERE = {"AttributeError", "NotImplementedError", "TypeError"}
FOREIGN = {
    "types.py": {"ValueError"},  # a wrong description of a schema is an error of the program's
    "models.py": {"ValueError"},
    "url.py": {"ValueError"},  # caught in the same module
    "conf/environment.py": {"ValidationError"},  # a parser's, collected by environs
    "migrations/compare.py": {"CommandError"},  # printed by `alembic check`
    "migrations/runner.py": {"CommandError"},  # printed by Alembic's own command line
    "cli.py": {"typer.Exit", "typer.BadParameter"},
}


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Return each name in the drawing with its parent and its built-in base."""
    found: dict[str, tuple[str | None, str | None]] = {}
    above: dict[int, str] = {}
    for line in (exceptions.__doc__ or "").split("::", 1)[1].splitlines():
        entry = _ENTRY.match(line)
        if not entry:
            continue
        depth = len(entry["lead"]) // 4
        found[entry["name"]] = (above.get(depth - 1), entry["builtin"])
        above[depth] = entry["name"]
    return found


def built_in_base(item: type) -> str | None:
    """Return the built-in class that a class adds to what its parent is."""
    return next((base.__name__ for base in item.__bases__ if base.__module__ == "builtins"), None)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_drawn_as_it_is(name: str) -> None:
    """The drawing has every class, under its parent and with its built-in base."""
    item = CLASSES[name]
    ours = [base.__name__ for base in item.__bases__ if base.__name__ in CLASSES]
    built_in = built_in_base(item)
    parent = ours[0] if ours else None
    if name == "RagstoreError":
        built_in = None  # Exception goes without saying

    assert drawn()[name] == (parent, built_in)


def test_nothing_else_is_drawn() -> None:
    """The drawing has no class that does not exist, and only real built-ins."""
    assert set(drawn()) == set(CLASSES)
    assert all(hasattr(builtins, base) for _, base in drawn().values() if base)


@pytest.mark.parametrize("item", CLASSES.values(), ids=list(CLASSES))
def test_one_root(item: type) -> None:
    """Every error is a RagstoreError, every warning is not, and each has a docstring."""
    assert issubclass(item, exceptions.RagstoreError) != issubclass(item, Warning)
    assert (item.__doc__ or "").strip().endswith(".")


def raised_names(path: Path) -> set[str]:
    """Return the names of the classes that a module raises by calling them."""
    raised = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            function = node.exc.func
            raised.add(function.id if isinstance(function, ast.Name) else ast.unparse(function))
    return raised


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_only_ours_are_raised(path: Path) -> None:
    """Every class that the package raises is of this module, but for a few that Python expects."""
    module = str(path.relative_to(PACKAGE))
    raised = {name for name in raised_names(path) if name[0].isupper() or "." in name}

    assert raised <= CLASSES.keys() | EVERYWHERE | FOREIGN.get(module, set())


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        (["A is unset"], "A is unset"),
        (
            ["A is unset", "B is no number"],
            "Settings are wrong:\n  - A is unset\n  - B is no number",
        ),
    ],
)
def test_problems_are_listed(problems: list[str], message: str) -> None:
    """One problem is the whole message; several are a list under a heading."""
    error = exceptions.ImproperlyConfigured(*problems)

    assert str(error) == message
    assert error.problems == tuple(problems)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({}, "too long"),
        ({"key": "a'b"}, """document "a'b": too long"""),
        ({"key": "a", "chunk": 0}, "document 'a', chunk 0: too long"),
        ({"chunk": 3}, "too long"),
    ],
)
def test_input_errors_say_where(where: dict[str, object], message: str) -> None:
    """A refused value names its document and chunk, where there are such."""
    error = exceptions.TextTooLong("too long", **where)  # type: ignore[arg-type]  # a table of cases

    assert str(error) == message
    assert (error.key, error.chunk) == (where.get("key"), where.get("chunk"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("EmbeddedVersionMismatch", {"expected": "18", "got": "17"}),
        ("DatabaseNotFound", {"database": "x"}),
        ("DatabaseExists", {"database": "x"}),
        ("DatabaseProtected", {"database": "postgres"}),
        ("QueryFailed", {"sqlstate": "22000"}),
        ("LockTimeout", {"sqlstate": "55P03"}),
        ("ExtensionTooOld", {"found": "0.7", "needed": "0.8.2"}),
        ("ExtensionNotPermitted", {"statement": "CREATE EXTENSION vector;"}),
        ("SchemaBehind", {"current": ("a",), "head": ("b",)}),
        ("SchemaDrift", {"differences": ("one", "two")}),
        ("UnknownRevision", {"revision": "x"}),
        ("MultipleHeads", {"heads": ("a", "b")}),
        ("DecisionNeeded", {"question": "which?", "table": "item"}),
        ("MigrationLockTimeout", {"holder": 1}),
        ("CollectionNotFound", {"collection": "x"}),
        ("CollectionExists", {"collection": "x"}),
        ("SpaceNotFound", {"space": "x"}),
        ("SpaceExists", {"space": "x"}),
        ("DimensionMismatch", {"expected": 3, "got": 2, "key": "k", "chunk": 1}),
    ],
)
def test_data_in_attributes(name: str, data: dict[str, object]) -> None:
    """What a message says of data, the attributes carry too."""
    error = CLASSES[name]("what and how", **data)

    assert str(error).endswith("what and how")
    assert {attribute: getattr(error, attribute) for attribute in data} == data


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_errors_cross_processes(name: str) -> None:
    """An error can be pickled, as a pool of worker processes does, and keeps its data."""
    item = CLASSES[name]
    data = {argument: f"<{argument}>" for argument in keywords(item)}
    error = item("what and how", **data)

    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy), vars(copy)) == (item, str(error), vars(error))


def keywords(item: Any) -> list[str]:
    """Return the keyword-only arguments of a class."""
    if item.__init__ in (Exception.__init__, OSError.__init__):
        return []
    parameters = inspect.signature(item.__init__).parameters.values()
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
