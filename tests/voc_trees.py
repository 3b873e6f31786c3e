"""Small VOC folders made by code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

import voc_annotation
from utils.door import run_door

Box = tuple[str, float, float, float, float]


def object_xml(name: str, x1: object, y1: object, x2: object, y2: object, extra: str = "") -> str:
    corners = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def annotation_xml(
    objects: Iterable[str] = (), size_wh: tuple[object, object] | None = (64, 48), extra: str = ""
) -> str:
    size = f"<size><width>{size_wh[0]}</width><height>{size_wh[1]}</height></size>" if size_wh else ""
    return f"<annotation>{extra}{size}{''.join(objects)}</annotation>"


class VocTree:
    """A VOC<year> folder that grows image by image."""

    def __init__(self, root: Path, year: str = "2007") -> None:
        self.root, self.folder = root, root / f"VOC{year}"
        for name in ("Annotations", "JPEGImages"):
            (self.folder / name).mkdir(parents=True)

    def add(self, stem: str, *objects: str, size_wh: tuple[int, int] = (64, 48), suffix: str = ".jpg") -> Path:
        """An image and an annotation that holds ``objects``; returns the image's path."""
        self.write_xml(stem, annotation_xml(objects, size_wh))
        pixels = np.full((size_wh[1], size_wh[0], 3), 90, np.uint8)
        path = self.folder / "JPEGImages" / f"{stem}{suffix}"
        path.write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())
        return path

    def write_xml(self, stem: str, text: str | bytes) -> Path:
        path = self.folder / "Annotations" / f"{stem}.xml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def split(self, name: str, *stems: str, text: str | None = None) -> Path:
        path = self.folder / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{stem}\n" for stem in stems) if text is None else text, newline="")
        return path


def annotate(*arguments: object) -> int:
    """Opens voc_annotation.py; the exit code."""
    return run_door(lambda: voc_annotation.main([str(argument) for argument in arguments]))


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
