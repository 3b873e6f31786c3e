from __future__ import annotations

import numpy as np
import pytest

from utils.classifier_config import ClassifierAugmentConfig
from utils.letterbox import PADDING_GREY
from utils.views import CHANCES, fixed_view, mix, random_view

ORDER = ("area", "aspect", "across", "down", "mirror", "flip", "shift_x", "shift_y", "hole_x", "hole_y")
STILL = {"area_min": 1.0, "flip": 0.0, "hue": 0.0, "saturation": 0.0, "value": 0.0}


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    """Every pixel says where it lies: red its column, green its row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.full_like(rows, 200)], axis=-1).astype(np.uint8)


def chances(seed: int = 0, **fixed: float) -> np.ndarray:
    drawn = np.random.default_rng(seed).random(CHANCES)
    for name, value in fixed.items():
        drawn[ORDER.index(name)] = value
    return drawn


def view(image: np.ndarray, drawn: np.ndarray, size: int = 32, rule: str = "stretch", **changes) -> np.ndarray:
    return random_view(image, size, rule, 1.0, ClassifierAugmentConfig(**{**STILL, **changes}), drawn)


def test_the_crop_is_the_middle() -> None:
    # Half of the shorter side, 20 px, from the middle of 40 x 60: rows 10..29, columns 20..39.
    middle = fixed_view(photo(), 20, "crop", 0.5)
    np.testing.assert_array_equal(middle, photo()[10:30, 20:40])


@pytest.mark.parametrize("rule", ["crop", "letterbox", "stretch"])
def test_a_photo_of_the_input_size_stays_as_it_is(rule: str) -> None:
    np.testing.assert_array_equal(fixed_view(photo(32, 32), 32, rule, 1.0), photo(32, 32))


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 400), (400, 1), (33, 31), (900, 20)])
@pytest.mark.parametrize("rule", ["crop", "stretch"])
def test_photos_of_any_size_make_an_input(size_hw: tuple[int, int], rule: str) -> None:
    for seed in range(5):
        changed = view(photo(*size_hw), chances(seed), rule=rule, area_min=0.1, aspect_max=2.0, shift_px=40, cutout=1)
        assert changed.shape == fixed_view(photo(*size_hw), 32, rule, 0.875).shape == (32, 32, 3)
        assert changed.dtype == np.uint8


@pytest.mark.parametrize("rule", ["crop", "letterbox", "stretch"])
def test_without_any_range_it_is_the_fixed_view(rule: str) -> None:
    np.testing.assert_array_equal(view(photo(), chances(), rule=rule), fixed_view(photo(), 32, rule, 1.0))


def test_flips_mirror() -> None:
    image = photo(32, 32)
    drawn = chances(mirror=0.4, flip=0.4)
    np.testing.assert_array_equal(view(image, drawn, flip=0.5), image[:, ::-1])
    np.testing.assert_array_equal(view(image, drawn, flip_vertical=0.5), image[::-1])
    np.testing.assert_array_equal(view(image, drawn, flip=0.3, flip_vertical=0.3), image)


@pytest.mark.parametrize(("chance", "shift"), [(0.0, -4), (0.5, 0), (0.999, 4)])
def test_shifts_move_by_whole_pixels_and_leave_grey(chance: float, shift: int) -> None:
    image = photo(32, 32)
    moved = view(image, chances(shift_x=chance, shift_y=0.5), shift_px=4)
    expected = np.roll(image, shift, axis=1)
    gone = slice(0, shift) if shift >= 0 else slice(shift, None)
    expected[:, gone] = PADDING_GREY
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("seed", range(20))
def test_a_part_has_the_area_and_proportions_asked_for(seed: int) -> None:
    # As large as the photo, so that the part's edges can be read from the pixels.
    image = photo(200, 200)
    part = view(image, chances(seed), size=200, area_min=0.25, aspect_max=1.5)
    left, right = int(part[:, 0, 0].min()), int(part[:, -1, 0].max())
    top, bottom = int(part[0, :, 1].min()), int(part[-1, :, 1].max())
    width, height = right - left + 1, bottom - top + 1
    assert 0.23 <= width * height / 200**2 <= 1
    assert 1 / 1.55 <= width / height <= 1.55


def test_parts_lie_everywhere() -> None:
    corners = [view(photo(200, 200), chances(seed), area_min=0.2)[0, 0, :2] for seed in range(40)]
    assert np.ptp([corner[0] for corner in corners]) > 60
    assert np.ptp([corner[1] for corner in corners]) > 60


def test_a_piece_is_cut_out() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    centre = view(image, chances(hole_x=0.5, hole_y=0.5), cutout=0.5)
    assert (centre[8:24, 8:24] == PADDING_GREY).all()
    assert (centre == PADDING_GREY).all(axis=2).sum() == 16 * 16
    corner = view(image, chances(hole_x=0.0, hole_y=0.0), cutout=0.5)
    assert (corner == PADDING_GREY).all(axis=2).sum() == 8 * 8
    assert not image.any(), "the photo itself was changed"


def test_colours_change_within_their_ranges() -> None:
    image = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    brightest = [int(view(image, chances(seed), size=8, value=0.4).max()) for seed in range(30)]
    assert min(brightest) >= 119
    assert min(brightest) < 150
    assert max(brightest) > 230


def test_mixing_keeps_sums_and_is_the_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    labels = np.eye(6, dtype=np.float32)
    mixed, shares = mix(images, labels, 0.4, np.random.default_rng(1))
    assert mixed.dtype == np.uint8
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    # Every image is its own label's, so the labels say what was mixed.
    wanted = np.einsum("bi,ihwc->bhwc", shares, images.astype(np.float64))
    np.testing.assert_allclose(mixed, wanted, atol=0.51)
    assert (shares.diagonal() >= 0.5).all(), "an image keeps the larger share of itself"
