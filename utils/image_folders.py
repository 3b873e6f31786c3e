"""Labelled photos as folders: the name of a folder is the class of the images in it.

``DIR/train/CLASS/*.jpg`` with ``DIR/val`` or ``DIR/test`` beside it, or ``DIR/CLASS/*.jpg`` alone. ``train``,
``val`` and ``test`` that hold images themselves are classes like any other. Hidden files are passed over, and so are
files that are no images by their suffix, which is said; links are followed, folders inside a class folder are not
searched.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from utils.errors import ConfigError, DataError, did_you_mean
from utils.image_headers import IMAGE_SUFFIXES

TRAIN, VAL, TEST = "train", "val", "test"
UNNAMEABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that no class name holds: controls, surrogates, what ends a line or a paragraph."""
Warn = Callable[[str], None]


@dataclass(frozen=True)
class LabelledImage:
    """An image file and what it shows."""

    path: str
    class_id: int


@dataclass(frozen=True)
class LabelledImages:
    """The images to learn from and those to validate on; class ids index ``class_names``, sorted by code point."""

    class_names: tuple[str, ...]
    train: tuple[LabelledImage, ...]
    val: tuple[LabelledImage, ...]


def read_image_folders(
    root: str | Path, val_fraction: float = 0.0, seed: int = 0, warn: Warn | None = None
) -> LabelledImages:
    """Reads a folder of labelled images.

    Args:
        root: holds ``train/`` with ``val/`` or ``test/``, or the class folders themselves.
        val_fraction: share of each class to validate on, drawn from ``seed``; 0 where a folder says what validates.
            ``test/`` then stays out of training and validation alike.
        seed: of that draw, which depends on nothing but the names and the seed.
        warn: hears of what was passed over.

    ConfigError for a folder that is missing or does not say what to validate on; DataError, naming the folder, for a
    single class, a class without images, splits of different classes, an image in both parts.
    """
    base = _folder(root)
    split = _is_split(base / TRAIN)
    beside = next((name for name in (VAL, TEST) if _is_split(base / name)), None)
    if beside and not split:
        raise ConfigError(f"{base}: holds {beside}/ but no {TRAIN}/ of class folders: put what to learn from there")
    if val_fraction and beside == VAL:
        raise ConfigError(
            f"data.val_fraction: {val_fraction}: {base} holds {VAL}/ to validate on; leave the option out"
        )
    if not val_fraction and beside is None:
        raise ConfigError(
            f"{base}: nothing to validate on: add a folder {VAL}/ of class folders, or --data.val_fraction 0.2"
        )
    found = _class_folders(base / TRAIN if split else base, warn)
    names = tuple(found)
    if len(names) < 2:
        raise DataError(f"{base}: only one class, {names[0]!r}: a classifier tells at least two apart")
    if val_fraction:
        train, val = _cut(found, val_fraction, seed)
    else:
        train = _labelled(found, names)
        val = read_labelled_folder(base / str(beside), names, warn, every_class=True)
    _refuse_shared_files(train, val)
    return LabelledImages(names, train, val)


def read_labelled_folder(
    folder: str | Path, class_names: Sequence[str], warn: Warn | None = None, every_class: bool = False
) -> tuple[LabelledImage, ...]:
    """The images of ``folder/CLASS/``, by class and name.

    DataError for a folder that is none of ``class_names``, or, with ``every_class``, a class that has no folder.
    """
    base = _folder(folder)
    found = _class_folders(base, warn)
    foreign = [name for name in found if name not in class_names]
    if foreign:
        hint = did_you_mean(foreign[0], class_names)
        raise DataError(f"{base}: {_listed(foreign)}: no class of the others{hint}; rename or remove the folder")
    missing = [name for name in class_names if name not in found]
    if missing and every_class:
        raise DataError(f"{base}: no folder for {_listed(missing)}: both parts need the same classes")
    return _labelled(found, class_names)


def part_of(root: str | Path, split: str | None = None, warn: Warn | None = None) -> Path:
    """The folder of class folders to measure on: ``root/split``, else ``root/test``, ``root/val`` or ``root`` itself.

    ``warn`` hears of the last, which may be what was trained on. ConfigError when ``split`` is given and not there, or
    not given and only ``root/train`` is there.
    """
    base = _folder(root)
    if split:
        return _folder(base / split)
    part = next((base / name for name in (TEST, VAL) if _is_split(base / name)), None)
    if part is None and _is_split(base / TRAIN):
        others = [entry.name for entry in _entries(base) if entry.name != TRAIN and _is_split(Path(entry.path))]
        if others:
            raise ConfigError(f"{base}: no {TEST}/ or {VAL}/: give --split with one of {_listed(sorted(others))}")
        raise ConfigError(f"{base}: holds {TRAIN}/ alone: --split {TRAIN} measures on what was trained on")
    if part is None and warn:
        warn(f"{base}: measured whole, any images that were trained on included; --split names a folder of it")
    return part or base


def _is_split(folder: Path) -> bool:
    """Whether it holds class folders, with at least as many images in them as stray ones beside them."""
    if not folder.is_dir():
        return False
    entries = _entries(folder)
    stray = sum(_is_image(entry) for entry in entries)
    inner = [entry.path for entry in entries if entry.is_dir()]
    images = (1 for path in inner for entry in _entries(path) if _is_image(entry))
    return bool(inner) and sum(islice(images, stray)) == stray


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such directory"
        raise ConfigError(f"{folder}: {what}: give a folder that holds a folder of images for each class")
    return folder


def _class_folders(base: Path, warn: Warn | None) -> dict[str, list[str]]:
    """Class name -> paths of its images, both sorted."""
    entries = _entries(base)
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    stray = sorted(entry.name for entry in entries if _is_image(entry))
    if not folders:
        raise DataError(f"{base}: holds no folder: put the images of each class into a folder named after it")
    if stray and warn:
        warn(f"{base}: {_listed(stray)}: left out: in no class folder")
    for name in folders:
        if name != name.strip() or any(unicodedata.category(letter) in UNNAMEABLE for letter in name):
            raise DataError(f"{base}: {name!r}: cannot be the name of a class: rename the folder")
    unread = _unread_suffixes(entries)
    found = {name: _images(base / name, unread, warn) for name in folders}
    if unread and warn:
        warn(f"{base}: {left_out(unread)}")
    return found


def _images(folder: Path, unread: Counter[str], warn: Warn | None) -> list[str]:
    """Paths of the images in a class folder; ``unread`` counts the suffixes of the other files."""
    entries = _entries(folder)
    images = sorted(entry.path for entry in entries if _is_image(entry))
    inner = sorted(entry.name for entry in entries if entry.is_dir())
    others = _unread_suffixes(entries)
    if not images:
        hints = [f"{_listed(inner)}: folders in a class folder are not searched"] if inner else []
        hints += [left_out(others)] if others else []
        raise DataError(f"{folder}: no image in this class folder: {'; '.join(hints) or 'remove the folder'}")
    if inner and warn:
        warn(f"{folder}: {_listed(inner)}: left out: folders in a class folder are not searched")
    unread.update(others)
    return images


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]


def _is_image(entry: os.DirEntry[str]) -> bool:
    return _suffix(entry) in IMAGE_SUFFIXES and not entry.is_dir()


def _suffix(entry: os.DirEntry[str]) -> str:
    return os.path.splitext(entry.name)[1].lower()


def _unread_suffixes(entries: Sequence[os.DirEntry[str]]) -> Counter[str]:
    return Counter(_suffix(entry) for entry in entries if not _is_image(entry) and not entry.is_dir())


def left_out(unread: Counter[str], most: int = 3) -> str:
    """Such as ``.heic: 50 files, .txt: 1 file left out: convert photos to JPEG``."""
    shown = [
        f"{repr(suffix)[1:-1] or 'no suffix'}: {count} file{'s' if count > 1 else ''}"
        for suffix, count in unread.most_common(most)
    ]
    more = f" and {len(unread) - most} more suffixes" if len(unread) > most else ""
    return f"{', '.join(shown)}{more} left out: convert photos to JPEG"


def _labelled(found: dict[str, list[str]], class_names: Sequence[str]) -> tuple[LabelledImage, ...]:
    return tuple(LabelledImage(path, i) for i, name in enumerate(class_names) for path in found.get(name, ()))


def _cut(
    found: dict[str, list[str]], fraction: float, seed: int
) -> tuple[tuple[LabelledImage, ...], tuple[LabelledImage, ...]]:
    """Training and validation part: of every class the share ``fraction``, at least one image in each part.

    Those whose names hash lowest validate, so that an image added later moves at most one other.
    """
    train: list[LabelledImage] = []
    val: list[LabelledImage] = []
    for class_id, (name, paths) in enumerate(found.items()):
        if len(paths) < 2:
            raise DataError(f"{paths[0]}: the only image of class {name!r}: two or more are needed to validate on some")
        count = min(max(round(fraction * len(paths)), 1), len(paths) - 1)
        chosen = set(sorted(paths, key=lambda path: _rank(f"{seed}/{name}/{os.path.basename(path)}"))[:count])
        for path in paths:
            (val if path in chosen else train).append(LabelledImage(path, class_id))
    return tuple(train), tuple(val)


def _rank(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogateescape")).digest()


def _refuse_shared_files(train: Sequence[LabelledImage], val: Sequence[LabelledImage]) -> None:
    """DataError naming an image that is in both parts, be it by a link."""
    learned = {_identity(image.path) for image in train}
    both = [image.path for image in val if _identity(image.path) in learned]
    if both:
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        raise DataError(f"{both[0]}{more}: in the training and the validation part: take it out of one")


def _identity(path: str) -> tuple[int, int] | str:
    try:
        status = os.stat(path)
    except OSError:
        return path  # a link to nowhere, which reading the headers will name
    return status.st_dev, status.st_ino


def _listed(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
