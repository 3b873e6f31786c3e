"""All results in one file: a JSON document, a table, COCO's JSON, or JSON lines as they come."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from utils.errors import ConfigError
from utils.files import STDOUT, as_json, replacing, results_out, writing
from utils.types import Detections

CSV_COLUMNS = ("image", "frame", "class_id", "name", "score", "left", "top", "right", "bottom")


@dataclass(frozen=True)
class ResultFiles:
    """Where all results go, by form; one of them may be ``STDOUT``. ConfigError for more than one."""

    json: Path | None = None
    csv: Path | None = None
    coco: Path | None = None
    jsonl: Path | None = None

    def __post_init__(self) -> None:
        there = [option for option, path in self._given.items() if path == STDOUT]
        if len(there) > 1:
            raise ConfigError(f"{', '.join(there)}: -: only one of them can go to stdout: give the others a file")
        places: dict[str, str] = {}
        for option, path in self.paths.items():
            other = places.setdefault(os.path.realpath(path), option)
            if other != option:
                raise ConfigError(f"{other}, {option}: {path}: is one file: give each of them its own")

    @property
    def paths(self) -> dict[str, Path]:
        """The files that were asked for, by the option that asks."""
        return {option: path for option, path in self._given.items() if path != STDOUT}

    @property
    def fill_stdout(self) -> bool:
        """Whether stdout is for results, and nothing else may go there."""
        return STDOUT in self._given.values()

    @property
    def _given(self) -> dict[str, Path]:
        forms = {"--json": self.json, "--csv": self.csv, "--coco": self.coco, "--jsonl": self.jsonl}
        return {option: path for option, path in forms.items() if path}


@dataclass(frozen=True, eq=False)
class Entry:
    """The detections of one image, or of one frame of a video. ``more`` says, for one, which ``frame``."""

    image: str
    size_hw: tuple[int, int]
    detections: Detections
    more: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        height, width = self.size_hw
        dicts = detection_dicts(self.detections)
        return {"image": self.image, **self.more, "width": width, "height": height, "detections": dicts}


class Log(ABC):
    """One file."""

    @abstractmethod
    def add(self, entry: Entry) -> None:
        """The next result."""

    def failed(self, image: str, reason: str) -> None:  # noqa: B027
        """An input that could not be used; not every form has a place for it."""

    def end(self, complete: bool) -> None:  # noqa: B027
        """There is no more; ``complete`` is whether all was looked at."""


class ResultLog:
    """Every file that was asked for."""

    def __init__(self, logs: Sequence[Log]) -> None:
        self._logs = logs

    def add(self, image: str, size_hw: tuple[int, int], detections: Detections, **more: Any) -> None:
        """The detections of one image, or of one ``frame`` of a video."""
        entry = Entry(image, size_hw, detections, more)
        for log in self._logs:
            log.add(entry)

    def failed(self, image: str, reason: str) -> None:
        """An input that could not be used."""
        for log in self._logs:
            log.failed(image, reason)

    def end(self, complete: bool) -> None:
        """Completes the files; ``complete`` is whether all was looked at."""
        for log in self._logs:
            log.end(complete)


class JsonDocument(Log):
    """One document with everything, ``header`` first."""

    def __init__(self, file: TextIO, header: Mapping[str, Any]) -> None:
        self._file = file
        self._separator = ""
        self._failed: list[dict[str, str]] = []
        file.write(as_json(header)[:-1] + ', "images": [')

    def add(self, entry: Entry) -> None:
        """The next result."""
        self._file.write(f"{self._separator}\n{as_json(entry.to_dict())}")
        self._separator = ","

    def failed(self, image: str, reason: str) -> None:
        """Kept for the end."""
        self._failed.append({"image": image, "error": reason})

    def end(self, complete: bool) -> None:
        """Closes the document."""
        self._file.write(f'\n], "failed": {as_json(self._failed)}, "complete": {as_json(complete)}}}\n')


class CsvTable(Log):
    """A row a detection."""

    def __init__(self, file: TextIO) -> None:
        self._table = csv.writer(file)
        self._table.writerow(CSV_COLUMNS)

    def add(self, entry: Entry) -> None:
        """The next rows."""
        for found in detection_dicts(entry.detections):
            values = (found["class_id"], found["name"], found["score"], *found["box_xyxy"])
            self._table.writerow((entry.image, entry.more.get("frame", ""), *values))


class CocoDocument(Log):
    """COCO's form, complete in itself: images and categories, and results with scores as annotations.

    Images and categories are counted from 1, as COCO's are: category 1 is class 0.
    """

    def __init__(self, file: TextIO, header: Mapping[str, Any]) -> None:
        self._file = file
        self._header = header
        # The two lists grow side by side, and a file can only grow at its end.
        self._images = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        self._image_count = self._count = 0
        file.write('{"annotations": [')

    def add(self, entry: Entry) -> None:
        """The next image and what it holds."""
        height, width = entry.size_hw
        frame = {"frame": entry.more["frame"]} if "frame" in entry.more else {}
        self._image_count += 1
        image = {"id": self._image_count, "file_name": entry.image, "width": width, "height": height, **frame}
        self._images.write(f"{',' if self._image_count > 1 else ''}\n{as_json(image)}")
        for found in detection_dicts(entry.detections):
            left, top, right, bottom = found["box_xyxy"]
            self._count += 1
            annotation = {
                "id": self._count,
                "image_id": self._image_count,
                "category_id": found["class_id"] + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": 0,
                "score": found["score"],
            }
            self._file.write(f"{',' if self._count > 1 else ''}\n{as_json(annotation)}")

    def end(self, complete: bool) -> None:
        """Puts the images and what they share after their results."""
        info = {**self._header, "complete": complete}
        categories = [{"id": number, "name": name} for number, name in enumerate(info.pop("class_names"), start=1)]
        self._file.write('\n], "images": [')
        self._images.seek(0)
        shutil.copyfileobj(self._images, self._file)
        self._images.close()
        self._file.write(f'\n], "categories": {as_json(categories)}, "info": {as_json(info)}}}\n')


class JsonLines(Log):
    """A line an image, or a frame, as soon as it is done. In ASCII, whatever a terminal can show."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, entry: Entry) -> None:
        """The next line."""
        self._write(entry.to_dict())

    def failed(self, image: str, reason: str) -> None:
        """A line that says what is wrong with the input."""
        self._write({"image": image, "error": reason})

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


@contextmanager
def result_log(files: ResultFiles, header: Mapping[str, Any]) -> Iterator[ResultLog]:
    """A ResultLog whose files appear when the block ends without error, on stdout too; JSON lines are there at once.

    ``header`` says how the results were made; ``class_names`` among it. FileError when a place cannot be written.
    """
    with ExitStack() as stack:
        logs: list[Log] = []
        forms = {"json": files.json, "csv": files.csv, "coco": files.coco}
        # What begins first ends last: whoever reads stdout and stops early leaves the files alone.
        wanted = sorted((path != STDOUT, form, path) for form, path in forms.items() if path)
        opened = {form: stack.enter_context(_whole(path)) for _, form, path in wanted}
        if files.json:
            logs.append(JsonDocument(opened["json"], header))
        if files.csv:
            logs.append(CsvTable(opened["csv"]))
        if files.coco:
            logs.append(CocoDocument(opened["coco"], header))
        if files.jsonl:
            logs.append(JsonLines(stack.enter_context(_stream(files.jsonl))))
        yield ResultLog(logs)


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


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    text: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    if path == STDOUT:
        with tempfile.TemporaryFile("w+", **text) as file:
            yield file
            file.seek(0)
            shutil.copyfileobj(file.buffer, out := results_out())
            out.flush()
        return
    with replacing(path) as temporary, temporary.open("w", **text) as file:
        yield file


@contextmanager
def _stream(path: Path) -> Iterator[TextIO]:
    if path == STDOUT:
        text = TextIOWrapper(results_out(), "ascii", write_through=True)
        try:
            yield text
        finally:
            # Closed, it would close stdout.
            text.detach()
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="ascii")
    with file:
        yield file
