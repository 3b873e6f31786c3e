"""A contact sheet of the drawn dataset with its labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils.contact_sheet import contact_sheet
from utils.draw import draw_boxes
from utils.files import write_atomically
from utils.synthetic import CLASS_NAMES
from utils.synthetic_scene import draw_photo
from utils.types import ImageArray


def write_preview(path: str | Path, images: int, seed: int, size_hw: tuple[int, int], difficulty: float) -> None:
    """Writes the first ``images`` pictures that ``make_dataset`` draws from the same values, labelled, as one JPEG."""
    labelled = [_labelled(seed, index, size_hw, difficulty) for index in range(1, images + 1)]
    sheet = cv2.cvtColor(contact_sheet(labelled, columns=4), cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 80])
    write_atomically(path, jpeg.tobytes())


def _labelled(seed: int, index: int, size_hw: tuple[int, int], difficulty: float) -> ImageArray:
    jpeg, objects, _ = draw_photo(seed, index, size_hw, difficulty)
    image_bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    image: ImageArray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)  # type: ignore[arg-type, assignment]
    boxes = np.array([thing.box_xyxy for thing in objects], np.float64).reshape(-1, 4)
    names = [thing.name for thing in objects]
    tails = ["difficult" if thing.difficult else "" for thing in objects]
    return draw_boxes(image, boxes, np.array([CLASS_NAMES.index(name) for name in names], np.int64), names, tails)
