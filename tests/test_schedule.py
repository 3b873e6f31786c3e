from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.plan import phases
from engine.schedule import Schedule, phase_schedule
from utils.config import ModelConfig, PhaseConfig, RunConfig, TrainConfig

REFERENCE = TrainConfig(optimizer="sgd", learning_rate=0.01, scale_learning_rate=True)


@pytest.mark.parametrize(
    ("batch", "epoch", "rate"),
    [
        (16, 0, 2.5e-4),
        (16, 1, 5e-4),
        (16, 2, 1.25e-3),
        (16, 3, 2.5e-3),
        (16, 49, 2.341e-3),
        (8, 50, 1.167e-3),
        (8, 150, 5.899e-4),
        (8, 299, 1.25e-5),
    ],
)
def test_the_references_values(batch: int, epoch: int, rate: float) -> None:
    assert phase_schedule(REFERENCE, batch, 300).rate(epoch) == pytest.approx(rate, rel=1e-3)


def test_rates_scale_with_the_batch_within_the_optimizers_bounds() -> None:
    assert phase_schedule(REFERENCE, 1, 300).base == 5e-4
    assert phase_schedule(REFERENCE, 640, 300).base == pytest.approx(5e-2)
    adam = TrainConfig(optimizer="adam", learning_rate=0.001, scale_learning_rate=True)
    assert (phase_schedule(adam, 8, 300).base, phase_schedule(adam, 8, 300).final) == pytest.approx((3e-4, 3e-6))
    plain = phase_schedule(TrainConfig(learning_rate=0.002, min_learning_rate_ratio=0.1), 8, 300)
    assert (plain.base, plain.final) == pytest.approx((0.002, 0.0002))


def test_the_rise_and_the_rest_have_the_documented_bounds() -> None:
    short, long = Schedule(0.01, 0.0001, 10), Schedule(0.01, 0.0001, 600)
    # A twentieth of ten epochs would be half of one.
    assert short.rate(0.9) < short.rate(1) == pytest.approx(0.01)
    assert short.rate(1.1) < short.rate(1)
    assert short.rate(8.9) > short.rate(9) == 0.0001
    assert long.rate(2.9) < long.rate(3) == pytest.approx(0.01)
    assert long.rate(3.1) < long.rate(3)
    assert long.rate(584) > long.rate(585) == 0.0001
    assert Schedule(5e-6, 5e-8, 300).rate(0) == 1e-6
    adam = TrainConfig(optimizer="adam", learning_rate=0.001, scale_learning_rate=True)
    finals = [phase_schedule(train, batch, 300).final for train in (REFERENCE, adam) for batch in (1, 640)]
    assert finals == pytest.approx([5e-6, 5e-4, 3e-6, 1e-5])
    assert phase_schedule(adam, 640, 300).base == pytest.approx(1e-3)


def test_step_schedule_falls_nine_times_to_the_final_rate() -> None:
    schedule = Schedule(0.01, 0.0001, 100, "step")
    assert schedule.rate(0) == schedule.rate(9) == 0.01
    assert schedule.rate(10) == pytest.approx(0.01 * 0.01 ** (1 / 9))
    assert schedule.rate(99) == pytest.approx(0.0001)


@pytest.mark.parametrize("epochs", [1, 2, 7, 16, 22, 55, 300])
def test_the_steps_are_ten_equal_parts_of_a_run_of_any_length(epochs: int) -> None:
    rates = [Schedule(1.0, 1e-9, epochs, "step").rate(epoch) for epoch in range(epochs)]
    assert rates == pytest.approx([0.1 ** (10 * epoch // epochs) for epoch in range(epochs)])


def test_the_rise_lasts_as_long_as_asked_for_and_may_be_none() -> None:
    train = TrainConfig(learning_rate=0.01, warmup_epochs=8.5)
    rates = [phase_schedule(train, 8, 40).rate(epoch) for epoch in (0, 8.4, 8.5, 8.6)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[1] < rates[2] > rates[3]
    assert rates[2] == pytest.approx(0.01)
    none = [phase_schedule(replace(train, warmup_epochs=0), 8, 40).rate(epoch) for epoch in (0, 0.1)]
    assert none[0] == 0.01 > none[1] > 0.0099


@pytest.mark.parametrize(("epochs", "warm_up"), [(1, 0.0), (1, 0.5), (4, 3.0), (2, 1.9), (40, 39.0)])
def test_a_long_rise_still_leaves_room_to_fall(epochs: int, warm_up: float) -> None:
    schedule = Schedule(0.01, 0.0001, epochs, warm_up=warm_up)
    left = epochs - warm_up
    assert schedule.rate(warm_up) == pytest.approx(0.01)
    assert 0.0001 < schedule.rate(warm_up + 0.25 * left) < 0.01
    assert schedule.rate(epochs - 0.01 * left) == 0.0001


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 40, 300])
def test_rates_rise_then_fall_and_stay_within_bounds(epochs: int) -> None:
    schedule = Schedule(0.01, 0.0001, epochs)
    rates = [schedule.rate(e / 10) for e in range(epochs * 10)]
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) <= 0.01 + 1e-12
    assert min(rates) > 0


def test_phases_are_frozen_then_unfrozen_or_whatever_is_listed() -> None:
    def planned(weights: str, **train: Any) -> tuple[PhaseConfig, ...]:
        return phases(RunConfig(model=ModelConfig(weights=weights), train=TrainConfig(**train)))

    assert planned("imagenet") == (PhaseConfig(50, 16, True), PhaseConfig(300, 8, False))
    assert planned("best", epochs=20) == (PhaseConfig(3, 16, True), PhaseConfig(20, 8, False))
    for plan in (
        planned("imagenet", epochs=5),
        planned("none", epochs=5),
        planned("imagenet", freeze_epochs=0, epochs=5),
    ):
        assert plan == (PhaseConfig(5, 8, False),)
    for weights in ("none", "imagenet"):
        assert planned(weights, freeze_epochs=3, epochs=3) == (PhaseConfig(3, 16, True),)
        listed = (PhaseConfig(1, 4, False), PhaseConfig(2, 2, True), PhaseConfig(9, 8, False))
        assert planned(weights, phases=listed) == listed
