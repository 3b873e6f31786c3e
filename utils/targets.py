"""From boxes to anchor slots. A slot is one anchor of one grid cell; slots are numbered over P3, P4, P5 in turn.

Within a level the number runs over rows, columns and anchors of the mask, as the head's output does when flattened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from utils.boxes import shape_iou, xyxy_to_cxcywh
from utils.config import LEVELS, STRIDES, DetectorSpec
from utils.types import FloatArray, IntArray

Assignment = Literal["best", "shape_iou"]


@dataclass(frozen=True, eq=False)
class Targets:
    """``slots`` [P] int32, and for each the box it must predict (index into the image's boxes) [P] int64.

    ``dropped`` counts boxes for which no slot was free.
    """

    slots: IntArray
    box_indices: IntArray
    dropped: int


def level_grids(input_size: int) -> dict[str, int]:
    """Cells along a side of each level: 416 -> {"P3": 52, "P4": 26, "P5": 13}."""
    return {level: input_size // STRIDES[level] for level in LEVELS}


def assign(
    boxes_xyxy: FloatArray,
    spec: DetectorSpec,
    assignment: Assignment = "best",
    assignment_iou: float = 0.4,
    neighbour_cells: bool = False,
) -> Targets:
    """Gives every box the slot it trains, by shape IoU between box and anchor.

    Each box takes the slot of its best anchor in the cell of its centre. Where two meet, the better shape IoU keeps the
    slot (the earlier box on a tie) and the other takes its next best anchor with a free slot. "shape_iou" then also
    gives a box every free slot of its cells whose anchor overlaps by more than ``assignment_iou``, best pairs first.

    Args:
        boxes_xyxy: [N, 4] pixels of the input, centres inside it, sizes above 0.
        spec: anchors, masks and input size.
        assignment: "best" or "shape_iou".
        assignment_iou: see above.
        neighbour_cells: with "shape_iou", the cells left or right and above or below that lie nearest to the centre
            count as the box's too; their predictions can reach it with the bounded decode only.
    """
    if len(boxes_xyxy) == 0:
        return Targets(np.zeros(0, np.int32), np.zeros(0, np.int64), 0)
    centres_sizes = xyxy_to_cxcywh(boxes_xyxy)
    iou = shape_iou(centres_sizes[:, 2:], np.asarray(spec.anchors_wh_px, np.float64))
    slots = _candidate_slots(centres_sizes[:, :2], spec)
    in_use = np.flatnonzero((slots >= 0).any(axis=0))
    preference = in_use[np.argsort(-iou[:, in_use], axis=1, kind="stable")]

    taken: dict[int, int] = {}
    by_first_choice = np.argsort(-iou[np.arange(len(iou)), preference[:, 0]], kind="stable")
    waiting = []
    for box in by_first_choice:
        slot = int(slots[box, preference[box, 0]])
        if slot in taken:
            waiting.append(int(box))
        else:
            taken[slot] = int(box)
    displaced = _next_best(waiting, preference, iou, slots, taken)
    taken.update(displaced)
    dropped = len(waiting) - len(displaced)
    if assignment == "shape_iou":
        _take_more(taken, iou, slots, assignment_iou)
        if neighbour_cells:
            for shift_xy in ((0.5, 0.0), (0.0, 0.5)):
                _take_more(taken, iou, _candidate_slots(centres_sizes[:, :2], spec, shift_xy), assignment_iou)
    order = sorted(taken)
    return Targets(np.array(order, np.int32), np.array([taken[slot] for slot in order], np.int64), dropped)


def _next_best(
    waiting: list[int], preference: IntArray, iou: FloatArray, slots: IntArray, taken: Mapping[int, int]
) -> dict[int, int]:
    """Free slots for the boxes that lost theirs, each to the better shape among those that want it.

    That is the stable matching of Gale and Shapley (1962): who asks first makes no difference.
    """
    found: dict[int, int] = {}
    choices = {box: iter(preference[box, 1:].tolist()) for box in waiting}
    asking = waiting[::-1]
    while asking:
        box = asking.pop()
        for anchor in choices[box]:
            slot = int(slots[box, anchor])
            if slot in taken:
                continue
            holder = found.get(slot)
            if holder is None or iou[box, anchor] > iou[holder, anchor]:
                found[slot] = box
                if holder is not None:
                    asking.append(holder)
                break
    return found


def _take_more(taken: dict[int, int], iou: FloatArray, slots: IntArray, threshold: float) -> None:
    pairs = np.argwhere((iou > threshold) & (slots >= 0))
    for box, anchor in pairs[np.argsort(-iou[pairs[:, 0], pairs[:, 1]], kind="stable")]:
        taken.setdefault(int(slots[box, anchor]), int(box))


def _candidate_slots(
    centres_px: FloatArray, spec: DetectorSpec, shift_xy: tuple[float, float] = (0.0, 0.0)
) -> IntArray:
    """The slot of each box for each anchor of the file, -1 where no mask uses the anchor. [N, 2] -> [N, anchors].

    ``shift_xy`` = half a cell along an axis means the neighbour cell on the side that the centre is nearer to.
    """
    slots = np.full((len(centres_px), len(spec.anchors_wh_px)), -1, np.int64)
    start = 0
    for (level, grid), mask in zip(level_grids(spec.input_size).items(), spec.masks, strict=True):
        places = centres_px / STRIDES[level]
        places = places + np.where(places % 1 < 0.5, -1.0, 1.0) * shift_xy
        cells = np.clip(np.floor(places).astype(np.int64), 0, grid - 1)
        for place, anchor in enumerate(mask):
            slots[:, anchor] = start + (cells[:, 1] * grid + cells[:, 0]) * len(mask) + place
        start += grid * grid * len(mask)
    return slots
