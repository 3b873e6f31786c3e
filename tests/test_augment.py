from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from utils.augment import augment_sample, fit_sample
from utils.letterbox import PADDING_GREY
from utils.recipe_config import AugmentConfig

STILL = AugmentConfig(scale_min=1, scale_max=1, aspect_jitter=0, flip=0, flip_vertical=0, hue=0, saturation=0, value=0)


def marked(size_hw=(60, 80), box=(20, 10, 50, 40)):
    """A grey photo with one white rectangle and its box."""
    image = np.full((*size_hw, 3), 40, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return image, np.array([box], np.float64), np.array([3])


def extent(image: np.ndarray) -> list[int]:
    """Where it is bright."""
    rows, columns = np.nonzero(image.min(axis=2) > 190)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def augmented(config: AugmentConfig, seed: int, size=96, rule="letterbox", **photo):
    return augment_sample(*marked(**photo), size, rule, config, np.random.default_rng(seed))


def test_without_any_range_it_is_the_fitted_photo() -> None:
    image, boxes, class_ids = augmented(dataclasses.replace(STILL), 0)
    plain, plain_boxes, _ = fit_sample(*marked(), 96, "letterbox")
    np.testing.assert_allclose(boxes[:, [0, 2]], plain_boxes[:, [0, 2]], atol=1e-9)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], plain_boxes[:, 2:] - plain_boxes[:, :2], atol=1e-9)
    assert class_ids.tolist() == [3]
    assert image.shape == plain.shape == (96, 96, 3)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rule", ["letterbox", "stretch"])
def test_boxes_follow_the_pixels(seed: int, rule: str) -> None:
    config = AugmentConfig(scale_min=0.5, scale_max=1.3, flip_vertical=0.5, hue=0, saturation=0, value=0)
    image, boxes, _ = augmented(config, seed, 160, rule)
    if len(boxes):
        np.testing.assert_allclose(extent(image), boxes[0], atol=1.6)


@pytest.mark.parametrize("scale", [0.1, 0.25, 0.45])
def test_boxes_follow_the_pixels_when_the_photo_shrinks_much(scale: float) -> None:
    config = dataclasses.replace(STILL, scale_min=scale, scale_max=scale)
    for seed in range(5):
        image, boxes, _ = augmented(config, seed, 256, size_hw=(240, 320), box=(60, 40, 200, 180))
        np.testing.assert_allclose(extent(image), boxes[0], atol=1.6)


def test_the_generator_decides_everything() -> None:
    config = AugmentConfig()
    first, again, other = (augmented(config, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("seed", range(30))
def test_boxes_stay_inside_and_keep_more_than_a_pixel(seed: int) -> None:
    image, boxes, class_ids = augmented(AugmentConfig(), seed, box=(0, 0, 12, 12))
    assert image.dtype == np.uint8
    assert len(boxes) == len(class_ids)
    assert (boxes >= 0).all()
    assert (boxes <= 96).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) > 1).all()


def test_flips_happen_as_often_as_asked() -> None:
    always = dataclasses.replace(STILL, flip=1.0, flip_vertical=1.0)
    _, boxes, _ = augmented(always, 0, 80)
    # 80 x 60 in 80 x 80: x mirrors to 30..60; the height is placed at random, its extent stays 30.
    assert boxes[0][[0, 2]].tolist() == [30, 60]
    assert boxes[0][3] - boxes[0][1] == pytest.approx(30)


def sides(boxes: list[np.ndarray]) -> np.ndarray:
    return np.array([box[0][2:] - box[0][:2] for box in boxes])


def test_proportions_vary_as_one_side_over_the_other() -> None:
    """By (1 +- jitter) / (1 +- jitter): from 7 / 13 to 13 / 7 with 0.3."""
    config = dataclasses.replace(STILL, aspect_jitter=0.3, scale_min=0.5, scale_max=0.5)
    found = [augmented(config, seed, 200, size_hw=(80, 80), box=(20, 20, 60, 60))[1] for seed in range(400)]
    width, height = sides(found).T
    aspect = width / height
    assert 7 / 13 < aspect.min() < 0.65
    assert 1.55 < aspect.max() < 13 / 7
    assert 0.4 < (aspect > 1).mean() < 0.6


@pytest.mark.parametrize("rule", ["letterbox", "stretch"])
def test_a_view_starts_from_the_proportions_of_the_rule(rule: str) -> None:
    config = dataclasses.replace(STILL, scale_min=0.5, scale_max=0.5)
    _, boxes, _ = augmented(config, 0, 160, rule, size_hw=(40, 80), box=(0, 0, 80, 40))
    assert sides([boxes])[0].tolist() == pytest.approx([80, 80 if rule == "stretch" else 40])


def test_a_smaller_view_lies_anywhere_in_the_padding() -> None:
    config = dataclasses.replace(STILL, scale_min=0.5, scale_max=0.5)
    found = [augmented(config, seed, 96, size_hw=(80, 80), box=(0, 0, 80, 80))[1][0] for seed in range(200)]
    lefts_tops = np.array(found)[:, :2]
    assert (lefts_tops.min(axis=0) < 5).all()
    assert (lefts_tops.max(axis=0) > 43).all()
    assert (abs(lefts_tops.mean(axis=0) - 24) < 4).all()


def test_each_colour_varies_within_a_range_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def note(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
        seen.append(gains)
        return image

    monkeypatch.setattr("utils.augment.recolour", note)
    for seed in range(300):
        augmented(dataclasses.replace(STILL, hue=0.1, saturation=0.7, value=0.4), seed)
    for range_, gains in zip((0.1, 0.7, 0.4), np.array(seen).T, strict=True):
        assert 1 - range_ <= gains.min() < 1 - 0.95 * range_
        assert 1 + 0.95 * range_ < gains.max() <= 1 + range_


def test_padding_is_grey() -> None:
    config = dataclasses.replace(STILL, scale_min=0.3, scale_max=0.3)
    image, _, _ = augmented(config, 1)
    assert (image == PADDING_GREY).all(axis=2).mean() > 0.8


def test_no_boxes_stay_no_boxes() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    result = augment_sample(
        image, np.zeros((0, 4)), np.zeros(0, np.int64), 64, "letterbox", AugmentConfig(), np.random.default_rng(0)
    )
    assert result[1].shape == (0, 4)
    assert result[2].shape == (0,)


def test_colours_change_within_their_ranges() -> None:
    config = dataclasses.replace(STILL, value=0.4)
    values = [int(augmented(config, seed)[0].max()) for seed in range(30)]
    assert len(set(values)) > 3
    assert min(values) >= round(255 * 0.6) - 1
