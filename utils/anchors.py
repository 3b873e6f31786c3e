"""Anchor files, and anchors fitted to the boxes of a dataset by k-means with the distance 1 - shape IoU.

The distance is the one of YOLO9000 (arXiv:1612.08242, section 2): it depends on proportions alone, so that large boxes
do not outweigh small ones as they would with Euclidean distance.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.boxes import shape_iou
from utils.errors import DataError, FileError
from utils.files import write_atomically
from utils.plain_numbers import plain_number
from utils.progress import Quiet, Reporter
from utils.types import FloatArray, IntArray

LEVEL_COUNT = 3
RECALL_THRESHOLD = 0.5

_CHUNK = 65536
_MAX_ROUNDS = 100
_SAMPLE = 10_000
_RESTARTS = 10


def read_anchors(path: str | Path) -> FloatArray:
    """Anchor widths and heights in file order. [N, 2] float64 pixels, N a multiple of the three levels.

    The file holds comma-separated numbers, ``w,h, w,h, ...``, over one line or several; floats are kept.
    FileError when it cannot be read, DataError when a number is unusable or the count is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text: write comma-separated numbers, width,height of each anchor") from error
    lines = (line.strip().removesuffix(",") for line in text.splitlines())
    words = [word.strip() for line in lines if line for word in line.split(",")]
    read = [plain_number(word) for word in words]
    if None in read:
        position = read.index(None)
        what = f"number {position + 1}: {words[position][:40]!r}"
        raise DataError(f"{path}: {what}: must be a plain number such as 33 or 33.5")
    numbers = np.array(read, np.float64)
    if len(numbers) == 0 or len(numbers) % 2:
        raise DataError(f"{path}: {len(numbers)} numbers: must be pairs, width,height of each anchor")
    anchors = numbers.reshape(-1, 2)
    _check(anchors, str(path))
    return anchors


def write_anchors(path: str | Path, anchors_wh_px: FloatArray) -> None:
    """Writes [N, 2] pixels on one line; ``read_anchors`` gives back the very same floats. DataError as when reading."""
    anchors = np.asarray(anchors_wh_px, np.float64).reshape(-1, 2)
    _check(anchors, str(path))
    pairs = (",".join(np.format_float_positional(side, trim="-") for side in anchor) for anchor in anchors)
    write_atomically(path, ",  ".join(pairs) + "\n")


def _check(anchors_wh_px: FloatArray, source: str) -> None:
    count = len(anchors_wh_px)
    if count == 0 or count % LEVEL_COUNT:
        raise DataError(f"{source}: {count} anchors: must be a multiple of {LEVEL_COUNT}, as many for each level")
    unusable = anchors_wh_px[~(np.isfinite(anchors_wh_px) & (anchors_wh_px > 0))]
    if unusable.size:
        raise DataError(f"{source}: {unusable[0]:g}: every width and height must be a finite number above 0")


def best_iou(boxes_wh: FloatArray, anchors_wh: FloatArray) -> tuple[FloatArray, IntArray]:
    """The best shape IoU of each box with any anchor, and that anchor's index. [N, 2], [A, 2] -> [N], [N]."""
    ious, indices = np.empty(len(boxes_wh)), np.empty(len(boxes_wh), np.int64)
    for start in range(0, len(boxes_wh), _CHUNK):
        part = slice(start, start + _CHUNK)
        iou = shape_iou(boxes_wh[part], anchors_wh)
        indices[part] = iou.argmax(axis=1)
        ious[part] = iou.max(axis=1)
    return ious, indices


def mean_best_iou(boxes_wh: FloatArray, anchors_wh: FloatArray) -> float:
    """Mean over boxes of the best shape IoU with any anchor, 0..1. [N, 2], [A, 2] in one unit; NaN for no boxes."""
    return float(best_iou(boxes_wh, anchors_wh)[0].mean()) if len(boxes_wh) else float("nan")


def recall(boxes_wh: FloatArray, anchors_wh: FloatArray, threshold: float = RECALL_THRESHOLD) -> float:
    """Share of boxes whose best shape IoU reaches ``threshold``, 0..1. [N, 2], [A, 2]; NaN for no boxes."""
    return float((best_iou(boxes_wh, anchors_wh)[0] >= threshold).mean()) if len(boxes_wh) else float("nan")


def kmeans_anchors(boxes_wh: FloatArray, count: int, seed: int, progress: Reporter | None = None) -> FloatArray:
    """``count`` box shapes that stand for all, by k-means with distance 1 - shape IoU.

    Every restart begins as k-means++ does and moves each centre to the median of its boxes; the centres with the best
    mean best IoU seen in any round of any restart win. The same seed gives the same anchors.

    Args:
        boxes_wh: [N, 2] widths and heights above 0, in any unit.
        count: how many anchors.
        seed: of the generator that draws the starts, and the sample they run on when there are very many boxes.
        progress: told of every restart.

    Returns:
        [count, 2] float64 in the unit of the boxes, sorted by area.

    Raises:
        DataError: a size that is not a finite number above 0, or fewer different sizes than anchors.
    """
    boxes = np.asarray(boxes_wh, np.float64).reshape(-1, 2)
    if not (np.isfinite(boxes) & (boxes > 0)).all():
        raise DataError("box sizes: every width and height must be a finite number above 0")
    different = np.unique(boxes, axis=0)
    if len(different) < count:
        raise DataError(f"{len(different)} different box sizes: fewer than the {count} anchors; ask for fewer anchors")
    rng = np.random.default_rng(seed)
    sample = boxes if len(boxes) <= _SAMPLE else boxes[rng.choice(len(boxes), _SAMPLE, replace=False)]
    # A sample of very many equal boxes may miss the few different ones that make the count.
    if sample is not boxes and len(np.unique(sample, axis=0)) < count:
        sample = different
    trials = [
        _lloyd(sample, _kmeans_plus_plus(sample, count, rng))
        for _ in (progress or Quiet()).track(range(_RESTARTS), "k-means", _RESTARTS, " starts")
    ]
    _, anchors = max(trials, key=lambda trial: trial[0])
    if sample is not boxes:
        _, anchors = _lloyd(boxes, anchors)
    return anchors[np.lexsort((anchors[:, 0], anchors.prod(axis=1)))]


def _kmeans_plus_plus(boxes_wh: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """k-means++: each further centre is a box drawn with probability proportional to its squared distance."""
    centres = [boxes_wh[rng.integers(len(boxes_wh))]]
    distance = np.ones(len(boxes_wh))
    while len(centres) < count:
        iou, _ = best_iou(boxes_wh, centres[-1][None])
        distance = np.minimum(distance, 1 - iou)
        # Rounding may leave a box at a distance of 1e-16 from itself as a centre, which must not be drawn twice.
        weights = np.where(distance > 1e-12, distance, 0.0) ** 2
        centres.append(boxes_wh[rng.choice(len(boxes_wh), p=weights / weights.sum())])
    return np.array(centres)


def _lloyd(boxes_wh: FloatArray, anchors_wh: FloatArray) -> tuple[float, FloatArray]:
    """Rounds of k-means until no box changes its cluster. Returns the best mean IoU seen and its centres."""
    best_score, best_anchors = -1.0, anchors_wh
    before = np.full(len(boxes_wh), -1)
    for _ in range(_MAX_ROUNDS):
        iou, nearest = best_iou(boxes_wh, anchors_wh)
        filled = _fill_empty(nearest, iou, len(anchors_wh))
        score = float(iou.mean())
        # The first round has no empty cluster, as its centres are different boxes; so there always is a best.
        if filled is nearest and score > best_score:
            best_score, best_anchors = score, anchors_wh
        if (filled == before).all():
            break
        before = filled
        anchors_wh = _medians(boxes_wh, filled, len(anchors_wh))
    return best_score, best_anchors


def _fill_empty(nearest: IntArray, iou: FloatArray, count: int) -> IntArray:
    """Gives every cluster without boxes the box that fits its own cluster worst, never another cluster's last one."""
    sizes = np.bincount(nearest, minlength=count)
    if sizes.all():
        return nearest
    nearest = nearest.copy()
    worst_first = iter(np.argsort(iou, kind="stable"))
    for empty in np.flatnonzero(sizes == 0):
        box = next(candidate for candidate in worst_first if sizes[nearest[candidate]] > 1)
        sizes[nearest[box]] -= 1
        sizes[empty] = 1
        nearest[box] = empty
    return nearest


def _medians(boxes_wh: FloatArray, nearest: IntArray, count: int) -> FloatArray:
    return np.array([np.median(boxes_wh[nearest == cluster], axis=0) for cluster in range(count)])
