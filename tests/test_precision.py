"""Training in half precision: what computes in it, what does not, and how runs in it go on and are stored."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import precision as deciding
from engine import startup
from engine.checkpoint import Checkpoint, model_tensors, read_checkpoint
from engine.dataset import DetectionDataset
from engine.detection_task import DetectionTask
from engine.dry_run import Noting
from engine.interrupts import StoppedError, stop_on_signals
from engine.learner import Learner
from engine.precision import MOST_SKIPPED, LossScale, cpu_has_bfloat16, gradient_remarks, precision_for
from engine.startup import resume_run, start_run
from nets.backbones import BACKBONES, build_classifier
from nets.classifier import build_classifier_of
from nets.layers import FusedBatchNormalization
from nets.loss import yolo_loss
from nets.precision import computing_in
from nets.silu import silu, silu_and_mean
from tests import fault_runs
from tests.conftest import ROOT
from tests.drawn_data import draw_photo
from tests.runs_watched import StopAfter
from tests.small_run import lively_detector, small_spec
from utils.classifier_config import ClassifierSpec
from utils.config import DetectorSpec, RunConfig, TrainConfig
from utils.errors import DivergedError
from utils.progress import Quiet
from utils.recipe_config import LossConfig

HALVES = {"mixed_bfloat16": 2.0**-8, "mixed_float16": 2.0**-11}
"""How far a rounded number is from the number, as a share."""
SPEC = small_spec(class_names=("red", "blue"))
EAGER = pytest.mark.usefixtures("eager")


@pytest.fixture
def eager():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("photos")
    records = [draw_photo(folder / f"{i}.png", i) for i in range(4)]
    return next(DetectionDataset(records, SPEC, LossConfig()).validation_batches(4))


@pytest.mark.parametrize(
    ("asked", "gpus", "may"),
    [("auto", [], True), ("auto", [(6, 1)], False), ("auto", [None], False), ("float32", [], False)],
)
def test_bfloat16_may_pay_where_the_cpu_is_what_learns(
    asked: Any, gpus: list[Any], may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "gpu_capabilities", lambda: gpus)
    monkeypatch.setattr(startup, "cpu_has_bfloat16", lambda: True)
    assert startup.bfloat16_may_pay(RunConfig(train=TrainConfig(precision=asked))) == may


@pytest.mark.parametrize(
    ("flags", "has"), [("fma avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx512f avx512_vnni", False)]
)
def test_a_cpu_says_whether_it_has_bfloat16(flags: str, has: bool, tmp_path: Path) -> None:
    described = tmp_path / "cpuinfo"
    assert not cpu_has_bfloat16(described)
    described.write_text(f"model name\t: a CPU\nflags\t\t: {flags}\nbugs\t\t: none\n")
    assert cpu_has_bfloat16(described) == has


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [
        ([], "float32"),
        ([(6, 1)], "float32"),
        ([(7, 0)], "mixed_float16"),
        ([(7, 5)], "mixed_float16"),
        ([(8, 0)], "mixed_bfloat16"),
        ([(10, 0)], "mixed_bfloat16"),
        ([(9, 0), (7, 5)], "mixed_float16"),
        ([(9, 0), None], "float32"),
    ],
)
def test_the_least_of_the_gpus_decides(capabilities: Any, wanted: str) -> None:
    assert precision_for("auto", capabilities) == wanted
    assert precision_for("mixed_float16", capabilities) == "mixed_float16"


def test_gradients_that_fall_short_are_seen() -> None:
    assert gradient_remarks("float32") == []
    # By TensorFlow's own kernels, which have room for all of them in float16.
    # Many threads would add up too few ones each for any to be lost.
    program = (
        "import engine.precision as p; p.tf.config.threading.set_intra_op_parallelism_threads(1); "
        "print(*[p.gradient_remarks(f'mixed_{t}float16') for t in ('b', '')])"
    )
    plain = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=plain, capture_output=True, text=True).stdout
    found = re.fullmatch(
        r"\['gradients in mixed_bfloat16 fall short here: of 4096 ones (\d+) arrive; train.precision float32 has them "
        r"all, and is faster on this CPU'\] \[\]\n",
        said,
    )
    assert found, said
    assert 0 < int(found[1]) < 4096


def test_the_loss_scale_halves_with_each_overflow_and_doubles_after_many_good_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deciding, "GROWS_AFTER", 3)
    scale = LossScale()
    first = scale.value
    values = []
    for finite in (False, False, True, True, True, True, True, False, True, True):
        scale.follow(finite)
        values.append(scale.value / first)
    assert values == [1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 2, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4]
    other = LossScale()
    other.restore(scale.tensor())
    for one in (scale, other):
        one.follow(True)
    assert scale.tensor().tolist() == other.tensor().tolist() == [first / 2, 0, 0]


def test_endless_overflows_end_the_run_and_a_good_step_between_does_not() -> None:
    scale = LossScale()
    for _ in range(MOST_SKIPPED - 1):
        scale.follow(False)
    scale.follow(True)
    for _ in range(MOST_SKIPPED - 1):
        scale.follow(False)
    with pytest.raises(DivergedError, match=f"the gradients of {MOST_SKIPPED} steps in a row are not numbers; lower"):
        scale.follow(False)


@pytest.mark.parametrize("precision", HALVES)
def test_swish_and_its_gradient_are_those_of_float32_up_to_rounding(precision: str) -> None:
    half = keras.DTypePolicy(precision).compute_dtype
    given = np.linspace(-6, 6, 2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)

    def slopes(function: Any, x: tf.Tensor) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            total = tf.add_n([tf.reduce_sum(tf.cast(part, tf.float32)) for part in tf.nest.flatten(y)])
        return [np.asarray(part, np.float32) for part in (*tf.nest.flatten(y), tape.gradient(total, x))]

    rounded = tf.cast(given, half)
    for function in (silu, silu_and_mean):
        for got, wanted in zip(slopes(function, rounded), slopes(function, tf.cast(rounded, tf.float32)), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=4 * HALVES[precision], atol=8 * HALVES[precision])


def test_the_mean_over_a_large_image_is_no_overflow_in_float16() -> None:
    x = tf.fill([1, 512, 512, 1], tf.constant(8.0, tf.float16))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, mean = silu_and_mean(x)
        # Only through the mean, times what is still a normal number in float16 after the division.
        loss = tf.cast(mean, tf.float32) * 2.0**15
    assert y.dtype == mean.dtype == tf.float16
    np.testing.assert_allclose(mean, 8 / (1 + np.exp(-8.0)), rtol=1e-3)
    slope = np.asarray(tape.gradient(loss, x), np.float32)
    # swish'(8) = 1.0023
    np.testing.assert_allclose(slope, 2.0**15 / 512**2 * 1.0023, rtol=4e-3)


def test_statistics_survive_an_overflow() -> None:
    layer = FusedBatchNormalization(0.5, dtype="mixed_float16")
    layer.build((None, 2, 2, 2))
    inputs = np.ones((1, 2, 2, 2), np.float16)
    inputs[0, 0, 0, 1] = np.inf
    layer(inputs, training=True)
    np.testing.assert_allclose(layer.moving_mean, [0.5, 0])
    np.testing.assert_allclose(layer.moving_variance, [0.5, 1])


def learned(model: Any, batch: Any, how: str, training: bool = True) -> tuple[dict[str, tf.Tensor], float, list[Any]]:
    """Outputs, loss and gradients."""
    with computing_in(model, how), tf.GradientTape() as tape:
        outputs = model(batch.images, training=training)
        loss = tf.add_n(yolo_loss(outputs, batch.targets, SPEC, LossConfig()))
    return outputs, float(loss), tape.gradient(loss, [v.value for v in model.trainable_variables])


@pytest.mark.parametrize("precision", HALVES)
def test_a_small_detector_computes_in_half_precision_what_it_does_in_float32(batch: Any, precision: str) -> None:
    model = fault_runs.tiny_detector(SPEC)
    policy = keras.config.dtype_policy()
    outputs, loss, gradients = learned(model, batch, precision, training=False)
    whole, wanted, slopes = learned(model, batch, "float32", training=False)
    for level, value in outputs.items():
        # It did compute in less than float32, and in nothing wilder than half precision.
        error = np.std(tf.cast(value, tf.float32) - whole[level]) / np.std(whole[level])
        assert HALVES[precision] / 10 < error < 4 * HALVES[precision]
    np.testing.assert_allclose(loss, wanted, rtol=HALVES[precision])
    flat, expected = (np.concatenate([np.ravel(one) for one in found]) for found in (gradients, slopes))
    assert flat.dtype == np.float32
    # Where they are added up in half precision too, more is lost.
    allowed = 24 if gradient_remarks(precision) else 8
    assert np.linalg.norm(flat - expected) < allowed * HALVES[precision] * np.linalg.norm(expected)
    # Afterwards it is the float32 network again, to the bit.
    for level, value in model(batch.images, training=False).items():
        np.testing.assert_array_equal(value, whole[level])
    assert keras.config.dtype_policy() is policy


@pytest.mark.parametrize("precision", HALVES)
def test_every_weight_of_a_detector_learns_in_half_precision(batch: Any, precision: str) -> None:
    # So deep a network with random weights makes of rounding errors what it likes; its loss stays what it is.
    model = lively_detector(SPEC)
    _, wanted, _ = learned(model, batch, "float32")
    outputs, loss, gradients = learned(model, batch, precision)
    assert {value.dtype for value in outputs.values()} == {tf.float32}
    np.testing.assert_allclose(loss, wanted, rtol=0.1)
    assert {gradient.dtype for gradient in gradients} == {tf.float32}
    assert all(np.any(gradient) and np.isfinite(gradient).all() for gradient in gradients)
    assert {v.dtype for v in model.weights} == {"float32"}


ONE_OF_A_KIND = {spec.architecture.__class__.__name__: name for name, spec in BACKBONES.items()}


@pytest.mark.parametrize("name", [*ONE_OF_A_KIND.values()])
def test_every_kind_of_network_ends_in_float32(name: str) -> None:
    classifier = build_classifier(name, 3, probabilities=False)
    with computing_in(classifier, "mixed_float16"):
        classifier.compute_output_spec(keras.KerasTensor((1, 64, 64, 3)))
        halves = {layer.name for layer in classifier.layers if layer.compute_dtype == "float16"}
        last = classifier.layers[-1]
        assert last.compute_dtype == "float32"
        assert any(layer.name in halves for layer in classifier.layers if "conv" in layer.name)
    assert {layer.compute_dtype for layer in classifier.layers} == {"float32"}


@EAGER
def test_a_classifier_learns_in_half_precision() -> None:
    spec = ClassifierSpec(("a", "b"), "mobilenet_v1_0.25_shallow", 32)
    model = build_classifier_of(spec)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    with computing_in(model, "mixed_bfloat16"):
        half = model(images, training=True)
    assert half.dtype == tf.float32
    assert np.isfinite(half).all()


def tiny_learner(folder: Path, precision: Any, **train: Any) -> tuple[Learner, Any]:
    spec = DetectorSpec(("red", "blue"), "tiny", 32, SPEC.anchors_wh_px)
    records = [draw_photo(folder / f"{i}.png", i) for i in range(4)]
    task = DetectionTask(RunConfig(), spec, fault_runs.tiny_detector(spec), records, records)
    config = TrainConfig(precision=precision, **train)
    return Learner(task, config, tf.distribute.get_strategy(), False), next(task.val_data.validation_batches(4))


@pytest.mark.parametrize(
    ("precision", "accumulate", "steps"),
    [("mixed_bfloat16", 1, ["_train"]), ("mixed_float16", 2, ["_collect", "_update", "_overflows"])],
)
def test_a_step_is_traced_once_and_a_signal_ends_that_where_it_comes(
    tmp_path: Path, precision: str, accumulate: int, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, batch = tiny_learner(tmp_path, precision, accumulate=accumulate)
    learner.trace()
    learner.train_step(batch, 1e-3)
    learner.validation_step(batch)
    for step in (*steps, "_validate"):
        assert getattr(learner, step).experimental_get_tracing_count() == 1

    def signalled(*_: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("tracing goes on")

    learner, _ = tiny_learner(tmp_path, precision, accumulate=accumulate)
    before = [layer.dtype_policy for layer in learner.model.layers]
    monkeypatch.setattr(learner.task, "loss", signalled)
    with stop_on_signals() as stop, pytest.raises(StoppedError), stop.interrupting():
        learner.trace()
    assert stop.exit_code == 143
    assert [layer.dtype_policy for layer in learner.model.layers] == before


@EAGER
@pytest.mark.parametrize("precision", ["float32", *HALVES])
def test_repeating_a_batch_lowers_its_loss(tmp_path: Path, precision: str) -> None:
    learner, batch = tiny_learner(tmp_path, precision)
    losses = [learner.train_step(batch, 1e-2)[:3].sum() for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


@EAGER
def test_float16_learns_what_float32_learns_whatever_the_scale(tmp_path: Path) -> None:
    steps = {}
    for name, precision, scale in (
        ("single", "float32", 0),
        ("half", "mixed_float16", 1.0),
        ("up", "mixed_float16", 2.0**12),
    ):
        learner, batch = tiny_learner(tmp_path, precision, optimizer="sgd", clip_norm=1.0)
        if scale:
            learner.loss_scale.value = scale
        before = model_tensors(learner.model)
        learner.train_step(batch, 1.0)
        after = model_tensors(learner.model)
        steps[name] = np.concatenate([np.ravel(after[n] - before[n]) for n in before if "seed" not in n])
    for name in ("half", "up"):
        error = np.linalg.norm(steps[name] - steps["single"]) / np.linalg.norm(steps["single"])
        assert error < 0.1, (name, error)


@EAGER
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_whose_gradients_overflow_changes_no_weight(tmp_path: Path, accumulate: int) -> None:
    learner, batch = tiny_learner(tmp_path, "mixed_float16", accumulate=accumulate)
    learner.loss_scale.value = 2.0**10
    learner.train_step(batch, 1e-2)

    def state() -> dict[str, np.ndarray]:
        trained = {variable.path: np.asarray(variable) for variable in learner.trainable}
        slots = learner.optimizer_tensors()
        del slots["optimizer/loss_scale"]
        return {**trained, **slots}

    before = state()
    learner.loss_scale.value = 2.0**127
    assert np.isfinite(learner.train_step(batch, 1e-2)).all()
    for name, value in state().items():
        # The rate was set already, by whoever asked for the step.
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert learner.loss_scale.tensor().tolist() == [2.0**126, 0, 1]
    learner.loss_scale.value = 2.0**10
    # Nothing of the overflow is left in the sums.
    learner.train_step(batch, 1e-2)
    assert learner.loss_scale.skipped == 0
    assert all(np.isfinite(value).all() for value in state().values())


@EAGER
def test_runs_in_half_precision_go_on_bit_for_bit_and_leave_the_checkpoints_of_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault_runs.quicken(monkeypatch.setattr)
    # The scale doubles within an epoch, and before long too far.
    monkeypatch.setattr(deciding, "GROWS_AFTER", 2)
    monkeypatch.setattr(deciding, "FIRST_SCALE", 2.0**10)
    finite: set[bool] = set()
    follow = LossScale.follow

    def noting(self: LossScale, fine: bool) -> None:
        finite.add(fine)
        follow(self, fine)

    monkeypatch.setattr(LossScale, "follow", noting)
    monkeypatch.setattr(startup, "gradient_remarks", lambda precision: [f"short in {precision}"])
    layouts = []
    for precision in ("float32", *HALVES):
        config = fault_runs.tiny_config(tmp_path / precision, precision=precision, ema_decay=0.9)
        told = Noting(Quiet())
        start_run(config, tmp_path / precision / "whole", told).fit()
        broken = tmp_path / precision / "broken"
        start_run(config, broken, Quiet()).fit(StopAfter(8))
        assert read_checkpoint(broken / "last").info["position"]["epoch_step"] > 0
        resume_run(config, broken, told).fit()
        # Both say what gradients lose.
        assert told.said.count(f"short in {precision}") == 2
        for name in ("last", "best"):
            whole, other = (read_checkpoint(tmp_path / precision / run / name) for run in ("whole", "broken"))
            assert whole.digest() == other.digest(), (precision, name)
        layouts.append(layout(read_checkpoint(broken / "best")))
        scale = read_checkpoint(broken / "last").tensors.get("optimizer/loss_scale")
        assert (scale is not None) == (precision == "mixed_float16")
    assert layouts[0] == layouts[1] == layouts[2]
    assert finite == {True, False}


def layout(checkpoint: Checkpoint) -> dict[str, tuple[Any, Any]]:
    return {name: (value.dtype, value.shape) for name, value in checkpoint.tensors.items()}
