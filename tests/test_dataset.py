from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.dataset import DetectionDataset
from tests.drawn_data import draw_photo
from tests.specs import detector_spec
from utils.config import AugmentConfig, LossConfig
from utils.errors import ConfigError, DataError
from utils.images import read_for_detector
from utils.letterbox import place, resize_into
from utils.types import Record

SPEC = detector_spec(input_size=64, class_names=("red", "blue"))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("photos")
    return [draw_photo(folder / f"{i}.png", i, objects=i % 4) for i in range(7)]


def dataset(records, threads: int = 2, seed: int = 3) -> DetectionDataset:
    return DetectionDataset(records, SPEC, LossConfig(), AugmentConfig(), seed, threads)


def contents(batches) -> list[tuple]:
    return [(b.paths, b.images.tobytes(), *(b.targets[k].tobytes() for k in sorted(b.targets))) for b in batches]


def test_seed_epoch_and_index_decide_a_sample_whatever_the_threads(records) -> None:
    one, four = dataset(records, threads=1), dataset(records, threads=4)
    assert contents(one.training_batches(2, 3)) == contents(four.training_batches(2, 3))
    assert contents(one.training_batches(2, 3)) != contents(one.training_batches(3, 3))
    assert contents(one.training_batches(2, 3)) != contents(dataset(records, seed=4).training_batches(2, 3))


def test_any_step_can_be_made_again(records) -> None:
    data = dataset(records)
    assert contents(data.training_batches(1, 2))[1:] == contents(data.training_batches(1, 2, first_step=1))


def test_an_epoch_visits_every_sample_at_most_once_in_whole_batches(records) -> None:
    batches = list(dataset(records).training_batches(0, 3))
    paths = [path for batch in batches for path in batch.paths]
    assert [len(batch.images) for batch in batches] == [3, 3]
    assert len(set(paths)) == 6


def test_validation_visits_all_in_order_without_variation(records) -> None:
    batches = list(dataset(records).validation_batches(3))
    assert [len(batch.images) for batch in batches] == [3, 3, 1]
    assert [path for batch in batches for path in batch.paths] == [record.image_path for record in records]


def test_targets_hold_every_box_in_its_slot_and_padding_elsewhere(records) -> None:
    data = DetectionDataset(records, SPEC, LossConfig(assignment="best"))
    (batch,) = data.validation_batches(7)
    for i, record in enumerate(records):
        real = batch.targets["slots"][i] >= 0
        assert real.sum() == len(record.boxes_xyxy)
        # A photo of 96 x 72 in 64 x 64: scale 2/3, 8 grey rows above.
        expected = (record.boxes_xyxy * (2 / 3) + [0, 8, 0, 8]) / 64
        got = batch.targets["slot_boxes"][i][real]
        np.testing.assert_allclose(sorted(got.tolist()), sorted(expected.tolist()), atol=1e-6)
        assert sorted(batch.targets["slot_classes"][i][real]) == sorted(record.class_ids)
        assert (batch.targets["boxes"][i][len(record.boxes_xyxy) :] == 0).all()
    assert batch.images.dtype == np.uint8


def test_fewer_images_than_a_batch_is_an_error_naming_the_largest_that_works(records) -> None:
    with pytest.raises(ConfigError, match="largest batch that works is 7"):
        dataset(records).steps_per_epoch(8)
    assert dataset(records).steps_per_epoch(7) == 1


def test_an_image_that_vanished_is_named(records, tmp_path: Path) -> None:
    gone = draw_photo(tmp_path / "gone.png", 1)
    Path(gone.image_path).unlink()
    with pytest.raises(DataError, match=r"gone\.png"):
        list(dataset([*records, gone]).training_batches(0, 8))


def test_images_without_objects_make_a_batch(records) -> None:
    empty = [record for record in records if len(record.boxes_xyxy) == 0]
    (batch,) = DetectionDataset(empty, SPEC, LossConfig()).validation_batches(2)
    assert batch.targets["slots"].shape == (2, 0)
    assert batch.targets["boxes"].shape == (2, 0, 4)


def test_neighbour_cells_are_used_only_where_a_prediction_can_leave_its_cell(records) -> None:
    near = LossConfig(neighbour_cells=True)
    far = LossConfig(neighbour_cells=False)

    def slots(decode: str, loss: LossConfig) -> np.ndarray:
        (batch,) = DetectionDataset(records, replace(SPEC, decode=decode), loss).validation_batches(7)
        return batch.targets["slots"]

    assert (slots("bounded", near) >= 0).sum() > (slots("bounded", far) >= 0).sum()
    np.testing.assert_array_equal(slots("exp", near), slots("exp", far))


@pytest.mark.parametrize("ignore", [False, True])
def test_training_and_validation_see_a_photo_as_prediction_does(tmp_path: Path, ignore: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter for viewing
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:, :30] = 200
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    record = Record(str(tmp_path / "a.jpg"), np.array([[0.0, 0.0, 20.0, 20.0]]), np.array([0]))
    spec = replace(SPEC, ignore_exif=ignore)
    still = AugmentConfig(
        scale_min=1, scale_max=1, aspect_jitter=0, flip=0, flip_vertical=0, hue=0, saturation=0, value=0
    )
    seen = read_for_detector(tmp_path / "a.jpg", spec)
    assert seen.shape == ((40, 60, 3) if ignore else (60, 40, 3))
    wanted = resize_into(seen, place((seen.shape[0], seen.shape[1]), 64, "letterbox"), 64)
    plain, varied = (DetectionDataset([record], spec, LossConfig(), a).sample(0, 0).image for a in (None, still))
    np.testing.assert_array_equal(plain, wanted)
    # The bright half lies on the same side, wherever the photo was put in the padding.
    axis = 1 if ignore else 0
    assert [int(half.max()) > 150 for half in np.array_split(varied, 2, axis)] == [True, False]
