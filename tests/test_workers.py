"""Several worker processes against one process with the same global batch, and what happens when one of them ends."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import classify
from engine.checkpoint import read_checkpoint
from engine.dataset import Shard
from engine.evaluation import gathered
from engine.workers import Workers
from tests.conftest import ROOT
from tests.drawn_data import draw_lists
from tests.endless_trace_door import TRACING
from tests.labelled_folders import draw_folders
from tests.timings import TIMINGS
from utils.cluster import Cluster
from utils.types import Detections

LONGEST_S = 600
TOLERANCE = 1e-5 if len(os.sched_getaffinity(0)) > 1 else 2e-4
"""Of weights and losses. With one thread convolutions of three photos and of six round otherwise: 5e-5 was seen."""


@contextmanager
def started(arguments: list[str], folder: Path, count: int = 2) -> Iterator[list[subprocess.Popen[str]]]:
    """Opens a door once for each worker; what they say goes to ``folder/worker-N``. None outlives the block."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    cluster = Cluster(tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets))
    for one in sockets:
        one.close()
    folder.mkdir(parents=True, exist_ok=True)
    processes = []
    for index in range(count):
        with (folder / f"worker-{index}").open("w") as said:
            environment = {**os.environ, "TF_CONFIG": cluster.tf_config(index)}
            command = [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said, text=True))
    try:
        yield processes
    finally:
        for one in processes:
            one.kill()


def ended(processes: list[subprocess.Popen[str]], folder: Path) -> tuple[list[int], list[str]]:
    """Exit codes and what was said, by worker."""
    codes = [one.wait(LONGEST_S) for one in processes]
    return codes, [(folder / f"worker-{index}").read_text() for index in range(len(processes))]


def wait_for(met: Callable[[], bool], processes: list[subprocess.Popen[str]]) -> None:
    limit = time.monotonic() + LONGEST_S
    while not met():
        assert time.monotonic() < limit
        assert all(one.poll() is None for one in processes), "a worker has ended"
        time.sleep(0.05)


def story(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(one: Path, two: Path, tolerance: float) -> None:
    first, second = (read_checkpoint(run / "last") for run in (one, two))
    assert first.info["position"]["step"] == second.info["position"]["step"] > 0
    assert first.tensors.keys() == second.tensors.keys()
    for name, value in first.tensors.items():
        np.testing.assert_allclose(value, second.tensors[name], rtol=tolerance, atol=tolerance, err_msg=name)
    for a, b in zip(story(one), story(two), strict=True):
        assert a.keys() == b.keys()
        numbers = {name for name, value in a.items() if isinstance(value, float) and name not in TIMINGS}
        assert {"train_loss", "val_loss"} < numbers
        # Batch normalization of few pixels makes more of the rounding of other sums once the backbone learns.
        factor = 1 if a["frozen_backbone"] else 10
        for name in numbers:
            assert a[name] == pytest.approx(b[name], rel=factor * tolerance, abs=tolerance), name


@pytest.fixture(scope="module")
def classifying(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A classifier of two epochs, one with all but the last layer frozen."""
    data = draw_folders(tmp_path_factory.mktemp("data"), train=4, val=3)
    return [
        *("classify.py", "train", f"--data={data}", "--backbone=mobilenet_v1_0.25_shallow", "--data.threads=1"),
        *("--model.input_size=64", "--train.freeze_epochs=1", "--train.epochs=2", "--train.eval_every=1"),
        *("--train.freeze_batch_size=6", "--train.batch_size=6", "--train.optimizer=sgd"),
        *("--train.learning_rate=0.001", "--train.ema_decay=0.9", "--augment.mixup=0"),
    ]


def test_two_workers_learn_what_one_process_does(classifying: list[str], tmp_path: Path) -> None:
    two = ["tests/digesting_door.py", *classifying, "--run-dir", str(tmp_path / "two")]
    with started(two, tmp_path) as workers:
        assert classify.main([*classifying[1:], "--run-dir", str(tmp_path / "one")]) == 0
        codes, said = ended(workers, tmp_path)
    assert codes == [0, 0], said
    assert_same_run(tmp_path / "one", tmp_path / "two", TOLERANCE)
    # One tells; the other says no more than whom it waits for.
    assert "phase 1 of 2" in said[0]
    other = re.fullmatch(
        r"worker 1 \(127\.0\.0\.1:\d+\) of 2: waiting for the others\n(weights: [0-9a-f]{64})\n", said[1]
    )
    assert other
    assert other[1] in said[0].splitlines()


@pytest.mark.slow
def test_two_workers_train_and_measure_a_detector_as_one_process_does(tmp_path: Path) -> None:
    lists = draw_lists(tmp_path / "data", train=16, val=5)
    phase = {"until_epoch": 1, "batch_size": 4, "frozen_backbone": False}
    arguments = [
        # In float32 batch normalization of a few pixels makes too much of the rounding of other sums.
        *("tests/in_float64.py", "train", *(f"--data.{name}={path}" for name, path in lists.items())),
        *("--data.threads=1", "--model.backbone=mobilenet_v1_0.25_shallow", "--model.input_size=64"),
        f"--train.phases={json.dumps([{**phase, 'input_size': 96}, {**phase, 'until_epoch': 2}])}",
        *("--train.eval_every=1", "--train.ema_decay=0.9", "--train.accumulate=2", "--train.multi_scale=0.5"),
        *("--augment.mosaic=0.5", "--augment.mixup=0.2", "--data.balance_classes=0.9", "--train.precision=float32"),
        *("--train.weight_decay=0.05", "--model.auto_anchors=1"),
    ]
    for run, count in (("two", 2), ("one", 1)):
        with started([*arguments, "--run-dir", str(tmp_path / run)], tmp_path, count) as workers:
            codes, said = ended(workers, tmp_path)
        assert codes == [0] * count, said
        assert (tmp_path / run / "anchors.txt").exists()
    assert_same_run(tmp_path / "one", tmp_path / "two", 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_one_worker_killed_ends_the_other_and_both_go_on(classifying: list[str], tmp_path: Path, killed: int) -> None:
    run = tmp_path / "run"
    long = [*classifying, "--train.epochs=100000", "--train.freeze_epochs=0", "--run-dir", str(run)]
    with started(long, tmp_path / "first") as workers:
        wait_for(lambda: (run / "last").exists(), workers)
        workers[killed].kill()
        codes, said = ended(workers, tmp_path / "first")
    left = said[1 - killed]
    assert codes[1 - killed] == 4, left
    assert re.search(
        rf"\nworker {killed} \(.*\): is gone or cannot be reached: start all workers again with --resume\n$", left
    )
    assert "Traceback" not in left
    reached = read_checkpoint(run / "last").info["position"]["step"]

    # SIGTERM to one of them stops both after the same step.
    with started(["classify.py", "train", "--resume", str(run)], tmp_path / "second") as workers:
        wait_for(lambda: read_checkpoint(run / "last").info["position"]["step"] > reached, workers)
        workers[1].terminate()
        codes, said = ended(workers, tmp_path / "second")
    assert codes == [143, 143], said
    assert all(f"stopped; go on with: --resume {run}, on every worker\n" in one for one in said)
    assert len(story(run)) == read_checkpoint(run / "last").info["position"]["epoch"]

    # What two have learned one takes up.
    reached = read_checkpoint(run / "last").info["position"]["step"]
    with started(["classify.py", "train", "--resume", str(run)], tmp_path / "third", 1) as workers:
        wait_for(lambda: read_checkpoint(run / "last").info["position"]["step"] > reached, workers)
        workers[0].terminate()
        codes, said = ended(workers, tmp_path / "third")
    assert codes == [143], said
    assert f"stopped; go on with: python classify.py train --resume {run}\n" in said[0]
    assert len(story(run)) == read_checkpoint(run / "last").info["position"]["epoch"]


def test_workers_that_are_all_told_leave_the_making_of_a_graph(classifying: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with started(["tests/endless_trace_door.py", *classifying, "--run-dir", str(run)], tmp_path) as workers:
        for index in range(2):
            wait_for(lambda said=tmp_path / f"worker-{index}": TRACING in said.read_text(), workers)
        for one in reversed(workers):
            one.terminate()
        codes, said = ended(workers, tmp_path)
    assert codes == [143, 143], said
    assert all(f"stopped; go on with: --resume {run}, on every worker\n" in one for one in said)
    assert read_checkpoint(run / "last").info["position"]["step"] == 0


def test_where_no_worker_found_anything_nothing_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(tf.distribute.get_strategy())
    workers.alone = False
    # TensorFlow's sum of nothing ends a process of several on CPUs.
    monkeypatch.setattr(workers, "_sum", lambda values: pytest.fail("asked the others"))
    assert workers.sum(np.zeros((0, 6))).shape == (0, 6)


def test_gathering_loses_and_mixes_up_nothing() -> None:
    rng = np.random.default_rng(0)
    names = ("a", "b")

    def some(count: int) -> Detections:
        ids = rng.integers(0, 2, count)
        corner = rng.random((count, 2), np.float32)
        boxes = np.concatenate([corner, corner + 1], axis=1)
        return Detections(boxes, np.sort(rng.random(count, np.float32))[::-1].copy(), ids, tuple(names[i] for i in ids))

    images = ["w", "x", "y", "z"]
    whole = {image: some(count) for image, count in zip(images, (2, 0, 3, 1), strict=True)}
    halves = [{image: whole[image] for image in Shard(i, 2).of(images)} for i in range(2)]
    # What the first worker lacks it hears from the second: each gives its own part and zeros elsewhere.

    class Worker:
        def __init__(self, others: list[np.ndarray] | None) -> None:
            self.others = others
            self.gave: list[np.ndarray] = []

        def sum(self, values: np.ndarray) -> np.ndarray:
            self.gave.append(values)
            if self.others is None:
                return np.array([len(whole[image]) for image in images]) if len(self.gave) == 1 else values
            return values + self.others[len(self.gave) - 1]

    first = Worker(None)
    gathered(halves[0], images, names, first)  # type: ignore[arg-type]
    found = gathered(halves[1], images, names, Worker(first.gave))  # type: ignore[arg-type]
    assert list(found) == images
    for image in images:
        np.testing.assert_array_equal(found[image].boxes_xyxy, whole[image].boxes_xyxy)
        np.testing.assert_array_equal(found[image].scores, whole[image].scores)
        np.testing.assert_array_equal(found[image].class_ids, whole[image].class_ids)
        assert found[image].names == whole[image].names
