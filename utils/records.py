"""Annotation lists: ``path x1,y1,x2,y2,class ...``, one image a line, read from the right: paths may hold spaces."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from utils.classes import CLASS_LIST, classes_if_any
from utils.errors import ConfigError, DataError
from utils.files import write_atomically
from utils.inputs import open_regular
from utils.plain_numbers import PATTERN
from utils.types import Record

_BOX = re.compile(rf"(?:{PATTERN},){{4}}{PATTERN}")
_TABBED = re.compile(rf".*\t{_BOX.pattern}", re.DOTALL)
_NUMBERS = re.compile(rf"{PATTERN}(?:,{PATTERN})+,?")
_BLANK = " \t\r\n"
_EXACT = float(1 << 53)
LIST_ANEW = "make the list anew with voc_annotation.py --classes"
"""What helps where a list has other classes."""


def parse_record(line: str, class_count: int | None = None) -> Record:
    """The inverse of ``format_record``; also reads the reference's lists of integers.

    DataError for a box that has not five numbers, has no area, or whose class id is not a whole number below
    ``class_count`` (None: any).
    """
    tokens = line.strip(_BLANK).split(" ")
    first = len(tokens)
    # The first token is the path, or the start of it, whatever it looks like.
    while first > 1 and (not tokens[first - 1] or _BOX.fullmatch(tokens[first - 1])):
        first -= 1
    if first > 1 and _NUMBERS.fullmatch(tokens[first - 1]):
        count = tokens[first - 1].strip(",").count(",") + 1
        raise DataError(f"box {tokens[first - 1]!r}: {count} numbers: a box is x1,y1,x2,y2,class")
    boxes = [token.split(",") for token in tokens[first:] if token]
    path = " ".join(tokens[:first])
    if _TABBED.fullmatch(path) or path.endswith("\t"):
        raise DataError("a tab before the boxes: put a blank there")
    if not path:
        raise DataError("image path: missing: a line is the path, then the boxes")
    if not boxes:
        return Record(path, np.zeros((0, 4)), np.zeros(0, np.int64))
    corners = [_corners(box[:4]) for box in boxes]
    class_ids = [_class_id(box[4], class_count) for box in boxes]
    return Record(path, np.array(corners, np.float64), np.array(class_ids, np.int64))


def _class_id(text: str, class_count: int | None) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise DataError(f"class id {text[:40]!r}: must be a whole number from 0")
    number = int(text)
    if class_count is not None and number >= class_count:
        raise DataError(f"class id {number}: only {class_count} classes (0..{class_count - 1}): wrong class list?")
    return number


def _corners(box: Sequence[float] | Sequence[str]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = map(float, box)
    if not (-math.inf < x1 < x2 < math.inf and -math.inf < y1 < y2 < math.inf):
        shown = ",".join(map(_shortest, (x1, y1, x2, y2)))
        raise DataError(f"box {shown}: needs finite numbers with x1 < x2 and y1 < y2: correct or delete it")
    return x1, y1, x2, y2


def require_plain_path(path: str) -> None:
    """DataError for a path that would not read back: with a line break, blanks at its ends, a last word like a box."""
    if not path or "\n" in path or "\r" in path:
        raise DataError(f"image path {path!r}: empty or holds a line break: rename the file")
    last = path.rpartition(" ")[2]
    if (
        path.strip(_BLANK) != path
        or path[0] == "\ufeff"
        or (last != path and _NUMBERS.fullmatch(last))
        or _TABBED.fullmatch(path)
    ):
        raise DataError(f"image path {path!r}: its end or start cannot be told from the list's own marks: rename it")


def format_record(record: Record) -> str:
    """One line, without its end. Numbers in the shortest form that reads back as the same float; integers without .0.

    DataError for a path that would not read back, and for a box without area.
    """
    require_plain_path(record.image_path)
    parts = [record.image_path]
    for box, class_id in zip(record.boxes_xyxy.tolist(), record.class_ids.tolist(), strict=True):
        parts.append(f"{','.join(map(_shortest, _corners(box)))},{class_id}")
    return " ".join(parts)


def _shortest(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)


def read_annotation_list(path: str | Path, class_count: int | None = None) -> list[Record]:
    """All images of a list. Paths are kept as written; names that are not UTF-8 come as ``os.fsdecode`` gives them.

    ConfigError when the list is missing or empty; DataError, with the line number, for a line that is not right.
    """
    if not Path(path).exists():
        raise ConfigError(f"{path}: no such annotation list: make it with voc_annotation.py")
    file, _ = open_regular(path, "annotation list")
    with file:
        text = file.readall().decode("utf-8-sig", "surrogateescape")
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip(_BLANK):
            try:
                records.append(parse_record(line, class_count))
            except DataError as error:
                raise DataError(f"{path}: line {number}: {error}") from error
    if not records:
        raise ConfigError(f"{path}: is empty: make it with voc_annotation.py")
    return records


def refuse_other_classes(path: str | Path, class_names: Sequence[str], remedy: str) -> None:
    """DataError where the ids in the annotation list ``path`` mean other classes, by the class list beside it.

    The message ends with the ``remedy``.
    """
    beside = Path(path).parent / CLASS_LIST
    for number, (theirs, ours) in enumerate(zip(classes_if_any(beside), class_names, strict=False)):
        if theirs != ours:
            raise DataError(f"{path}: class id {number}: is {theirs!r} by {beside}, not {ours!r}: {remedy}")


def write_annotation_list(path: str | Path, records: Iterable[Record]) -> None:
    """Writes a list as a whole or not at all. DataError for a record that would not read back."""
    lines = "".join(f"{format_record(record)}\n" for record in records)
    try:
        data = lines.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: an image path holds {error.object[error.start]!r}: rename the file") from error
    write_atomically(path, data)


def refuse_overlap(train: Sequence[Record], val: Sequence[Record]) -> None:
    """DataError naming the images that are in both: validation would measure what was learned by heart.

    What links lead to is one image, under whatever name.
    """
    seen = set(_real_paths(train))
    both = [record.image_path for record, path in zip(val, _real_paths(val), strict=True) if path in seen]
    if both:
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        raise DataError(f"{both[0]}{more}: in the training and the validation list: take it out of one")


def _real_paths(records: Sequence[Record]) -> Iterator[str]:
    real_folder = cache(os.path.realpath)
    for record in records:
        folder, name = os.path.split(record.image_path)
        path = os.path.join(real_folder(folder), name)
        yield os.path.realpath(path) if os.path.islink(path) else path
