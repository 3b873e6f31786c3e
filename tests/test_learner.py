from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine.checkpoint import model_tensors
from engine.dataset import DetectionDataset
from engine.detection_task import DetectionTask
from engine.learner import Learner
from nets.detector import build_detector
from tests.conftest import ROOT
from tests.drawn_data import draw_photo
from tests.specs import detector_spec
from utils.config import RunConfig, TrainConfig
from utils.recipe_config import LossConfig

SPEC = detector_spec(input_size=64, class_names=("red", "blue"), decode="bounded")


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("photos")
    records = [draw_photo(folder / f"{i}.png", i) for i in range(4)]
    return next(DetectionDataset(records, SPEC, LossConfig()).validation_batches(4))


@pytest.fixture(scope="module")
def model():
    return build_detector(SPEC)


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before if not np.array_equal(before[name], after[name])}


def learning_task(model, spec) -> DetectionTask:
    return DetectionTask(RunConfig(), spec, model, [], [])


def learner(model, frozen: bool, **train) -> Learner:
    task = learning_task(model, SPEC)
    return Learner(task, replace(TrainConfig(), **train), tf.distribute.get_strategy(), frozen)


def test_the_frozen_backbone_and_its_statistics_stay_still_and_move_afterwards(model, batch) -> None:
    before = model_tensors(model)
    learner(model, frozen=True).train_step(batch, 1e-3)
    frozen = model_tensors(model)
    moved = changed(before, frozen)
    assert moved
    assert not {name for name in moved if "head" not in name}
    head = {name for name in before if "head" in name}
    assert {name for name in moved if "moving_" in name} == {name for name in head if "moving_" in name}
    assert {name for name in moved if "kernel" in name} == {name for name in head if "kernel" in name}

    learner(model, frozen=False).train_step(batch, 1e-3)
    moved = changed(frozen, model_tensors(model))
    statistics = {name for name in before if "moving_" in name}
    assert len(moved & statistics) > 0.95 * len(statistics)
    assert len({name for name in moved if "kernel" in name}) > 0.95 * len({n for n in before if "kernel" in n})


def test_the_backbone_takes_its_share_of_the_rate(batch) -> None:
    model = build_detector(replace(SPEC, backbone="mobilenet_v1_0.25_shallow"))
    start = model.get_weights()
    moved = {}
    for share in (1.0, 0.125):
        model.set_weights(start)
        before = model_tensors(model)
        plain = {"optimizer": "sgd", "freeze_batch_norm": True, "head_l2": 0.0, "clip_norm": 0.0}
        learner(model, frozen=False, backbone_rate=share, **plain).train_step(batch, 0.1)
        moved[share] = {name: value - before[name] for name, value in model_tensors(model).items()}
    for name, change in moved[1.0].items():
        if "head_" not in name and name.endswith(("gamma", "beta", "moving_mean", "moving_variance")):
            assert not change.any(), name
        if name.endswith("kernel"):
            factor = 1 if "head_" in name else 0.125
            difference = np.linalg.norm(moved[0.125][name] - factor * change)
            assert difference < 0.02 * factor * np.linalg.norm(change), name


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("sgd", "adam")]


@pytest.mark.parametrize("optimizer", [*SLOW, "adamw"])
def test_repeating_a_batch_lowers_its_loss(model, batch, optimizer: str) -> None:
    rate = 1e-3 if optimizer != "sgd" else 1e-2
    one = learner(model, frozen=True, optimizer=optimizer)
    losses = [one.train_step(batch, rate)[:3].sum() for _ in range(6)]
    assert losses[-1] < losses[0]


def test_weight_decay_spares_biases_and_batch_norm(model, batch) -> None:
    one = learner(model, frozen=True, weight_decay=0.5, head_l2=0.0, clip_norm=0.0)
    decayed = {v.path for v in one.trainable if one.optimizer._use_weight_decay(v)}
    assert decayed == {v.path for v in one.trainable if v.path.endswith("kernel")}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_tells_the_norm_of_its_gradient(model, batch, accumulate: int) -> None:
    # Finite, but its square is not.
    steep = learner(model, frozen=True, head_l2=1e30, accumulate=accumulate)
    before = steep.validation_step(batch)
    assert np.isfinite(before).all()
    weights = model.get_weights()
    assert np.isfinite(steep.train_step(batch, 1e-3)).all()
    assert steep.gradient_norm == np.inf
    model.set_weights(weights)
    one = learner(model, frozen=True, clip_norm=0.0, accumulate=accumulate)
    one.train_step(batch, 1e-3)
    assert 0 < one.gradient_norm < np.inf
    model.set_weights(weights)


def test_validation_learns_nothing(model, batch) -> None:
    before = model_tensors(model)
    parts = learner(model, frozen=False).validation_step(batch)
    assert np.isfinite(parts).all()
    assert not changed(before, model_tensors(model))


def test_labels_are_smoothed_in_training_alone(model, batch) -> None:
    smooth = DetectionTask(RunConfig(loss=LossConfig(label_smoothing=0.2)), SPEC, model, [], [])
    plain = learning_task(model, SPEC)
    # To an untrained detector every class is as likely, which smoothing does not change.
    rng = np.random.default_rng(0)
    outputs = {
        level: tf.constant(rng.normal(0, 2, value.shape), tf.float32)
        for level, value in model(batch.images, training=False).items()
    }
    *_, smoothed = smooth.loss(outputs, batch.targets)
    *_, validated = smooth.loss(outputs, batch.targets, training=False)
    *_, expected = plain.loss(outputs, batch.targets)
    assert float(validated) == pytest.approx(float(expected))
    assert abs(float(smoothed) - float(expected)) > 1e-3


@pytest.mark.parametrize(
    ("program", "compared"),
    [
        (["-m", "tests.two_replicas"], ["classification", "half"]),
        (["tests/in_float64.py", "tests.two_replicas"], ["classification", "classification", "detection"]),
    ],
)
def test_one_and_two_replicas_learn_the_same(tmp_path: Path, program: list[str], compared: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[0] for line in done.stdout.splitlines()] == compared
