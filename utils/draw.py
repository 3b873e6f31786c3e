"""Boxes, labels and heat drawn on photos. Sizes follow the photo; labels stay inside it and off each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from utils.fonts import missing_characters, shortened_mask, text_mask
from utils.palette import class_colour, text_colour
from utils.types import Detections, FloatArray, ImageArray, IntArray

SMALLEST_FONT_PX = 9
CROWD = 25
"""From this many boxes on the labels become smaller, down to three quarters."""
PLACED_AT_ONCE = 64
"""Labels whose spots are held against all boxes at once, so that memory stays small however many there are."""


@dataclass(frozen=True)
class Style:
    """Line and font in pixels; ``font`` is 0 where the photo is too small for any label."""

    line: int
    font: int

    @classmethod
    def fitting(cls, size_hw: tuple[int, int], boxes: int = 0) -> Style:
        """The style for a photo of this size with this many boxes: 2 px lines and 15 px letters at 640x480."""
        height, width = size_hw
        side = (height * width) ** 0.5
        crowd = max(0.75, (CROWD / boxes) ** 0.5) if boxes > CROWD else 1.0
        font = round(max(SMALLEST_FONT_PX, min(side / 37 * crowd, height / 5)))
        return cls(line=max(1, round(side / 220)), font=font if min(height, width) >= 4 * font else 0)


def draw_detections(image_rgb: ImageArray, detections: Detections, in_place: bool = False) -> ImageArray:
    """``image_rgb`` [H, W, 3] uint8 with a box, name and score for every detection; see ``draw_boxes``."""
    scores = [f"{score:.2f}" for score in detections.scores.tolist()]
    what = detections.boxes_xyxy, detections.class_ids, detections.names
    return draw_boxes(image_rgb, *what, scores, detections.scores, in_place)


def draw_boxes(
    image_rgb: ImageArray,
    boxes_xyxy: FloatArray,
    class_ids: IntArray,
    names: Sequence[str],
    tails: Sequence[str] | None = None,
    priorities: FloatArray | None = None,
    in_place: bool = False,
) -> ImageArray:
    """A copy of ``image_rgb`` with labelled boxes; small boxes lie over large ones, labels over all boxes.

    Args:
        image_rgb: [H, W, 3] uint8.
        boxes_xyxy: [N, 4] image pixels; what lies outside the photo is cut, and left out where nothing remains.
        class_ids: [N], decide the colours.
        names: N texts in any script; one too wide for the photo is shortened.
        tails: N short texts after the names that are never shortened, such as scores.
        priorities: [N]; the highest gets the best place for its label. Default: largest boxes first.
        in_place: draw onto ``image_rgb`` itself where it can be written to, which saves the copy of a large image.
    """
    copied = not (in_place and image_rgb.flags.writeable)
    canvas = np.array(image_rgb, np.uint8, order="C", copy=copied or None)
    height, width = canvas.shape[:2]
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    sides = np.minimum(boxes[:, 2:], (width, height)) - np.maximum(boxes[:, :2], 0)
    visible = np.flatnonzero(np.isfinite(boxes).all(axis=1) & (sides > 0).all(axis=1))
    style = Style.fitting((height, width), len(visible))
    frames = _frames(boxes, style.line, (height, width))
    by_size = visible[np.argsort(-sides[visible].prod(axis=1), kind="stable")]
    for index in by_size:
        _draw_frame(canvas, frames[index], style.line, class_colour(int(class_ids[index])))
    if style.font:
        order = by_size if priorities is None else visible[np.argsort(-priorities[visible], kind="stable")]
        patches = [
            _label(names[i], tails[i] if tails else "", style.font, int(class_ids[i]), width) for i in order.tolist()
        ]
        places = _place_labels(frames[order], [patch.shape[:2] for patch in patches], (height, width))
        for patch, (left, top) in reversed(list(zip(patches, places, strict=True))):
            canvas[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return canvas


def drawable_name(name: str, class_id: int) -> str:
    """The name, or ``#3`` for class 3 where no font here has any of its letters."""
    letters = {character for character in name if character.isalnum()}
    missing = missing_characters(name)
    return f"#{class_id}" if missing and letters.issubset(missing) else name


def overlay_heat(image_rgb: ImageArray, heat: FloatArray) -> ImageArray:
    """The photo in grey under ``heat`` [H, W] in 0..1: from clear over violet and orange to yellow."""
    grey = cv2.cvtColor(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    levels = np.clip(heat * 255, 0, 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    opacity = (0.85 * np.sqrt(np.clip(heat, 0, 1)))[..., None].astype(np.float32)
    return (0.75 * grey * (1 - opacity) + colours * opacity).round().astype(np.uint8)


def _frames(boxes_xyxy: FloatArray, line: int, size_hw: tuple[int, int]) -> IntArray:
    """Outer edges of the drawn frames in whole pixels, inside the photo, at least 1 px wide and high. [N, 4]."""
    height, width = size_hw
    # Half of the line lies outside the box, so that it hides as little as possible of what the box holds.
    grown = np.nan_to_num(boxes_xyxy) + np.array([-1, -1, 1, 1]) * (line // 2)
    frames = np.clip(grown, 0, (width, height, width, height)).round().astype(np.int64)
    frames[:, :2] = np.minimum(frames[:, :2], (width - 1, height - 1))
    frames[:, 2:] = np.maximum(frames[:, 2:], frames[:, :2] + 1)
    return frames


def _draw_frame(canvas: ImageArray, frame: IntArray, line: int, colour: tuple[int, int, int]) -> None:
    left, top, right, bottom = frame.tolist()
    line = max(1, min(line, (right - left) // 6, (bottom - top) // 6))
    if line > 1:
        _shade(canvas, left - 1, top - 1, right + 1, bottom + 1)
    canvas[top : top + line, left:right] = colour
    canvas[bottom - line : bottom, left:right] = colour
    canvas[top:bottom, left : left + line] = colour
    canvas[top:bottom, right - line : right] = colour


def _shade(canvas: ImageArray, left: int, top: int, right: int, bottom: int) -> None:
    """Darkens a rim of one pixel, so that a frame shows on a background of its own colour."""
    height, width = canvas.shape[:2]
    rows, columns = slice(max(top, 0), bottom), slice(max(left, 0), right)
    for row in (top, bottom - 1):
        if 0 <= row < height:
            canvas[row, columns] //= 2
    for column in (left, right - 1):
        if 0 <= column < width:
            canvas[rows, column] //= 2


@lru_cache(maxsize=2048)
def _label(name: str, tail: str, font_px: int, class_id: int, image_width: int) -> ImageArray:
    """The label as it is drawn, [h, w, 3]: name and tail on the colour of the class."""
    pad = max(2, font_px // 4)
    tail_mask = text_mask(tail, font_px) if tail else np.zeros((text_mask("", font_px).shape[0], 0), np.uint8)
    room = image_width - 2 * pad - tail_mask.shape[1] - font_px // 3
    name_mask = shortened_mask(drawable_name(name, class_id), font_px, room)
    gap = np.zeros((name_mask.shape[0], font_px // 3 if tail else 0), np.uint8)
    mask = np.hstack([name_mask, gap, tail_mask])
    mask = np.pad(mask, ((max(1, pad // 4), max(1, pad // 4)), (pad, pad)))[:, :image_width]
    colour = class_colour(class_id)
    ink = mask[..., None] / 255.0
    patch = (np.array(colour) * (1 - ink) + np.array(text_colour(colour)) * ink).round().astype(np.uint8)
    patch.flags.writeable = False
    return patch


def _place_labels(
    frames: IntArray, sizes_hw: Sequence[tuple[int, int]], size_hw: tuple[int, int]
) -> list[tuple[int, int]]:
    """Left and top of each label: where it covers no earlier label, little of other boxes, and is near its corner."""
    placed = np.zeros((len(frames), 4))
    sizes = np.array(sizes_hw).reshape(-1, 2)
    for start in range(0, len(frames), PLACED_AT_ONCE):
        some = np.arange(start, min(start + PLACED_AT_ONCE, len(frames)))
        spots, costs = _spots(frames, some, sizes[some], size_hw)
        for index, places, cost in zip(some.tolist(), spots, costs, strict=True):
            best, earlier = int(cost.argmin()), placed[:index]
            # The cheapest spot stays that if it is free: an earlier label only ever makes one dearer.
            if _overlap_area(places[best : best + 1], earlier).any():
                covered = _overlap_area(places, earlier).sum(axis=1) / sizes[index].prod()
                best = int((20 * covered + cost).argmin())
            placed[index] = places[best]
    return [(int(left), int(top)) for left, top in placed[:, :2]]


def _spots(
    frames: IntArray, some: IntArray, sizes_hw: IntArray, size_hw: tuple[int, int]
) -> tuple[IntArray, FloatArray]:
    """Where the labels of ``some`` [L] of the frames may stand, [L, 10, 4], and the cost of it, [L, 10]."""
    left, top, right, bottom = frames[some].T
    label_h, label_w = sizes_hw.T
    x = [left, right - label_w, left, right - label_w, left, right - label_w, left, right - label_w]
    y = [top - label_h, top - label_h, bottom, bottom, top, top, bottom - label_h, bottom - label_h]
    wished = np.array([[*x, right, left - label_w], [*y, top, top]]).T
    label_wh = sizes_hw[:, None, ::-1]
    corners = np.clip(wished, 0, np.maximum(0, np.array(size_hw[::-1]) - label_wh))
    spots = np.concatenate([corners, corners + label_wh], axis=-1)
    moved = np.abs(corners - wished).sum(axis=-1) / label_h[:, None]
    overlaps = _overlap_area(spots.reshape(-1, 4), frames).reshape(len(some), -1, len(frames))
    own = np.arange(len(some)), slice(None), some
    on_own = overlaps[own] / (label_w * label_h)[:, None]
    hidden = overlaps / (frames[:, 2:] - frames[:, :2]).prod(axis=1)
    own_hidden = hidden[own]
    hidden[own] = 0
    wish = 0.08 * np.arange(spots.shape[1])
    return spots, 0.5 * moved + 0.6 * on_own + own_hidden + 0.3 * hidden.sum(axis=-1) + wish


def _overlap_area(spots: FloatArray | IntArray, boxes: FloatArray | IntArray) -> FloatArray:
    """[S, 4], [N, 4] -> [S, N] square pixels."""
    left, top, right, bottom = spots.T[..., None]
    width = np.minimum(right, boxes[:, 2]) - np.maximum(left, boxes[:, 0])
    height = np.minimum(bottom, boxes[:, 3]) - np.maximum(top, boxes[:, 1])
    return np.maximum(width, 0) * np.maximum(height, 0)
