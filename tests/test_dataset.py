from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from engine.dataset import DetectionDataset, Shard
from engine.photo_detector import PhotoDetector
from tests.drawn_data import draw_photo
from tests.specs import detector_spec
from utils.errors import ConfigError, DataError
from utils.images import read_for_detector, read_image
from utils.letterbox import place, resize_into
from utils.postprocess import Found
from utils.recipe_config import AugmentConfig, LossConfig
from utils.targets import assign
from utils.types import FloatArray, ImageArray, Record

SPEC = detector_spec(input_size=64, class_names=("red", "blue"))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("photos")
    return [draw_photo(folder / f"{i}.png", i, objects=i % 4) for i in range(7)]


MIXED = AugmentConfig(mosaic=0.7, mixup=0.5)


def dataset(records, threads: int = 2, seed: int = 3, augment: AugmentConfig | None = None) -> DetectionDataset:
    return DetectionDataset(records, SPEC, LossConfig(), augment or AugmentConfig(), seed, threads)


def contents(batches) -> list[tuple]:
    return [(b.paths, b.images.tobytes(), *(b.targets[k].tobytes() for k in sorted(b.targets))) for b in batches]


@pytest.mark.parametrize("augment", [AugmentConfig(), MIXED])
def test_seed_epoch_and_index_decide_a_sample_whatever_the_threads(records, augment: AugmentConfig) -> None:
    one, four = (dataset(records, threads, augment=augment) for threads in (1, 4))
    assert contents(one.training_batches(2, 3)) == contents(four.training_batches(2, 3))
    assert contents(one.training_batches(2, 3)) != contents(one.training_batches(3, 3))
    assert contents(one.training_batches(2, 3)) != contents(
        dataset(records, seed=4, augment=augment).training_batches(2, 3)
    )


@pytest.mark.parametrize("augment", [AugmentConfig(), MIXED])
def test_any_step_can_be_made_again(records, augment: AugmentConfig) -> None:
    data = dataset(records, augment=augment)
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


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2)])
def test_the_shards_of_each_part_of_a_batch_are_that_part(records, count: int, parts: int) -> None:
    data = dataset(records)
    batches = [data.training_batches(1, 4, 0, Shard(i, count), parts) for i in range(count)]
    for whole, *shards in zip(data.training_batches(1, 4), *batches, strict=True):
        paths = np.array([np.split(np.array(shard.paths), parts) for shard in shards])
        assert tuple(paths.transpose(1, 0, 2).ravel().tolist()) == whole.paths
        images = np.stack([np.split(shard.images, parts) for shard in shards]).swapaxes(0, 1)
        np.testing.assert_array_equal(images.reshape(whole.images.shape), whole.images)
        assert sum(shard.dropped for shard in shards) == whole.dropped


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_validate_every_batch_once(records, count: int) -> None:
    data = dataset(records)
    shards = [contents(data.validation_batches(3, Shard(i, count))) for i in range(count)]
    whole = contents(data.validation_batches(3))
    assert [shards[i % count][i // count] for i in range(len(whole))] == whole
    assert sum(map(len, shards)) == len(whole)


def test_a_shard_reads_its_own_photos_alone(records, tmp_path: Path) -> None:
    order = dataset(records).order(1)[:4].tolist()
    gone = [replace(record, image_path=str(tmp_path / "gone.png")) for record in records]
    mixed = [record if i in order[:2] else gone[i] for i, record in enumerate(records)]
    (batch,) = dataset(mixed).training_batches(1, 4, 0, Shard(0, 2))
    assert batch.paths == tuple(records[i].image_path for i in order[:2])
    with pytest.raises(DataError):
        list(dataset(mixed).training_batches(1, 4, 0, Shard(1, 2)))


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


@pytest.mark.parametrize(
    ("accumulate", "devices", "advice"),
    [
        (2, 1, "works is 3"),
        (1, 2, "works is 6"),
        (1, 4, "works is 4"),
        (2, 3, "works is 3"),
        (8, 1, "lower train.accumulate"),
    ],
)
def test_the_largest_batch_is_one_that_works(records, accumulate: int, devices: int, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        dataset(records).steps_per_epoch(8, accumulate, devices)


def test_an_image_that_vanished_is_named(records, tmp_path: Path) -> None:
    gone = draw_photo(tmp_path / "gone.png", 1)
    Path(gone.image_path).unlink()
    with pytest.raises(DataError, match=r"gone\.png"):
        list(dataset([*records, gone]).training_batches(0, 8))


def test_what_ends_a_thread_is_named_with_its_file(records, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str, **_: object) -> None:
        raise RuntimeError("no decoder left")

    monkeypatch.setattr("engine.dataset.read_image", broken)
    with pytest.raises(DataError, match=r"0\.png: RuntimeError: no decoder left"):
        list(dataset(records[:1]).validation_batches(1))


def test_of_several_photos_in_a_sample_the_one_that_ends_the_thread_is_named(
    records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: str, **options: Any) -> np.ndarray:
        if path == records[1].image_path:
            raise RuntimeError("no decoder left")
        return read_image(path, **options)

    monkeypatch.setattr("engine.dataset.read_image", read)
    mixed = DetectionDataset(records[:2], SPEC, LossConfig(), AugmentConfig(mosaic=1.0), seed=3)
    with pytest.raises(DataError, match=rf"{re.escape(records[1].image_path)}: RuntimeError: no decoder left"):
        list(mixed.training_batches(0, 2))


def test_memory_that_runs_out_in_a_thread_is_no_fault_of_the_image(records, monkeypatch: pytest.MonkeyPatch) -> None:
    def enlarged(path: str, **_: object) -> np.ndarray:
        # More than a process can address: OpenCV has an error of its own for that.
        return cv2.resize(np.zeros((4, 4, 3), np.uint8), (1 << 23, 1 << 23))

    monkeypatch.setattr("engine.dataset.read_image", enlarged)
    with pytest.raises(MemoryError, match="Insufficient memory"):
        list(dataset(records[:1]).validation_batches(1))


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


@pytest.mark.parametrize("rule", ["letterbox", "stretch"])
@pytest.mark.parametrize("ignore", [False, True])
def test_training_and_validation_see_a_photo_as_prediction_does(tmp_path: Path, ignore: bool, rule: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter for viewing
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:, :30] = 200
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    record = Record(str(tmp_path / "a.jpg"), np.array([[0.0, 0.0, 20.0, 20.0]]), np.array([0]))
    spec = replace(SPEC, ignore_exif=ignore, resize=rule)
    still = AugmentConfig(
        scale_min=1, scale_max=1, aspect_jitter=0, flip=0, flip_vertical=0, hue=0, saturation=0, value=0
    )
    seen = read_for_detector(tmp_path / "a.jpg", spec)
    assert seen.shape == ((40, 60, 3) if ignore else (60, 40, 3))
    wanted = resize_into(seen, place((seen.shape[0], seen.shape[1]), 64, rule), 64)
    np.testing.assert_array_equal(OneBox(spec).ready(seen).square, wanted)
    assert (wanted == 128).all(axis=2).any() == (rule == "letterbox")
    plain, varied = (DetectionDataset([record], spec, LossConfig(), a).sample(0, 0).image for a in (None, still))
    np.testing.assert_array_equal(plain, wanted)
    # The bright half lies on the same side, wherever the photo was put in the padding.
    axis = 1 if ignore else 0
    assert [int(half.max()) > 150 for half in np.array_split(varied, 2, axis)] == [True, False]


class OneBox(PhotoDetector):
    """Finds the square's lower right quarter."""

    def objectness(self, inputs: ImageArray) -> list[FloatArray]:
        return []

    def find(self, inputs: ImageArray, score: float, iou: float) -> list[Found]:
        return [Found(np.array([[0.5, 0.5, 1, 1]]), np.array([0.9]), np.array([0])) for _ in inputs]


@pytest.mark.parametrize(
    ("rule", "size_hw", "box"),
    [
        ("stretch", (40, 80), [40, 20, 80, 40]),
        ("letterbox", (40, 80), [40, 20, 80, 40]),  # what lies in the padding below is cut off
        ("letterbox", (80, 40), [20, 40, 40, 80]),
        ("letterbox", (40, 40), [20, 20, 40, 40]),
    ],
)
def test_boxes_come_back_in_the_pixels_of_the_photo(rule: str, size_hw: tuple[int, int], box: list[int]) -> None:
    found = OneBox(replace(SPEC, resize=rule)).predict_batch([np.zeros((*size_hw, 3), np.uint8)], 0.5, 0.5)
    np.testing.assert_allclose(found[0].boxes_xyxy, [box])


def test_what_lies_in_the_padding_alone_is_nothing() -> None:
    found = OneBox(SPEC).predict_batch([np.zeros((2, 80, 3), np.uint8)], 0.5, 0.5)
    assert len(found[0]) == 1
    below = Found(np.array([[0.1, 0.8, 0.9, 1.0]]), np.array([0.9]), np.array([0]))
    detector = OneBox(SPEC)
    detector.find = lambda *_: [below]  # type: ignore[method-assign]
    assert len(detector.predict_batch([np.zeros((40, 80, 3), np.uint8)], 0.5, 0.5)[0]) == 0


@pytest.mark.parametrize("augment", [None, AugmentConfig()])
@pytest.mark.parametrize("rule", ["letterbox", "stretch"])
def test_at_another_size_a_sample_is_the_same_view(records, rule: str, augment: AugmentConfig | None) -> None:
    # Photos of 96 x 72 fit both sizes without rounding.
    data = DetectionDataset(records, replace(SPEC, resize=rule), LossConfig(assignment="best"), augment, seed=3)
    larger = data.at_size(192)
    assert data.at_size(0) is data
    for index in range(len(records)):
        small, large = data.sample(2, index), larger.sample(2, index)
        assert (small.image.shape, large.image.shape) == ((64, 64, 3), (192, 192, 3))
        # A box that shrinks to a pixel is left out.
        if len(small.boxes_xyxy) == len(large.boxes_xyxy):
            np.testing.assert_allclose(small.boxes_xyxy, large.boxes_xyxy, atol=1e-6)
    shapes = {batch.images.shape for batch in larger.training_batches(0, 2)}
    assert shapes == {(2, 192, 192, 3)}


def test_anchors_keep_their_share_of_the_input() -> None:
    larger = SPEC.at_size(96)
    assert (larger.input_size, larger.masks, larger.class_names) == (96, SPEC.masks, SPEC.class_names)
    np.testing.assert_allclose(larger.anchors_wh_px, 1.5 * np.array(SPEC.anchors_wh_px))
    # A box takes the same anchor whatever the size, and the cell that holds its centre.
    box = np.array([[0.4, 0.4, 0.7, 0.6]])
    for spec in (SPEC, larger):
        (slot,) = assign(box * spec.input_size, spec).slots
        grid = spec.input_size // 8
        place, anchor = divmod(int(slot), 3)
        assert anchor == 0
        assert (place % grid, place // grid) == (int(0.55 * grid), int(0.5 * grid))


def test_mosaic_and_mixup_say_which_files_they_show(records) -> None:
    paths = {record.image_path for record in records}
    for mosaic, mixup, files in ((0.0, 0.0, 1), (1.0, 0.0, 4), (0.0, 1.0, 2), (1.0, 1.0, 8)):
        data = dataset(records, augment=AugmentConfig(mosaic=mosaic, mixup=mixup))
        (batch,) = data.training_batches(0, 7)
        assert set(batch.paths) == paths
        assert len(batch.mixed_in) == 7 * (files - 1)
        assert set(batch.mixed_in) <= paths


def test_the_last_epochs_learn_from_photos_as_they_are(records) -> None:
    mixed = DetectionDataset(records, SPEC, LossConfig(), MIXED, 3, 2, mosaic_until=2)
    plain = dataset(records)
    assert contents(mixed.training_batches(1, 7)) != contents(plain.training_batches(1, 7))
    assert contents(mixed.training_batches(2, 7)) == contents(plain.training_batches(2, 7))


def test_a_mosaic_has_more_objects_than_a_photo_and_all_reach_the_targets(records) -> None:
    still = AugmentConfig(scale_min=1, scale_max=1, aspect_jitter=0, mosaic=1.0, mosaic_scale=0.4)
    data = DetectionDataset(records, SPEC, LossConfig(assignment="best"), still, seed=3)
    samples = [data.sample(0, index) for index in range(len(records))]
    assert max(len(sample.boxes_xyxy) for sample in samples) > max(len(record.boxes_xyxy) for record in records)
    for sample in samples:
        assert len(sample.slots) == len(sample.boxes_xyxy) - sample.dropped


def scaled(records, **changes) -> DetectionDataset:
    options = {"augment": MIXED, "seed": 3, "threads": 2, "multi_scale": 0.5, **changes}
    return DetectionDataset(records, SPEC, LossConfig(), **options)


def test_multi_scale_gives_each_batch_a_side_that_seed_epoch_and_step_decide(records) -> None:
    data = scaled(records)
    assert data.sides == (32, 64, 96)
    drawn = np.array([[data.side(epoch, step) for step in range(40)] for epoch in range(5)])
    # Of 200 draws about a third each.
    assert min((drawn == side).sum() for side in data.sides) > 40
    assert (drawn[0] != drawn[1]).any()
    assert [scaled(records, seed=4).side(0, step) for step in range(40)] != drawn[0].tolist()
    assert [batch.images.shape[1] for batch in data.training_batches(2, 2)] == drawn[2, :3].tolist()
    # Whatever the threads, the shard and the step it goes on from.
    whole = contents(data.training_batches(2, 2))
    assert contents(scaled(records, threads=1).training_batches(2, 2)) == whole
    assert contents(data.training_batches(2, 2, first_step=2)) == whole[2:]
    shard = list(data.training_batches(2, 2, 0, Shard(1, 2)))
    assert [batch.images.shape[:2] for batch in shard] == [(1, side) for side in drawn[2, :3]]


def test_a_batch_of_another_side_is_that_of_a_run_with_inputs_of_that_side(records) -> None:
    data = scaled(records)
    for step, batch in enumerate(data.training_batches(0, 2)):
        alone = scaled(records, multi_scale=0.0).at_size(data.side(0, step))
        assert contents([batch]) == contents(alone.training_batches(0, 2))[step : step + 1]


def test_multi_scale_leaves_validation_alone_and_follows_the_size_of_a_phase(records) -> None:
    data = scaled(records)
    assert contents(data.validation_batches(3)) == contents(scaled(records, multi_scale=0.0).validation_batches(3))
    assert data.at_size(128).sides == (64, 96, 128, 160, 192)
    assert data.at_size(64) is data
    assert {batch.images.shape[1] for batch in data.at_size(128).at_largest().training_batches(0, 2)} == {192}
    assert {batch.images.shape[1] for batch in scaled(records, multi_scale=0.0).training_batches(0, 2)} == {64}
    assert data.sides == (32, 64, 96)
