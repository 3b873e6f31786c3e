"""What training costs: time, waiting for data, memory, and how much of the time is still to come."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from engine.waiting import Waiting
from utils.config import PhaseConfig
from utils.machine import MIB, memory_mib

UNFROZEN = 2.0
"""Times that a step takes when the backbone learns too: 1.8 to 2.5 in docs/speed.md."""


class StepClock:
    """Time for the steps of an epoch, from now on, and for their data, which is ``waiting``'s.

    Where the first ``makes_graph``, what it takes more than the others is told apart.
    """

    def __init__(self, waiting: Waiting, makes_graph: bool) -> None:
        self.waiting = waiting
        self.makes_graph = makes_graph
        self.began = time.monotonic()
        self.steps = 0

    def tick(self) -> None:
        """A step is over."""
        self.steps += 1
        if self.steps == 1:
            self.first = self._working()

    def read(self) -> tuple[float, float]:
        """Seconds for steps and data, and for the graph, of which nothing is known after a single step."""
        working, others = self._working(), self.steps - 1
        whole = working + self.waiting.seconds
        if not self.makes_graph or others < 1:
            return whole, 0.0
        graph = max(0.0, self.first - (working - self.first) / others)
        return whole - graph, graph

    def _working(self) -> float:
        return time.monotonic() - self.began - self.waiting.seconds


def memory_in_use() -> dict[str, float]:
    """Entries of an epoch: this process's memory and, where there are GPUs, the most of the fullest so far."""
    gpu = gpu_memory_mib()
    return {"memory_mib": memory_mib(), **({"gpu_memory_mib": gpu} if gpu else {})}


def gpu_memory_mib() -> float:
    """Most memory in use so far on the fullest GPU; 0 without one."""
    # The logical ones are those of all workers.
    gpus = range(len(tf.config.list_physical_devices("GPU")))
    return max((tf.config.experimental.get_memory_info(f"GPU:{gpu}")["peak"] for gpu in gpus), default=0) / MIB


def forget_gpu_memory_peak() -> None:
    """Lets ``gpu_memory_mib`` begin anew."""
    for gpu in range(len(tf.config.list_physical_devices("GPU"))):
        tf.config.experimental.reset_memory_stats(f"GPU:{gpu}")


def is_measured(epoch: int, epochs: int, every: int) -> bool:
    """Whether the validation data is measured after ``epoch`` (from 1): every so often, and after the last."""
    return epoch == epochs or (every > 0 and epoch % every == 0)


def measurements(first: int, epochs: int, every: int) -> int:
    """How often the validation data is measured from epoch ``first`` (from 1) to the last."""
    if first > epochs:
        return 0
    return 1 + ((epochs - 1) // every - (first - 1) // every if every > 0 else 0)


def seconds_left(
    history: Sequence[dict[str, Any]], phases: Sequence[PhaseConfig], eval_every: int, input_size: int
) -> float | None:
    """How long the epochs after ``history`` will take: their steps as long as those of the last epochs of their phase.

    Of a phase to come it is what ``_cost`` makes of the pace of the phase before, and the first graph once more.
    What comes after the steps takes what it last took. None while nothing is known: before the first epoch.
    """
    epochs, known = phases[-1].until_epoch, [entry for entry in history if entry.get("seconds") is not None]
    if not known:
        return None
    # Not as many as there are entries, of which a user may have removed damaged ones.
    finished = history[-1]["epoch"] + 1
    pace, cost, total, begins = known[-1]["seconds"], 0.0, 0.0, 0
    graph = max(entry.get("preparing_seconds", 0.0) for entry in history)
    for phase in phases:
        done = [entry["seconds"] for entry in known if begins <= entry["epoch"] < phase.until_epoch]
        # The first epoch of a run is the one that reads photos from a cold disk.
        recent, before, cost = done[1:][-5:] or done, cost, _cost(phase, input_size)
        if recent:
            pace = sum(recent) / len(recent)
        elif before:
            pace *= cost / before
        total += pace * max(0, phase.until_epoch - max(begins, finished)) + graph * (begins >= finished)
        begins = phase.until_epoch
    each = _last(history, "validating_seconds") + _last(history, "keeping_seconds")
    total += max(0, epochs - finished) * each
    return total + measurements(finished + 1, epochs, eval_every) * _last(history, "measuring_seconds")


def _last(history: Sequence[dict[str, Any]], name: str) -> float:
    """What the newest epoch that has ``name`` says of it; 0 where none does."""
    known = [float(entry[name]) for entry in history if entry.get(name) is not None]
    return known[-1] if known else 0.0


def _cost(phase: PhaseConfig, input_size: int) -> float:
    """What the steps of ``phase`` take against other phases, roughly: by the pixels, and by what learns."""
    return (phase.input_size or input_size) ** 2 * (1.0 if phase.frozen_backbone else UNFROZEN)


def as_time(seconds: float) -> str:
    """``2 d 3 h``, ``3 h 5 min``, ``5 min 7 s``, ``7 s``."""
    whole = round(seconds)
    for unit, name, smaller, less in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // smaller} {less}"
    return f"{whole} s"


def phase_line(
    number: int, phases: Sequence[PhaseConfig], epoch: int, images: int, sides: Sequence[int], measured: int
) -> str:
    """What a user reads of phase ``number`` (from 1), begun at ``epoch``.

    ``images`` are in a step, of one of ``sides`` in pixels; validation sees ``measured``.
    """
    phase = phases[number - 1]
    state = "backbone frozen" if phase.frozen_backbone else "everything trains"
    shown = f"{sides[0]} to {sides[-1]}" if len(sides) > 1 else str(sides[0])
    elsewhere = f", measured at {measured}" if sides[-1] < measured else ""
    return (
        f"phase {number} of {len(phases)}: epochs {epoch + 1} to {phase.until_epoch}, batch {images}, input {shown}, "
        f"{state}{elsewhere}"
    )


def epoch_line(entry: Mapping[str, Any], epochs: int, parts: Sequence[str], curves: Mapping[str, str]) -> str:
    """What a user reads of an epoch. ``curves`` titles what is measured, the deciding number first."""
    shares = ", ".join(f"{part} {entry[f'train_{part}']:.4f}" for part in parts)
    line = (
        f"epoch {entry['epoch'] + 1}/{epochs}: loss {entry['train_loss']:.4f} ({shares}), "
        f"val {entry['val_loss']:.4f}, lr {entry['learning_rate']:.2e}, "
    )
    if entry["images_per_second"] is not None:
        line += f"{entry['images_per_second']:.1f} images/s, {entry['data_wait']:.0%} waiting for data, "
    line += f"{entry['memory_mib']:.0f} MiB"
    if "gpu_memory_mib" in entry:
        line += f", GPU {entry['gpu_memory_mib']:.0f} MiB"
    key, title = next(iter(curves.items()))
    if entry.get(key) is not None:
        line += f", {title} {entry[key]:.4f}"
    return f"{line}, {as_time(entry['seconds_left'])} left" if entry["seconds_left"] else line
