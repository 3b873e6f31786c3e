"""Results as files: pictures, one JSON document, CSV, text per image, crops."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from utils.errors import DataError
from utils.files import replacing, write_atomically
from utils.types import Detections, ImageArray

JPEG_QUALITY = 95
CSV_COLUMNS = ("image", "frame", "class_id", "name", "score", "left", "top", "right", "bottom")


def save_picture(path: Path, image_rgb: ImageArray) -> None:
    """Writes [H, W, 3] uint8 RGB in the format of the suffix.

    DataError when the format cannot hold it, FileError when the place cannot be written.
    """
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix.lower() in (".jpg", ".jpeg") else []
    try:
        _, data = cv2.imencode(path.suffix, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), quality)
    except cv2.error as error:
        height, width = image_rgb.shape[:2]
        raise DataError(f"{path}: {width}x{height}: cannot be written as {path.suffix}") from error
    write_atomically(path, data.tobytes())


def detection_dicts(detections: Detections) -> list[dict[str, Any]]:
    """One plain dict a detection, ready for JSON."""
    return [
        {"name": name, "class_id": class_id, "score": score, "box_xyxy": box}
        for name, class_id, score, box in zip(
            detections.names,
            detections.class_ids.tolist(),
            detections.scores.tolist(),
            detections.boxes_xyxy.tolist(),
            strict=True,
        )
    ]


def detection_text(detections: Detections) -> str:
    """Lines ``name score left top right bottom``, floats in full precision; to be read from the right."""
    return "".join(
        f"{name} {score!r} {' '.join(map(repr, box))}\n"
        for name, score, box in zip(
            detections.names, detections.scores.tolist(), detections.boxes_xyxy.tolist(), strict=True
        )
    )


def save_crops(folder: Path, stem: Path, image_rgb: ImageArray, detections: Detections) -> int:
    """Each detection as ``folder/CLASS/STEM_N.jpg``, N from 1 over the image. Returns how many were written.

    A box without an area inside the image gives no crop.
    """
    height, width = image_rgb.shape[:2]
    written = 0
    for number, (name, box) in enumerate(zip(detections.names, detections.boxes_xyxy, strict=True), start=1):
        left, top = np.floor(np.maximum(box[:2], 0)).astype(int)
        right, bottom = np.ceil(np.minimum(box[2:], (width, height))).astype(int)
        if right > left and bottom > top:
            file = folder / folder_name(name) / stem.parent / f"{stem.name}_{number}.jpg"
            save_picture(file, image_rgb[top:bottom, left:right])
            written += 1
    return written


def folder_name(class_name: str) -> str:
    """The class name as the name of one directory on any system."""
    safe = "".join("_" if letter in '/\\:*?"<>|' or not letter.isprintable() else letter for letter in class_name)
    return safe.strip(" .") or "_"


class ResultLog:
    """The JSON document and the CSV table, written as results come and in place once the work has ended."""

    def __init__(self, json_file: TextIO | None, csv_file: TextIO | None) -> None:
        self._json = json_file
        self._table = csv.writer(csv_file) if csv_file else None
        if self._table:
            self._table.writerow(CSV_COLUMNS)
        self._separator = ""

    def start(self, header: dict[str, Any]) -> None:
        """``header`` becomes the first keys of the document."""
        if self._json:
            self._json.write(_dumps(header)[:-1] + ', "images": [')

    def add(self, image: str, size_hw: tuple[int, int], detections: Detections, **more: Any) -> None:
        """The detections of one image, or of one ``frame`` of a video."""
        dicts = detection_dicts(detections)
        if self._json:
            entry = {"image": image, **more, "width": size_hw[1], "height": size_hw[0], "detections": dicts}
            self._json.write(f"{self._separator}\n{_dumps(entry)}")
            self._separator = ","
        if self._table:
            for found in dicts:
                values = (found["class_id"], found["name"], found["score"], *found["box_xyxy"])
                self._table.writerow((image, more.get("frame", ""), *values))

    def end(self, failed: Sequence[tuple[str, str]], complete: bool) -> None:
        """Closes the document with the inputs that ``failed`` (name, reason), and whether all was looked at."""
        if self._json:
            errors = [{"image": name, "error": reason} for name, reason in failed]
            self._json.write(f'\n], "failed": {_dumps(errors)}, "complete": {_dumps(complete)}}}\n')


@contextmanager
def result_log(json_path: Path | None, csv_path: Path | None) -> Iterator[ResultLog]:
    """A ResultLog whose files appear when the block ends without error."""
    with _replacing_text(json_path) as json_file, _replacing_text(csv_path) as csv_file:
        yield ResultLog(json_file, csv_file)


@contextmanager
def _replacing_text(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield file


def _dumps(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # File names that are not UTF-8 hold lone surrogates, which JSON can only carry escaped.
    return text if text.isprintable() else json.dumps(value)
