"""The resize rule: how an image of any size becomes the network's square input, and how boxes come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from utils.errors import DataError
from utils.types import FloatArray, ImageArray

ResizeRule = Literal["letterbox", "stretch"]
PADDING_GREY = 128


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the input: input pixel = image pixel * ``scale_xy`` + ``offset_xy``."""

    size_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    offset_xy: tuple[int, int]

    @property
    def scale_xy(self) -> tuple[float, float]:
        """The scales as they came out after rounding to whole pixels, so that the inverse is exact."""
        return self.resized_hw[1] / self.size_hw[1], self.resized_hw[0] / self.size_hw[0]

    def to_input(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Image pixels -> input pixels. [N, 4] -> [N, 4]."""
        return boxes_xyxy * np.tile(self.scale_xy, 2) + np.tile(self.offset_xy, 2)

    def to_image(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Input pixels -> image pixels, the exact inverse of ``to_input``; not clipped. [N, 4] -> [N, 4]."""
        return (boxes_xyxy - np.tile(self.offset_xy, 2)) / np.tile(self.scale_xy, 2)


def place(size_hw: tuple[int, int], input_size: int, rule: ResizeRule, name: str = "image") -> Placement:
    """Where an image of ``size_hw`` lies in a square of ``input_size``. DataError when a side would become 0 px.

    ``name`` stands for the image in the message.
    """
    height, width = size_hw
    if rule == "stretch":
        return Placement(size_hw, (input_size, input_size), (0, 0))
    scale = min(input_size / width, input_size / height)
    resized_hw = round(height * scale), round(width * scale)
    if min(resized_hw) < 1:
        raise DataError(f"{name}: {width}x{height} px: too thin, a side becomes 0 px in the input of {input_size}")
    offset_xy = (input_size - resized_hw[1]) // 2, (input_size - resized_hw[0]) // 2
    return Placement(size_hw, resized_hw, offset_xy)


def resize_into(image_rgb: ImageArray, placement: Placement, input_size: int) -> ImageArray:
    """The network's input: [H, W, 3] uint8 -> [input_size, input_size, 3] uint8, padding grey 128."""
    height, width = placement.resized_hw
    resized = resize_image(image_rgb, (height, width))
    if (height, width) == (input_size, input_size):
        return resized
    canvas = np.full((input_size, input_size, 3), PADDING_GREY, np.uint8)
    left, top = placement.offset_xy
    canvas[top : top + height, left : left + width] = resized
    return canvas


def resize_image(image_rgb: ImageArray, size_hw: tuple[int, int]) -> ImageArray:
    """[H, W, 3] uint8 -> [*size_hw, 3] uint8: averaged along a side that shrinks, bilinear along one that grows."""
    if image_rgb.shape[:2] == size_hw:
        return image_rgb
    # Averaging keeps what is small visible. OpenCV averages only where neither side grows.
    smaller_hw = min(size_hw[0], image_rgb.shape[0]), min(size_hw[1], image_rgb.shape[1])
    shrunk = cv2.resize(image_rgb, smaller_hw[::-1], interpolation=cv2.INTER_AREA)
    if smaller_hw == size_hw:
        return shrunk  # type: ignore[return-value]
    return cv2.resize(shrunk, size_hw[::-1], interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
