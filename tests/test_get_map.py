"""The evaluator that runs a detector, and the door in front of it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import get_map
from engine import evaluation, waiting
from engine.evaluation import (
    BatchPredictor,
    decoded_ahead,
    evaluate_records,
    ground_truths_for,
    image_ids,
    samples_of_list,
)
from engine.interrupts import StoppedError
from tests.conftest import ROOT
from tests.evaluation_data import class_names, found, random_case, truth
from utils.config import DetectorSpec
from utils.door import run_door
from utils.errors import DataError
from utils.map_files import write_map_files
from utils.metrics import evaluate
from utils.progress import Quiet
from utils.records import write_annotation_list
from utils.types import Detections, ImageArray, Record
from utils.voc import load_ground_truth

NAMES = ("cat", "dog")
A, B = (10.0, 10.0, 29.0, 29.0), (40.0, 5.0, 59.0, 34.0)


class BrightnessPredictor:
    """Finds in an image of brightness n what was written down for n. Notes the batches it was given."""

    def __init__(self, answers: dict[int, Detections]) -> None:
        self.spec = DetectorSpec(NAMES, "none", 64, ())
        self.answers = answers
        self.batches: list[int] = []
        self.settings: set[tuple[float, float]] = set()

    def predict_batch(self, images: Sequence[ImageArray], score: float, iou: float) -> list[Detections]:
        self.batches.append(len(images))
        self.settings.add((score, iou))
        return [self.answers[int(image[0, 0, 0])] for image in images]


def photo(path: Path, brightness: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((48, 64, 3), brightness, np.uint8))
    return path


def test_evaluation_is_evaluate_over_the_predictions(tmp_path: Path) -> None:
    truths, detections = random_case(1, images=7, classes=2)
    samples = [(photo(tmp_path / f"{i}.png", i), one) for i, one in enumerate(truths)]
    predictor: BatchPredictor = BrightnessPredictor({i: detections[t.image_id] for i, t in enumerate(truths)})
    metrics, back = evaluate_records(predictor, samples, batch_size=3, score_threshold=0.25)
    assert metrics.to_dict() == evaluate(truths, detections, NAMES, 0.25).to_dict()
    assert back == detections
    assert predictor.batches == [3, 3, 1]
    assert predictor.settings == {(0.001, 0.5)}


@pytest.mark.parametrize("ignore", [False, True])
def test_photos_are_turned_as_the_detector_learned_them(tmp_path: Path, ignore: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png", exif=exif)
    predictor = BrightnessPredictor({0: found()})
    predictor.spec = replace(predictor.spec, ignore_exif=ignore)
    shapes: list[tuple[int, ...]] = []

    def look(images: Sequence[ImageArray], **_: float) -> list[Detections]:
        shapes.extend(image.shape for image in images)
        return [found()]

    predictor.predict_batch = look  # type: ignore[method-assign]
    evaluate_records(predictor, [(tmp_path / "a.png", truth("a"))])
    assert shapes == [(48, 64, 3) if ignore else (64, 48, 3)]


def test_an_unreadable_image_stops_everything(tmp_path: Path) -> None:
    samples = [(photo(tmp_path / "0.png", 0), truth("0")), (tmp_path / "gone.png", truth("1"))]
    with pytest.raises(DataError, match=r"gone\.png"):
        evaluate_records(BrightnessPredictor({0: found()}), samples, batch_size=1)
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())


def test_whatever_ends_a_decoding_thread_names_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, *_: object) -> ImageArray:
        raise RuntimeError("the decoder died")

    monkeypatch.setattr(evaluation, "read_for_detector", broken)
    samples = [(photo(tmp_path / "0.png", 0), truth("0"))]
    with pytest.raises(DataError, match=r"0\.png: RuntimeError: the decoder died"):
        evaluate_records(BrightnessPredictor({0: found()}), samples)


def test_a_disk_that_hangs_while_measuring_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "STALLED_S", 0.5)
    told, read, lines = threading.Event(), evaluation.read_for_detector, []

    class Listening(Quiet):
        def warn(self, text: str) -> None:
            lines.append(text)
            told.set()

    def slow(path: Path, spec: DetectorSpec) -> ImageArray:
        told.wait(20)
        return read(path, spec)

    monkeypatch.setattr(evaluation, "read_for_detector", slow)
    samples = [(photo(tmp_path / "0.png", 0), truth("0"))]
    evaluate_records(BrightnessPredictor({0: found()}), samples, reporter=Listening())
    assert re.search(r"still waiting for \S+0\.png", lines[0])


def test_who_stops_does_not_wait_for_a_disk_that_hangs() -> None:
    answer = threading.Event()

    def stop(*_: object) -> None:
        raise StoppedError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(StoppedError):
            list(decoded_ahead([Path("a")], lambda path: answer.wait(60), ahead=1))
        assert not answer.is_set()
        assert any(thread.name.startswith("decode") for thread in threading.enumerate())
    finally:
        signal.signal(signal.SIGALRM, before)
        answer.set()


def test_decoding_stays_a_bounded_step_ahead() -> None:
    started: list[Path] = []

    def decode(path: Path) -> ImageArray:
        started.append(path)
        return np.full((1, 1, 3), int(path.name), np.uint8)

    images = decoded_ahead([Path(str(i)) for i in range(50)], decode, ahead=4)
    first = next(images)
    time.sleep(0.05)
    # 4 at the start and one for the image that was taken
    assert len(started) <= 5
    assert [int(image[0, 0, 0]) for image in (first, *images)] == list(range(50))


def voc_image(root: Path, stem: str, objects: str) -> Path:
    path = photo(root / "VOC2007" / "JPEGImages" / f"{stem}.png", 7)
    xml = root / "VOC2007" / "Annotations" / f"{stem}.xml"
    xml.parent.mkdir(exist_ok=True)
    size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
    xml.write_text(f"<annotation><filename>{path.name}</filename>{size}{objects}</annotation>")
    return path


def xml_object(name: str, box: Sequence[float], difficult: int = 0) -> str:
    corners = "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def record(path: Path, *objects: tuple[int, Sequence[float]]) -> Record:
    boxes = np.array([box for _, box in objects], np.float64).reshape(-1, 4)
    return Record(str(path), boxes, np.array([class_id for class_id, _ in objects], np.int64))


def test_difficult_objects_come_from_the_xml_and_count_once(tmp_path: Path) -> None:
    path = voc_image(tmp_path, "1", xml_object("cat", A) + xml_object("dog", B, 1))
    for listed in (record(path, (0, A)), record(path, (0, A), (1, B))):
        ((image, one),) = ground_truths_for([listed], NAMES)
        assert (image, one.image_id) == (path, "1")
        assert one.boxes_xyxy.tolist() == [list(A), list(B)]
        assert one.class_ids.tolist() == [0, 1]
        assert one.difficult.tolist() == [False, True]


@pytest.mark.parametrize("other", [A, (20, 10, 60, 40)])
@pytest.mark.parametrize("difficult_first", [True, False])
def test_a_list_holds_what_the_voc_folder_holds(tmp_path: Path, other: Sequence[float], difficult_first: bool) -> None:
    """Objects in one order and each as often as it is written, or ties of overlap are decided otherwise."""
    flags = (1, 0, 0) if difficult_first else (0, 1, 0)
    objects = [xml_object("cat", box, flag) for box, flag in zip((A, other, A), flags, strict=True)]
    path = voc_image(tmp_path, "1", "".join(objects))
    sets = tmp_path / "VOC2007" / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "test.txt").write_text("1\n")
    ((_, whole),) = load_ground_truth(tmp_path, "2007", "test", NAMES)
    listed = [(0, box) for box, flag in zip((A, other, A), flags, strict=True) if not flag]
    ((_, one),) = ground_truths_for([record(path, *listed)], NAMES)
    assert one.boxes_xyxy.tolist() == whole.boxes_xyxy.tolist()
    assert one.difficult.tolist() == whole.difficult.tolist() == [bool(flag) for flag in flags]


def test_a_list_of_other_classes_is_refused(tmp_path: Path) -> None:
    write_annotation_list(tmp_path / "list.txt", [record(voc_image(tmp_path, "1", xml_object("cat", A)), (0, A))])
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(DataError, match=r"class id 0: is 'dog' .* --classes and the classes\.txt of the run"):
        samples_of_list(tmp_path / "list.txt", ("cat", "dog"))


def test_what_a_list_alone_holds_comes_last(tmp_path: Path) -> None:
    path = voc_image(tmp_path, "1", xml_object("cat", A) + xml_object("dog", B, 1))
    ((_, one),) = ground_truths_for([record(path, (1, A), (0, A), (0, B))], NAMES)
    assert one.boxes_xyxy.tolist() == [list(A), list(B), list(A), list(B)]
    assert one.class_ids.tolist() == [0, 1, 1, 0]
    assert one.difficult.tolist() == [False, True, False, False]


def test_objects_left_out_of_the_list_for_a_defect_stay_out(tmp_path: Path) -> None:
    path = voc_image(tmp_path, "1", xml_object("cat", A) + xml_object("cat", (5, 5, 5, 5)))
    ((_, one),) = ground_truths_for([record(path, (0, A))], NAMES)
    assert one.boxes_xyxy.tolist() == [list(A)]


def test_without_an_xml_the_line_of_the_list_counts(tmp_path: Path) -> None:
    path = photo(tmp_path / "photos" / "a.b.png", 0)
    ((_, one),) = ground_truths_for([record(path, (1, B))], NAMES)
    assert (one.image_id, one.class_ids.tolist(), one.difficult.tolist()) == ("a.b", [1], [False])


def test_image_ids_are_as_short_as_they_can_be() -> None:
    assert image_ids(["x/a.b.jpg", "x/a.c.jpg"]) == ["a.b", "a.c"]
    assert image_ids(["x/a.jpg", "x/a.png"]) == ["a.jpg", "a.png"]
    assert image_ids(["x/a.jpg", "y/a.jpg"]) == ["x%2Fa.jpg", "y%2Fa.jpg"]
    far = [f"data/{'x' * 200}/{part}/JPEGImages/{name}.jpg" for part in ("one", "two") for name in ("a", "b")]
    assert image_ids(far)[0] == "one%2FJPEGImages%2Fa.jpg"
    long = [f"{'細' * 80}/{part}/{'胞' * 60}/a.jpg" for part in "xy"]
    assert len(set(image_ids(long))) == 2
    assert all(len(f"{one}.txt".encode()) < 256 for one in image_ids(long))
    with pytest.raises(DataError, match="listed twice"):
        image_ids(["x/a.jpg", "x/a.jpg"])


# The door.


@pytest.fixture
def map_out(tmp_path: Path) -> Path:
    write_map_files(tmp_path / "map", *random_case(2, images=15), class_names(4))
    return tmp_path / "map"


def test_from_files_gives_the_numbers_of_memory(map_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = map_out.parent / "again"
    get_map.main(["--from-files", str(map_out), "--out", str(out), "--score", "0.3"])
    expected = evaluate(*random_case(2, images=15), class_names(4), 0.3).to_dict()
    assert json.loads((out / "metrics.json").read_text()) == expected
    shown = capsys.readouterr().out
    for words in ("VOC mAP@0.5, all-point", "VOC mAP@0.5, 11-point", "COCO AP75", "at score >= 0.3", *class_names(4)):
        assert words in shown
    assert f"{expected['voc_map_50']:.4f}" in shown
    for folder in ("ground-truth", "detection-results"):
        for path in (map_out / folder).iterdir():
            assert (out / folder / path.name).read_bytes() == path.read_bytes()
    assert (out / "plots" / "confusion.png").is_file()


def test_a_class_list_replaces_the_names_met(map_out: Path) -> None:
    (map_out.parent / "names.txt").write_text("\n".join((*class_names(4), "never")))
    command = ["--from-files", str(map_out), "--classes", str(map_out.parent / "names.txt"), "--no-plots"]
    get_map.main(command)
    values = json.loads((map_out.parent / "map_metrics" / "metrics.json").read_text())
    assert list(values["per_class"]) == [*class_names(4), "never"]
    assert not (map_out.parent / "map_metrics" / "plots").exists()


def code_and_message(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = run_door(lambda: get_map.main(arguments))
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--score", "1.5"], "--score: 1.5: must be a number in 0..1"),
        (["--score", "nan"], "--score"),
        (["--batch", "0"], "--batch"),
        (["--sort"], "unrecognized"),
        ([], "--weights"),
        (["--weights", "x"], "--voc or --list"),
        (["--weights", "x", "--from-files", "y"], "alone"),
        (["--weights", "x", "--voc", "y", "--classes", "z"], "--classes"),
        (["--weights", "x", "--list", "y", "--set", "test"], "--set: only for --voc"),
        (["--from-files", "y", "--year", "2012"], "--year, --set: only for --voc"),
        (["--from-files", "/nowhere/at/all"], "no such folder"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    code, message = code_and_message(capsys, *arguments)
    assert code == 2
    assert words in message
    assert message.count("\n") == 1


def test_bad_files_are_exit_3(map_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next((map_out / "detection-results").iterdir()).write_text("class 0-0 0.5 1 2 x 4\n")
    code, message = code_and_message(capsys, "--from-files", str(map_out))
    assert (code, message.count("\n")) == (3, 1)
    assert "line 1: 'x'" in message
    assert not (map_out.parent / "map_metrics").exists()


def test_the_output_may_not_be_an_input(map_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out in (map_out, map_out / ".." / "map"):
        assert code_and_message(capsys, "--from-files", str(map_out), "--out", str(out))[0] == 2
    (map_out / "VOC2007" / "JPEGImages").mkdir(parents=True)
    for out in (map_out, map_out / "VOC2007", map_out / "VOC2007" / "JPEGImages"):
        code, message = code_and_message(capsys, "--weights", "x", "--voc", str(map_out), "--out", str(out))
        assert code == 2
        assert "--out" in message


def test_folders_of_somebody_else_are_not_replaced(map_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = map_out.parent / "theirs" / "ground-truth"
    theirs.mkdir(parents=True)
    (theirs / "precious.txt").write_text("by hand")
    code, message = code_and_message(capsys, "--from-files", str(map_out), "--out", str(theirs.parent))
    assert code == 2
    assert "ground-truth" in message
    assert (theirs / "precious.txt").read_text() == "by hand"


def test_a_class_list_is_not_written_over(map_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = map_out.parent / "lists"
    lists.mkdir()
    (lists / "2007_test.txt").touch()
    for words in (["--weights", "x", "--list", str(lists / "2007_test.txt")], ["--from-files", str(map_out)]):
        for name in ("classes.txt", "mine.txt"):
            (lists / name).write_text("theirs\n")
            own = ["--classes", str(lists / name)] if "--from-files" in words else []
            code, message = code_and_message(capsys, *words, *own, "--out", str(lists))
            assert (code, message.count("--out")) == (2, 1)
            assert (lists / name).read_text() == "theirs\n"
            (lists / name).unlink()


def test_no_objects_at_all_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_map_files(tmp_path / "map", [truth("1")], {"1": found((0, 0.9, A))}, ("cat",))
    get_map.main(["--from-files", str(tmp_path / "map"), "--no-plots"])
    assert "no mAP" in capsys.readouterr().err
    assert json.loads((tmp_path / "map_metrics" / "metrics.json").read_text())["voc_map_50"] is None


def test_from_files_loads_no_tensorflow(map_out: Path) -> None:
    arguments = ["--from-files", str(map_out), "--no-plots"]
    command = f"import sys, get_map; get_map.main({arguments}); sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
