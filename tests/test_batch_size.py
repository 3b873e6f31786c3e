"""Batch sizes that a config leaves to the machine, with GPUs that are only said to be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine import batch_size
from engine.batch_size import largest_batch, with_batch_sizes, with_spare
from engine.checkpoint import model_tensors
from engine.dataset import Batch
from engine.resume_check import as_it_was
from engine.startup import resume_run, start_run
from tests import fault_runs
from utils.classifier_config import ClassifierRunConfig
from utils.config import AUTO, PhaseConfig, RunConfig, TrainConfig
from utils.errors import ConfigError, MemoryRanOutError
from utils.progress import Reporter


@given(room=st.integers(0, 300), devices=st.integers(1, 6), limit=st.integers(0, 300))
def test_the_largest_power_of_two_a_device_that_fits_is_found_and_nothing_beyond_the_first_failure_is_tried(
    room: int, devices: int, limit: int
) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= room

    found = largest_batch(fits, devices, limit)
    powers = [devices * 2**n for n in range(10)]
    assert found == max([0, *(size for size in powers if size <= min(room, limit))])
    assert tried == [size for size in powers if size <= limit][: len(tried)]
    assert [size for size in tried if size > room] in ([], tried[-1:])


@given(st.integers(1, 64), st.integers(1, 8))
def test_what_is_tried_has_a_quarter_more_images_and_as_many_on_each_device(each: int, devices: int) -> None:
    tried = with_spare(each * devices, devices)
    assert tried % devices == 0
    assert each * 1.25 <= tried / devices < each * 1.25 + 1


class Images:
    """A training list of ``count`` images that are numbers."""

    def __init__(self, count: int, largest: bool = False) -> None:
        self.count, self.largest = count, largest

    def __len__(self) -> int:
        return self.count

    def at_size(self, input_size: int) -> Images:
        return self

    def at_largest(self) -> Images:
        return Images(self.count, largest=True)

    def steps_per_epoch(self, batch_size: int) -> int:
        return self.count // batch_size

    def training_batches(self, epoch: int, size: int, first_step: int) -> Any:
        assert size <= self.count
        assert first_step == self.count // size - 1, "batches that are made ahead take memory, too"
        assert self.largest, "smaller inputs than the run will make say nothing of its memory"
        yield Batch(np.arange(size), {"labels": np.arange(size)}, ())


def task(images: int) -> Any:
    return SimpleNamespace(model=keras.Sequential([keras.Input([2]), keras.layers.Dense(1)]), train_data=Images(images))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU that holds 40 images, 100 while the backbone is frozen; the batches that steps were tried with."""
    tried: list[int] = []

    class Learner:
        def __init__(self, task: Any, train: TrainConfig, strategy: Any, frozen: bool, average: Any) -> None:
            self.model, self.room, self.parts = task.model, 100 if frozen else 40, train.accumulate

        def train_step(self, batch: Batch, rate: float) -> None:
            assert len(batch.images) == len(batch.targets["labels"])
            tried.append(len(batch.images))
            for variable in self.model.variables:
                variable.assign_add(tf.ones_like(variable))
            if len(batch.images) > self.room * self.parts:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(batch_size, "Learner", Learner)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    monkeypatch.setattr(batch_size, "forget_gpu_memory_peak", lambda: None)
    return tried


def found(config: Any, images: int = 1000) -> TrainConfig:
    given = task(images)
    before = model_tensors(given.model)
    train = with_batch_sizes(config, given, tf.distribute.get_strategy()).train
    for name, value in model_tensors(given.model).items():
        np.testing.assert_array_equal(value, before[name])
    return train


def open_config(**train: Any) -> RunConfig:
    open_train = TrainConfig(**{"batch_size": AUTO, "freeze_batch_size": AUTO, "freeze_epochs": 50, **train})
    return RunConfig(train=open_train)


def test_real_steps_decide_on_a_gpu(gpu: list[int]) -> None:
    train = found(open_config())
    assert (train.freeze_batch_size, train.batch_size) == (64, 32)
    # 64 and a quarter are 80, which is in the room of 100; 32 and a quarter fill that of 40 exactly.
    assert gpu == [2, 3, 5, 10, 20, 40, 80, 2, 3, 5, 10, 20, 40, 80]


def test_a_short_list_and_the_parts_of_a_step_limit_it(gpu: list[int]) -> None:
    assert found(open_config(freeze_epochs=0), images=31).batch_size == 16
    assert found(open_config(freeze_epochs=0, accumulate=4), images=31).batch_size == 4
    assert found(open_config(freeze_epochs=0, accumulate=4)).batch_size == 32
    assert gpu[-1] == 4 * 80


def test_what_is_given_is_kept(gpu: list[int]) -> None:
    assert found(open_config(batch_size=7)).batch_size == 7
    assert found(RunConfig()) == TrainConfig()
    phases = (PhaseConfig(1, 5, True), PhaseConfig(2, AUTO, True), PhaseConfig(3, AUTO, False, 64))
    sizes = [phase.batch_size for phase in found(open_config(phases=phases)).phases]
    assert sizes == [5, 64, 32]


def test_no_room_for_one_image_and_several_workers_are_refused(gpu: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(batch_size, "with_spare", lambda size, devices: 101)
        with pytest.raises(MemoryRanOutError, match="not even one image on each device"):
            found(open_config())
    monkeypatch.setattr(batch_size, "read_cluster", lambda: SimpleNamespace(count=2))
    with pytest.raises(ConfigError, match=r"train\.batch_size: -1: workers cannot try together"):
        found(open_config())


@pytest.mark.parametrize(
    ("config", "images", "wanted"),
    [
        (open_config(), 1000, (16, 8)),
        (open_config(), 13, (8, 8)),
        (open_config(accumulate=2), 13, (4, 4)),
        (
            ClassifierRunConfig(train=TrainConfig(freeze_epochs=50, batch_size=AUTO, freeze_batch_size=AUTO)),
            1000,
            (16, 64),
        ),
    ],
)
def test_a_cpu_takes_the_default_or_what_the_list_can_fill(config: Any, images: int, wanted: tuple[int, int]) -> None:
    train = found(config, images)
    assert (train.freeze_batch_size, train.batch_size) == wanted


def test_a_run_keeps_what_was_found_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault_runs.quicken(monkeypatch.setattr)
    tf.config.run_functions_eagerly(True)
    try:
        phases = (PhaseConfig(1, 2, True), PhaseConfig(2, AUTO, False))
        config = fault_runs.tiny_config(tmp_path, phases=phases)
        run = tmp_path / "run"
        start_run(config, run, Reporter()).fit()
        # Six images.
        assert "batch size of phase 2: 4, the default on a CPU" in capsys.readouterr().err
        kept = yaml.safe_load((run / "config.yaml").read_text())["train"]
        assert [phase["batch_size"] for phase in kept["phases"]] == [2, 4]
        assert kept["precision"] == "float32"
        # What was asked for is still open, and is not decided anew.
        monkeypatch.setattr(batch_size, "largest_batch", lambda *_: 1)
        trainer = resume_run(config, run, Reporter())
        trainer.run.unlock()
        assert [phase.batch_size for phase in trainer.config.train.phases] == [2, 4]
    finally:
        tf.config.run_functions_eagerly(False)


def test_what_is_left_open_is_as_it_was() -> None:
    sizes = {"freeze_batch_size": 3, "batch_size": 5, "phases": [{"batch_size": 7}]}
    saved: dict[str, Any] = {"config": {"train": {"freeze_epochs": 50, **sizes}}}
    config = open_config(phases=(PhaseConfig(1, AUTO, False), PhaseConfig(2, 9, False)))
    train = as_it_was(config, saved).train
    assert (train.freeze_batch_size, train.batch_size, train.precision) == (3, 5, "float32")
    assert [phase.batch_size for phase in train.phases] == [7, 9]
    saved["config"]["train"]["precision"] = "mixed_float16"
    assert as_it_was(config, saved).train.precision == "mixed_float16"
    given = RunConfig(train=TrainConfig(precision="mixed_bfloat16", batch_size=2))
    assert as_it_was(given, saved).train == replace(
        given.train, freeze_epochs=50, freeze_batch_norm=False, backbone_rate=1.0
    )
