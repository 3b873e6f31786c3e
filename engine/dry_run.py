"""A run tried before it is started: data, config and every phase, and what the whole will cost."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from engine.dataset import Batch
from engine.learner import Learner
from engine.memory import within_memory
from engine.pace import as_time, gpu_memory_mib, measurements
from engine.run_directory import RunDirectory
from engine.schedule import phase_schedule
from engine.startup import bfloat16_may_pay, prepared_run, what_was_decided
from engine.task import Config
from engine.training import Trainer
from engine.workers import default_strategy, noticing_losses
from utils.cluster import read_cluster
from utils.config import PhaseConfig
from utils.errors import DivergedError
from utils.machine import MIB, peak_memory_mib, usable_memory_mib
from utils.progress import Quiet, Reporter
from utils.training_plots import plot_curves

T = TypeVar("T")

STEPS = 4
"""Timed of each kind, after one that traces."""
WORTH = 0.9
"""Share of a step's time that another precision must stay under to be advised: so few steps tell no less."""
CROWDED = 0.9
"""Share of the memory that is better not exceeded."""


class Noting(Reporter):
    """Keeps what is said: a run says what is odd, and notes what it decides."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter.stream)
        self.reporter = reporter
        self.said: list[str] = []
        self.noted: list[str] = []

    def say(self, text: str) -> None:
        """One line."""
        self.said.append(text)

    def note(self, text: str) -> None:
        """One line."""
        self.noted.append(text)

    def track(self, items: Iterable[T], description: str, total: int | None = None, unit: str = "") -> Iterator[T]:
        """Yields ``items`` while the reporter shows how far along they are."""
        return self.reporter.track(items, description, total, unit)


@dataclass
class Costs:
    """Seconds that a run will take, by what they go into, and what to say of it."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    once: float = 0.0
    """More, in which nothing is learned yet: to read the data, and to make each phase's graphs."""

    def prepare(self, seconds: float) -> None:
        """Takes what came before the steps into account."""
        self.once += max(0.0, seconds)


def try_run(config: Config, run_dir: str, reporter: Reporter) -> tuple[str, ...]:
    """Takes a few steps of every phase, validates and measures a little, and says in lines what the run will take.

    Where bfloat16 may pay, steps of the last phase are timed in it, too. Nothing is written to ``run_dir``. What would
    end the run raises here as it would there.
    """
    strategy = default_strategy(reporter.say)
    noting = Noting(reporter if read_cluster().chief else Quiet())
    with noticing_losses(), tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        trainer = prepared_run(config, run_dir, noting, strategy)
        costs = Costs([*noting.noted, *what_was_decided(config, trainer.config)], noting.said)
        costs.prepare(time.monotonic() - started)
        begins = 0
        for number, phase in enumerate(trainer.phases, start=1):
            reporter.say(f"trying phase {number} of {len(trainer.phases)}")
            with within_memory(f"phase {number}", phase.batch_size, "make it or model.input_size smaller"):
                learner = _try_phase(trainer, costs, phase, begins)
            begins = phase.until_epoch
        _try_measuring(trainer, costs, learner, RunDirectory(scratch))
        _try_drawing(trainer, costs, RunDirectory(scratch))
        _memory(costs)
        _disk(trainer, costs, learner)
        # After the memory, whose peak is to be the run's. Workers take steps together, and each sees its own CPU only.
        if bfloat16_may_pay(config) and trainer.workers.alone:
            reporter.say("trying mixed_bfloat16")
            _compare_bfloat16(trainer, costs, learner)
    if not read_cluster().chief:
        return ()
    costs.lines.append(f"reading the data and making graphs: {as_time(costs.once)}")
    costs.lines.append(f"the whole run: {as_time(costs.seconds + costs.once)}")
    found = [f"  {problem}" for problem in costs.problems]
    return ("dry run: nothing was kept", *costs.lines, *(["problems:", *found] if found else ["problems: none"]))


class StepCosts(NamedTuple):
    """What steps at two rates took."""

    seconds: float
    """Of an average step."""
    graph_seconds: float
    """Before that, to make their graph."""
    first_finite: bool
    """Whether those at the first rate gave numbers."""
    highest_finite: bool
    """Whether those at the second did."""


@dataclass(frozen=True)
class Trial:
    """Batches to try a phase by: ``largest`` for what does not fit into memory, and ``STEPS`` to time."""

    largest: Batch
    timed: list[Batch]
    loading: float
    """Seconds to make one."""
    pixels: float
    """Those of an average batch as a share of those of ``timed``: so few see few of the sides."""

    def time_steps(self, learner: Learner, rates: tuple[float, float]) -> StepCosts:
        """Steps at each of two ``rates``. The second are timed."""
        # What a size of inputs needs, such as compiled loops, is made once in a run: it is no part of an average step.
        sizes = {self.largest.images.shape: self.largest}
        for batch in self.timed:
            sizes.setdefault(batch.images.shape, batch)
        began = time.monotonic()
        learner.trace()
        first = [learner.train_step(batch, rates[0]) for batch in sizes.values()]
        started = time.monotonic()
        then = [learner.train_step(batch, rates[1]) for batch in self.timed]
        each = (time.monotonic() - started) / STEPS
        once = started - began - len(sizes) * each
        # Work grows with the pixels.
        return StepCosts(self.pixels * each, once, bool(np.isfinite(first).all()), bool(np.isfinite(then).all()))


def _trial(trainer: Trainer, phase: PhaseConfig, epoch: int) -> Trial:
    """Batches of ``epoch`` as ``phase`` has them."""
    data, shard = trainer.task.train_data.at_size(phase.input_size), trainer.workers.shard
    parts = trainer.config.train.accumulate
    size = phase.batch_size * parts
    started = time.monotonic()
    made = list(itertools.islice(data.training_batches(epoch, size, 0, shard, parts), STEPS))
    loading = (time.monotonic() - started) / len(made)
    # The last batch of an epoch, so that none is made ahead.
    (largest,) = data.at_largest().training_batches(epoch, size, data.steps_per_epoch(size) - 1, shard, parts)
    timed = list(itertools.islice(itertools.cycle(made), STEPS))
    pixels = np.mean(np.square(data.sides)) / np.mean([batch.images.shape[1] ** 2 for batch in timed])
    return Trial(largest, timed, loading, float(pixels))


def _try_phase(trainer: Trainer, costs: Costs, phase: PhaseConfig, begins: int) -> Learner:
    config = trainer.config.train
    learner = Learner(trainer.task, config, trainer.strategy, phase.frozen_backbone, trainer.average)
    size = phase.batch_size * config.accumulate
    trial, rates = _trial(trainer, phase, begins), _rates(trainer, phase, begins)
    step = trial.time_steps(learner, rates)
    costs.prepare(step.graph_seconds)
    numbers = f"train.learning_rate: {config.learning_rate:g}: no number is left after a few steps at"
    if not step.first_finite:
        raise DivergedError(f"{numbers} {rates[0]:g}, with which the phase begins: lower it")
    if not step.highest_finite:
        # Which a warm-up may prevent.
        costs.problems.append(f"{numbers} {rates[1]:g}, the highest rate of the phase: lower it if the run ends so too")
    # On a CPU both take turns; beside a GPU the faster one costs nothing.
    seconds = (
        max(trial.loading, step.seconds) if tf.config.list_logical_devices("GPU") else trial.loading + step.seconds
    )
    validation = _validating(trainer, costs, learner)
    steps, epochs = trainer.task.train_data.steps_per_epoch(size), phase.until_epoch - begins
    whole = epochs * (steps * seconds + validation)
    costs.seconds += whole
    state = "backbone frozen" if phase.frozen_backbone else "everything trains"
    costs.lines.append(
        f"epochs {begins + 1} to {phase.until_epoch}, batch {size}, {state}: {size / seconds:.1f} images/s (a step "
        f"{step.seconds:.3f} s, its data {trial.loading:.3f} s), {steps} steps and {as_time(validation)} of validation "
        f"an epoch, {as_time(whole)}"
    )
    if trial.loading > step.seconds:
        taken = f"({trial.loading:.3f} s) than the step ({step.seconds:.3f} s)"
        costs.problems.append(f"batch {size}: its data takes longer {taken}")
    return learner


def _rates(trainer: Trainer, phase: PhaseConfig, begins: int) -> tuple[float, float]:
    """The first rate of ``phase`` from epoch ``begins`` on, and the highest."""
    train = trainer.config.train
    schedule = phase_schedule(train, phase.batch_size * train.accumulate, trainer.epochs)
    places = np.arange(begins, phase.until_epoch, 0.05 if train.schedule_by == "step" else 1.0)
    return schedule.rate(begins), max(schedule.rate(float(place)) for place in places)


def _compare_bfloat16(trainer: Trainer, costs: Costs, learner: Learner) -> None:
    """Steps of the last phase in both types; ``learner`` has taken steps in float32."""
    phase, config = trainer.phases[-1], trainer.config.train
    trial = _trial(trainer, phase, phase.until_epoch - 1)
    halved = replace(config, precision="mixed_bfloat16")
    in_half = Learner(trainer.task, halved, trainer.strategy, phase.frozen_backbone, trainer.average)
    rates = _rates(trainer, phase, phase.until_epoch - 1)
    half, full = (trial.time_steps(tried, rates).seconds for tried in (in_half, learner))
    costs.lines.append(
        f"in mixed_bfloat16 a step of the last phase takes {half:.3f} s, in float32 {full:.3f} s"
        f"{': try --train.precision mixed_bfloat16' if half < WORTH * full else ''}"
    )


def _validating(trainer: Trainer, costs: Costs, learner: Learner) -> float:
    """Seconds for the loss on the validation list."""
    data = trainer.task.val_data
    size = min(trainer.phases[-1].batch_size, len(data))
    # The same on all workers, so that all take as long.
    batches = list(itertools.islice(data.validation_batches(size), STEPS))
    began = time.monotonic()
    learner.validation_step(batches[0])
    started = time.monotonic()
    for batch in itertools.islice(data.validation_batches(size), STEPS):
        learner.validation_step(batch)
    each = (time.monotonic() - started) / len(batches)
    costs.prepare(started - began - each)
    return each * -(-len(data) // size) / trainer.workers.cluster.count


def _try_measuring(trainer: Trainer, costs: Costs, learner: Learner, scratch: RunDirectory) -> None:
    """Measures a few batches twice, and goes on in a straight line from there."""
    count, size = len(trainer.task.val_data), trainer.phases[-1].batch_size * trainer.workers.cluster.count
    few, more = min(size, count), min(STEPS * size, count)
    times = []
    for limit in (few, few, more):
        started = time.monotonic()
        trainer.task.measure(trainer.phases[-1].batch_size, scratch, 0, Quiet(), trainer.workers, limit)
        times.append(time.monotonic() - started)
    costs.prepare(times[0] - times[1])
    slope = max(0.0, times[2] - times[1]) / (more - few) if more > few else 0.0
    each = times[2] + slope * (count - more)
    every = trainer.config.train.eval_every
    often = measurements(1, trainer.epochs, every)
    costs.seconds += often * each
    costs.lines.append(f"measuring: {as_time(each)}, {often} times")


def _try_drawing(trainer: Trainer, costs: Costs, scratch: RunDirectory) -> None:
    """Draws curves twice, as the run does after each epoch."""
    task, times = trainer.task, []
    empty = {"epoch": 0, "frozen_backbone": False, **dict.fromkeys(task.curves, 0.0)}
    for _ in range(2):
        started = time.monotonic()
        plot_curves([empty], scratch.curves, task.parts, task.curves)
        times.append(time.monotonic() - started)
    costs.prepare(times[0] - times[1])
    costs.seconds += trainer.epochs * times[1]
    costs.lines.append(f"drawing curves: {as_time(times[1])}, {trainer.epochs} times")


def _memory(costs: Costs) -> None:
    peak = peak_memory_mib()
    whole = usable_memory_mib()
    gpu = gpu_memory_mib()
    costs.lines.append(f"memory: {peak:.0f} MiB at most{f', GPU {gpu:.0f} MiB' if gpu else ''}")
    if peak > CROWDED * whole:
        costs.problems.append(f"memory: {peak:.0f} MiB of the {whole:.0f} MiB that may be used here are used")


def _disk(trainer: Trainer, costs: Costs, learner: Learner) -> None:
    model = sum(np.asarray(variable).nbytes for variable in trainer.task.model.variables) / MIB
    averages = {} if trainer.average is None else trainer.average.tensors()
    beside = (*learner.optimizer_tensors().values(), *averages.values())
    state = model + sum(value.nbytes for value in beside) / MIB
    every = trainer.config.train.save_every
    # ``last``, ``previous`` and the one being written; ``best``, and those that are kept.
    needed = 3 * state + model * (1 + (trainer.epochs // every if every else 0))
    place = trainer.run.path.absolute()
    place = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(place).free / MIB
    if not os.access(place, os.W_OK):
        costs.problems.append(f"{place}: cannot be written to: give another --run-dir")
    costs.lines.append(f"disk: {needed:.0f} MiB for checkpoints, {free:.0f} MiB are free")
    if needed > free:
        costs.problems.append(f"{place}: {free:.0f} MiB are free: the checkpoints need {needed:.0f} MiB")
