from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from utils.mosaic import LabelledView, blend, mosaic
from utils.recipe_config import AugmentConfig

COLOURS = np.array([[250, 30, 30], [30, 250, 30], [30, 30, 250], [250, 250, 30]], np.uint8)
PLAIN = AugmentConfig(hue=0, saturation=0, value=0, scale_min=0.6, scale_max=2.0, flip_vertical=0.5, mosaic_scale=0.5)
SIZE = 160


def photo(colour: np.ndarray, class_id: int, seed: int) -> LabelledView:
    """A dark photo with one rectangle and its box."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(120, 300, 2)
    w, h = rng.integers(40, 100, 2)
    x, y = rng.integers(0, width - w), rng.integers(0, height - h)
    image = np.full((height, width, 3), 20, np.uint8)
    image[y : y + h, x : x + w] = colour
    return LabelledView(image, np.array([[x, y, x + w, y + h]], np.float64), np.array([class_id]))


def photos(seed: int) -> list[LabelledView]:
    return [photo(colour, class_id, 10 * seed + class_id) for class_id, colour in enumerate(COLOURS)]


def seen(image: np.ndarray, class_id: int) -> np.ndarray:
    """Where a photo's rectangle shows: [H, W] bool."""
    return (np.abs(image.astype(int) - COLOURS[class_id]) < 90).all(axis=2)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("rule", ["letterbox", "stretch"])
def test_every_box_is_that_of_its_photo_and_is_where_the_photo_is(seed: int, rule: str) -> None:
    made = mosaic(photos(seed), SIZE, rule, PLAIN, np.random.default_rng(seed))
    assert made.image_rgb.shape == (SIZE, SIZE, 3)
    assert len(set(made.class_ids)) == len(made.class_ids) == len(made.boxes_xyxy)
    for box, class_id in zip(made.boxes_xyxy, made.class_ids, strict=True):
        rows, columns = np.nonzero(seen(made.image_rgb, class_id))
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, extent, atol=1.6)


def test_a_box_is_left_out_only_when_nearly_nothing_of_it_shows() -> None:
    kept = left_out = 0
    for seed in range(60):
        # Photos of a known size, much larger than their quarters.
        still = dataclasses.replace(PLAIN, scale_min=1.8, scale_max=1.8, aspect_jitter=0, mosaic_scale=1.0)
        sources = photos(seed)
        made = mosaic(sources, SIZE, "letterbox", still, np.random.default_rng(seed))
        for class_id, source in enumerate(sources):
            factor = 1.8 * SIZE / max(source.image_rgb.shape)
            x1, y1, x2, y2 = source.boxes_xyxy[0] * factor
            share = seen(made.image_rgb, class_id).sum() / ((x2 - x1) * (y2 - y1))
            if class_id in made.class_ids:
                kept += 1
                assert share > 0.08
            else:
                left_out += 1
                assert share < 0.12
    assert kept > 50
    assert left_out > 10


@pytest.mark.parametrize("seed", range(10))
def test_four_photos_meet_at_a_point_of_the_middle_half(seed: int) -> None:
    flat = [LabelledView(np.full((90, 90, 3), c, np.uint8), np.zeros((0, 4)), np.zeros(0, int)) for c in COLOURS]
    large = dataclasses.replace(PLAIN, scale_min=2, scale_max=2, mosaic_scale=1.0, aspect_jitter=0)
    made = mosaic(flat, SIZE, "letterbox", large, np.random.default_rng(seed))
    assert (made.boxes_xyxy.shape, made.class_ids.shape) == ((0, 4), (0,))
    is_first = seen(made.image_rgb, 0)
    x, y = is_first[0].sum(), is_first[:, 0].sum()
    assert SIZE / 4 <= min(x, y) <= max(x, y) <= 3 * SIZE / 4
    quarters = (np.s_[:y, :x], np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:])
    for class_id, quarter in enumerate(quarters):
        assert seen(made.image_rgb, class_id)[quarter].all()


def test_the_generator_decides_everything() -> None:
    first, again, other = (mosaic(photos(0), SIZE, "letterbox", PLAIN, np.random.default_rng(s)) for s in (5, 5, 6))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.image_rgb, other.image_rgb)


def test_a_blend_is_nearly_half_and_half_and_has_the_boxes_of_both() -> None:
    first, second = (LabelledView(cv2.resize(p.image_rgb, (64, 64)), *p[1:]) for p in photos(1)[:2])
    black, white = (
        first._replace(image_rgb=np.zeros_like(first.image_rgb)),
        second._replace(image_rgb=np.full_like(second.image_rgb, 255)),
    )
    shares = {int(blend(black, white, np.random.default_rng(seed)).image_rgb.max()) / 255 for seed in range(50)}
    assert len(shares) > 20
    # Beta(32, 32) has mean 1/2 and standard deviation 0.062.
    assert 0.25 < min(shares) < 0.45
    assert 0.55 < max(shares) < 0.75
    made = blend(first, second, np.random.default_rng(0))
    np.testing.assert_array_equal(made.boxes_xyxy, [*first.boxes_xyxy, *second.boxes_xyxy])
    assert made.class_ids.tolist() == [0, 1]
    same = blend(first, first, np.random.default_rng(0)).image_rgb
    assert np.abs(same.astype(int) - first.image_rgb).max() <= 1
