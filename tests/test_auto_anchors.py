"""Anchors that a run fits itself: when, how it says so, and that it keeps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import detection_setup
from engine.checkpoint import read_checkpoint
from engine.dry_run import try_run
from engine.startup import resume_run, start_run
from tests import fault_runs
from tests.runs_watched import Heard, StopAfter
from utils import anchor_fit
from utils.anchor_fit import better_anchors, input_sizes
from utils.anchors import kmeans_anchors, read_anchors, recall, write_anchors
from utils.config import RunConfig
from utils.errors import ConfigError
from utils.progress import Quiet
from utils.records import read_annotation_list

TINY = np.array([[w, h] for w in (1.0, 2.0, 3.0) for h in (1.0, 2.0, 3.0)])
BOXES = np.random.default_rng(0).uniform(20, 60, (200, 2))


def test_anchors_that_reach_too_little_give_way_to_those_of_k_means_and_both_recalls_are_said() -> None:
    fitted, said = better_anchors(BOXES, TINY, 0.98, seed=4)
    np.testing.assert_array_equal(fitted, kmeans_anchors(BOXES, 9, 4))
    before, after = recall(BOXES, TINY), recall(BOXES, fitted)
    assert before < 0.98 < after
    assert said == (
        f"the given anchors have a recall of {before:.4f} at IoU 0.5, under 0.98; "
        f"fitted ones have {after:.4f} and are used"
    )


def test_anchors_that_reach_enough_stay_without_a_word() -> None:
    good = kmeans_anchors(BOXES, 9, 0)
    assert better_anchors(BOXES, good, recall(BOXES, good), 0) == (None, "")


def test_where_nothing_better_can_be_fitted_the_given_ones_stay_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    none = np.zeros((0, 2))
    assert better_anchors(none, TINY, 0.98, 0) == (None, "no boxes to measure anchors by: the given ones stay")
    fitted, said = better_anchors(np.repeat(BOXES[:3], 20, axis=0), TINY, 0.98, 0)
    assert fitted is None
    assert "3 different box sizes are too few to fit 9" in said
    monkeypatch.setattr(anchor_fit, "kmeans_anchors", lambda *_, **__: TINY)
    fitted, said = better_anchors(BOXES, TINY, 0.98, 0)
    assert fitted is None
    assert "fitted ones have 0.0000, which is no better" in said


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A tiny run whose anchors are far too small."""
    fault_runs.quicken(monkeypatch.setattr)
    write_anchors(tmp_path / "small.txt", TINY)
    tiny = fault_runs.tiny_config(tmp_path / "data", input_size=64)
    model = replace(tiny.model, anchors=str(tmp_path / "small.txt"), anchor_size=64, auto_anchors=0.98)
    return replace(tiny, model=model, train=replace(tiny.train, phases=tiny.train.phases[:1]))


def test_a_run_learns_with_the_fitted_ones_keeps_them_and_goes_on_with_them(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, heard = tmp_path / "run", Heard()
    trainer = start_run(config, run, heard)
    boxes_wh, _ = input_sizes(read_annotation_list(config.data.train), 64, "letterbox")
    wanted = kmeans_anchors(boxes_wh, 9, config.train.seed)
    assert trainer.task.spec == trainer.task.train_data.spec
    np.testing.assert_array_equal(trainer.task.spec.anchors_wh_px, wanted)
    np.testing.assert_array_equal(read_anchors(run / "anchors.txt"), wanted)
    (line,) = (line for line in heard.lines if "auto_anchors" in line)
    assert f"{recall(boxes_wh, TINY):.4f}" in line
    assert f"{recall(boxes_wh, wanted):.4f} and are used" in line
    trainer.fit(StopAfter(3))
    np.testing.assert_array_equal(read_checkpoint(run / "last").spec.anchors_wh_px, wanted)

    def again(*_: Any, **__: Any) -> None:
        pytest.fail("fitted anew")

    monkeypatch.setattr(detection_setup, "better_anchors", again)
    (run / "anchors.txt").unlink()
    resumed = resume_run(config, run, Quiet())
    np.testing.assert_array_equal(resumed.task.spec.anchors_wh_px, wanted)
    resumed.fit()
    np.testing.assert_array_equal(read_checkpoint(run / "best").spec.anchors_wh_px, wanted)
    # Anything else of the network must still be what it was.
    with pytest.raises(ConfigError, match="input_size: was 64, is 96"):
        resume_run(replace(config, model=replace(config.model, input_size=96)), run, Quiet())
    with pytest.raises(ConfigError, match="anchors_wh_px: was"):
        resume_run(replace(config, model=replace(config.model, auto_anchors=0.0)), run, Quiet())


def test_off_or_with_anchors_that_fit_the_file_is_used_and_none_is_written(config: RunConfig, tmp_path: Path) -> None:
    off = start_run(replace(config, model=replace(config.model, auto_anchors=0.0)), tmp_path / "off", Quiet())
    np.testing.assert_array_equal(off.task.spec.anchors_wh_px, TINY)
    shipped = replace(config.model, anchors="model_data/yolo_anchors.txt", anchor_size=416, auto_anchors=0.1)
    heard = Heard()
    start_run(replace(config, model=shipped), tmp_path / "fits", heard)
    assert not [line for line in heard.lines if "anchors" in line]
    assert not [name for name in ("off", "fits") if (tmp_path / name / "anchors.txt").exists()]


def test_a_dry_run_says_it_too_and_writes_nothing(config: RunConfig, tmp_path: Path) -> None:
    lines = try_run(config, str(tmp_path / "run"), Quiet())
    (place,) = (i for i, line in enumerate(lines) if "model.auto_anchors: the given anchors have a recall of" in line)
    # Nothing is wrong with it.
    assert place < next(i for i, line in enumerate(lines) if line.startswith("problems"))
    assert not (tmp_path / "run").exists()
