from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from engine.outputs import (
    CSV_COLUMNS,
    detection_dicts,
    detection_text,
    folder_name,
    result_log,
    save_crops,
    save_picture,
)
from utils.errors import DataError
from utils.images import read_image
from utils.types import Detections

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
FOUND = Detections(
    np.array([[1.5, 2, 11, 12.25], [50, 30, 80, 90], [70, 0, 75, 5]], np.float32),
    np.array([0.875, 0.5, 0.25], np.float32),
    np.array([1, 0, 0]),
    ("white cell", "細胞", "細胞"),
)


def test_text_and_dicts_hold_full_precision() -> None:
    first = detection_text(FOUND).splitlines()[0]
    assert first == "white cell 0.875 1.5 2.0 11.0 12.25"
    assert detection_dicts(FOUND)[0] == {
        "name": "white cell", "class_id": 1, "score": 0.875, "box_xyxy": [1.5, 2.0, 11.0, 12.25]
    }  # fmt: skip
    assert detection_text(Detections.empty()) == ""
    assert detection_dicts(Detections.empty()) == []


def test_crops_are_what_lies_in_the_box_and_in_the_image(tmp_path: Path) -> None:
    assert save_crops(tmp_path, Path("sub/photo"), PHOTO, FOUND) == 2
    assert read_image(tmp_path / "white cell" / "sub" / "photo_1.jpg").shape == (11, 10, 3)
    assert read_image(tmp_path / "細胞" / "sub" / "photo_2.jpg").shape == (10, 10, 3)


@pytest.mark.parametrize(
    ("name", "folder"), [("a/b", "a_b"), ("..", "_"), (" x. ", "x"), ("細胞", "細胞"), ("a\nb", "a_b"), ("", "_")]
)
def test_class_names_become_one_folder(name: str, folder: str) -> None:
    assert folder_name(name) == folder


def test_pictures_without_loss_come_back_and_impossible_ones_are_named(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", PHOTO)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PHOTO)
    with pytest.raises(DataError, match=r"a\.xyz: 60x40: cannot be written"):
        save_picture(tmp_path / "a.xyz", PHOTO)


def test_the_log_is_one_document_and_one_table(tmp_path: Path) -> None:
    with result_log(tmp_path / "a.json", tmp_path / "a.csv") as log:
        log.start({"score": 0.5})
        log.add("a.jpg", (40, 60), FOUND)
        log.add("caf\udce9.mp4", (40, 60), Detections.empty(), frame=3)
        log.end([("b.jpg", "empty")], complete=True)
    document = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert document["score"] == 0.5
    assert [(one["image"], len(one["detections"])) for one in document["images"]] == [
        ("a.jpg", 3),
        ("caf\udce9.mp4", 0),
    ]
    assert document["images"][1]["frame"] == 3
    assert (document["failed"], document["complete"]) == ([{"image": "b.jpg", "error": "empty"}], True)
    rows = list(csv.reader((tmp_path / "a.csv").read_text("utf-8").splitlines()))
    assert rows[0] == list(CSV_COLUMNS)
    assert len(rows) == 1 + len(FOUND)
    assert rows[1] == ["a.jpg", "", "1", "white cell", "0.875", "1.5", "2.0", "11.0", "12.25"]


def test_a_log_of_failed_work_does_not_appear(tmp_path: Path) -> None:
    def fail() -> None:
        with result_log(tmp_path / "a.json", None) as log:
            log.start({})
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert list(tmp_path.iterdir()) == []
