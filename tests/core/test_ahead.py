"""Work in threads, ahead of its use."""

import threading
import time

import pytest

from bob.core.ahead import Ahead


def settled(begun: list[int], count: int) -> list[int]:
    """The rows that have begun, once there are so many."""
    until = time.monotonic() + 10
    while len(begun) < count and time.monotonic() < until:
        time.sleep(0.001)
    return sorted(begun)


def test_rows_are_done_ahead_but_no_more_than_asked_for():
    begun: list[int] = []

    def do(row: int) -> int:
        begun.append(row)
        assert threading.current_thread() is not threading.main_thread()
        return row * row

    with Ahead(do, range(9), ahead=2) as results:
        assert results(range(0, 3)) == [0, 1, 4]
        assert settled(begun, 5) == [0, 1, 2, 3, 4]
        assert results(range(3, 5)) == [9, 16]
        assert settled(begun, 7) == [0, 1, 2, 3, 4, 5, 6]
        assert results(range(4, 5)) == [16]
        assert results(range(0, 1)) == [0]  # forgotten, and done again
        assert results(range(7, 9)) == [49, 64]
    assert begun.count(0) == 2
    assert begun.count(4) == 1


def test_an_error_is_raised_where_its_row_is_asked_for():
    def do(row: int) -> int:
        if row == 2:
            raise ValueError("row 2")
        return row

    with Ahead(do, range(4), ahead=4) as results:
        assert results(range(0, 2)) == [0, 1]
        for _ in range(2):
            with pytest.raises(ValueError, match="row 2"):
                results(range(2, 4))
        assert results(range(3, 4)) == [3]


def test_work_that_has_not_begun_is_dropped_at_the_end():
    begun, go = [], threading.Event()

    def do(row: int) -> int:
        begun.append(row)
        if row:
            go.wait(10)
        return row

    with Ahead(do, range(100), ahead=100) as results:
        assert results(range(0, 1)) == [0]
        threading.Timer(0.05, go.set).start()
    assert len(begun) < 100
