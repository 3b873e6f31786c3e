"""Ground truth and detections as text files, one pair an image, for other tools and for a second look.

``ground-truth/ID.txt`` holds lines ``name left top right bottom [difficult]``, ``detection-results/ID.txt`` lines
``name score left top right bottom``. UTF-8, floats in full precision, read from the right, so names may hold spaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.classes import CLASS_LIST
from utils.errors import ConfigError, DataError, did_you_mean
from utils.files import write_atomically
from utils.folders import replacing_folder
from utils.plain_numbers import plain_number
from utils.types import Detections, GroundTruth

TRUTH_FOLDER, FOUND_FOLDER = "ground-truth", "detection-results"
DIFFICULT = "difficult"


@dataclass(frozen=True, eq=False)
class MapFiles:
    """What a pair of folders holds."""

    class_names: tuple[str, ...]
    ground_truths: list[GroundTruth]
    detections: dict[str, Detections]


@dataclass(frozen=True)
class _Line:
    """One line: a class name and its numbers, in the file's order."""

    where: str
    name: str
    numbers: tuple[float, ...]
    difficult: bool = False


def write_map_files(
    folder: str | Path,
    ground_truths: Sequence[GroundTruth],
    detections: Mapping[str, Detections],
    class_names: Sequence[str],
) -> None:
    """Writes both folders and ``classes.txt`` under ``folder``; each folder replaces its older self whole.

    Every image gets both files, empty ones if need be. ValueError for an image id that cannot be a file name.
    """
    root = Path(folder)
    for truth in ground_truths:
        if "/" in truth.image_id or "\n" in truth.image_id or not truth.image_id:
            raise ValueError(f"image id {truth.image_id!r} cannot name a file")
    write_atomically(root / CLASS_LIST, "".join(f"{name}\n" for name in class_names))
    with replacing_folder(root / TRUTH_FOLDER) as fresh:
        for truth in ground_truths:
            _write_lines(fresh / f"{truth.image_id}.txt", _truth_lines(truth, class_names))
    with replacing_folder(root / FOUND_FOLDER) as fresh:
        for truth in ground_truths:
            found = detections.get(truth.image_id) or Detections.empty()
            _write_lines(fresh / f"{truth.image_id}.txt", _found_lines(found, class_names))


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def _truth_lines(truth: GroundTruth, class_names: Sequence[str]) -> Iterator[str]:
    for box, class_id, difficult in zip(truth.boxes_xyxy, truth.class_ids, truth.difficult, strict=True):
        yield f"{class_names[class_id]} {_numbers(box)}" + (f" {DIFFICULT}" if difficult else "")


def _found_lines(found: Detections, class_names: Sequence[str]) -> Iterator[str]:
    for box, score, class_id in zip(found.boxes_xyxy, found.scores, found.class_ids, strict=True):
        yield f"{class_names[class_id]} {float(score)!r} {_numbers(box)}"


def _numbers(box_xyxy: np.ndarray) -> str:
    # The shortest text that reads back as the same float64; float32 values are float64 values too.
    return " ".join(repr(float(value)) for value in box_xyxy)


def read_map_files(folder: str | Path, class_names: Sequence[str] | None = None) -> MapFiles:
    """The inverse of ``write_map_files``; also reads such files from elsewhere.

    Without ``class_names`` the classes are the names met in the files, sorted by code point. ConfigError when a
    folder is missing or empty; DataError for an image with only one of its files, a line that does not read, or a name
    that ``class_names`` lacks.
    """
    root = Path(folder)
    truth_files, found_files = _files(root / TRUTH_FOLDER), _files(root / FOUND_FOLDER)
    for mine, others, where in ((truth_files, found_files, FOUND_FOLDER), (found_files, truth_files, TRUTH_FOLDER)):
        if alone := sorted(set(mine) - set(others)):
            missing = root / where / f"{alone[0]}.txt"
            raise DataError(f"{missing}: missing, but {mine[alone[0]]} exists: every image needs both; empty if none")
    truths = {image_id: _truth_of(path) for image_id, path in sorted(truth_files.items())}
    found = {image_id: _found_of(path) for image_id, path in sorted(found_files.items())}
    if class_names is None:
        lines = [line for lines in (*truths.values(), *found.values()) for line in lines]
        class_names = sorted({line.name for line in lines})
    ids = {name: number for number, name in enumerate(class_names)}
    return MapFiles(
        tuple(class_names),
        [_ground_truth(image_id, lines, ids) for image_id, lines in truths.items()],
        {image_id: _detections(lines, ids) for image_id, lines in found.items()},
    )


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; get_map.py writes it, one text file an image")
    files = {path.name.removesuffix(".txt"): path for path in folder.iterdir() if path.name.endswith(".txt")}
    if not files:
        raise ConfigError(f"{folder}: holds no .txt files; get_map.py writes one an image")
    return files


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    if not path.is_file():
        raise DataError(f"{path}: not a regular file; remove it")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start}: not UTF-8; save it as UTF-8") from error
    # Not splitlines(): a name may hold U+2028 and its like.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}: line {number}", line.rstrip()


def _truth_of(path: Path) -> list[_Line]:
    found = []
    for where, line in _lines(path):
        words = line.rsplit(None, 1)
        difficult = words[-1] == DIFFICULT and len(words) == 2
        name, numbers = _parts(where, words[0] if difficult else line, 4, "name left top right bottom [difficult]")
        left, top, right, bottom = numbers
        if right < left or bottom < top:
            raise DataError(f"{where}: {line!r}: right and bottom must not lie before left and top")
        found.append(_Line(where, name, numbers, difficult))
    return found


def _found_of(path: Path) -> list[_Line]:
    found = []
    for where, line in _lines(path):
        name, numbers = _parts(where, line, 5, "name score left top right bottom")
        if not 0 <= numbers[0] <= 1:
            raise DataError(f"{where}: score: {numbers[0]:g}: must lie in 0..1")
        found.append(_Line(where, name, numbers))
    return found


def _parts(where: str, line: str, count: int, form: str) -> tuple[str, tuple[float, ...]]:
    parts = line.rsplit(None, count)
    if len(parts) != count + 1:
        raise DataError(f"{where}: {line!r}: too few words; the form is: {form}")
    numbers = []
    for word in parts[1:]:
        number = plain_number(word)
        if number is None:
            raise DataError(f"{where}: {word!r}: not a number; the form is: {form}")
        numbers.append(number)
    return parts[0], tuple(numbers)


def _class_ids(lines: Sequence[_Line], ids: Mapping[str, int]) -> np.ndarray:
    for line in lines:
        if line.name not in ids:
            raise DataError(f"{line.where}: unknown class {line.name!r}{did_you_mean(line.name, ids)}")
    return np.array([ids[line.name] for line in lines], np.int64)


def _ground_truth(image_id: str, lines: Sequence[_Line], ids: Mapping[str, int]) -> GroundTruth:
    boxes = np.array([line.numbers for line in lines], np.float64).reshape(-1, 4)
    difficult = np.array([line.difficult for line in lines], np.bool_)
    return GroundTruth(image_id, boxes, _class_ids(lines, ids), difficult)


def _detections(lines: Sequence[_Line], ids: Mapping[str, int]) -> Detections:
    numbers = np.array([line.numbers for line in lines], np.float64).reshape(-1, 5)
    names = tuple(line.name for line in lines)
    return Detections(numbers[:, 1:], numbers[:, 0], _class_ids(lines, ids), names)
