"""The photos that exported files are compared on, and calibrated with."""

from __future__ import annotations

from pathlib import Path

import yaml

from utils.config import DetectorSpec
from utils.errors import UserError
from utils.images import decode_image, read_for_detector
from utils.records import read_annotation_list
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
        config = yaml.safe_load((checkpoint.parent / "config.yaml").read_text("utf-8"))
        path = config["data"]["val"]
        photos = photos_of_list(path, spec, most)
        return photos, f"{len(photos)} photos of {path}"
    except (OSError, TypeError, KeyError, yaml.YAMLError, UserError) as error:
        drawn = [draw_photo(0, index, DEFAULT_SIZE_HW, DEFAULT_DIFFICULTY)[0] for index in range(1, most + 1)]
        why = " ".join(str(error).split())
        return [decode_image(jpeg, "drawn photo") for jpeg in drawn], f"{most} drawn photos (no validation list: {why})"
