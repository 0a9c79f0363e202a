"""What a store remembers between searches: no more than so much, no longer than so long."""

from __future__ import annotations

from threading import Thread

from ragstore.search.memory import Remembered


def test_entry_is_forgotten_in_time() -> None:
    """An entry is there until its time is over, and a new value starts it again."""
    now = [0.0]
    kept: Remembered[str, int] = Remembered(10, 5.0, clock=lambda: now[0])
    kept.put("a", 1)
    now[0] = 4.9
    assert kept.get("a") == 1
    kept.put("a", 2)
    now[0] = 9.8
    assert kept.get("a") == 2
    now[0] = 9.9
    assert kept.get("a") is None
    assert len(kept) == 0


def test_least_recently_used_makes_room() -> None:
    """The size is bounded, and what was asked for stays."""
    kept: Remembered[int, int] = Remembered(3)
    for number in range(3):
        kept.put(number, number)
    assert kept.get(0) == 0
    kept.put(3, 3)
    assert [kept.get(number) for number in range(4)] == [0, None, 2, 3]


def test_threads_share_it() -> None:
    """Threads that put and get at once leave it whole and within its size."""
    kept: Remembered[int, int] = Remembered(50)
    wrong: list[int] = []

    def work(start: int) -> None:
        for number in range(start, start + 2_000):
            kept.put(number % 100, number % 100)
            if kept.get(number % 97) not in (None, number % 97):
                wrong.append(number)

    threads = [Thread(target=work, args=(at * 31,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(kept) == 50
