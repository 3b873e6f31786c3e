from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from engine.label_files import detection_text, voc_xml, yolo_text
from engine.outputs import folder_name, save_crops, save_picture
from engine.result_log import CSV_COLUMNS, ResultFiles, detection_dicts, result_log
from utils.annotations import fit_to_image, parse_annotation
from utils.errors import ConfigError, DataError
from utils.files import STDOUT
from utils.images import read_image
from utils.problems import Problems
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


def test_crops_of_an_earlier_run_do_not_stay_among_those_of_this_one(tmp_path: Path) -> None:
    save_crops(tmp_path, Path("photo"), PHOTO, FOUND)
    save_crops(tmp_path, Path("photo_1"), PHOTO, FOUND)
    (tmp_path / "細胞" / "photo_21.jpg").touch()
    only = FOUND.above(0.6)
    assert save_crops(tmp_path, Path("photo"), PHOTO, only) == 1
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    assert found == ["white cell/photo_1.jpg", "white cell/photo_1_1.jpg", "細胞/photo_1_2.jpg"]


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
    # More than WebP can hold, which OpenCV does not raise.
    with pytest.raises(DataError, match=r"a\.webp: 17000x8: cannot be written"):
        save_picture(tmp_path / "a.webp", np.zeros((8, 17_000, 3), np.uint8))


HEADER = {"score": 0.5, "class_names": ["細胞", "white cell"]}


def write_all(folder: Path, **files: Path) -> None:
    with result_log(ResultFiles(**files), HEADER) as log:
        log.add("a.jpg", (40, 60), FOUND)
        log.failed("b.jpg", "empty")
        log.add("caf\udce9.mp4", (40, 60), Detections.empty(), frame=3)
        log.add("c.jpg", (50, 70), FOUND.above(0.6))
        log.end(complete=True)


def test_the_log_is_one_document_and_one_table(tmp_path: Path) -> None:
    write_all(tmp_path, json=tmp_path / "a.json", csv=tmp_path / "a.csv")
    document = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert document["score"] == 0.5
    assert [(one["image"], len(one["detections"])) for one in document["images"]] == [
        ("a.jpg", 3),
        ("caf\udce9.mp4", 0),
        ("c.jpg", 1),
    ]
    assert document["images"][1]["frame"] == 3
    assert (document["failed"], document["complete"]) == ([{"image": "b.jpg", "error": "empty"}], True)
    rows = list(csv.reader((tmp_path / "a.csv").read_text("utf-8").splitlines()))
    assert rows[0] == list(CSV_COLUMNS)
    assert len(rows) == 1 + len(FOUND) + 1
    assert rows[1] == ["a.jpg", "", "1", "white cell", "0.875", "1.5", "2.0", "11.0", "12.25"]


def test_pycocotools_reads_the_coco_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    write_all(tmp_path, coco=tmp_path / "coco.json")
    whole = COCO(str(tmp_path / "coco.json"))
    results = whole.loadRes(whole.dataset["annotations"])
    assert [(image["file_name"], image["width"], image["height"]) for image in whole.loadImgs(whole.getImgIds())] == [
        ("a.jpg", 60, 40),
        ("caf\udce9.mp4", 60, 40),
        ("c.jpg", 70, 50),
    ]
    assert [one["name"] for one in whole.loadCats(whole.getCatIds())] == HEADER["class_names"]
    found = results.loadAnns(results.getAnnIds(imgIds=[1]))
    assert [whole.cats[one["category_id"]]["name"] for one in found] == list(FOUND.names)
    boxes = np.array([one["bbox"] for one in found])
    np.testing.assert_array_equal(np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]), FOUND.boxes_xyxy)
    assert [one["score"] for one in found] == FOUND.scores.tolist()
    assert [len(results.getAnnIds(imgIds=[number])) for number in (2, 3)] == [0, 1]
    assert whole.dataset["info"] == {"score": 0.5, "complete": True}


def test_json_lines_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    with result_log(ResultFiles(jsonl=path), HEADER) as log:
        log.add("a.jpg", (40, 60), FOUND, output="out/a.jpg")
        first = json.loads(path.read_text("ascii"))
        log.failed("caf\udce9.jpg", "empty")
        assert path.read_text("ascii").endswith("\n")
        second = json.loads(path.read_text("ascii").splitlines()[1])
    assert (first["image"], first["output"], first["width"], first["height"]) == ("a.jpg", "out/a.jpg", 60, 40)
    assert first["detections"] == detection_dicts(FOUND)
    assert second == {"image": "caf\udce9.jpg", "error": "empty"}


def test_json_lines_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(tmp_path, jsonl=STDOUT)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == ["a.jpg", "b.jpg", "caf\udce9.mp4", "c.jpg"]


@pytest.mark.parametrize("form", ["json", "csv", "coco"])
def test_on_stdout_there_are_the_bytes_of_the_file_once_all_is_done(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A terminal that knows no Chinese.
    stdout = io.TextIOWrapper(io.BytesIO(), "ascii", errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", stdout)
    write_all(tmp_path, **{form: tmp_path / "file"})
    assert stdout.buffer.getvalue() == b""
    write_all(tmp_path, **{form: STDOUT})
    assert stdout.buffer.getvalue() == (tmp_path / "file").read_bytes() != b""

    def fail() -> None:
        with result_log(ResultFiles(**{form: STDOUT}), HEADER) as log:
            log.add("a.jpg", (40, 60), FOUND)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert stdout.buffer.getvalue() == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("form", ["json", "csv", "coco"])
def test_a_reader_of_stdout_that_stops_early_leaves_the_files_alone(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.BytesIO):
        def write(self, _: Any) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=Gone(), flush=lambda: None))
    others = {other: tmp_path / other for other in ("json", "csv", "coco") if other != form}
    with pytest.raises(BrokenPipeError):
        write_all(tmp_path, **{form: STDOUT}, **others)
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_only_one_form_goes_to_stdout() -> None:
    with pytest.raises(ConfigError, match="--csv, --jsonl: -: only one of them can go to stdout"):
        ResultFiles(json=Path("a.json"), csv=STDOUT, jsonl=STDOUT)


def test_two_forms_do_not_share_a_file() -> None:
    with pytest.raises(ConfigError, match=r"--json, --coco: x/\.\./a\.json: is one file"):
        ResultFiles(json=Path("a.json"), csv=Path("a.csv"), coco=Path("x/../a.json"))


def test_a_log_of_failed_work_does_not_appear(tmp_path: Path) -> None:
    def fail() -> None:
        with result_log(ResultFiles(*(tmp_path / f"a.{suffix}" for suffix in ("json", "csv", "coco"))), HEADER):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert list(tmp_path.iterdir()) == []


def test_voc_xml_gives_our_parser_and_any_other_the_same_boxes(tmp_path: Path) -> None:
    inside = Detections(
        np.array([[1.1, 2, 11.7, 12.25], [50, 30, 60, 40]], np.float32),
        np.array([0.875, 0.5], np.float32),
        np.array([1, 0]),
        ("white <cell> & more", "細胞"),
    )
    path = tmp_path / "a.b.xml"
    path.write_bytes(voc_xml(inside, "a.b.jpg", (40, 60)))
    annotation = fit_to_image(parse_annotation(path), (40, 60))  # raises where anything is not as it should be
    assert [item.name for item in annotation.objects] == list(inside.names)
    boxes = np.array([item.box_xyxy for item in annotation.objects])
    np.testing.assert_array_equal(boxes.astype(np.float32), inside.boxes_xyxy)
    root = ElementTree.parse(path).getroot()
    assert (root.findtext("filename"), root.findtext("size/width"), root.findtext("size/depth")) == (
        "a.b.jpg",
        "60",
        "3",
    )
    assert [box.text for box in root.find("object/bndbox")] == ["1.1", "2", "11.7", "12.25"]  # type: ignore[union-attr]
    assert [flag.text for flag in root.iter("truncated")] == ["0", "1"]  # the second touches the right border
    # What LabelImg does with a box.
    corners = [root.findall("object")[1].findtext(f"bndbox/{name}", "") for name in ("xmin", "ymin", "xmax", "ymax")]
    assert [int(float(corner)) for corner in corners] == [50, 30, 60, 40]


def test_voc_xml_of_an_image_without_objects_is_a_negative(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(voc_xml(Detections.empty(), "caf\udce9\x01.jpg", (40, 60)))
    annotation = parse_annotation(path, Problems())
    assert (annotation.objects, annotation.size_hw) == ((), (40, 60))


def test_yolo_text_is_read_by_numpy(tmp_path: Path) -> None:
    rows = np.loadtxt(yolo_text(FOUND, (40, 60)).splitlines())
    assert rows[0] == pytest.approx([1, 6.25 / 60, 7.125 / 40, 9.5 / 60, 10.25 / 40, 0.875], abs=1e-6)
    centre, size = rows[:, 1:3] * (60, 40), rows[:, 3:5] * (60, 40)
    np.testing.assert_allclose(np.hstack([centre - size / 2, centre + size / 2]), FOUND.boxes_xyxy, atol=1e-4)
    assert yolo_text(Detections.empty(), (40, 60)) == ""
