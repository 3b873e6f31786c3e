"""The photos that exported files are compared on, and calibrated with."""

from __future__ import annotations

from pathlib import Path

from utils.config import DetectorSpec
from utils.errors import UserError
from utils.images import decode_image, read_for_detector
from utils.records import read_annotation_list
from utils.run_files import list_of_run
from utils.synthetic import DEFAULT_DIFFICULTY, DEFAULT_SIZE_HW
from utils.synthetic_scene import draw_photo
from utils.types import ImageArray


def photos_of_list(path: str | Path, spec: DetectorSpec, most: int) -> list[ImageArray]:
    """The first ``most`` photos of an annotation list. DataError for one that cannot be used."""
    records = read_annotation_list(path, len(spec.class_names))[:most]
    return [read_for_detector(record.image_path, spec) for record in records]


def photos_to_compare(checkpoint: Path, spec: DetectorSpec, most: int) -> tuple[list[ImageArray], str]:
    """Photos of the run's validation list, or drawn ones where that cannot be read; and which they are, in words."""
    try:
        path = list_of_run(checkpoint, "val")
        photos = photos_of_list(path, spec, most)
        return photos, f"{len(photos)} photos of {path}"
    except UserError as error:
        drawn = [draw_photo(0, index, DEFAULT_SIZE_HW, DEFAULT_DIFFICULTY)[0] for index in range(1, most + 1)]
        photos = [decode_image(jpeg, "drawn photo") for jpeg in drawn]
        return photos, f"{most} drawn photos (no validation list: {error})"
