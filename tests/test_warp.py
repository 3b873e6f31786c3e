"""A photo through one matrix: drawn rectangles are where their boxes are, and all that is off changes nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.augment import augment_sample
from utils.letterbox import PADDING_GREY
from utils.mosaic import LabelledView, mosaic
from utils.recipe_config import AugmentConfig
from utils.warp import random_tilt, warp_boxes, warp_image

STILL = AugmentConfig(scale_min=1, scale_max=1, aspect_jitter=0, flip=0, hue=0, saturation=0, value=0)
TILTED = dataclasses.replace(STILL, degrees=30, shear=15, translate=0.2, perspective=0.5)
BOX = np.array([[40.0, 30.0, 120.0, 90.0]])
ONE = np.zeros(1, np.int64)


def drawn(size_hw: tuple[int, int] = (120, 160), box: np.ndarray = BOX) -> np.ndarray:
    """A dark photo with a white rectangle."""
    image = np.full((*size_hw, 3), 20, np.uint8)
    x1, y1, x2, y2 = box[0].astype(int)
    image[y1:y2, x1:x2] = 255
    return image


def extent(image: np.ndarray, above: int = 190) -> np.ndarray:
    """The box around what is bright."""
    rows, columns = np.nonzero(image.min(axis=2) > above)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def turned(quarters: int, size_hw: tuple[int, int]) -> np.ndarray:
    """[3, 3]: clockwise by ``quarters`` of a turn, as numpy.rot90(image, -quarters)."""
    height, width = size_hw
    return np.array(
        [
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            [[0, -1, height], [1, 0, 0], [0, 0, 1]],
            [[-1, 0, width], [0, -1, height], [0, 0, 1]],
            [[0, 1, 0], [-1, 0, width], [0, 0, 1]],
        ][quarters],
        np.float64,
    )


@pytest.mark.parametrize("quarters", range(4))
def test_quarters_of_a_turn_move_pixels_and_boxes_exactly(quarters: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    wanted = np.rot90(photo, -quarters)
    matrix = turned(quarters, (60, 80))
    window_hw = wanted.shape[0], wanted.shape[1]
    np.testing.assert_array_equal(warp_image(photo, matrix, window_hw), wanted)
    box = np.array([[10.0, 5.0, 30.0, 25.0], [60.0, 50.0, 95.0, 70.0]])
    whole, shown = warp_boxes(box, (60, 80), matrix, window_hw)
    mask = np.zeros((60, 80, 3), np.uint8)
    mask[5:25, 10:30] = 255
    np.testing.assert_array_equal(whole[0], extent(np.rot90(mask, -quarters)))
    np.testing.assert_array_equal(shown[0], whole[0])
    mask[...] = 0
    mask[50:, 60:] = 255
    np.testing.assert_array_equal(shown[1], extent(np.rot90(mask, -quarters)))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("scales", [(0.9, 1.1), (0.2, 0.4), (1.5, 2.5)])
def test_the_box_is_the_one_around_the_pixels_that_show(seed: int, scales: tuple[float, float]) -> None:
    config = dataclasses.replace(TILTED, scale_min=scales[0], scale_max=scales[1], flip=0.5, aspect_jitter=0.2)
    rng = np.random.default_rng(seed)
    image, boxes, class_ids = augment_sample(drawn(), BOX, ONE + 4, 160, "letterbox", config, rng)
    assert image.shape == (160, 160, 3)
    if not len(boxes):
        # So far out that less than a pixel shows.
        assert (image.min(axis=2) > 190).sum() < 160
        return
    assert class_ids.tolist() == [4]
    found = extent(image)
    assert (found[:2] >= boxes[0, :2] - 1).all()
    assert (found[2:] <= boxes[0, 2:] + 1).all()
    # A corner of less than 90 degrees has few bright pixels at its tip.
    np.testing.assert_allclose(found, boxes[0], atol=5)


@pytest.mark.parametrize("seed", range(20))
def test_without_a_turn_the_box_is_tight(seed: int) -> None:
    config = dataclasses.replace(STILL, translate=0.4, scale_min=0.5, scale_max=1.5)
    rng = np.random.default_rng(seed)
    image, boxes, _ = augment_sample(drawn(), BOX, ONE, 160, "letterbox", config, rng)
    if len(boxes):
        np.testing.assert_allclose(extent(image), boxes[0], atol=1.6)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.floats(0, 180), st.floats(0, 44.9), st.floats(0, 1), st.floats(0, 0.99))
def test_all_of_the_photo_stays_in_front_and_only_the_shift_moves_its_centre(
    seed: int, degrees: float, shear: float, translate: float, perspective: float
) -> None:
    config = AugmentConfig(degrees=degrees, shear=shear, translate=translate, perspective=perspective)
    matrix = random_tilt((50, 60), (80, 40), (100, 120), config, np.random.default_rng(seed))
    corners = np.array([[x, y, 1] for x in (10, 90) for y in (40, 80)], float)
    assert ((corners @ matrix.T)[:, 2] > 0).all()
    assert np.linalg.det(matrix) > 0  # never mirrored
    x, y, w = matrix @ [50, 60, 1]
    assert abs(x / w - 50) <= translate * 120 + 1e-6
    assert abs(y / w - 60) <= translate * 100 + 1e-6


@settings(deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(*[st.floats(-20, 140)] * 2, *[st.floats(1, 120)] * 2), max_size=4),
)
def test_what_shows_lies_in_the_window_and_in_the_whole(seed: int, places: list[tuple[float, ...]]) -> None:
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in places]).reshape(-1, 4)
    matrix = random_tilt((80, 60), (160, 120), (100, 90), TILTED, np.random.default_rng(seed))
    whole, shown = warp_boxes(boxes, (120, 160), matrix, (100, 90))
    assert whole.shape == shown.shape == boxes.shape
    assert (shown >= 0).all()
    assert (shown <= [90, 100, 90, 100]).all()
    real = (shown[:, 2:] > shown[:, :2]).all(axis=1)
    assert (shown[real, :2] >= whole[real, :2] - 1e-6).all()
    assert (shown[real, 2:] <= whole[real, 2:] + 1e-6).all()
    outside = (boxes[:, 0] >= 160) | (boxes[:, 1] >= 120) | (boxes[:, 2] <= 0) | (boxes[:, 3] <= 0)
    assert not real[outside].any()


def test_a_box_whose_surrounding_alone_reaches_into_the_window_is_left_out() -> None:
    # Turned by 45 degrees, a square stands on its tip: the corner of the box around it is empty.
    half = np.sqrt(0.5)
    matrix = np.array([[half, -half, 0.0], [half, half, 0.0], [0.0, 0.0, 1.0]])
    box = np.array([[0.0, 0.0, 100.0, 100.0]])
    whole, shown = warp_boxes(box, (100, 100), matrix, (200, 200))
    np.testing.assert_allclose(whole[0], [-100 * half, 0, 100 * half, 200 * half])
    np.testing.assert_allclose(shown[0], [0, 0, 100 * half, 200 * half], atol=1e-9)
    moved = np.array([[1.0, 0.0, -65.0], [0.0, 1.0, -125.0], [0.0, 0.0, 1.0]]) @ matrix
    whole, shown = warp_boxes(box, (100, 100), moved, (200, 200))
    assert (whole[0, 2:] > 1).all()
    assert (shown == 0).all()


def test_what_is_off_draws_nothing_and_what_is_hardly_on_changes_nothing() -> None:
    photo, spread = drawn(), AugmentConfig(scale_min=0.3)
    hardly = dataclasses.replace(spread, degrees=1e-7, perspective=1e-9)
    for seed in range(5):
        off, on = np.random.default_rng(seed), np.random.default_rng(seed)
        still = dataclasses.replace(spread, hue=0, saturation=0, value=0)
        plain = augment_sample(photo, BOX, ONE, 96, "letterbox", still, off)
        leaning = dataclasses.replace(hardly, hue=0, saturation=0, value=0)
        tilted = augment_sample(photo, BOX, ONE, 96, "letterbox", leaning, on)
        assert np.abs(plain[0].astype(int) - tilted[0]).max() <= 8
        np.testing.assert_allclose(plain[1], tilted[1], atol=1e-3)
        # Two shares and two sizes, two flips, three gains; seven more.
        for rng, draws in ((off, 10), (on, 17)):
            same = np.random.default_rng(seed)
            same.random(draws)
            assert rng.random() == same.random()


def test_grey_surrounds_what_was_turned() -> None:
    config = dataclasses.replace(STILL, degrees=180)
    image, _, _ = augment_sample(drawn((100, 100)), BOX, ONE, 100, "letterbox", config, np.random.default_rng(3))
    share = (image == PADDING_GREY).all(axis=2).mean()
    assert 0.05 < share < 0.2  # at most 3 - 2 sqrt(2) = 0.17 of a square that is turned within itself


def test_small_things_stay_visible_in_a_turned_photo_that_shrinks_much() -> None:
    photo = np.zeros((800, 800, 3), np.uint8)
    photo[::8, ::8] = 255
    config = dataclasses.replace(STILL, degrees=180, perspective=0.1)
    image, _, _ = augment_sample(photo, BOX, ONE, 100, "letterbox", config, np.random.default_rng(0))
    middle = image[40:60, 40:60, 0]
    # One white pixel in 64 is a grey of 4 everywhere, not white here and black there.
    assert middle.mean() == pytest.approx(255 / 64, abs=1)
    assert middle.max() < 40


@pytest.mark.parametrize("seed", range(15))
def test_the_parts_of_a_mosaic_are_tilted_with_their_boxes(seed: int) -> None:
    colours = np.array([[250, 30, 30], [30, 250, 30], [30, 30, 250], [250, 250, 30]], np.uint8)
    photos = []
    for class_id, colour in enumerate(colours):
        image = drawn()
        image[image.min(axis=2) > 100] = colour
        photos.append(LabelledView(image, BOX, np.array([class_id])))
    config = dataclasses.replace(TILTED, scale_min=0.8, scale_max=1.6)
    made = mosaic(photos, 200, "letterbox", config, np.random.default_rng(seed))
    for box, class_id in zip(made.boxes_xyxy, made.class_ids, strict=True):
        rows, columns = np.nonzero((np.abs(made.image_rgb.astype(int) - colours[class_id]) < 90).all(axis=2))
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_allclose(box, found, atol=5)
        assert (found[:2] >= box[:2] - 1).all()
        assert (found[2:] <= box[2:] + 1).all()
    upright = mosaic(photos, 200, "letterbox", dataclasses.replace(STILL), np.random.default_rng(seed))
    assert not np.array_equal(made.image_rgb, upright.image_rgb)
