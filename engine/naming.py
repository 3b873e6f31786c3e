"""Where each result goes: outputs keep the names of their inputs, and no two inputs ever share one."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.sources import ImageInput, Sources, VideoInput
from engine.video import CODECS, fallback_path
from utils.errors import ConfigError
from utils.folders import refuse_file_in_the_way

WRITABLE = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
"""Picture formats that are written; results of others become PNG."""
TEXTS, VOC_XML, YOLO_TEXTS, CROPS, HEATMAPS = FOLDERS = "txt", "voc", "yolo/labels", "crops", "heatmaps"
"""What goes beside the pictures, each in a folder of its own."""
YOLO_CLASSES = "yolo/classes.txt"
_FRAME = re.compile(r"_\d{6,}$")


@dataclass(frozen=True)
class OutputNames:
    """``picture`` is relative to the output directory; ``stem`` names what goes beside it (txt/``stem``.txt)."""

    picture: Path
    stem: Path

    def beside(self, suffix: str) -> Path:
        """``stem``, which may hold dots of its own, with ``suffix``."""
        return self.stem.with_name(self.stem.name + suffix)

    def of_frame(self, number: int) -> OutputNames:
        """The same for one frame of a video."""
        return OutputNames(self.picture, self.beside(f"_{number:06d}"))


def name_outputs(sources: Sources) -> list[OutputNames]:
    """One for each image and then each video. Of two that would meet, the later becomes ``name_2``.

    ``a.jpg`` and ``a.png`` keep their names, and their text files are ``a.jpg.txt`` and ``a.png.txt``. So does a video
    beside photos that have the names of its frames.
    """
    wished = [_picture_name(image) for image in sources.images] + [_video_name(video) for video in sources.videos]
    pictures = _made_different(wished)
    given = [image.folder / image.path.name for image in sources.images] + wished[len(sources.images) :]
    # VOC pairs a photo with the XML of its own stem, which is not that of a picture in another format.
    stems = [
        (own if picture == wish else picture).with_suffix("")
        for own, wish, picture in zip(given, wished, pictures, strict=True)
    ]
    shared = Counter(_folded(stem) for stem in stems)
    framed = {_FRAME.sub("", _folded(stem)) for stem in stems[: len(sources.images)] if _FRAME.search(stem.name)}
    full = [
        picture if shared[_folded(stem)] > 1 or (number >= len(sources.images) and _folded(stem) in framed) else stem
        for number, (picture, stem) in enumerate(zip(pictures, stems, strict=True))
    ]
    return [OutputNames(*names) for names in zip(pictures, _made_different(full), strict=True)]


def refuse_overwriting(sources: Sources, out_dir: Path, files: Iterable[Path], weights: Path) -> None:
    """ConfigError when results could go where inputs or the weights lie: into their directory, or onto one of them; or
    when there can be no such directory.
    """
    out = os.path.realpath(out_dir)
    refuse_file_in_the_way(out_dir, "--out")
    if out in {os.path.dirname(os.path.realpath(path)) for path in sources.files}:
        raise ConfigError(f"--out: {out_dir}: is the directory of the input; results need a directory of their own")
    pictures = {os.path.realpath(out_dir / name.picture) for name in name_outputs(sources)}
    pictures.add(os.path.realpath(out_dir / YOLO_CLASSES))
    folders = tuple(os.path.join(os.path.realpath(out_dir / folder), "") for folder in FOLDERS)
    files = tuple(files)
    # Other results keep out of these folders too, whether or not anything is asked for that goes there.
    for given in (*sources.files, weights, *files):
        path = os.path.realpath(given)
        if path in pictures or path.startswith(folders):
            raise ConfigError(f"--out: {out_dir}: {given} lies where a result would go; choose another")
    refuse_inputs_as_files(sources, files)


def refuse_inputs_as_files(sources: Sources, files: Iterable[Path]) -> None:
    """ConfigError when one of ``files`` would be written onto an input."""
    inputs = {os.path.realpath(path) for path in sources.files}
    for file in files:
        if os.path.realpath(file) in inputs:
            raise ConfigError(f"{file}: is one of the inputs; choose another name for the results")


def _picture_name(image: ImageInput) -> Path:
    name = image.folder / image.path.name
    return name if name.suffix.lower() in WRITABLE else name.with_name(name.name + ".png")


def _video_name(video: VideoInput) -> Path:
    name = video.folder / video.name
    return name if name.suffix.lower() in CODECS else name.with_suffix(".mp4")


def _folded(path: Path) -> str:
    return str(path).casefold()  # some file systems take A.jpg and a.jpg for one


def _made_different(paths: Sequence[Path]) -> list[Path]:
    """``paths``, each once: who comes later gets a name that nobody else has or wishes for."""
    wished = {name for path in paths for name in _names_of(path)}
    taken: set[str] = set()
    result = []
    for path in paths:
        candidate, number = path, 2
        while (names := _names_of(candidate)) & (taken if candidate is path else wished | taken):
            candidate = path.with_name(f"{path.stem}_{number}{path.suffix}")
            number += 1
        taken |= names
        result.append(candidate)
    return result


def _names_of(path: Path) -> set[str]:
    """A video may become AVI where no codec takes its size."""
    return {_folded(path)} | ({_folded(fallback_path(path))} if path.suffix.lower() in CODECS else set())
