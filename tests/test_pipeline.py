from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import pytest

from engine.pipeline import Failure, batches, flow, in_order
from utils.errors import DataError

BAD = Failure("bad", DataError("bad"))


class Work:
    """Loads numbers, doubles them, makes texts of them; counts how many are on their way."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.inside = self.most = 0
        self.lock = threading.Lock()

    def load(self, number: int) -> int | Failure:
        time.sleep(0.001 * (number * 7 % 3))
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        return BAD if number % 5 == 3 else number

    def detect(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        return [2 * number for number in numbers]

    def finish(self, number: int, double: int) -> str:
        time.sleep(0.001 * (number * 5 % 3))
        return f"{number}:{double}"

    def run(self, pool, count: int, **changes: Callable) -> Iterator[str | Failure]:
        steps = {"detect": self.detect, "finish": self.finish, **changes}
        loads = (partial(changes.get("load", self.load), number) for number in range(count))
        steps.pop("load", None)
        with closing(flow(pool, loads, batch_size=4, **steps)) as results:
            for result in results:
                with self.lock:
                    self.inside -= 1
                yield result


def test_everything_comes_out_in_order_and_failures_take_no_place_in_a_batch():
    work = Work()
    with ThreadPoolExecutor(3) as pool:
        results = list(work.run(pool, 50))
    assert results == [BAD if n % 5 == 3 else f"{n}:{2 * n}" for n in range(50)]
    assert [len(batch) for batch in work.batches] == [4] * 10
    assert list(work.run(ThreadPoolExecutor(1), 0)) == []


def test_what_is_in_memory_is_bounded_however_many_there_are():
    work = Work()
    with ThreadPoolExecutor(3) as pool:
        for _ in work.run(pool, 300):
            time.sleep(0.0005)
    # Three batches of 4, a failure or two beside each, and what is just handed over.
    assert work.most <= 3 * (4 + 2) + 2


def test_loading_and_finishing_go_on_while_the_detector_works():
    finished, loaded = threading.Event(), threading.Event()

    def load(number: int) -> int:
        if number == 9:
            loaded.set()
        return number

    def finish(number: int, double: int) -> str:
        finished.set()
        return ""

    def detect(numbers: list[int]) -> list[int]:
        if numbers[0] == 4:  # in the second batch: the first is finished, the third loaded, while this waits
            assert finished.wait(10)
            assert loaded.wait(10)
        return numbers

    with ThreadPoolExecutor(2) as pool:
        assert len(list(Work().run(pool, 20, load=load, detect=detect, finish=finish))) == 20


@pytest.mark.parametrize("stage", ["load", "detect", "finish"])
def test_what_a_stage_raises_arrives_and_nothing_hangs(stage):
    def fail(*given):
        raise ZeroDivisionError(stage)

    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError, match=stage):
        list(Work().run(pool, 1000, **{stage: fail}))


def test_once_stopped_what_was_detected_is_finished_and_no_more_begins():
    work = Work()
    with ThreadPoolExecutor(2) as pool:
        results = list(work.run(pool, 1000, stopped=lambda: len(work.batches) == 2))
    assert results == ["0:0", "1:2", "2:4", BAD, "4:8", "5:10", "6:12", "7:14", BAD, "9:18"]


def test_one_who_stops_listening_stops_the_work():
    work = Work()
    with ThreadPoolExecutor(2) as pool:
        results = work.run(pool, 10**9)
        assert next(results) == "0:0"
        results.close()
    assert len(work.batches) <= 3


def test_batches_hold_so_many_of_what_counts():
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches([], 2)) == []
    assert list(batches([1, -1, 2, -2, 3, -3], 2, lambda n: n > 0)) == [[1, -1, 2], [-2, 3, -3]]


def test_reading_ahead_keeps_the_order_and_the_bound():
    started: list[int] = []

    def job(number: int) -> int:
        started.append(number)
        return number

    with ThreadPoolExecutor(3) as pool:
        results = in_order(pool, (partial(job, n) for n in range(100)), ahead=4)
        assert [next(results) for _ in range(10)] == list(range(10))
        assert max(started) <= 14
        assert list(results) == list(range(10, 100))
