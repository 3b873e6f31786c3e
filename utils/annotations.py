"""One VOC XML file: what it says (``parse_annotation``) and whether that fits its image (``fit_to_image``)."""

from __future__ import annotations

import dataclasses
import os
import re
import reprlib
from collections.abc import Collection
from pathlib import Path

from lxml import etree

from utils.errors import DataError, did_you_mean
from utils.plain_numbers import plain_number
from utils.problems import FailFast, Problems
from utils.safe_xml import read_xml_root
from utils.types import AnnotatedObject, Annotation

EDGE_TOLERANCE_PX = 1.0
"""A box may reach this far out of its image and is clipped; further out it is an error."""

Box = tuple[float, float, float, float]
_QUOTED = reprlib.Repr()
_QUOTED.maxstring = 60
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")


def parse_annotation(xml_path: str | Path, problems: Problems | None = None) -> Annotation:
    """Reads one VOC XML as it is written.

    DataError for a file that is no VOC annotation. A broken object goes to ``problems`` and is left out of the result;
    without ``problems`` it raises DataError too.
    """
    found = FailFast() if problems is None else problems
    path = Path(xml_path)
    name = os.fspath(path)
    root = read_xml_root(path, found.warn)
    if root.tag != "annotation":
        raise DataError(f"{name}: root <{root.tag}>: not a VOC annotation, whose root is <annotation>; export as VOC")
    _check_filename(root, path, found)
    objects: list[AnnotatedObject] = []
    seen: set[tuple[str, Box]] = set()
    for number, element in enumerate(root.iterfind("object"), 1):
        parsed = _parse_object(element, f"{name}: object {number}", found)
        if parsed is None:
            continue
        if (parsed.name, parsed.box_xyxy) in seen:
            found.warn("same box twice", f"{name}: object {number}: {parsed.name}: the same box as before: delete one")
        seen.add((parsed.name, parsed.box_xyxy))
        objects.append(parsed)
    _refuse_deeper_objects(root, name, found)
    return Annotation(path, _stated_size(root), tuple(objects))


def fit_to_image(annotation: Annotation, size_hw: tuple[int, int], problems: Problems | None = None) -> Annotation:
    """The annotation with its image's true size and its boxes inside the image.

    Boxes up to 1 px outside are clipped; further outside, or a size that differs from the image's, is an error, which
    goes to ``problems`` or, without it, raises DataError.
    """
    found = FailFast() if problems is None else problems
    name = os.fspath(annotation.xml_path)
    height, width = size_hw
    if annotation.size_hw is None:
        found.warn("size missing", f"{name}: size: missing or 0: taken from the image ({width}x{height})")
    elif annotation.size_hw != size_hw:
        stated = f"{annotation.size_hw[1]:.9g}x{annotation.size_hw[0]:.9g}"
        hint = "give --ignore-exif if it was labelled unrotated" if annotation.size_hw == (width, height) else "relabel"
        found.error(f"{name}: size: {stated}: the image is {width}x{height}: {hint}")
        return dataclasses.replace(annotation, size_hw=size_hw)
    objects = []
    for number, item in enumerate(annotation.objects, 1):
        x1, y1, x2, y2 = item.box_xyxy
        if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            box = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
            moved = max(abs(new - old) for new, old in zip(box, item.box_xyxy, strict=True))
            where = f"{name}: {item.name} box {number}: {_shown(item.box_xyxy)}"
            if moved > EDGE_TOLERANCE_PX or box[0] >= box[2] or box[1] >= box[3]:
                found.error(f"{where}: outside the image of {width}x{height}: correct the box")
                continue
            found.warn("box clipped to the image", f"{where}: up to 1 px outside the image: clipped")
            item = dataclasses.replace(item, box_xyxy=box)
        objects.append(item)
    return dataclasses.replace(annotation, size_hw=size_hw, objects=tuple(objects))


def known_objects(annotation: Annotation, class_names: Collection[str], problems: Problems) -> list[AnnotatedObject]:
    """The objects of known classes; ``problems`` counts the others by class."""
    known = []
    for item in annotation.objects:
        if item.name in class_names:
            known.append(item)
            continue
        kind = f"unknown class {item.name!r}"
        # Looking for near names takes its time, and only the first message of a kind is shown.
        hint = "" if problems.warnings[kind] else did_you_mean(item.name, class_names)
        problems.warn(kind, f"{annotation.xml_path}: {item.name!r}: not in the class list{hint}: left out")
    return known


def _shown(box: Box) -> str:
    return ",".join(f"{value:g}" for value in box)


def _refuse_deeper_objects(root: etree._Element, name: str, found: Problems) -> None:
    """Unread, objects that a file wraps in an element of its own would make its photo a negative."""
    for wrapper in root:
        if wrapper.find(".//object") is not None:
            found.error(f"{name}: {wrapper.tag}: holds an <object>, whose place is <annotation>: move it there")


def _check_filename(root: etree._Element, path: Path, found: Problems) -> None:
    stated = (root.findtext("filename") or "").strip()
    stem = path.name[:-4]
    if stated and stated != stem and stated.rpartition(".")[0] != stem:
        message = f"{path}: filename: {stated!r}: differs from the XML's own name, which decides"
        found.warn("filename differs from the XML's name", message)


def _stated_size(root: etree._Element) -> tuple[int, int] | None:
    sides = []
    for side in ("height", "width"):
        value = plain_number(root.findtext(f"size/{side}") or "")
        if value is None or value < 1 or value != int(value):
            return None
        sides.append(int(value))
    return sides[0], sides[1]


def _parse_object(element: etree._Element, where: str, found: Problems) -> AnnotatedObject | None:
    written = element.findtext("name") or ""
    name = written.strip()
    if not name:
        found.error(f"{where}: name: missing: name the object or delete it")
        return None
    if "\n" in name or "\r" in name:
        found.error(f"{where}: name: {name!r}: holds a line break: write it on one line")
        return None
    if name != written:
        found.warn("spaces around a name", f"{where}: name: {written!r}: read as {name!r}")
    box = _parse_box(element, f"{where} ({name})", found)
    difficult = element.findtext("difficult")
    if difficult and not _INTEGER.fullmatch(difficult):
        found.error(f"{where} ({name}): difficult: {_QUOTED.repr(difficult)}: must be 0 or 1")
        return None
    return None if box is None else AnnotatedObject(name, box, bool(difficult and difficult.strip(" \t\r\n+-0")))


def _parse_box(element: etree._Element, where: str, found: Problems) -> Box | None:
    # Only the object's own box: nested <part> elements have theirs, in whatever place they like.
    box = element.find("bndbox")
    if box is None:
        found.error(f"{where}: bndbox: missing: draw the box or delete the object")
        return None
    texts = {child.tag: child.text for child in box}
    values = []
    for side in ("xmin", "ymin", "xmax", "ymax"):
        text = texts.get(side) or ""
        value = plain_number(text)
        if value is None:
            problem = "missing" if not text.strip() else f"{_QUOTED.repr(text)}: not a plain finite number"
            found.error(f"{where}: {side}: {problem}: correct the box")
            return None
        values.append(value)
    x1, y1, x2, y2 = values
    for axis, low, high in (("x", x1, x2), ("y", y1, y2)):
        if low >= high:
            problem = "the box has no area" if low == high else "the two are swapped"
            found.error(f"{where}: {axis}min {low:g}, {axis}max {high:g}: {problem}: correct the box or delete it")
            return None
    return x1, y1, x2, y2
