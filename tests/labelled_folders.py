"""Small drawn photos in folders of classes, for tests that must learn or read something."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

CLASSES = ("bar", "disc", "square")
COLOURS = ((220, 60, 40), (40, 200, 60), (40, 90, 220))


def draw_labelled(path: Path, name: str, seed: int, size_hw: tuple[int, int] = (40, 48)) -> None:
    """A noisy photo with a shape of its class, somewhere, in the colour of its class."""
    rng = np.random.default_rng((seed, CLASSES.index(name)))
    height, width = size_hw
    image = rng.integers(80, 140, (height, width, 3), dtype=np.uint8)
    x, y = int(rng.integers(14, width - 14)), int(rng.integers(14, height - 14))
    colour = COLOURS[CLASSES.index(name)]
    if name == "disc":
        cv2.circle(image, (x, y), 10, colour, -1)
    elif name == "square":
        cv2.rectangle(image, (x - 9, y - 9), (x + 9, y + 9), colour, 3)
    else:
        cv2.rectangle(image, (x - 3, 2), (x + 3, height - 3), colour, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def draw_folders(root: Path, train: int = 6, val: int = 3, parts: tuple[str, str] = ("train", "val")) -> Path:
    """``root/train`` and ``root/val`` with so many photos of each of CLASSES."""
    for part, count, first in ((parts[0], train, 0), (parts[1], val, 1000)):
        for name in CLASSES:
            for i in range(count):
                draw_labelled(root / part / name / f"{i}.png", name, first + i)
    return root
