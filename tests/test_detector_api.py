from __future__ import annotations

import inspect

import numpy as np
import pytest
from PIL import Image

from tests.fake_predictor import SPEC, FakePredictor, install, picture, write_picture
from utils.errors import ConfigError, DataError, FileError
from utils.predict_arguments import predict_arguments
from utils.run_files import find_checkpoint
from yolo import Detections, Detector

BOX = [10, 20, 40, 50]


@pytest.fixture
def fake(monkeypatch):
    predictor = FakePredictor()
    predictor.asked = install(monkeypatch, predictor)
    return predictor


@pytest.fixture
def detector(fake, tmp_path):
    (tmp_path / "best").touch()
    return Detector(tmp_path / "best", score=0.25, iou=0.5, batch_size=2)


def boxes(found: Detections) -> list[float]:
    return found.boxes_xyxy[0].tolist()


def test_one_image_of_each_kind(detector, fake, tmp_path):
    write_picture(tmp_path / "a.png", picture())
    image = Image.fromarray(picture())
    kinds = [str(tmp_path / "a.png"), tmp_path / "a.png", picture(), image, image.convert("RGBA"), image.convert("P")]
    for one in kinds:
        found = detector.detect(one)
        assert isinstance(found, Detections)
        assert boxes(found) == BOX
        assert found.names == ("red thing",)
    assert set(fake.thresholds) == {(0.25, 0.5)}


def test_many_images_go_in_batches_and_come_back_in_order(detector, fake):
    many = [picture(box=(5 + n, 5, 30, 30)) for n in range(5)]
    for given in (many, tuple(many), iter(many), np.stack(many)):
        found = detector.detect(given)
        assert [boxes(one)[0] for one in found] == [5, 6, 7, 8, 9]
    assert fake.batch_sizes[:3] == [2, 2, 1]
    assert detector.detect([]) == []
    assert len(detector.detect([many[0]])) == 1


def test_it_tells_what_it_is(detector, fake):
    assert detector.class_names == SPEC.class_names
    assert detector.spec is SPEC
    assert detector.predictor is fake


def test_the_result_draws_itself(detector):
    drawn = detector.detect(picture()).draw(picture())
    assert drawn.shape == (60, 80, 3)
    assert (drawn != picture()).any()


def test_exif_of_files_and_pillow_images_is_applied_once(detector, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    for one in (tmp_path / "a.jpg", Image.open(tmp_path / "a.jpg")):
        assert boxes(detector.detect(one)) == pytest.approx([10, 10, 40, 40], abs=1.5)
    detector.ignore_exif = True
    for one in (tmp_path / "a.jpg", Image.open(tmp_path / "a.jpg")):
        assert boxes(detector.detect(one)) == pytest.approx(BOX, abs=1.5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "I;16"])
def test_any_pillow_mode_is_taken(detector, mode):
    assert len(detector.detect(Image.new(mode, (40, 30)))) == 0


def test_grey_arrays_are_taken(detector):
    assert len(detector.detect(np.zeros((30, 40), np.uint8))) == 0
    assert len(detector.detect(np.zeros((30, 40, 1), np.uint8))) == 0


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((30, 40, 3), np.float32), "uint8"),
        (np.zeros((30, 40, 4), np.uint8), "shape"),
        (np.zeros((0, 40, 3), np.uint8), "shape"),
        (np.zeros(5, np.uint8), "shape"),
        (Image.new("F", (4, 4)), "mode F"),
        (None, "NoneType"),
        (["nowhere.jpg"], "no such image"),
        ([3], "type int"),
    ],
)
def test_what_is_no_image_is_refused(detector, image, says):
    with pytest.raises(DataError, match=says):
        detector.detect(image)


def test_what_is_shown_unless_asked_otherwise():
    command, ours = predict_arguments(["a.jpg", "--weights", "best"]), inspect.signature(Detector).parameters
    assert (command.score, command.iou) == (ours["score"].default, ours["iou"].default) == (0.5, 0.3)


@pytest.mark.parametrize(("name", "value"), [("score", 1.1), ("score", float("nan")), ("iou", -0.1), ("batch_size", 0)])
def test_values_out_of_range_are_refused(fake, tmp_path, name, value):
    (tmp_path / "best").touch()
    with pytest.raises(ConfigError, match=name):
        Detector(tmp_path / "best", **{name: value})
    assert fake.asked == []


def test_a_run_directory_means_its_best_else_its_last(fake, tmp_path):
    with pytest.raises(FileError, match="best or last"):
        find_checkpoint(tmp_path)
    (tmp_path / "last").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "last"
    (tmp_path / "best").touch()
    Detector(tmp_path)
    assert fake.asked == [tmp_path / "best"]
    with pytest.raises(FileError, match="did you mean 'best'"):
        find_checkpoint(tmp_path / "bets")
