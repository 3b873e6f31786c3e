"""What the user wants looked at: files, folders, patterns, videos, cameras and streams become one ordered list."""

from __future__ import annotations

import codecs
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.pipeline import Failure
from utils.errors import ConfigError, DataError, UserError, did_you_mean
from utils.image_folders import left_out
from utils.image_headers import IMAGE_SUFFIXES, SUFFIXES, image_format
from utils.images import MAX_FILE_BYTES
from utils.inputs import open_regular

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".ts", ".3gp")
)
STDIN = "-"
STREAM_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://", "srt://")


@dataclass(frozen=True)
class VideoInput:
    """A video file, a stream address, or the number of a webcam."""

    place: Path | str | int
    folder: Path = Path()

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
    """An image file. ``folder`` is where it lies below the directory that was searched; its result lies likewise.

    With ``data`` it is no file: these are its bytes, and ``path`` is what it is called.
    """

    path: Path
    folder: Path = Path()
    data: bytes | None = None


Input = ImageInput | VideoInput


@dataclass(frozen=True)
class Unread:
    """A line about the files of a directory that are neither images nor videos that we read."""

    line: str


Found = Input | Failure | Unread


@dataclass(frozen=True)
class Sources:
    """All inputs, in the order given, each file once. ``failed`` are those that are not there, with DataErrors.

    ``unread`` says of each directory which files of it are none.
    """

    images: tuple[ImageInput, ...]
    videos: tuple[VideoInput, ...]
    failed: tuple[Failure, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """Every input that is a file."""
        return [i.path for i in self.images if i.data is None] + [
            v.place for v in self.videos if isinstance(v.place, Path)
        ]


def find_sources(
    arguments: Sequence[str],
    recursive: bool = False,
    skip: Path | None = None,
    list_file: Path | None = None,
    stdin: BinaryIO | None = None,
) -> Sources:
    """Resolves what stands on the command line. What cannot be used does not keep the others from being looked at.

    Args:
        arguments: image and video files, directories, glob patterns, webcam numbers, stream addresses, and ``-`` for
            what ``stdin`` gives: the bytes of one image, or a list of sources, one a line.
        recursive: look into the directories below a directory, too.
        skip: a directory that is never searched from above, such as the one the results go to.
        list_file: a text file with more sources, one a line.
        stdin: where ``-`` reads.

    Where there is nothing else to look at, ConfigError for what has no such name, naming the nearest, and DataError for
    a directory without pictures. ConfigError for an empty list.
    """
    images: dict[str, ImageInput] = {}
    videos: dict[str, VideoInput] = {}
    failed: list[Failure] = []
    unread: list[str] = []
    for found in _all_inputs(arguments, recursive, skip, list_file, stdin):
        if isinstance(found, Failure):
            failed.append(found)
        elif isinstance(found, Unread):
            unread.append(found.line)
        elif isinstance(found, ImageInput):
            images.setdefault(STDIN if found.data else os.path.abspath(found.path), found)
        else:
            key = os.path.abspath(found.place) if isinstance(found.place, Path) else str(found)
            videos.setdefault(key, found)
    if failed and not images and not videos:
        first, more = failed[0].error, f" (and {len(failed) - 1} more like it)" if failed[1:] else ""
        raise type(first)(f"{first}{more}")
    bad = (Failure(one.source, DataError(str(one.error))) for one in failed)
    return Sources(tuple(images.values()), tuple(videos.values()), tuple(bad), tuple(unread))


def _all_inputs(
    arguments: Sequence[str], recursive: bool, skip: Path | None, list_file: Path | None, stdin: BinaryIO | None
) -> Iterator[Found]:
    for argument in dict.fromkeys(arguments):
        if argument == STDIN and stdin is not None:
            data = stdin.read(MAX_FILE_BYTES)
            # A list of paths has no zero byte, and every image has one near its start.
            if b"\0" in data[:4096]:
                yield ImageInput(_stdin_name(data), data=data)
            else:
                yield from _listed(data, "stdin", recursive, skip)
        else:
            yield from _tried(argument, "", recursive, skip)
    if list_file is not None:
        if not list_file.exists():
            raise ConfigError(f"{list_file}: no such list of sources{_nearest(list_file)}")
        file, _ = open_regular(list_file, "list of sources")
        with file:
            yield from _listed(file.readall(), str(list_file), recursive, skip)


def _listed(data: bytes, name: str, recursive: bool, skip: Path | None) -> Iterator[Found]:
    # Names of files need not be text; what comes back is then the very same bytes.
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise ConfigError(f"{name}: is empty: give one source a line")
    for number, line in lines:
        yield from _tried(line, f"{name}: line {number}: ", recursive, skip)


def _tried(source: str, where: str, recursive: bool, skip: Path | None) -> Iterable[Found]:
    try:
        return _resolve(source, recursive, skip)
    except UserError as error:
        return [Failure(source, type(error)(f"{where}{error}"))]
    except OSError as error:
        return [Failure(source, DataError(f"{where}{source}: cannot be looked at: {error.strerror or error}"))]


def _stdin_name(data: bytes) -> Path:
    """``stdin.jpg``, or whatever its format is. What is no image keeps the bare name, and is refused later."""
    try:
        return Path("stdin" + SUFFIXES[image_format(data[:4096], "stdin")][0])
    except DataError:
        return Path("stdin")


def _resolve(argument: str, recursive: bool, skip: Path | None) -> Iterable[Input | Unread]:
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


def _in_directory(directory: Path, recursive: bool, skip: Path | None) -> list[Input | Unread]:
    wanted = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    paths = sorted(_walk(directory, recursive, skip))
    others = Counter(path.suffix.lower() for path in paths if path.suffix.lower() not in wanted)
    inputs = [_input(path, path.parent.relative_to(directory)) for path in paths if path.suffix.lower() in wanted]
    if not inputs:
        hint = f"; {left_out(others)}" if others else ""
        hint += "" if recursive else "; --recursive looks into the directories below, too"
        raise DataError(f"{directory}: no image or video in this directory{hint}")
    return [*inputs, Unread(f"{directory}: {left_out(others)}")] if others else [*inputs]


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
