"""The doors end to end, as a user opens them: drawn photos in, a trained, measured and drawn detector out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT
from utils.box_matching import agreement
from utils.images import read_image
from yolo import Detector


def door(name: str, *arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Opens a door in a process of its own."""
    command = [sys.executable, str(ROOT / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == expect, f"{name}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, its lists, and a run of one frozen and one unfrozen epoch."""
    home = tmp_path_factory.mktemp("home")
    door("make_dataset.py", "--out", home / "VOCdevkit", "--images", "24", "--width", "96", "--height", "80")
    door("voc_annotation.py", "--voc", home / "VOCdevkit", "--out", home / "lists")
    lists = [f"--data.{split}={home}/lists/2007_{split}.txt" for split in ("train", "val")]
    sizes = ["--model.input_size=64", "--train.batch_size=4", "--train.freeze_batch_size=4"]
    plan = ["--train.freeze_epochs=1", "--train.epochs=2", "--train.eval_every=1"]
    done = door(
        "train.py", *lists, f"--data.classes={home}/lists/classes.txt", *sizes, *plan, "--run-dir", home / "run"
    )
    assert "phase 1 of 2" in done.stderr
    assert "phase 2 of 2" in done.stderr
    assert "mAP@0.5" in done.stdout
    return home


def test_training_leaves_a_detector_and_its_story(home: Path) -> None:
    lines = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["frozen_backbone"] for line in lines] == [True, False]
    assert all(line["map_50"] is not None for line in lines)
    for picture in ("curves.png", "first_batch.jpg", "validation.jpg"):
        assert min(cv2.imread(str(home / "run" / "plots" / picture)).shape[:2]) > 200


def test_the_trainer_and_get_map_print_the_same_number(home: Path) -> None:
    out = home / "map_val"
    door("get_map.py", "--weights", home / "run" / "best", "--voc", home / "VOCdevkit", "--set", "val", "--out", out)
    measured = json.loads((out / "metrics.json").read_text())
    lines = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: line["map_50"])
    assert measured["voc_map_50"] == best["map_50"]
    assert measured["coco_ap"] == best["coco_ap"]
    for key in ("voc_map_50_11pt", "coco_ap50", "coco_ap75"):
        assert 0 <= measured[key] <= 1


def test_get_map_from_its_own_files_gives_the_same_numbers(home: Path) -> None:
    out = home / "map_test"
    done = door("get_map.py", "--weights", home / "run" / "best", "--voc", home / "VOCdevkit", "--out", out)
    assert "mAP" in done.stdout
    door("get_map.py", "--from-files", out, "--out", home / "again")
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (out, home / "again"))
    for key in ("voc_map_50", "voc_map_50_11pt", "coco_ap", "coco_ap50", "coco_ap75"):
        assert first[key] == second[key]


def test_predict_and_the_python_api_find_the_same(home: Path) -> None:
    photos = sorted((home / "VOCdevkit" / "VOC2007" / "JPEGImages").glob("*.jpg"))[:3]
    out = home / "predictions"
    weights = ["--weights", home / "run" / "best", "--score", "0.001"]
    door("predict.py", *photos, *weights, "--out", out, "--json", home / "found.json", "--heatmap")
    entries = json.loads((home / "found.json").read_text())["images"]
    detector = Detector(home / "run" / "best", score=0.001)
    for entry, photo, found in zip(entries, photos, detector.detect(list(photos)), strict=True):
        boxes = np.array([one["box_xyxy"] for one in entry["detections"]]).reshape(-1, 4)
        np.testing.assert_allclose(boxes, found.boxes_xyxy, atol=1e-3)
        assert cv2.imread(str(out / photo.name)).shape == cv2.imread(str(photo)).shape
        assert cv2.imread(str(out / "heatmaps" / photo.name)).shape == cv2.imread(str(photo)).shape


def test_a_batch_equals_its_images_one_by_one(home: Path) -> None:
    photos = sorted((home / "VOCdevkit" / "VOC2007" / "JPEGImages").glob("*.jpg"))[:4]
    detector = Detector(home / "run" / "best", score=0.001)
    # Of boxes that score alike to the last digit either may come first.
    alone = [detector.detect(read_image(photo)) for photo in photos]
    found = agreement(zip(detector.detect(list(photos)), alone, strict=True), 0.001, within_px=1e-2, within_score=1e-4)
    assert found.matched > 0
    assert found.unmatched == 0


def test_a_finished_run_resumes_to_its_end_and_other_options_are_refused(home: Path) -> None:
    refused = door("train.py", "--resume", home / "run", "--train.epochs", "3", expect=2)
    assert "own config" in refused.stderr
    done = door("train.py", "--resume", home / "run")
    assert "2 epochs" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train.py", "--model.input_size", "100"], 2, "multiple of 32"),
        (["train.py", "--data.train", "nowhere.txt"], 2, "data.train: nowhere.txt: no such annotation list"),
        (
            ["train.py", "--data.train", ROOT / "requirements.txt"],
            2,
            "data.val: 2007_val.txt: no such annotation list: make it with voc_annotation.py, or give --data.val",
        ),
        (["train.py", "--data.train", "."], 2, "lies in data.train"),
        (["predict.py", "nowhere.jpg", "--weights", "nowhere"], 2, "nowhere"),
        (["get_map.py", "--weights", "nowhere"], 2, "--voc"),
        (["get_map.py", "--weights", "nowhere", "--voc", "VOCdevkit"], 4, "nowhere: no such checkpoint"),
        (["voc_annotation.py", "--voc", "nowhere", "--out", "x"], 2, "nowhere"),
        (["kmeans_for_anchors.py", "--list", "nowhere.txt", "--out", "x"], 2, "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    door_name, *rest = arguments
    done = subprocess.run(
        [sys.executable, str(ROOT / door_name), *rest], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert said in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("*.py") if path.name != "yolo.py"))
def test_help_teaches_and_needs_no_tensorflow(name: str) -> None:
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(ROOT / name)!r}, run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert 'tensorflow' not in sys.modules, 'tensorflow was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 400
