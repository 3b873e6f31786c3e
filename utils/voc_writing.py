"""Writing VOC XML: what ``utils.annotations.parse_annotation`` reads, and LabelImg, CVAT and Label Studio open."""

from __future__ import annotations

import re

from lxml import etree

from utils.types import Annotation

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def format_annotation(annotation: Annotation, filename: str) -> bytes:
    """The XML of an annotation whose size is known; ``filename`` is the image's own name. UTF-8.

    ``parse_annotation`` gives the same back. What XML cannot hold, such as bytes of a name that are no text, becomes _.
    An object that touches a border of the image is said to be truncated, as LabelImg does.
    """
    assert annotation.size_hw is not None
    height, width = annotation.size_hw
    root = etree.Element("annotation")
    _add(root, "filename", filename)
    size = etree.SubElement(root, "size")
    for side, pixels in (("width", width), ("height", height), ("depth", 3)):
        _add(size, side, str(pixels))
    _add(root, "segmented", "0")
    for item in annotation.objects:
        left, top, right, bottom = item.box_xyxy
        cut = left <= 0 or top <= 0 or right >= width or bottom >= height
        element = etree.SubElement(root, "object")
        _add(element, "name", item.name)
        _add(element, "pose", "Unspecified")
        _add(element, "truncated", str(int(cut)))
        _add(element, "difficult", str(int(item.difficult)))
        box = etree.SubElement(element, "bndbox")
        for side, value in zip(("xmin", "ymin", "xmax", "ymax"), item.box_xyxy, strict=True):
            # Some readers take whole numbers only, where there is a choice.
            _add(box, side, str(int(value)) if value == int(value) else repr(value))
    etree.indent(root, "    ")
    return etree.tostring(root, encoding="utf-8") + b"\n"


def _add(parent: etree._Element, tag: str, text: str) -> None:
    etree.SubElement(parent, tag).text = _NOT_IN_XML.sub("_", text)
