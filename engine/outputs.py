"""Results as pictures: drawn photos, crops."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils.errors import DataError
from utils.files import write_atomically
from utils.types import Detections, ImageArray

JPEG_QUALITY = 95
LONGEST_GAP = 20
"""So many numbers in a row without a crop are the end of a photo's crops; boxes without an area leave gaps."""


def save_picture(path: Path, image_rgb: ImageArray) -> None:
    """Writes [H, W, 3] uint8 RGB in the format of the suffix.

    DataError when the format cannot hold it, FileError when the place cannot be written.
    """
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix.lower() in (".jpg", ".jpeg") else []
    try:
        written, data = cv2.imencode(path.suffix, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), quality)
    except cv2.error:
        written = False
    if not written:
        height, width = image_rgb.shape[:2]
        raise DataError(f"{path}: {width}x{height}: cannot be written as {path.suffix}")
    write_atomically(path, data.tobytes(), sync=False)


def save_crops(folder: Path, stem: Path, image_rgb: ImageArray, detections: Detections) -> int:
    """Each detection as ``folder/CLASS/STEM_N.jpg``, N from 1 over the image. Returns how many were written.

    A box without an area inside the image gives no crop. Crops of that stem that were there go.
    """
    height, width = image_rgb.shape[:2]
    written = 0
    _remove_crops(folder, stem)
    for number, (name, box) in enumerate(zip(detections.names, detections.boxes_xyxy, strict=True), start=1):
        left, top = np.floor(np.maximum(box[:2], 0)).astype(int)
        right, bottom = np.ceil(np.minimum(box[2:], (width, height))).astype(int)
        if right > left and bottom > top:
            file = folder / folder_name(name) / stem.parent / f"{stem.name}_{number}.jpg"
            save_picture(file, image_rgb[top:bottom, left:right])
            written += 1
    return written


def _remove_crops(folder: Path, stem: Path) -> None:
    classes = list(folder.iterdir()) if folder.exists() else []
    # Looked for by number: to list a folder of many photos for each of them would take long.
    number = last = 0
    while number < last + LONGEST_GAP:
        number += 1
        for one in classes:
            file = one / stem.parent / f"{stem.name}_{number}.jpg"
            if file.exists():
                file.unlink()
                last = number


def folder_name(class_name: str) -> str:
    """The class name as the name of one directory on any system."""
    safe = "".join("_" if letter in '/\\:*?"<>|' or not letter.isprintable() else letter for letter in class_name)
    return safe.strip(" .") or "_"
