"""How workers agree, with threads for processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from engine.dataset import Batch, Shard
from engine.interrupts import StoppedError, StopRequest
from engine.resume_check import common_start
from engine.workers import Workers, noticing_losses
from tests.specs import config_from, detector_spec
from utils.cluster import Cluster
from utils.errors import ConfigError, DataError, LostWorkerError

ADDRESSES = ("a:1", "b:2")


class Meeting:
    """Where two threads add up what they bring."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=20)
        self.brought: list[Any] = [None, None]

    def sum(self, index: int, values: np.ndarray) -> np.ndarray:
        self.brought[index] = np.asarray(values, np.float64)
        self.barrier.wait()
        total = sum(self.brought)
        self.barrier.wait()
        return total


class Threaded(Workers):
    def __init__(self, index: int, meeting: Meeting) -> None:
        self.cluster, self.meeting = Cluster(ADDRESSES, index), meeting
        self.alone, self.chief, self.shard = False, index == 0, Shard(index, 2)
        self.listen(StopRequest())

    def sum(self, values: np.ndarray) -> np.ndarray:
        return self.meeting.sum(self.cluster.index, values)


def both(work: Callable[[Threaded], Any]) -> list[Any]:
    """What ``work`` gives or raises on each of two workers."""
    meeting = Meeting()

    def outcome(index: int) -> Any:
        try:
            return work(Threaded(index, meeting))
        except Exception as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(outcome, range(2)))


def batches(worker: Workers, bad_step: int | None = None) -> Iterator[Batch]:
    for step in range(4):
        if worker.cluster.index == 1 and step == bad_step:
            raise DataError("gone.jpg: no such image")
        yield Batch(np.zeros([1, 1, 1, 3], np.uint8), {}, (str(step),), dropped=worker.cluster.index + 1)


def test_without_incident_all_take_every_step_and_know_what_all_dropped() -> None:
    taken = both(lambda worker: [(batch.paths, batch.dropped) for batch in worker.in_step(batches(worker))])
    assert taken == [[((str(step),), 3) for step in range(4)]] * 2


def test_a_stop_asked_of_one_stops_all_after_the_same_step() -> None:
    def work(worker: Threaded) -> tuple[list[int], int]:
        door = StopRequest()
        shared, steps = worker.listen(door), []
        with suppress(StoppedError):
            for step, _ in enumerate(worker.in_step(batches(worker))):
                steps.append(step)
                if worker.chief and step == 1:
                    door.exit_code = 143
        assert shared.made
        return steps, door.exit_code

    assert both(work) == [([0, 1], 143)] * 2


def test_a_stop_while_one_does_its_part_is_everybodys_when_the_part_is_done() -> None:
    def work(worker: Threaded) -> int:
        door = StopRequest()
        worker.listen(door)
        with suppress(StoppedError):
            with worker.part():
                if not worker.chief:
                    door.exit_code = 130
                    raise StoppedError
            return 0
        return door.exit_code

    assert both(work) == [130, 130]


def test_data_that_one_cannot_use_ends_all_and_is_said_where_it_lies() -> None:
    def work(worker: Threaded) -> None:
        for _ in worker.in_step(batches(worker, bad_step=2)):
            pass

    first, second = both(work)
    assert isinstance(first, DataError)
    assert str(first) == "worker 1 (b:2): cannot use its data; its own output says why"
    assert isinstance(second, DataError)
    assert str(second) == "gone.jpg: no such image"


def test_what_the_first_does_alone_may_fail_for_all() -> None:
    def fail() -> None:
        raise DataError("gone.jpg: no such image")

    first, second = both(lambda worker: worker.on_chief(fail))
    assert isinstance(first, DataError)
    assert str(first) == "gone.jpg: no such image"
    assert isinstance(second, DataError)
    assert str(second).startswith("worker 0 (a:1): cannot use its data")


def test_a_stop_ends_what_the_first_does_alone_and_nothing_else() -> None:
    done: list[int] = []

    def work(worker: Threaded) -> int:
        worker.listen(StopRequest())
        worker.on_chief(lambda: done.append(worker.cluster.index))
        worker.own_stop.exit_code = 143
        worker.on_chief(lambda: pytest.fail("went on"))
        return worker.stop.exit_code

    assert both(work) == [0, 0]
    assert done == [0]


def test_workers_that_differ_are_refused_and_named() -> None:
    assert both(lambda worker: worker.refuse_differences(lambda: b"same")) == [None, None]
    for error in both(lambda worker: worker.refuse_differences(lambda: bytes([worker.cluster.index]))):
        assert isinstance(error, ConfigError)
        assert str(error).startswith("worker 1 (b:2): config, data, weights or packages: not those of worker 0 (a:1)")


@pytest.mark.parametrize(
    "words",
    [
        ("--loss.box_weight", "0.125"),
        ("--augment.mosaic", "0.5"),
        ("--data.balance_classes", "0.5"),
        ("--data.ignore_exif", "true"),
        ("--train.save_steps", "7"),
        ("--train.phases", "[{until_epoch: 8, batch_size: 4, frozen_backbone: false}]"),
    ],
)
def test_workers_begin_alike(words: tuple[str, str]) -> None:
    spec, data, weights = detector_spec(), {"data.train": "a"}, {"a": np.zeros(3, np.float32)}

    def start(*words: str) -> bytes:
        return common_start(spec, data, config_from(*words), 0, weights)

    assert start(*words) != start()
    # Each machine has its own folders and threads.
    assert start("--data.threads", "3", "--data.train", "x.txt", "--model.anchors", "y.txt") == start()
    for other in (
        (detector_spec(input_size=64), data, 0, weights),
        (spec, {"data.train": "b"}, 0, weights),
        (spec, data, 1, weights),
        (spec, data, 0, {"a": np.ones(3, np.float32)}),
    ):
        assert common_start(*other[:2], config_from(), *other[2:]) != start()


@pytest.mark.parametrize(
    ("message", "who"),
    [
        ("UNAVAILABLE: /job:worker/replica:0/task:1: Connection refused", "worker 1 (b:2)"),
        ("NCCL: unhandled cuda error", "another worker (NCCL: unhandled cuda error)"),
        ("Graph execution error:\n\nDetected at node a\nNo room\n\t [[{{node a}}]]", "another worker (No room)"),
        (
            "2 root error(s) found.\n  (0) INTERNAL: No room\n0 successful operations.\n0 derived errors ignored. [Op]",
            "another worker ((0) INTERNAL: No room)",
        ),
        ("", "another worker"),
    ],
)
def test_a_lost_worker_is_named_or_else_what_tensorflow_says(
    monkeypatch: pytest.MonkeyPatch, message: str, who: str
) -> None:
    monkeypatch.setenv("TF_CONFIG", Cluster(ADDRESSES).tf_config(0))
    with pytest.raises(LostWorkerError) as raised, noticing_losses():
        raise tf.errors.InternalError(None, None, message)
    assert str(raised.value) == f"{who}: is gone or cannot be reached: start all workers again with --resume"


@pytest.mark.parametrize(
    "reason",
    [
        "cuDNN launch failure",
        "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access",
        "Blas xGEMM launch failed",
        f"{'x' * 200} CUDA error",
    ],
)
def test_a_gpu_of_its_own_that_fails_is_no_other_worker(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    monkeypatch.setenv("TF_CONFIG", Cluster(ADDRESSES).tf_config(0))
    with pytest.raises(LostWorkerError) as raised, noticing_losses():
        raise tf.errors.InternalError(None, None, f"Graph execution error:\n\n{reason}\n\t [[{{{{node a}}}}]]")
    own = Cluster(ADDRESSES).name(0)
    assert str(raised.value) == f"{own}: its GPU: {reason[:200]}: start all workers again with --resume"
