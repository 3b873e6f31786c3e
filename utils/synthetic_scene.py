"""One picture of the drawn dataset: things cast into perspective, laid over each other, lit and labelled.

A label is the extent of what can be seen of a thing, as Pascal VOC has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.synthetic_background import draw_background
from utils.synthetic_camera import light_scene, take_photo
from utils.synthetic_canvas import Patch, blend
from utils.synthetic_distractors import DISTRACTORS
from utils.synthetic_objects import OBJECTS, Draw
from utils.types import AnnotatedObject, FloatArray, ImageArray, IntArray

MIN_LONG_SIDE_PX = 12.0
MAX_SHARE_OF_SHORT_SIDE = 0.85
MAX_OBJECTS = 12
MIN_VISIBLE, DIFFICULT_VISIBLE = 0.3, 0.45
MIN_LABEL_PX = 5

NOTHING = -1
_MIN_INSIDE = 0.5
_TRIES = 12


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture before the camera. ``rgb`` [h, w, 3] float32; ``owner`` [h, w] int16 says which thing each pixel shows.

    ``objects`` are the labelled things and ``owners`` their numbers in ``owner``, where ``NOTHING`` is the ground and
    other numbers are things without a label. ``visible`` is the share of each labelled thing that can be seen.
    """

    rgb: FloatArray
    owner: IntArray
    objects: tuple[AnnotatedObject, ...]
    owners: tuple[int, ...]
    visible: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Thing:
    """A patch and where it goes. ``name`` is None for a distractor."""

    name: str | None
    patch: Patch
    left: int
    top: int

    @property
    def box(self) -> FloatArray:
        height, width = self.patch.alpha.shape
        return np.array([self.left, self.top, self.left + width, self.top + height], np.float64)


def draw_photo(
    seed: int, index: int, size_hw: tuple[int, int], difficulty: float
) -> tuple[bytes, tuple[AnnotatedObject, ...], tuple[int, int]]:
    """Picture ``index`` of the set ``seed``: a JPEG file, its labels and its size. Depends on nothing else."""
    rng = np.random.default_rng((seed, index))
    scene = draw_scene(rng, size_hw, difficulty)
    height, width = scene.owner.shape
    return take_photo(rng, light_scene(rng, scene.rgb, difficulty), difficulty), scene.objects, (height, width)


def draw_scene(rng: np.random.Generator, size_hw: tuple[int, int], difficulty: float = 0.5) -> Scene:
    """Grounds, distractors and 0 to 12 objects in a picture of about ``size_hw``.

    Args:
        rng: where all chance comes from.
        size_hw: typical height and width in pixels; each side varies by up to a seventh.
        difficulty: 0..1; more raises the number of distractors, rotation, overlap and small things.
    """
    height, width = (round(side * rng.uniform(0.86, 1.14)) for side in size_hw)
    image = draw_background(rng, (height, width), difficulty)
    owner = np.full((height, width), NOTHING, np.int16)
    things = _choose_things(rng, (height, width), difficulty)
    angle = rng.uniform(-np.pi, 0)
    light_xy = np.array([np.cos(angle), np.sin(angle)])
    shadow = rng.uniform(0.2, 0.65)
    for number, thing in enumerate(things):
        _lay(image, owner, thing, number, light_xy, shadow)
    return Scene(image, owner, *_labels(things, owner))


def _choose_things(rng: np.random.Generator, size_hw: tuple[int, int], difficulty: float) -> list[_Thing]:
    """Objects and distractors, largest first, so that small ones lie in front."""
    wanted = 0 if rng.random() < 0.07 else min(MAX_OBJECTS, 1 + int(rng.gamma(3.0, 2.0 + 0.5 * difficulty)))
    names = [str(name) for name in rng.choice(list(OBJECTS), wanted)]
    others = int(rng.integers(0, 2 + round(5 * difficulty)))
    plan: list[tuple[float, str | None]] = []
    for name in [*names, *[None] * others]:
        long_side = _long_side(rng, min(size_hw), wanted, difficulty)
        plan.append((long_side if name else max(0.6 * long_side, MIN_LONG_SIDE_PX), name))
    plan.sort(key=lambda entry: -entry[0])
    light = np.array([rng.uniform(-0.7, 0.7), -0.6, 0.6])
    light /= np.linalg.norm(light)
    things: list[_Thing] = []
    for long_side, name in plan:
        draw = OBJECTS[name] if name else DISTRACTORS[rng.integers(len(DISTRACTORS))]
        patch = _render(rng, draw, long_side, light, difficulty)
        place = _find_place(rng, patch, things, size_hw, 0.07 + 0.6 * difficulty, name is None)
        if place is not None:
            things.append(_Thing(name, patch, *place))
    return things


def _long_side(rng: np.random.Generator, short_side_px: int, count: int, difficulty: float) -> float:
    """Log-uniform between the limits but thin at both ends; crowded pictures hold smaller things."""
    longest = MAX_SHARE_OF_SHORT_SIDE * short_side_px * min(1.0, 2.2 / np.sqrt(max(count, 1)))
    share = rng.beta(max(1.4, 4.0 - 3.8 * difficulty), max(1.4, 2.4 - 2.5 * difficulty))
    return float(MIN_LONG_SIDE_PX * (longest / MIN_LONG_SIDE_PX) ** share)


def _render(rng: np.random.Generator, draw: Draw, long_side_px: float, light: FloatArray, difficulty: float) -> Patch:
    """Draws a thing at twice its size, turns it and tilts it, and averages down to ``long_side_px``."""
    drawn_px = int(np.clip(2 * long_side_px, 64, 320))
    turn = np.deg2rad(rng.uniform(-1, 1) * (15 + 60 * difficulty))
    cos, sin = np.cos(turn), np.sin(turn)
    in_canvas = np.array([cos * light[0] + sin * light[1], -sin * light[0] + cos * light[1], light[2]])
    canvas = draw(rng, drawn_px, in_canvas)
    canvas.shade(1 + rng.uniform(0.05, 0.35) * (canvas.noise(rng, rng.uniform(4, 20)) - 0.5))

    mirrored = -1 if rng.random() < 0.5 else 1
    stretch = rng.uniform(0.9, 1.12)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirrored * stretch, 1 / stretch])
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64)
    seen = (corners + rng.uniform(-0.16, 0.16, (4, 2)) * (0.4 + difficulty)) @ linear.T
    out_px = int(drawn_px * 1.05 * np.ptp(seen, axis=0).max() / 2) + 2
    centre = (seen.max(axis=0) + seen.min(axis=0)) / 2
    matrix = cv2.getPerspectiveTransform(
        ((corners + 1) * drawn_px / 2).astype(np.float32),
        ((seen - centre) * drawn_px / 2 + out_px / 2).astype(np.float32),
    )
    rgba = cv2.merge([*cv2.split(canvas.rgb), canvas.alpha])
    # Beyond the canvas goes on what its corner holds, so that soft edges stay free of black.
    outside = [*canvas.rgb[0, 0].tolist(), 0]
    seen_rgba: ImageArray = cv2.warpPerspective(rgba, matrix, (out_px, out_px), borderValue=outside)  # type: ignore[assignment]
    return _shrink(seen_rgba, long_side_px)


def _shrink(rgba: ImageArray, long_side_px: float) -> Patch:
    left, top, width, height = cv2.boundingRect((rgba[..., 3] > 127).astype(np.uint8))
    scale = long_side_px / max(width, height)
    size_wh = max(2, round(width * scale)), max(2, round(height * scale))
    crop = rgba[top : top + height, left : left + width]
    small = cv2.resize(crop, size_wh, interpolation=cv2.INTER_AREA).astype(np.float32)
    return Patch(small[..., :3], small[..., 3] / 255)


def _find_place(
    rng: np.random.Generator,
    patch: Patch,
    things: Sequence[_Thing],
    size_hw: tuple[int, int],
    overlap_limit: float,
    is_distractor: bool,
) -> tuple[int, int] | None:
    """Left and top of a place where the patch hides no more of anything than ``overlap_limit``, or None."""
    height, width = patch.alpha.shape
    if is_distractor:
        overlap_limit *= 0.7
    for _ in range(_TRIES):
        # One thing in six may reach over the border, and is then cut off.
        slack = (1 - _MIN_INSIDE) if rng.random() < 0.17 else 0.0
        left = round(rng.uniform(-slack * width, max(size_hw[1] - width * (1 - slack), 0)))
        top = round(rng.uniform(-slack * height, max(size_hw[0] - height * (1 - slack), 0)))
        box = np.array([left, top, left + width, top + height], np.float64)
        if all(_hidden_share(box, thing.box) <= overlap_limit for thing in things):
            return left, top
    return None


def _hidden_share(front_xyxy: FloatArray, back_xyxy: FloatArray) -> float:
    sides = np.minimum(front_xyxy[2:], back_xyxy[2:]) - np.maximum(front_xyxy[:2], back_xyxy[:2])
    return float(np.maximum(sides, 0).prod() / (back_xyxy[2:] - back_xyxy[:2]).prod())


def _lay(
    image_rgb: FloatArray, owner: IntArray, thing: _Thing, number: int, light_xy: FloatArray, shadow: float
) -> None:
    """Paints a thing and, under it, its soft shadow on whatever lies behind."""
    alpha = thing.patch.alpha
    size = max(alpha.shape)
    pad = size // 5 + 2
    dark = cv2.GaussianBlur(cv2.copyMakeBorder(alpha, pad, pad, pad, pad, cv2.BORDER_CONSTANT), (0, 0), 0.4 + size / 28)
    fall = np.round(-light_xy * size / 12).astype(int)
    target, source = _overlap(owner.shape, dark.shape, thing.left - pad + fall[0], thing.top - pad + fall[1])
    image_rgb[target] *= 1 - shadow * dark[source][..., None]
    target, source = _overlap(owner.shape, alpha.shape, thing.left, thing.top)
    blend(image_rgb[target], thing.patch.rgb[source], alpha[source])
    owner[target][alpha[source] > 0.5] = number


def _overlap(
    canvas_hw: tuple[int, ...], patch_hw: tuple[int, ...], left: int, top: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a patch meets the canvas: slices of the canvas and of the patch; empty ones where it does not."""
    starts = [max(0, top), max(0, left)]
    stops = [
        max(start, min(side, at + length))
        for start, side, at, length in zip(starts, canvas_hw, (top, left), patch_hw, strict=True)
    ]
    target = slice(starts[0], stops[0]), slice(starts[1], stops[1])
    source = slice(starts[0] - top, stops[0] - top), slice(starts[1] - left, stops[1] - left)
    return target, source


def _labels(
    things: Sequence[_Thing], owner: IntArray
) -> tuple[tuple[AnnotatedObject, ...], tuple[int, ...], tuple[float, ...]]:
    objects, owners, shares = [], [], []
    for number, thing in enumerate(things):
        mask = (owner == number).astype(np.uint8)
        share = float(mask.sum()) / max(float((thing.patch.alpha > 0.5).sum()), 1.0)
        left, top, width, height = cv2.boundingRect(mask)
        if thing.name is None or share < MIN_VISIBLE or max(width, height) < MIN_LABEL_PX:
            continue
        box = (float(left), float(top), float(left + width), float(top + height))
        objects.append(AnnotatedObject(thing.name, box, difficult=share < DIFFICULT_VISIBLE))
        owners.append(number)
        shares.append(share)
    return tuple(objects), tuple(owners), tuple(shares)
