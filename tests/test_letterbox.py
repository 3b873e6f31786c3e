from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import DataError
from utils.letterbox import PADDING_GREY, place, resize_image, resize_into

sides = st.integers(1, 4000)


@given(
    height=sides,
    width=sides,
    input_size=st.sampled_from([32, 320, 416, 608]),
    rule=st.sampled_from(["letterbox", "stretch"]),
)
def test_back_is_the_exact_inverse(height: int, width: int, input_size: int, rule: str) -> None:
    try:
        placement = place((height, width), input_size, rule)
    except DataError:
        assert rule == "letterbox"
        assert input_size * min(height, width) / max(height, width) <= 0.5 + 1e-9
        return
    boxes = np.array([[0, 0, width, height], [0.3 * width, 0.1 * height, 0.9 * width, 0.8 * height]], np.float64)
    np.testing.assert_allclose(placement.to_image(placement.to_input(boxes)), boxes, rtol=1e-12, atol=1e-9)


def test_640x480_in_416() -> None:
    # 416 / 640 = 0.65: 416 x 312, so 52 grey rows above and below
    placement = place((480, 640), 416, "letterbox")
    assert placement.resized_hw == (312, 416)
    assert placement.offset_xy == (0, 52)
    np.testing.assert_allclose(placement.to_input(np.array([[0, 0, 640, 480.0]])), [[0, 52, 416, 364]])


@pytest.mark.parametrize("size_hw", [(480, 640), (640, 480), (17, 23), (416, 416), (1, 1), (1000, 30)])
@pytest.mark.parametrize("rule", ["letterbox", "stretch"])
def test_the_photo_lies_where_the_placement_says(size_hw: tuple[int, int], rule: str) -> None:
    image = np.full((*size_hw, 3), 255, np.uint8)
    placement = place(size_hw, 96, rule)
    result = resize_into(image, placement, 96)
    assert result.shape == (96, 96, 3)
    left, top, right, bottom = placement.to_input(np.array([[0, 0, size_hw[1], size_hw[0]]], np.float64))[0].round()
    inside = np.zeros((96, 96), bool)
    inside[int(top) : int(bottom), int(left) : int(right)] = True
    assert (result[inside] == 255).all()
    assert (result[~inside] == PADDING_GREY).all()


def test_too_thin_a_photo_is_refused() -> None:
    with pytest.raises(DataError, match="too thin"):
        place((3, 4000), 416, "letterbox")
    place((3, 4000), 416, "stretch")


def test_a_side_that_shrinks_is_averaged_though_the_other_grows() -> None:
    # Every pixel of the result covers one white column of 8.
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::8] = 248
    for wide in (True, False):
        image = stripes if wide else stripes.transpose(1, 0, 2)
        size_hw = (16, 8) if wide else (8, 16)
        resized = resize_image(image, size_hw)
        assert resized.shape == (*size_hw, 3)
        np.testing.assert_array_equal(resized, 248 // 8)
