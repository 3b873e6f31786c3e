"""The training loop's bookkeeping, with a learner that learns nothing: what is saved when, and where it goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import detection_task, interrupts, pace, saving, training, waiting
from engine.checkpoint import model_tensors, read_checkpoint
from engine.dataset import DetectionDataset
from engine.detection_setup import DetectionSetup
from engine.detection_task import DetectionTask
from engine.evaluation import Evaluation
from engine.interrupts import StopRequest, stop_on_signals
from engine.run_directory import RunDirectory
from engine.schedule import phase_schedule
from engine.task import Measurement
from engine.training import Trainer
from engine.workers import Workers
from tests.drawn_data import draw_photo
from tests.runs_watched import Heard
from tests.specs import detector_spec
from utils.at_work import files_at_work
from utils.command_line import read_run_config
from utils.config import DataConfig, PhaseConfig, RunConfig, TrainConfig
from utils.errors import ConfigError, DataError, DivergedError, MemoryRanOutError
from utils.metrics import evaluate
from utils.progress import Quiet
from utils.recipe_config import AugmentConfig
from utils.types import Detections, Record

SPEC = detector_spec(input_size=64, class_names=("red", "blue"))
STEPS = 2


class IdleLearner:
    """Counts its steps in the model's only weight. ``at_trace`` and so on are called then."""

    at_trace: Any = staticmethod(lambda weight: None)
    at_step: Any = staticmethod(lambda weight: None)
    at_validation: Any = staticmethod(lambda: None)

    def __init__(self, task: Any, *_: Any) -> None:
        self.weight = task.model.weights[0]
        self.count = np.int64(0)
        self.traced = False
        self.gradient_norm = 0.0

    def trace(self) -> None:
        self.at_trace(self.weight)
        self.traced = True

    def train_step(self, batch: Any, learning_rate: float) -> np.ndarray:
        del batch
        assert learning_rate > 0
        self.weight.assign(self.weight + 1)
        self.count += 1
        self.at_step(self.weight)
        return np.ones(4, np.float32)

    def validation_step(self, batch: Any) -> np.ndarray:
        del batch
        self.at_validation()
        return np.ones(4, np.float32)

    def optimizer_tensors(self) -> dict[str, np.ndarray]:
        return {"optimizer/count": np.asarray(self.count)}

    def restore_optimizer(self, tensors: dict[str, np.ndarray]) -> None:
        assert tensors["count"].shape == ()
        self.count = np.int64(tensors["count"])


def find_nothing(predictor: Any, samples: Any, **_: Any) -> Evaluation:
    found = {truth.image_id: Detections.empty() for _, truth in samples}
    return Evaluation(evaluate([truth for _, truth in samples], found, predictor.spec.class_names, 0.5), found)


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> type[IdleLearner]:
    learner = type("Idle", (IdleLearner,), {})
    monkeypatch.setattr(training, "Learner", learner)
    monkeypatch.setattr(detection_task, "evaluate_records", find_nothing)
    # A second for every epoch, and of no matter here.
    monkeypatch.setattr(training, "plot_curves", lambda *_: None)
    return learner


def trainer(folder: Path, objects: int = 1, val: list[Record] | None = None, **train: Any) -> Trainer:
    options = {"freeze_epochs": 0, "epochs": 2, "batch_size": 2, "eval_every": 1, "save_every": 0, **train}
    config = RunConfig(train=replace(TrainConfig(), **options))
    photos = [draw_photo(folder / "photos" / f"{i}.png", i, objects) for i in range(2 * STEPS + 1)]
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    # Checkpoints name weights by their path, which Keras would number through the process.
    model.layers[0].kernel._path = "dense/kernel"
    run = RunDirectory(folder / "run")
    strategy = tf.distribute.get_strategy()
    task = DetectionTask(config, SPEC, model, photos[:-1], val or photos[-1:])
    return Trainer(config, task, strategy, run, Quiet())


def steps_in(path: Path) -> float:
    return read_checkpoint(path).tensors["model/dense/kernel"].item()


def test_what_a_run_begins_with_is_what_all_workers_must_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bytes] = []
    monkeypatch.setattr(Workers, "refuse_differences", lambda self, what: begun.append(what()))
    for folder, epochs, weight in (("a", 1, 0.0), ("b", 1, 0.0), ("c", 2, 0.0), ("d", 1, 1.0)):
        own = trainer(tmp_path / folder, epochs=epochs)
        own.task.model.weights[0].assign([[weight]])
        own.fit()
    assert begun[0] == begun[1]
    assert len(set(begun)) == 3


def test_without_objects_to_find_the_newest_weights_are_the_best(tmp_path: Path) -> None:
    summary = trainer(tmp_path, objects=0, epochs=3).fit()
    assert summary.best_score is None
    assert steps_in(tmp_path / "run" / "best") == steps_in(tmp_path / "run" / "last") == 3 * STEPS
    assert [entry["map_50"] for entry in RunDirectory(tmp_path / "run").read_metrics()] == [None] * 3


def test_of_equally_good_weights_the_first_stay_the_best(tmp_path: Path) -> None:
    summary = trainer(tmp_path, objects=1).fit()
    assert summary.best_score == 0
    assert steps_in(tmp_path / "run" / "best") == STEPS
    assert steps_in(tmp_path / "run" / "last") == 2 * STEPS


@pytest.mark.parametrize("stop_at", [None, 3, 6])
def test_without_a_better_score_a_run_ends_early_and_says_so(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch, stop_at: int | None
) -> None:
    # Better at the 2nd measurement; the 3rd and the 4th only equal it.
    scores = {2: 0.2, 4: 0.5, 6: 0.5, 8: 0.5, 10: 0.9}

    def measure(self: Any, batch_size: int, run: Any, epoch: int, reporter: Any, workers: Any) -> Measurement:
        return Measurement({"map_50": scores[epoch]}, scores[epoch])

    monkeypatch.setattr(DetectionTask, "measure", measure)
    options = {"epochs": 10, "eval_every": 2, "early_stopping": 2}
    if stop_at is not None:
        stop = StopRequest()
        idle.at_step = staticmethod(
            lambda weight: setattr(stop, "exit_code", 130 if weight.numpy().item() == stop_at * STEPS + 1 else 0)
        )
        trainer(tmp_path, **options).fit(stop)
        idle.at_step = staticmethod(lambda weight: None)
    for begun_before in (stop_at is not None, True):
        run = trainer(tmp_path, **options)
        if begun_before:
            run.restore(read_checkpoint(tmp_path / "run" / "last"))
        run.reporter = heard = Heard()
        summary = run.fit()
        assert (summary.epochs, summary.best_score) == (8, 0.5)
        assert heard.lines[-1] == (
            "stopped early, after epoch 8 of 10: 2 measurements in a row found no better mAP@0.5 than 0.5000 "
            "(train.early_stopping)"
        )
    assert steps_in(tmp_path / "run" / "best") == 4 * STEPS
    assert steps_in(tmp_path / "run" / "last") == 8 * STEPS


def test_a_run_whose_patience_ends_with_its_last_epoch_was_not_stopped_early(tmp_path: Path) -> None:
    run = trainer(tmp_path, epochs=3, early_stopping=2)
    run.reporter = heard = Heard()
    assert run.fit().epochs == 3
    assert not any("stopped early" in line for line in heard.lines)


@pytest.mark.parametrize("stops", [1, 2])
def test_an_epoch_that_begins_anew_keeps_the_optimizer_however_often_it_is_stopped(
    tmp_path: Path, idle: type[IdleLearner], stops: int
) -> None:
    def stopped(own: Trainer, where: str) -> None:
        stop = StopRequest()
        setattr(idle, where, staticmethod(lambda *_: setattr(stop, "exit_code", 130)))
        own.fit(stop)
        setattr(idle, where, staticmethod(lambda *_: None))

    def gone_on_with() -> Trainer:
        own = trainer(tmp_path)
        own.restore(read_checkpoint(tmp_path / "run" / "last"))
        return own

    stopped(trainer(tmp_path), "at_step")
    again = gone_on_with()
    # As --resume-anyway has it with other batches.
    again.position.begin_epoch()
    if stops == 2:
        stopped(again, "at_trace")
        again = gone_on_with()
    again.fit()
    assert read_checkpoint(tmp_path / "run" / "last").tensors["optimizer/count"] == 1 + 2 * STEPS


def test_a_phase_that_gets_no_further_does_not_keep_the_next_from_its_chance(tmp_path: Path) -> None:
    phases = (PhaseConfig(6, 2, True), PhaseConfig(10, 2, False))
    assert trainer(tmp_path, phases=phases, early_stopping=2).fit().epochs == 8


def test_with_nothing_to_measure_by_a_run_never_ends_early(tmp_path: Path) -> None:
    assert trainer(tmp_path, objects=0, epochs=4, early_stopping=1).fit().epochs == 4


def test_a_weight_that_is_not_a_number_is_saved_over_nothing(tmp_path: Path, idle: type[IdleLearner]) -> None:
    def poison(weight: Any) -> None:
        if weight.numpy().item() == 2 * STEPS:
            weight.assign(weight * np.nan)

    idle.at_step = staticmethod(poison)
    with pytest.raises(DivergedError, match=r"step \d+: model/dense/kernel: .* images of this batch: .*\d\.png"):
        trainer(tmp_path, objects=0).fit()
    for name in ("best", "last"):
        assert steps_in(tmp_path / "run" / name) == STEPS
    assert len(RunDirectory(tmp_path / "run").read_metrics()) == 1


def test_a_gradient_that_overflows_is_told_of_in_its_own_step(tmp_path: Path, idle: type[IdleLearner]) -> None:
    own = trainer(tmp_path, learning_rate=0.125)
    train_step = idle.train_step

    def overflow(self: IdleLearner, batch: Any, rate: float) -> np.ndarray:
        self.gradient_norm = np.inf if self.count == 1 else 1.0
        return train_step(self, batch, rate)

    idle.train_step = overflow  # type: ignore[method-assign]
    said = r"epoch 1 step 2: the gradient is not a number any more; lower train\.learning_rate \(now 0\.125\), or .*png"
    with pytest.raises(DivergedError, match=said):
        own.fit()


def test_a_stop_asked_for_before_the_first_step_leaves_what_can_be_gone_on_with(tmp_path: Path) -> None:
    stop = StopRequest()
    begun = trainer(tmp_path)
    begun.run.write_metrics = lambda history: pytest.fail("an epoch was done")  # type: ignore[method-assign]
    stop.exit_code = 143
    begun.fit(stop)
    assert steps_in(tmp_path / "run" / "last") == 0


def test_of_several_workers_none_goes_on_alone_to_the_next_phase(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, built = StopRequest(), []
    idle.at_step = staticmethod(lambda weight: setattr(stop, "exit_code", 143))
    monkeypatch.setattr(training, "Learner", lambda *given: built.append(given) or idle(*given))
    other = trainer(tmp_path, freeze_epochs=1, freeze_batch_size=2)
    # The chief's `last` lies on a disk that this one does not see.
    other.workers.chief = other.saving.chief = False
    other.fit(stop)
    assert len(built) == 1
    assert not other.run.last.exists()


def test_the_first_worker_alone_draws_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []
    monkeypatch.setattr(Workers, "on_chief", lambda self, work: left.append(work))
    own = trainer(tmp_path)
    own.task.measure(2, own.run, 0, Quiet(), own.workers)
    assert not own.run.path.exists()
    for work in left:
        work()
    assert {path.name for path in own.run.plots.iterdir()} == {"validation.jpg", "precision_recall.png"}


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_signal_does_not_wait_for_the_graph_of_a_phase(tmp_path: Path, idle: type[IdleLearner], epochs: int) -> None:
    two_phases = {"freeze_epochs": 1, "freeze_batch_size": 2}

    def signalled(weight: Any) -> None:
        if weight.numpy().item() == epochs * STEPS:
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the graph was made to its end")

    idle.at_trace = staticmethod(signalled)
    with stop_on_signals() as stop:
        trainer(tmp_path, **two_phases).fit(stop)
    assert stop.exit_code == 143
    last = tmp_path / "run" / "last"
    assert steps_in(last) == epochs * STEPS

    idle.at_trace = staticmethod(lambda weight: None)
    again = trainer(tmp_path, **two_phases)
    again.restore(read_checkpoint(last))
    again.fit()
    assert steps_in(last) == 2 * STEPS


def leave_step(number: int, own: Trainer, idle: type[IdleLearner], patch: pytest.MonkeyPatch) -> None:
    """Runs ``own``, whose model's ``number``-th step takes long, until a signal that comes in that step."""
    over = threading.Event()

    def hang(weight: Any) -> None:
        if weight.numpy().item() == number:
            os.kill(os.getpid(), signal.SIGTERM)
            over.wait(60)

    with patch.context() as patched, stop_on_signals() as stop:
        patched.setattr(interrupts, "LEFT_AFTER_S", 0.1)
        patched.setattr(idle, "at_step", staticmethod(hang))
        own.fit(stop)
    left = files_at_work()
    over.set()
    while "the first step of a phase" in files_at_work():
        time.sleep(0.001)
    assert stop.exit_code == 143
    assert "the first step of a phase" in left


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_signal_leaves_a_first_step_that_takes_long_and_loses_nothing(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    two_phases, last = {"freeze_epochs": 1, "freeze_batch_size": 2}, tmp_path / "run" / "last"
    leave_step(epochs * STEPS + 1, trainer(tmp_path, **two_phases), idle, monkeypatch)
    assert steps_in(last) == read_checkpoint(last).info["position"]["step"] == epochs * STEPS

    again = trainer(tmp_path, **two_phases)
    again.restore(read_checkpoint(last))
    again.fit()
    assert steps_in(last) == 2 * STEPS


def test_what_a_run_goes_on_with_is_kept_where_its_first_step_is_left(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = tmp_path / "run" / "last"
    trainer(tmp_path, epochs=1).fit()
    again = trainer(tmp_path, epochs=2, seed=5)
    again.restore(read_checkpoint(last))
    leave_step(STEPS + 1, again, idle, monkeypatch)
    assert read_checkpoint(last).info["config"]["train"]["seed"] == 5
    assert steps_in(last) == STEPS


def test_what_a_run_goes_on_with_is_kept_where_it_stops_before_a_step(tmp_path: Path) -> None:
    last = tmp_path / "run" / "last"
    trainer(tmp_path, epochs=1).fit()
    before = read_checkpoint(last)
    again = trainer(tmp_path, epochs=2, seed=5)
    again.restore(before)
    stop = StopRequest()
    stop.exit_code = 143
    again.fit(stop)
    after = read_checkpoint(last)
    assert after.info["config"]["train"]["seed"] == 5
    assert steps_in(last) == STEPS
    assert all(np.array_equal(value, after.group("model")[name]) for name, value in before.group("model").items())


def test_a_first_step_that_ends_in_time_is_kept(tmp_path: Path, idle: type[IdleLearner]) -> None:
    idle.at_step = staticmethod(lambda weight: os.kill(os.getpid(), signal.SIGTERM))
    with stop_on_signals() as stop:
        trainer(tmp_path).fit(stop)
    assert stop.exit_code == 143
    assert steps_in(tmp_path / "run" / "last") == 1


def test_what_is_raised_in_a_first_step_comes_out_of_it(tmp_path: Path, idle: type[IdleLearner]) -> None:
    def fail(weight: Any) -> None:
        raise DivergedError(f"at {weight.numpy().item():g}")

    idle.at_step = staticmethod(fail)
    with pytest.raises(DivergedError, match="epoch 1 step 1: at 1, or look at the images of this batch"):
        trainer(tmp_path).fit()
    assert not (tmp_path / "run" / "last").exists()


def test_a_signal_does_not_wait_for_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def signalled(*_: Any, **__: Any) -> Evaluation:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the measurement went on")

    with monkeypatch.context() as patch, stop_on_signals() as stop:
        patch.setattr(detection_task, "evaluate_records", signalled)
        trainer(tmp_path).fit(stop)
    assert stop.exit_code == 143
    last = tmp_path / "run" / "last"
    assert steps_in(last) == STEPS
    again = trainer(tmp_path)
    again.restore(read_checkpoint(last))
    again.fit()
    entries = again.run.read_metrics()
    assert [entry["map_50"] for entry in entries] == [0.0, 0.0]
    # Of the first epoch no step was left, whose speed could be told.
    assert [(entry["images_per_second"] is None, entry["data_wait"] is None) for entry in entries] == [
        (True, True),
        (False, False),
    ]


def test_the_graph_of_a_phase_is_no_part_of_its_pace(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def later(seconds: float) -> None:
        clock[0] += seconds

    for module in (pace, saving, training, waiting):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    idle.at_trace = staticmethod(lambda weight: later(30.0 * (weight.numpy().item() in (0, STEPS))))
    idle.at_step = staticmethod(lambda weight: later(1.0))
    validate = Trainer._validate
    monkeypatch.setattr(Trainer, "_validate", lambda self, learner: (later(7.0), validate(self, learner))[1])
    monkeypatch.setattr(training, "plot_curves", lambda *_: later(2.0))
    save = saving.save_checkpoint
    monkeypatch.setattr(saving, "save_checkpoint", lambda *given: (later(3.0), save(*given)))
    trainer(tmp_path, freeze_epochs=1, freeze_batch_size=2, epochs=3).fit()
    entries = RunDirectory(tmp_path / "run").read_metrics()
    assert [entry["preparing_seconds"] for entry in entries] == [30.0, 30.0, 0.0]
    assert [entry["seconds"] for entry in entries] == [STEPS] * 3
    assert [entry["images_per_second"] for entry in entries] == [2.0] * 3
    assert [entry["validating_seconds"] for entry in entries] == [7.0] * 3
    # The curves, and what was saved last: at first the state alone, which is there before anything is measured.
    assert [entry["keeping_seconds"] for entry in entries] == [2 + 3, 2 + 6, 2 + 3]
    # Of two epochs and a graph, of one epoch, of nothing.
    assert [entry["seconds_left"] for entry in entries] == [2 * (pace.UNFROZEN * STEPS + 7 + 5) + 30, STEPS + 7 + 8, 0]


def test_what_data_is_waited_for_is_a_share_of_the_time(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, read = [0.0], DetectionDataset.training_batches

    def later(seconds: float) -> None:
        clock[0] += seconds

    def slow(*arguments: Any) -> Any:
        for batch in read(*arguments):
            later(1.0)
            yield batch

    for module in (pace, saving, training, waiting):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(DetectionDataset, "training_batches", slow)
    idle.at_step = staticmethod(lambda weight: later(3.0))
    trainer(tmp_path).fit()
    entries = RunDirectory(tmp_path / "run").read_metrics()
    assert [(entry["data_wait"], entry["images_per_second"]) for entry in entries] == [(0.25, 0.5)] * 2


def test_a_stop_asked_for_while_validating_takes_no_further_step(tmp_path: Path, idle: type[IdleLearner]) -> None:
    stop = StopRequest()
    idle.at_validation = staticmethod(lambda: setattr(stop, "exit_code", 130))
    trainer(tmp_path).fit(stop)
    assert steps_in(tmp_path / "run" / "last") == STEPS


def test_stopped_after_the_last_step_of_an_epoch_the_rest_of_the_epoch_is_done_on_resuming(
    tmp_path: Path, idle: type[IdleLearner]
) -> None:
    stop = StopRequest()
    idle.at_step = staticmethod(lambda weight: setattr(stop, "exit_code", 130 if weight.numpy().item() == STEPS else 0))
    trainer(tmp_path).fit(stop)
    checkpoint = read_checkpoint(tmp_path / "run" / "last")
    assert (checkpoint.info["position"]["epoch"], checkpoint.info["position"]["epoch_step"]) == (0, STEPS)
    again = trainer(tmp_path)
    again.restore(checkpoint)
    again.fit()
    entries = RunDirectory(tmp_path / "run").read_metrics()
    assert [entry["epoch"] for entry in entries] == [0, 1]
    assert entries[0]["learning_rate"] > 0
    assert steps_in(tmp_path / "run" / "last") == 2 * STEPS


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    trainer(tmp_path).fit()
    before = (tmp_path / "run" / "last").read_bytes()
    again = trainer(tmp_path)
    again.restore(read_checkpoint(tmp_path / "run" / "last"))
    summary = again.fit()
    assert (summary.epochs, summary.best_score) == (2, 0)
    assert (tmp_path / "run" / "last").read_bytes() == before
    assert str(summary).startswith("2 epochs (0.0 minutes since the run was resumed), best mAP@0.5 0.0000")


def test_a_run_that_came_to_its_end_is_complete_though_a_stop_was_asked_for_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, epoch in ((tmp_path / "last", 2), (tmp_path / "first", 1)):
        stop = StopRequest()
        own = trainer(folder, save_every=1)
        monkeypatch.setattr(own.run, "log_scalars", lambda entry, stop=stop, epoch=epoch: (
            setattr(stop, "exit_code", 143) if entry["epoch"] + 1 == epoch else None
        ))  # fmt: skip
        summary = own.fit(stop)
        assert (stop.made, summary.epochs, summary.complete) == (True, epoch, epoch == 2)


def test_an_image_twice_in_the_validation_list_is_refused_before_the_first_step(tmp_path: Path) -> None:
    photo = draw_photo(tmp_path / "a.png", 0)
    with pytest.raises(DataError, match="listed twice"):
        trainer(tmp_path, val=[photo, photo])


def test_an_image_that_vanishes_is_named_and_the_run_saved(tmp_path: Path, idle: type[IdleLearner]) -> None:
    def burn(weight: Any) -> None:
        if weight.numpy().item() == STEPS:
            for photo in (tmp_path / "photos").glob("*.png"):
                photo.unlink()

    idle.at_step = staticmethod(burn)
    with pytest.raises(DataError, match=r"photos/4\.png: no such image") as raised:
        trainer(tmp_path).fit()
    assert raised.value.exit_code == 3
    checkpoint = read_checkpoint(tmp_path / "run" / "last")
    assert (checkpoint.info["position"]["epoch"], checkpoint.info["position"]["epoch_step"]) == (0, STEPS)
    assert steps_in(tmp_path / "run" / "last") == STEPS


def test_a_batch_too_large_for_memory_is_named_and_saved_over_nothing(tmp_path: Path, idle: type[IdleLearner]) -> None:
    def run_out(weight: Any) -> None:
        if weight.numpy().item() > STEPS:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    idle.at_step = staticmethod(run_out)
    with pytest.raises(MemoryRanOutError, match="batch size: 2: does not fit into memory") as raised:
        trainer(tmp_path).fit()
    assert raised.value.exit_code == 4
    assert steps_in(tmp_path / "run" / "last") == STEPS


def test_an_optimizer_too_large_for_memory_is_said(tmp_path: Path, idle: type[IdleLearner]) -> None:
    def run_out(*_: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    idle.__init__ = run_out  # type: ignore[method-assign]
    with pytest.raises(MemoryRanOutError, match="does not fit into memory"):
        trainer(tmp_path).fit()


def test_too_many_steps_that_overflow_name_the_last_and_its_images(tmp_path: Path, idle: type[IdleLearner]) -> None:
    def overflow(weight: Any) -> None:
        raise DivergedError("the gradients are not numbers")

    idle.at_step = staticmethod(overflow)
    with pytest.raises(DivergedError, match=r"epoch 1 step 1: the gradients are not numbers, or look at .*\d\.png"):
        trainer(tmp_path).fit()


def test_memory_that_runs_out_while_validating_names_its_batch_size(tmp_path: Path, idle: type[IdleLearner]) -> None:
    def run_out() -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    idle.at_validation = staticmethod(run_out)
    with pytest.raises(MemoryRanOutError, match="batch size: 1: does not fit into memory"):
        trainer(tmp_path).fit()


def test_a_run_killed_while_its_first_results_are_written_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    for place in ("write_metrics", "log_scalars"):
        folder = tmp_path / place
        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, place, kill)
            with pytest.raises(Killed):
                trainer(folder).fit()
        again = trainer(folder)
        again.restore(read_checkpoint(folder / "run" / "last"))
        again.fit()
        assert steps_in(folder / "run" / "last") == 2 * STEPS
        assert [entry["epoch"] for entry in RunDirectory(folder / "run").read_metrics()] == [0, 1]


def test_what_is_measured_is_the_average_and_what_learns_goes_on_from_itself(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    own = trainer(tmp_path, ema_decay=0.5)

    def look(*_: Any) -> None:
        seen.append(own.task.model.weights[0].numpy().item())

    def measure(*_: Any) -> Measurement:
        look()
        return Measurement({"map_50": 0.5, "coco_ap": 0.5}, 0.5)

    idle.at_step, idle.at_validation = staticmethod(look), staticmethod(look)
    monkeypatch.setattr(own.task, "measure", measure)
    # The idle learner does not move it.
    own.average.restore({path: np.full_like(value, -7) for path, value in own.average.tensors().items()}, 1)
    own.fit()
    assert seen == [1, 2, -7, -7, 3, 4, -7, -7]
    best, last = (read_checkpoint(tmp_path / "run" / name) for name in ("best", "last"))
    assert best.weights()["dense/kernel"].item() == last.weights()["dense/kernel"].item() == -7
    assert steps_in(tmp_path / "run" / "last") == 4


@pytest.mark.parametrize("by", ["step", "epoch"])
def test_the_rate_follows_each_step_or_each_epoch(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    rates: list[float] = []
    step = idle.train_step
    monkeypatch.setattr(idle, "train_step", lambda self, batch, rate: rates.append(rate) or step(self, batch, rate))
    own = trainer(tmp_path, schedule_by=by)
    own.fit()
    schedule = phase_schedule(own.config.train, 2, 2)
    places = [0, 0.5, 1, 1.5] if by == "step" else [0, 0, 1, 1]
    assert rates == [schedule.rate(place) for place in places]
    assert len(set(rates)) == len(set(places))


def test_what_the_config_says_of_the_photos_reaches_them(tmp_path: Path) -> None:
    photos = [draw_photo(tmp_path / f"{i}.png", i, i % 3) for i in range(6)]
    config = RunConfig(
        data=DataConfig(balance_classes=0.9, threads=1),
        augment=AugmentConfig(mosaic=0.8, mixup=0.5, close_mosaic=1),
        train=TrainConfig(epochs=2, multi_scale=0.5, seed=5),
    )
    own = DetectionTask(config, SPEC, keras.Sequential([keras.Input([1])]), photos, photos)
    data = DetectionDataset(photos, SPEC, config.loss, config.augment, 5, 1, 1, 0.5, 0.9)
    for epoch in (0, 1):
        made, expected = (list(one.training_batches(epoch, 2)) for one in (own.train_data, data))
        for ours, theirs in zip(made, expected, strict=True):
            assert (ours.paths, ours.mixed_in) == (theirs.paths, theirs.mixed_in)
            np.testing.assert_array_equal(ours.images, theirs.images)
            assert bool(ours.mixed_in) == (epoch == 0)


def test_minutes_between_saves_are_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    own = trainer(tmp_path, save_minutes=10).saving
    due = []
    for seconds in (599.0, 600.0):
        clock[0] = seconds
        due.append(own.due(3))
    assert due == [False, True]


@pytest.mark.parametrize("often", [{"save_minutes": 1e-9}, {"save_steps": 1}])
def test_long_epochs_are_saved_in_between(tmp_path: Path, idle: type[IdleLearner], often: dict[str, Any]) -> None:
    saved: list[tuple[int, int]] = []

    def look(weight: Any) -> None:
        if weight.numpy().item() > 1:
            position = read_checkpoint(tmp_path / "run" / "last").info["position"]
            saved.append((position["epoch"], position["epoch_step"]))

    idle.at_step = staticmethod(look)
    trainer(tmp_path, **often).fit()
    assert saved == [(0, 1), (1, 0), (1, 1)]


def test_what_is_due_is_saved_before_a_long_measurement(tmp_path: Path, idle: type[IdleLearner]) -> None:
    saved: list[tuple[int, int]] = []

    def look() -> None:
        position = read_checkpoint(tmp_path / "run" / "last").info["position"]
        saved.append((position["epoch"], position["epoch_step"]))

    idle.at_validation = staticmethod(look)
    trainer(tmp_path, save_steps=STEPS).fit()
    assert saved == [(0, STEPS), (1, STEPS)]


def test_a_worker_that_does_not_save_copies_its_weights_no_more_often_than_the_chief(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[float] = []

    def tensors(model: Any) -> dict[str, np.ndarray]:
        copied.append(model.weights[0].numpy().item())
        return model_tensors(model)

    def late(weight: Any) -> None:
        if weight.numpy().item() == 1:
            other.saving.time -= 3600

    idle.at_step = staticmethod(late)
    monkeypatch.setattr(training, "model_tensors", tensors)
    other = trainer(tmp_path, epochs=1, batch_size=1, save_minutes=10)
    other.workers.chief = other.saving.chief = False
    other.fit()
    assert not other.run.last.exists()
    # Before the first step, which a stop may leave; after it, when a save was due; at the end of the epoch for the save
    # there (and a missing `last`).
    assert copied == [0, 1, 2 * STEPS]


def test_the_ramp_of_an_average_goes_on_from_its_own_updates(tmp_path: Path) -> None:
    first = trainer(tmp_path, epochs=1, ema_decay=0.5)
    # An average that was begun later than the run has fewer updates than the run has steps.
    first.average.updates.assign(1)
    first.fit()
    again = trainer(tmp_path, epochs=1, ema_decay=0.5)
    again.restore(read_checkpoint(tmp_path / "run" / "last"))
    assert again.average.updates == 1
    # Older checkpoints do not know the number.
    older = read_checkpoint(tmp_path / "run" / "last")
    del older.info["position"]["averaged_steps"]
    again.restore(older)
    assert again.average.updates == STEPS


def test_steps_between_saves_are_counted_through_the_epochs(tmp_path: Path, idle: type[IdleLearner]) -> None:
    saved: list[int] = []

    def look(weight: Any) -> None:
        if weight.numpy().item() > STEPS:
            saved.append(read_checkpoint(tmp_path / "run" / "last").info["position"]["step"])

    idle.at_step = staticmethod(look)
    trainer(tmp_path, save_steps=3).fit()
    assert saved == [2, 3]


def test_the_config_of_a_run_names_its_files_so_that_any_folder_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "elsewhere"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("2007", "val list.txt", "classes.txt"):
        Path(name).touch()
    config = RunConfig(data=DataConfig(train="2007", val="val list.txt", classes="classes.txt"))
    RunDirectory("run").start(config, ("a",), DetectionSetup(config).inputs())
    monkeypatch.chdir(tmp_path / "elsewhere")
    back = read_run_config(tmp_path / "here" / "run" / "config.yaml", RunConfig)
    assert back.data.train == str(tmp_path / "here" / "2007")
    assert Path(back.data.val).exists()
    assert Path(back.data.classes).exists()
    # What comes with the application is found by its short name.
    assert back.model.weights == config.model.weights
    assert back.train == config.train


def test_below_a_folder_whose_name_is_no_text_files_stay_named_as_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("train.txt", "val.txt", "classes.txt"):
        Path(name).touch()
    config = RunConfig(data=DataConfig(train="train.txt", val="val.txt", classes="classes.txt"))
    RunDirectory("run").start(config, ("a",), DetectionSetup(config).inputs())
    assert read_run_config(Path("run/config.yaml"), RunConfig).data == config.data
    # Said before hours of work that could not be saved.
    named = replace(config, data=replace(config.data, train=str(folder / "train.txt")))
    with pytest.raises(ConfigError, match=r"data\.train: .*caf.udce9.*: is not UTF-8"):
        RunDirectory("other").start(named, ("a",), DetectionSetup(named).inputs())
    assert not Path("other").exists()


def test_a_phase_learns_from_inputs_of_its_size_and_validation_sees_the_detectors(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[int] = []
    validated: list[int] = []

    def watched(step: Any, seen: list[int]) -> Any:
        def look(self: Any, batch: Any, *rest: Any) -> np.ndarray:
            seen.append(batch.images.shape[1])
            return step(self, batch, *rest)

        return look

    monkeypatch.setattr(idle, "train_step", watched(idle.train_step, learned))
    monkeypatch.setattr(idle, "validation_step", watched(idle.validation_step, validated))
    phases = (PhaseConfig(1, 2, True, 32), PhaseConfig(2, 2, False))
    run = trainer(tmp_path, phases=phases)
    run.reporter = heard = Heard()
    run.fit()
    assert learned == [32] * STEPS + [64] * STEPS
    assert validated == [64, 64]
    said = [line for line in heard.lines if line.startswith("phase")]
    assert ["input 32" in line for line in said] == [True, False]
    assert read_checkpoint(tmp_path / "run" / "best").spec == SPEC


def test_with_multi_scale_steps_see_their_sides_on_resuming_too_and_validation_the_detectors(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[int] = []
    validated: list[int] = []
    step, validate = idle.train_step, idle.validation_step
    monkeypatch.setattr(
        idle,
        "train_step",
        lambda self, batch, rate: (learned.append(batch.images.shape[1]), step(self, batch, rate))[1],
    )
    monkeypatch.setattr(
        idle, "validation_step", lambda self, batch: (validated.append(batch.images.shape[1]), validate(self, batch))[1]
    )
    fields = {"multi_scale": 0.5, "epochs": 4}
    whole = trainer(tmp_path / "whole", **fields)
    whole.reporter = heard = Heard()
    whole.fit()
    data = whole.task.train_data
    assert learned == [data.side(epoch, place) for epoch in range(4) for place in range(STEPS)]
    assert set(learned) == {32, 64, 96}
    assert set(validated) == {64}
    assert any("input 32 to 96" in line for line in heard.lines)
    uninterrupted = learned.copy()
    learned.clear()
    broken = trainer(tmp_path / "broken", **fields)
    stop = StopRequest()
    monkeypatch.setattr(idle, "at_step", staticmethod(lambda weight: setattr(stop, "exit_code", 143)))
    broken.fit(stop)
    assert learned == uninterrupted[:1]
    monkeypatch.setattr(idle, "at_step", staticmethod(lambda weight: None))
    going_on = trainer(tmp_path / "broken", **fields)
    going_on.restore(read_checkpoint(tmp_path / "broken" / "run" / "last"))
    going_on.fit()
    assert learned == uninterrupted


def test_the_validation_loss_is_that_of_the_whole_list_whatever_its_batches(
    tmp_path: Path, idle: type[IdleLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    positives = 0

    def one_a_positive_and_seven_an_image(self: Any, batch: Any) -> np.ndarray:
        nonlocal positives
        found = np.count_nonzero(batch.targets["slots"] >= 0)
        positives += found
        return np.array([found, 7 * len(batch.images), found, 0.5 * max(found, 1)]) / max(found, 1)

    monkeypatch.setattr(idle, "validation_step", one_a_positive_and_seven_an_image)
    val = [draw_photo(tmp_path / "val" / f"{i}.png", i, objects=2 * (i < 3)) for i in range(5)]
    for batch_size in (1, 2, 4):
        positives = 0
        run = trainer(tmp_path / str(batch_size), val=val, epochs=1, batch_size=batch_size)
        run.fit()
        line = run.position.history[-1]
        assert [line[f"val_{part}"] for part in run.parts] == pytest.approx([1, 7 * 5 / positives, 1, 0.5])
    run = trainer(tmp_path / "nothing", val=val[3:], epochs=1)
    run.fit()
    assert run.position.history[-1]["val_objectness"] == pytest.approx(14)
