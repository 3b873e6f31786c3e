from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes

from utils.training_plots import TRAIN_COLOUR, plot_curves

PARTS = ("box", "objectness", "class")
MEASURES = {"map_50": "mAP@0.5", "coco_ap": "COCO AP"}


def history(epochs: int, **more: object) -> list[dict]:
    parts = {f"{split}_{part}": 1.0 for split in ("train", "val") for part in ("loss", *PARTS)}
    common = {**parts, "learning_rate": 0.01, "images_per_second": 5.0, "frozen_backbone": False, **more}
    return [{"epoch": epoch, **common} for epoch in range(epochs)]


def has_colour(picture: np.ndarray, colour: str) -> bool:
    blue_green_red = [int(colour[i : i + 2], 16) for i in (5, 3, 1)]
    return bool((picture == blue_green_red).all(axis=2).any())


@pytest.mark.parametrize(
    "entries",
    [
        history(1),
        history(60, map_50=0.5, coco_ap=0.2),
        history(2, map_50=None, coco_ap=None),
        history(2, map_50=0.0, coco_ap=None),
        history(2, val_loss=float("nan")),
        history(2, frozen_backbone=True) + history(2),
    ],
    ids=["one epoch", "measured", "nothing to measure", "no COCO", "not a number", "two phases"],
)
def test_curves_are_drawn(tmp_path: Path, entries: list[dict]) -> None:
    plot_curves(entries, tmp_path / "plots" / "curves.png", PARTS, MEASURES)
    picture = cv2.imread(str(tmp_path / "plots" / "curves.png"))
    assert picture is not None
    assert has_colour(picture, TRAIN_COLOUR)


def test_a_line_stands_wherever_the_backbone_freezes_or_thaws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: set[float] = set()
    monkeypatch.setattr(Axes, "axvline", lambda self, x, **_: lines.add(x))
    entries = history(10)
    for entry in entries[2:4]:
        entry["frozen_backbone"] = True
    # Of a file from which lines were lost.
    plot_curves(entries[1:], tmp_path / "curves.png", PARTS, MEASURES)
    assert lines == {2.5, 4.5}


def test_a_measure_that_is_never_taken_gets_no_panel(tmp_path: Path) -> None:
    shapes = []
    for measures in ({"top_1": "top-1"}, {"top_1": "top-1", "top_5": "top-5", "top_9": "top-9"}):
        plot_curves(history(2, top_1=0.5, top_5=None), tmp_path / "curves.png", PARTS, measures)
        shapes.append(cv2.imread(str(tmp_path / "curves.png")).shape)
    assert shapes[0] == shapes[1]
