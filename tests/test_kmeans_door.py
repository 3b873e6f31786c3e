"""kmeans_for_anchors.py: from an annotation list to an anchors file, a table and a picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import kmeans_for_anchors as door
from tests.conftest import ROOT
from utils.anchor_fit import input_sizes, measure_fit
from utils.anchors import mean_best_iou, read_anchors, write_anchors
from utils.door import run_door
from utils.errors import DataError
from utils.records import read_annotation_list, write_annotation_list
from utils.types import Record

OLD = ROOT / "model_data" / "yolo_anchors.txt"


def _photo(path: Path, size_hw: tuple[int, int]) -> str:
    cv2.imwrite(str(path), np.full((*size_hw, 3), 90, np.uint8))
    return str(path)


def _record(path: str, *boxes: tuple[float, float, float, float]) -> Record:
    return Record(path, np.array(boxes, float).reshape(-1, 4), np.zeros(len(boxes), np.int64))


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """Two photos of 200x100 px and one without boxes; 30 different boxes."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(2):
        corner, size = rng.uniform(0, 20, (15, 2)), rng.uniform(5, 70, (15, 2))
        path = _photo(tmp_path / f"a photo {number}.png", (100, 200))
        records.append(_record(path, *np.concatenate([corner, corner + size], axis=1).tolist()))
    records.append(_record(str(tmp_path / "never opened.png")))
    write_annotation_list(tmp_path / "train.txt", records)
    return tmp_path / "train.txt"


def _run(*options: object) -> int:
    return run_door(lambda: door.main([str(option) for option in options]))


def test_sizes_are_those_of_the_input(tmp_path: Path) -> None:
    wide = _record(_photo(tmp_path / "wide.png", (100, 200)), (10, 10, 30, 20), (0, 0, 1, 0.4))
    tall = _record(_photo(tmp_path / "tall.png", (400, 100)), (0, 0, 100, 400))
    # 200x100 into 400: letterbox doubles both sides, stretch makes it 2 and 4. 100x400 into 400: 1 and 1, or 4 and 1.
    letterboxed, left_out = input_sizes([wide, tall], 400, "letterbox")
    np.testing.assert_allclose(letterboxed, [[40, 20], [100, 400]])
    assert left_out == 1
    stretched, _ = input_sizes([wide, tall], 400, "stretch")
    np.testing.assert_allclose(stretched, [[40, 40], [4 / 2, 1.6], [400, 400]])


def test_a_photo_too_thin_for_the_input_is_named(tmp_path: Path) -> None:
    thin = _record(_photo(tmp_path / "thin.png", (1, 900)), (0, 0, 5, 1))
    with pytest.raises(DataError, match=r"thin\.png: 900x1 px: too thin"):
        input_sizes([thin], 416, "letterbox")


def test_a_missing_photo_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg"):
        input_sizes([_record(str(tmp_path / "gone.jpg"), (0, 0, 5, 5))], 416, "letterbox")


def test_the_fit_worked_by_hand() -> None:
    fit = measure_fit(np.array([[10.0, 10], [20, 10], [80, 80], [40, 40]]), np.array([[10.0, 10], [20, 20], [80, 80]]))
    # Best IoU 1 (P3), 1/2 (P3, the first of two equals), 1 (P5), 1/4 (P4, the first of two equals).
    assert fit.mean_best_iou == pytest.approx(2.75 / 4)
    assert fit.recall == 0.75
    assert fit.level_shares == (0.5, 0.25, 0.25)


def test_the_door_writes_better_anchors_and_a_picture(
    listing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "new" / "anchors.txt", tmp_path / "new" / "anchors.png"
    assert _run("--list", listing, "--input-size", 416, "--anchors", OLD, "--out", out, "--plot", plot) == 0
    printed = capsys.readouterr().out
    new, old = read_anchors(out), read_anchors(OLD)
    boxes_wh, _ = input_sizes(read_annotation_list(listing), 416, "letterbox")
    assert new.shape == (9, 2)
    assert mean_best_iou(boxes_wh, new) > mean_best_iou(boxes_wh, old)
    for anchors in (old, new):
        assert f"{mean_best_iou(boxes_wh, anchors):.4f}" in printed
    assert "recall at IoU 0.5" in printed
    assert "--model.anchor_size 416" in printed
    image = cv2.imread(str(plot))
    assert image is not None
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100


def test_the_same_seed_writes_the_same_file(listing: Path, tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt"):
        assert _run("--list", listing, "--anchors", OLD, "--count", 6, "--seed", 3, "--out", tmp_path / name) == 0
    assert (tmp_path / "one.txt").read_bytes() == (tmp_path / "two.txt").read_bytes()
    assert read_anchors(tmp_path / "one.txt").shape == (6, 2)


def test_old_anchors_are_scaled_to_the_input(listing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_anchors(tmp_path / "half.txt", read_anchors(OLD) / 2)
    tables = []
    for anchors, size in ((OLD, 416), (tmp_path / "half.txt", 208)):
        options = ("--anchors", anchors, "--anchor-size", size, "--out", tmp_path / "out.txt")
        assert _run("--list", listing, *options) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--count", "8"], 2, "--count: 8: must be a multiple of 3"),
        (["--input-size", "400"], 2, "--input-size: 400: must be a multiple of 32"),
        (["--seed", "-1"], 2, "--seed: -1"),
        (["--resize", "crop"], 2, "crop"),
        (["--count", "33"], 3, "30 different box sizes: fewer than the 33 anchors"),
        (["--anchors", "nowhere.txt"], 4, "nowhere.txt: cannot be read"),
        (["--list", "nowhere.txt"], 2, "nowhere.txt"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(
    listing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    out = tmp_path / "out.txt"
    assert _run("--list", listing, "--anchors", OLD, "--out", out, *options) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_it_runs_in_any_folder_and_draws_beside_the_anchors(
    listing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("--list", listing, "--out", "mine.txt") == 0
    assert cv2.imread("mine.png") is not None
    assert _run("--list", listing, "--out", "mine.png") == 2
    assert "is --out too" in capsys.readouterr().err


def test_inputs_are_never_overwritten(listing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_anchors(tmp_path / "old.txt", read_anchors(OLD))
    before = listing.read_bytes(), (tmp_path / "old.txt").read_bytes()
    for options in (("--out", listing), ("--out", tmp_path / "old.txt"), ("--out", tmp_path / "o", "--plot", listing)):
        assert _run("--list", listing, "--anchors", tmp_path / "old.txt", *options) == 2
        assert "file; choose another name" in capsys.readouterr().err
    assert (listing.read_bytes(), (tmp_path / "old.txt").read_bytes()) == before


def test_a_list_without_boxes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_annotation_list(tmp_path / "train.txt", [_record("nothing.jpg")])
    assert _run("--list", tmp_path / "train.txt", "--anchors", OLD, "--out", tmp_path / "out.txt") == 3
    assert "no boxes" in capsys.readouterr().err


def test_the_door_needs_no_tensorflow() -> None:
    code = (
        "import sys, kmeans_for_anchors; print({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras'})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
