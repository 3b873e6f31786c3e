"""How long is left, what was waited for, what an epoch's line says."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import tensorflow as tf

from engine import pace
from engine.pace import (
    UNFROZEN,
    StepClock,
    as_time,
    epoch_line,
    is_measured,
    measurements,
    memory_in_use,
    phase_line,
    seconds_left,
)
from engine.waiting import Waiting
from utils.config import PhaseConfig

PHASES = (PhaseConfig(4, 8, True), PhaseConfig(10, 8, False))
ALIKE = (PhaseConfig(4, 8, False), PhaseConfig(10, 8, False))


def epochs(*seconds: float | None, **parts: dict[int, float]) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = [{"epoch": epoch, "seconds": one} for epoch, one in enumerate(seconds)]
    for part, of_epochs in parts.items():
        for epoch, one in of_epochs.items():
            history[epoch][f"{part}_seconds"] = one
    return history


def left(history: list[dict[str, Any]], phases: tuple[PhaseConfig, ...] = ALIKE, every: int = 0) -> float | None:
    return seconds_left(history, phases, every, 416)


def test_before_the_first_epoch_nothing_is_known() -> None:
    assert left([]) is None
    # Of an epoch gone on with only a part was timed.
    assert left(epochs(None)) is None


def test_the_first_epoch_of_a_phase_counts_only_while_it_is_alone() -> None:
    assert left(epochs(30)) == 30 * 9
    assert left(epochs(30, 2, 4)) == 3 * 7
    assert left(epochs(30, 2, 2, 2, 50)) == 50 * 5
    assert left(epochs(30, 2, 2, 2, 50, 8)) == 8 * 4
    assert left(epochs(30, 2, 2, 2, 50, *[8] * 5)) == 0


def test_epochs_whose_lines_were_lost_are_done_all_the_same() -> None:
    known = epochs(30, 2, 2, 2, 2, 2, 2, 2, 2, 2, validating=dict.fromkeys(range(10), 5))
    assert left(known[:4] + known[6:8]) == 2 * (2 + 5)
    assert left(known[:4] + known[6:]) == 0


def test_an_epoch_that_was_gone_on_with_leaves_the_others_to_go_by() -> None:
    assert left(epochs(30, 2, 4, None)) == 3 * 6
    assert left(epochs(30, 2, 2, 2, None)) == 2 * 5


def test_a_phase_to_come_takes_more_where_more_is_learned_or_seen() -> None:
    assert left(epochs(30, 2, 2), PHASES) == 2 + 2 * UNFROZEN * 6
    assert left(epochs(30, 2, 2, 2, 50), PHASES) == 50 * 5
    growing = (PhaseConfig(2, 4, False, 208), PhaseConfig(4, 4, False), PhaseConfig(6, 4, False, 832))
    assert left(epochs(3), growing) == 3 + 12 * 2 + 48 * 2
    assert left(epochs(3, 3, 20, 10), growing) == 40 * 2


def test_validation_takes_as_long_whatever_is_learned_or_seen() -> None:
    growing = (PhaseConfig(2, 4, False, 208), PhaseConfig(4, 4, False))
    # The first one of a phase makes a graph.
    assert left(epochs(3, 3, validating={0: 9, 1: 5}), growing) == (12 + 5) * 2


def test_the_graphs_of_later_phases_are_still_to_come() -> None:
    begun = epochs(2)
    begun[0]["preparing_seconds"] = 30.0
    assert left(begun) == 2 * 9 + 30
    assert left([*begun, *epochs(2, 2, 2, 2, 2)[1:]]) == 2 * 5


def test_measuring_counts_as_often_as_it_will_come() -> None:
    # Every 3 epochs of 10 and after the last: 3, 6, 9, 10, of which one is done.
    assert left(epochs(1, 1, 1, measuring={2: 7}), every=3) == 7 + 3 * 7
    assert [epoch for epoch in range(1, 11) if is_measured(epoch, 10, 3)] == [3, 6, 9, 10]
    assert [epoch for epoch in range(1, 11) if is_measured(epoch, 10, 0)] == [10]
    for first, last, every in itertools.product(range(1, 14), range(1, 13), range(14)):
        counted = sum(is_measured(epoch, last, every) for epoch in range(first, last + 1))
        assert measurements(first, last, every) == counted


def test_what_comes_after_each_epoch_is_still_to_come() -> None:
    # Drawing and saving, which short epochs wait for longest.
    assert left(epochs(1, 1, validating={1: 2}, keeping={0: 9, 1: 3})) == 8 * (1 + 2 + 3)


def test_a_run_of_any_length_is_foreseen_at_once() -> None:
    entry = {"epoch": 0, "seconds": 2.0, "validating_seconds": 1.0, "measuring_seconds": 4.0}
    assert seconds_left([entry], [PhaseConfig(10**12 + 1, 8, False)], 10, 64) == 10**12 * (2 + 1) + 10**11 * 4 + 4


@pytest.mark.parametrize(
    ("makes_graph", "steps", "told"),
    [(True, (30, 2, 4), (13, 27)), (False, (30, 2, 4), (40, 0)), (True, (30,), (34, 0)), (True, (1, 4, 4), (13, 0))],
)
def test_what_the_first_step_takes_for_its_graph_is_no_part_of_the_pace(
    makes_graph: bool, steps: tuple[float, ...], told: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock[0])
    waiting = Waiting()
    steps_clock = StepClock(waiting, makes_graph)
    # The loader takes longer to begin.
    clock[0] += 4
    waiting.seconds += 4
    for seconds in steps:
        clock[0] += seconds
        steps_clock.tick()
    assert steps_clock.read() == told


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (307, "5 min 7 s"), (11_100, "3 h 5 min"), (183_600, "2 d 3 h")],
)
def test_times_are_said_in_two_units(seconds: float, text: str) -> None:
    assert as_time(seconds) == text


def test_the_line_of_a_phase_says_what_it_goes_through() -> None:
    first = "phase 1 of 2: epochs 1 to 4, batch 16, input 416, backbone frozen"
    assert phase_line(1, PHASES, 0, 16, (416,), 416) == first
    second = "phase 2 of 2: epochs 7 to 10, batch 8, input 224 to 608, everything trains"
    assert phase_line(2, PHASES, 6, 8, (224, 416, 608), 416) == second
    assert phase_line(1, PHASES, 0, 16, (224, 256), 416) == first.replace("416", "224 to 256") + ", measured at 416"


def test_the_line_of_an_epoch_says_what_is_left_and_what_was_measured() -> None:
    entry = {
        "epoch": 1, "train_loss": 3.0, "train_box": 3.0, "val_loss": 4.0, "learning_rate": 0.01,
        "images_per_second": 20.0, "data_wait": 0.25, "memory_mib": 512.4, "map_50": None, "seconds_left": None,
    }  # fmt: skip
    curves = {"map_50": "mAP@0.5"}
    line = "epoch 2/3: loss 3.0000 (box 3.0000), val 4.0000, lr 1.00e-02, 20.0 images/s, 25% waiting for data, 512 MiB"
    assert epoch_line(entry, 3, ["box"], curves) == line
    known = {**entry, "map_50": 0.5, "seconds_left": 61.0}
    assert epoch_line(known, 3, ["box"], curves) == f"{line}, mAP@0.5 0.5000, 1 min 1 s left"
    assert epoch_line({**entry, "gpu_memory_mib": 900.2}, 3, ["box"], curves) == f"{line}, GPU 900 MiB"
    nothing_timed = {**entry, "images_per_second": None, "data_wait": None}
    assert epoch_line(nothing_timed, 3, ["box"], curves) == line.replace("20.0 images/s, 25% waiting for data, ", "")


def test_memory_in_use_is_that_of_the_fullest_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_in_use().keys() == {"memory_mib"}
    peaks = {"GPU:0": 3 << 20, "GPU:1": 5 << 20}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(peaks))
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: {"peak": peaks[name]})
    assert memory_in_use()["gpu_memory_mib"] == 5
