"""The plots: there for every kind of result, quiet, and safe with any name."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation_data import random_case, truth
from utils.metric_curves import THRESHOLDS, ratios, thresholds_figure
from utils.metric_plots import class_file, confusion_figure, draw_plots
from utils.metrics import Metrics, evaluate
from utils.plot_names import is_plain, shortened

NAMES = ("红细胞", "$x_1$", "a/b", "_so long a name that no plot has room for it, really")
TOGETHER = ("precision_recall.png", "thresholds.png", "average_precision.png", "miss_rate.png", "confusion.png")


def measured(classes: int = 4) -> Metrics:
    names = (*NAMES, *(f"class {i}" for i in range(4, classes)))
    return evaluate(*random_case(0, images=20, classes=classes), names)


def size_of(path: Path) -> tuple[int, int]:
    import cv2

    return cv2.imread(str(path)).shape[:2]


def test_every_plot_is_drawn_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = draw_plots(measured(), tmp_path / "plots")
    expected = {*TOGETHER, *(f"classes/{class_file(i, name, 4)}" for i, name in enumerate(NAMES))}
    assert {str(path.relative_to(tmp_path / "plots")) for path in paths} == expected
    assert set((tmp_path / "plots").rglob("*.png")) == set(paths)
    for path in paths:
        height, width = size_of(path)
        assert min(height, width) > 200


@pytest.mark.parametrize(
    "metrics",
    [
        evaluate([truth("1", (0, (0, 0, 9, 9)))], {}, ("only",)),
        evaluate([truth("1")], {}, ("only",)),
        evaluate([], {}, ("one", "two")),
    ],
    ids=["nothing found", "nothing there", "no images"],
)
def test_empty_results_are_drawn_too(tmp_path: Path, metrics: Metrics) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(path.is_file() for path in draw_plots(metrics, tmp_path))


def test_an_older_plot_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "plots" / "classes").mkdir(parents=True)
    (tmp_path / "plots" / "classes" / "9_gone.png").touch()
    draw_plots(evaluate([truth("1")], {}, ("only",)), tmp_path / "plots")
    assert not (tmp_path / "plots" / "classes" / "9_gone.png").exists()


def test_the_confusion_matrix_shows_every_count() -> None:
    metrics = measured()
    (axes,) = confusion_figure(metrics).axes
    shown = {
        (round(t.get_position()[1]), round(t.get_position()[0])): t.get_text()
        for t in axes.texts
        if t.get_text().isdigit()
    }
    assert shown == {(r, c): str(metrics.confusion[r, c]) for r, c in np.argwhere(metrics.confusion > 0).tolist()}


def test_curves_against_the_threshold_agree_with_the_metrics() -> None:
    metrics = measured()
    at = int(np.flatnonzero(np.isclose(THRESHOLDS, metrics.score_threshold))[0])
    for one in metrics.classes:
        true_positives, false_positives = one.curve.counts_at(THRESHOLDS)
        precision, recall, f1 = (values[at] for values in ratios(true_positives, false_positives, one.objects))
        point = one.at_threshold
        assert (precision, recall, f1) == pytest.approx((point.precision, point.recall, point.f1))
    assert np.isnan(ratios(np.zeros(1), np.zeros(1), 0)).all()


@pytest.mark.parametrize(("names", "named"), [(["one"], []), (["one", "two"], ["one", "two"])])
def test_curves_against_the_threshold_hide_none_behind_another(names: list[str], named: list[str]) -> None:
    metrics = evaluate(*random_case(0, images=20, classes=len(names)), names)
    figure = thresholds_figure(metrics)
    for panel in figure.axes:
        # Beside the threshold itself.
        assert len([line for line in panel.lines if len(line.get_xdata()) == len(THRESHOLDS)]) == 1 + len(named)
    assert [text.get_text() for text in figure.axes[-1].texts if text.get_text() in ("one", "two")] == named


def test_file_names_are_safe_and_distinct() -> None:
    names = ["a/b", "a\\b", "..", "A/B", "a:b", "x" * 300, "红细胞"]
    files = [class_file(i, name, 12) for i, name in enumerate(names)]
    assert len({file.lower() for file in files}) == len(names)
    for file in files:
        assert "/" not in file
        assert "\\" not in file
        assert len(file.encode()) < 255
    assert files[0] == "00_a_b.png"


def test_long_names_lose_their_middle() -> None:
    assert shortened("cat") == "cat"
    short = shortened("one two three four five six seven", 16)
    assert (short[:4], short[-4:], len(short)) == ("one ", "even", 16)
    assert len(shortened("红" * 40, 16)) <= 8


def test_scripts_matplotlib_cannot_write_are_known() -> None:
    assert is_plain("Ünïcødé Ж Ω")
    assert not any(is_plain(name) for name in ("红细胞", "고양이", "كلب", "🐈"))


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import sys, utils.metric_plots, utils.map_report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
