"""Interrupted and resumed equals uninterrupted, bit for bit: on a tiny detector with every kind of state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine import detection_setup, training
from engine.averaging import WeightAverage
from engine.checkpoint import read_checkpoint
from engine.interrupts import StopRequest
from engine.learner import Learner
from engine.run_directory import RunDirectory
from engine.startup import resume_run, start_run
from tests import fault_runs
from tests.timings import TIMINGS
from utils.anchors import write_anchors
from utils.config import RunConfig
from utils.progress import Quiet
from utils.recipe_config import AugmentConfig
from utils.records import read_annotation_list, write_annotation_list


class PowerCut(BaseException):
    """The process ends here, and saves nothing more."""


class Interrupted(StopRequest):
    """Asks to stop when looked at for the ``at``-th time, or with ``hard`` ends everything then."""

    def __init__(self, at: int, hard: bool) -> None:
        super().__init__()
        self.left, self.hard = at, hard

    @property
    def made(self) -> bool:
        self.left -= 1
        if self.left == -1 and self.hard:
            raise PowerCut
        return self.left < 0


class TracedOnce:
    """The one network, its average and its two learners, given out as new ones would be: at their first values.

    Building and tracing them for every part of a run would take nearly all of the time.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.average: Any = None
        self.learners: dict[bool, Learner] = {}
        self.first: dict[int, list[np.ndarray]] = {}

    def build_detector(self, *arguments: Any) -> keras.Model:
        if self.model is None:
            self.model = fault_runs.tiny_detector(*arguments)
        self.reset(self.model.variables)
        return self.model

    def weight_average(self, *arguments: Any) -> WeightAverage:
        if self.average is None:
            self.average = WeightAverage(*arguments)
        self.average.restore({}, 0)
        return self.average

    def learner(self, task: Any, config: Any, strategy: Any, frozen: bool, average: WeightAverage) -> Learner:
        if frozen not in self.learners:
            self.learners[frozen] = Learner(task, config, strategy, frozen, average)
        task.freeze(frozen)
        self.reset(self.learners[frozen].optimizer.variables)
        return self.learners[frozen]

    def reset(self, variables: list[Any]) -> None:
        first = self.first.setdefault(id(variables[0]), [np.array(variable) for variable in variables])
        for variable, value in zip(variables, first, strict=True):
            variable.assign(value)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param({"ema_decay": 0.9}, id="averaged"),
        pytest.param({"ema_decay": 0.0, "freeze_batch_norm": True}, id="batch-norm-stays"),
    ],
)
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    once = TracedOnce()
    with pytest.MonkeyPatch.context() as patch:
        fault_runs.quicken(patch.setattr)
        patch.setattr(detection_setup, "build_detector", once.build_detector)
        patch.setattr(training, "WeightAverage", once.weight_average)
        patch.setattr(training, "Learner", once.learner)
        folder = tmp_path_factory.mktemp("data")
        tiny = fault_runs.tiny_config(
            folder, input_size=64, save_steps=2, multi_scale=0.5, backbone_rate=0.5, **request.param
        )
        # More boxes in one place than it has anchors.
        crowded, *others = read_annotation_list(tiny.data.train)
        pile = {name: np.repeat(getattr(crowded, name)[:1], 11, axis=0) for name in ("boxes_xyxy", "class_ids")}
        write_annotation_list(tiny.data.train, [replace(crowded, **pile), *others])
        # Too small for any box, so that the run fits its own.
        write_anchors(folder / "small.txt", np.arange(1, 19) / 20)
        # Whatever a recipe may leave to chance or to the data.
        yield replace(
            tiny,
            data=replace(tiny.data, balance_classes=1.0),
            model=replace(tiny.model, auto_anchors=0.9, anchors=str(folder / "small.txt"), anchor_size=64),
            augment=AugmentConfig(degrees=10, shear=5, translate=0.1, perspective=0.2, mosaic=0.5, mixup=0.3),
        )


def state(run: Path) -> dict[str, Any]:
    """All that a run came to, but for how long it took."""
    entries = RunDirectory(run).read_metrics()
    metrics = [{name: value for name, value in entry.items() if name not in TIMINGS} for entry in entries]
    return {"metrics": metrics, **{name: read_checkpoint(run / name).digest() for name in ("last", "best")}}


@pytest.fixture(scope="module")
def uninterrupted(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("whole") / "run"
    start_run(config, run, Quiet()).fit()
    assert (run / "anchors.txt").exists()
    found = state(run)
    assert sum(entry["dropped_boxes"] for entry in found["metrics"]) > 0
    return found


# There are 22 looks: one before each phase and epoch, after each step and after each batch of validation.
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 21), st.booleans()), min_size=1, max_size=2))
# After the last step of the frozen epoch, then between it and the unfreezing.
@example([(4, False), (3, False)])
# In the middle of the first unfrozen epoch, a step after the last save.
@example([(9, True)])
def test_interrupted_and_resumed_equals_uninterrupted(
    config: RunConfig,
    uninterrupted: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    interruptions: list[tuple[int, bool]],
) -> None:
    run = tmp_path_factory.mktemp("broken") / "run"
    stops: list[StopRequest] = [Interrupted(at, hard) for at, hard in interruptions]
    for stop in (*stops, StopRequest()):
        going_on = (run / "last").exists()
        trainer = (resume_run if going_on else start_run)(config, run, Quiet())
        try:
            trainer.fit(stop)
        except PowerCut:
            trainer.run.unlock()
    assert state(run) == uninterrupted
