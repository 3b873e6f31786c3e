"""What the user wants looked at: files, folders, patterns, videos, cameras and streams become one ordered list."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import ConfigError, DataError, did_you_mean
from utils.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".ts", ".3gp")
)
STREAM_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://", "srt://")


@dataclass(frozen=True)
class VideoInput:
    """A video file, a stream address, or the number of a webcam."""

    place: Path | str | int
    folder: Path = Path()

    @property
    def is_live(self) -> bool:
        """Whether it comes at its own speed and may have no end."""
        return not isinstance(self.place, Path)

    @property
    def name(self) -> str:
        """What an output of this input is called: a file keeps its name, a camera is ``webcam0``."""
        if isinstance(self.place, Path):
            return self.place.name
        if isinstance(self.place, int):
            return f"webcam{self.place}.mp4"
        ending = self.place.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
        plain = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in Path(ending).stem)
        return f"stream_{plain or 'video'}.mp4"

    def __str__(self) -> str:
        return f"webcam {self.place}" if isinstance(self.place, int) else str(self.place)


@dataclass(frozen=True)
class ImageInput:
    """An image file. ``folder`` is where it lies below the directory that was searched; its result lies likewise."""

    path: Path
    folder: Path = Path()


Input = ImageInput | VideoInput


@dataclass(frozen=True)
class Sources:
    """All inputs, in the order given, each file once."""

    images: tuple[ImageInput, ...]
    videos: tuple[VideoInput, ...]

    @property
    def files(self) -> list[Path]:
        """Every input that is a file."""
        return [i.path for i in self.images] + [v.place for v in self.videos if isinstance(v.place, Path)]


def find_sources(arguments: Sequence[str], recursive: bool = False, skip: Path | None = None) -> Sources:
    """Resolves what stands on the command line.

    Args:
        arguments: image and video files, directories, glob patterns, webcam numbers, stream addresses.
        recursive: look into the directories below a directory, too.
        skip: a directory that is never searched from above, such as the one the results go to.

    ConfigError where nothing has the name given, naming the nearest; DataError for a directory without pictures.
    """
    images: dict[str, ImageInput] = {}
    videos: dict[str, VideoInput] = {}
    for argument in arguments:
        for found in _resolve(argument, recursive, skip):
            if isinstance(found, ImageInput):
                images.setdefault(os.path.abspath(found.path), found)
            else:
                key = os.path.abspath(found.place) if isinstance(found.place, Path) else str(found)
                videos.setdefault(key, found)
    return Sources(tuple(images.values()), tuple(videos.values()))


def _resolve(argument: str, recursive: bool, skip: Path | None) -> Iterable[Input]:
    if argument.lower().startswith(STREAM_SCHEMES):
        return [VideoInput(argument)]
    if not argument:
        raise ConfigError("SOURCE: is empty; give a file, a directory, a pattern or the number of a webcam")
    path = Path(argument)
    if path.is_dir():
        return _in_directory(path, recursive, skip)
    if path.exists():
        return [_input(path)]
    if argument.isascii() and argument.isdigit():
        return [VideoInput(int(argument))]
    if glob.has_magic(argument):
        # A pattern means files; with `**` it reaches below directories where that is asked for.
        matches = sorted(Path(match) for match in glob.glob(argument, recursive=True) if not os.path.isdir(match))
        kept = [match for match in matches if not _below(match, skip)]
        if not kept:
            raise ConfigError(f"{argument}: no file matches this pattern")
        return [_input(match) for match in kept]
    raise ConfigError(f"{argument}: no such file or directory{_nearest(path)}")


def _input(path: Path, folder: Path = Path()) -> Input:
    return VideoInput(path, folder) if path.suffix.lower() in VIDEO_SUFFIXES else ImageInput(path, folder)


def _in_directory(directory: Path, recursive: bool, skip: Path | None) -> list[Input]:
    wanted = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    paths = [path for path in _walk(directory, recursive, skip) if path.suffix.lower() in wanted]
    if not paths:
        hint = "" if recursive else "; --recursive looks into the directories below, too"
        raise DataError(f"{directory}: no image or video in this directory{hint}")
    return [_input(path, path.parent.relative_to(directory)) for path in sorted(paths)]


def _walk(directory: Path, recursive: bool, skip: Path | None) -> Iterator[Path]:
    for root, folders, names in os.walk(directory):
        here = Path(root)
        folders[:] = sorted(name for name in folders if recursive and not _below(here / name, skip))
        yield from (here / name for name in names if not name.startswith("."))


def _below(path: Path, directory: Path | None) -> bool:
    if directory is None:
        return False
    absolute, above = os.path.abspath(path), os.path.abspath(directory)
    return absolute == above or absolute.startswith(above + os.sep)


def _nearest(path: Path) -> str:
    """The nearest name beside what is missing, or the part of its path that is missing."""
    parent = path.parent
    if parent.is_dir():
        return did_you_mean(path.name, os.listdir(parent)) or ""
    while not parent.exists() and parent != parent.parent:
        path, parent = parent, parent.parent
    hint = did_you_mean(path.name, os.listdir(parent)) if parent.is_dir() else ""
    return f": {path} does not exist{hint}"
