"""Small drawn photos with boxes, for tests that must learn or read something."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils.records import write_annotation_list
from utils.types import Record

COLOURS = ((220, 60, 40), (40, 90, 220))


def draw_photo(path: Path, seed: int, objects: int = 2, size_hw: tuple[int, int] = (72, 96)) -> Record:
    """A noisy photo with filled rectangles of two classes, and its record."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    image = rng.integers(90, 150, (height, width, 3), dtype=np.uint8)
    boxes, classes = [], []
    for _ in range(objects):
        w, h = rng.integers(14, 40, 2)
        x, y = rng.integers(0, width - w), rng.integers(0, height - h)
        class_id = int(rng.integers(0, 2))
        image[y : y + h, x : x + w] = COLOURS[class_id]
        boxes.append([x, y, x + w, y + h])
        classes.append(class_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return Record(str(path), np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64))


def draw_lists(folder: Path, train: int = 8, val: int = 4) -> dict[str, Path]:
    """Photos, annotation lists and a class file: the paths of ``train``, ``val`` and ``classes``."""
    for name, count, seed in (("train", train, 0), ("val", val, 1000)):
        # The last photo of each list has no objects: negatives belong in every test.
        records = [draw_photo(folder / name / f"{i}.png", seed + i, 2 if i < count - 1 else 0) for i in range(count)]
        write_annotation_list(folder / f"{name}.txt", records)
    (folder / "classes.txt").write_text("red\nblue\n")
    return {name: folder / f"{name}.txt" for name in ("train", "val", "classes")}
