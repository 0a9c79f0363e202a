"""The names of the kit's databases: what may be dropped, and what has no room."""

from __future__ import annotations

import pytest

from ragstore.exceptions import InvalidName
from ragstore.testing.template import Names, lock_key

NAMES = Names("my.test")


@pytest.mark.parametrize(
    "name",
    ["my.test_main_1", "my.test_gw0_4194304", "my.test_gw12_7_3"],
)
def test_a_clone_is_known_by_its_shape(name: str) -> None:
    """Worker, process id and, for further databases, a number."""
    assert NAMES.is_clone(name)
    assert not NAMES.is_template(name)


@pytest.mark.parametrize(
    "name",
    [
        "my.test",
        "my.test_main",
        "my.test_main_",
        "my.test_main_x",
        "my.test_main_1_2_3",
        "my.test_main_1_backup",
        "my.test_main_1\n",
        "my.test_backup_20240101",
        "my.test_gw_1",
        "my.test_main_\u0661",
        "old_my.test_main_1",
        "my-test_main_1",
        "my.test_template_0123456789abc",
        "my.test_template_0123456789aB",
        "my.test_template_",
    ],
)
def test_nothing_else_has_a_shape_that_is_dropped(name: str) -> None:
    """A name that is nearly one of the kit's is somebody's own."""
    assert not NAMES.is_clone(name)
    assert not NAMES.is_template(name)


def test_a_template_is_named_for_its_migrations() -> None:
    """The fingerprint of the migrations ends the name."""
    assert NAMES.template("0123456789ab") == "my.test_template_0123456789ab"
    assert NAMES.is_template(NAMES.template("0123456789ab"))


@pytest.mark.parametrize(
    ("worker", "name"),
    [("main", "my.test_main_7"), ("gw3", "my.test_gw3_7"), ("a b", "my.test_gw0_7")],
)
def test_a_clone_is_named_for_its_process(worker: str, name: str) -> None:
    """A worker whose name xdist lets the user choose gets one that is swept too."""
    assert NAMES.clone(worker, 7) == name
    assert NAMES.is_clone(name)


@pytest.mark.parametrize(("letter", "most"), [("x", 41), ("é", 20)])
def test_a_name_leaves_room_for_those_made_of_it(letter: str, most: int) -> None:
    """The longest name that the kit makes of an accepted one has at most 63 bytes."""
    Names(letter * most).check_length()
    longest = Names(letter * most)
    for name in (longest.template("0" * 12), longest.clone("gw999", 4194304) + "_99999"):
        assert len(name.encode()) <= 63
    with pytest.raises(InvalidName, match="at most 41"):
        Names(letter * (most + 1)).check_length()


def test_a_lock_has_a_key_that_postgres_takes() -> None:
    """The key is a signed 64-bit number, the same everywhere, another one for another name."""
    keys = {lock_key(f"name{number}") for number in range(100)}
    assert len(keys) == 100
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert lock_key("name1") in keys
