"""The VOCdevkit layout: VOC<year>/{Annotations,JPEGImages,ImageSets/Main}, and the ground truth it holds."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from utils.annotations import fit_to_image, known_objects, parse_annotation
from utils.errors import ConfigError, DataError, did_you_mean
from utils.image_headers import IMAGE_SUFFIXES, probe
from utils.inputs import open_regular
from utils.problems import FailFast, Problems
from utils.types import Annotation, GroundTruth

__all__ = [
    "annotation_path_for",
    "annotation_stems",
    "fit_to_image",
    "ground_truth_beside",
    "image_path_for",
    "image_sets",
    "index_images",
    "inner_folders",
    "load_ground_truth",
    "parse_annotation",
    "read_image_set",
    "voc_year_dir",
    "voc_years",
]

_NOT_PLAIN = "not a plain image name: paths out of the folder are never followed"
_XML = (".xml", ".XML")
NAME_BYTES = 255
"""More has no file system for a name."""
_BESIDE_PHOTOS = frozenset((".xml", ".txt", ".json", ".csv", ".aae"))
"""What labelling tools and phones write beside a photo of the same name."""
_FLAGGED = re.compile(r"(.*\S)[ \t]+(?:-1|0|1)")


def voc_years(root: str | Path) -> list[str]:
    """The years below a VOCdevkit folder: VOC2007 and VOC2012 give ["2007", "2012"]. ConfigError when there is none."""
    folder = Path(root)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder: give the VOCdevkit folder, which holds VOC2007 or the like")
    years = sorted(
        item.name[3:] for item in folder.iterdir() if item.name[:3] == "VOC" and (item / "Annotations").is_dir()
    )
    years = [year for year in years if year]
    if not years:
        if (folder / "Annotations").is_dir():
            raise ConfigError(
                f"{folder}: holds Annotations itself: name this folder VOC2007 or the like, give its parent"
            )
        raise ConfigError(f"{folder}: holds no folder VOC<year> with Annotations in it: see VOCdevkit/README.md")
    return years


def voc_year_dir(root: str | Path, year: str) -> Path:
    """The folder of a year. ConfigError when it is not there."""
    years = voc_years(root)
    if year not in years:
        raise ConfigError(f"{root}: year {year!r}: not here{did_you_mean(year, years)}; there is {', '.join(years)}")
    return Path(root) / f"VOC{year}"


def _is_plain_name(stem: str) -> bool:
    short = 0 < len(os.fsencode(stem)) <= NAME_BYTES
    return short and stem not in (".", "..") and not any(character in stem for character in "/\\\0\n")


def _plain_name(stem: str) -> str:
    if not _is_plain_name(stem):
        raise DataError(f"{stem!r}: {_NOT_PLAIN}")
    return stem


def _names(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder by name, but for hidden ones such as the ``._x`` that macOS leaves."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: folder cannot be read: {error.strerror}: see VOCdevkit/README.md") from error


def annotation_stems(year_dir: Path) -> list[str]:
    """Names, without ``.xml`` or ``.XML``, of all annotation files, sorted by code point, each once."""
    names = [entry.name for entry in _names(year_dir / "Annotations")]
    return sorted({name[:-4] for name in names if name.endswith(_XML)})


def annotation_path_for(year_dir: Path, stem: str) -> Path:
    """Where the annotation of an image lies."""
    return _xml_of(year_dir, _plain_name(stem))


def _xml_of(year_dir: Path, stem: str) -> Path:
    usual, other = (year_dir / "Annotations" / f"{stem}{suffix}" for suffix in _XML)
    return other if other.exists() and not usual.exists() else usual


def index_images(year_dir: Path) -> dict[str, list[str]]:
    """File names in JPEGImages by stem, whatever their suffix; for ``image_path_for``."""
    index: dict[str, list[str]] = {}
    for entry in _names(year_dir / "JPEGImages"):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in IMAGE_SUFFIXES:
            index.setdefault(stem, []).append(entry.name)
    return index


def image_path_for(year_dir: Path, stem: str, index: dict[str, list[str]] | None = None) -> Path:
    """The image of a stem, of any format we read. ``index`` (see ``index_images``) saves listing the folder again.

    DataError when there is none, more than one, or when it is a link.
    """
    names = (index_images(year_dir) if index is None else index).get(_plain_name(stem), [])
    folder = year_dir / "JPEGImages"
    if not names:
        raise DataError(
            f"{folder / stem}.*: no such image{_nearly(folder, stem)}: add it, or delete {stem}.xml and its line in "
            "ImageSets"
        )
    if len(names) > 1:
        raise DataError(f"{folder / stem}.*: {' and '.join(names)}: one annotation, {len(names)} images: keep one")
    path = folder / names[0]
    if path.is_symlink():
        raise DataError(f"{path}: is a link: links are not followed here, put the image itself in its place")
    return path


def _nearly(folder: Path, stem: str) -> str:
    """What ``folder`` has in place of an image of ``stem``: a format that is not read, or nearly its name."""
    names = _photos_by_likeness(folder, folder.stat().st_mtime_ns).get(_likeness(stem), [])
    if same := [name for name in names if os.path.splitext(name)[0] == stem]:
        return f", but {same[0]}, which is not read: convert it to JPEG"
    return f", but {names[0]!r}, which differs in case or in how accents are written: rename one" if names else ""


@lru_cache(maxsize=1)
def _photos_by_likeness(folder: Path, _changed: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in _names(folder):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() not in _BESIDE_PHOTOS and not entry.is_dir():
            found.setdefault(_likeness(stem), []).append(entry.name)
    return found


def _likeness(stem: str) -> str:
    return unicodedata.normalize("NFC", stem).casefold()


def inner_folders(year_dir: Path) -> list[Path]:
    """Folders in Annotations and JPEGImages, which nobody looks into."""
    return [
        Path(entry.path)
        for name in ("Annotations", "JPEGImages")
        for entry in _names(year_dir / name)
        if entry.is_dir()
    ]


def image_sets(year_dir: Path) -> list[str]:
    """Names of the splits in ImageSets/Main, sorted; empty without that folder."""
    folder = year_dir / "ImageSets" / "Main"
    return [entry.name[:-4] for entry in _names(folder) if entry.name.endswith(".txt")] if folder.is_dir() else []


def read_image_set(year_dir: Path, split: str, problems: Problems | None = None) -> list[str]:
    """Image stems of ImageSets/Main/<split>.txt in file order, each once.

    A flag column (-1, 0, 1), as the devkit's per-class lists have, and suffixes of images are left out. ConfigError
    when there is no such split. A line that names something outside the folder, and an empty file, go to ``problems``
    (the latter as a warning) or, without it, raise DataError.
    """
    found = FailFast() if problems is None else problems
    path = year_dir / "ImageSets" / "Main" / f"{split}.txt"
    known = image_sets(year_dir)
    if split not in known:
        there = f"there is {', '.join(known)}" if known else "there is no ImageSets/Main here"
        raise ConfigError(f"{path}: no such split{did_you_mean(split, known)}; {there}")
    file, _ = open_regular(path, "image set")
    with file:
        text = file.readall().decode("utf-8-sig", "surrogateescape")
    stems: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        stem = _stem_meant(year_dir, line.removesuffix("\r"))
        if not stem:
            continue
        if not _is_plain_name(stem):
            found.error(f"{path}: line {number}: {stem[:80]!r}: {_NOT_PLAIN}")
        elif stem in stems:
            found.warn("image twice in a split", f"{path}: line {number}: {stem}: listed before: used once")
        else:
            stems[stem] = None
    if not stems:
        message = f"{path}: is empty: list one image name a line, or delete the file"
        if isinstance(found, FailFast):
            raise DataError(message)
        found.warn("empty split", message)
    return list(stems)


def _stem_meant(year_dir: Path, line: str) -> str:
    """The name on a line of a split, without blanks around it, a flag and the suffix of an image.

    A name may itself have these: nothing comes off one whose annotation is there.
    """
    for shortened in (str.strip, _without_flag, _without_suffix):
        short = shortened(line)
        if short != line and not (_is_plain_name(line) and _xml_of(year_dir, line).is_file()):
            line = short
    return line


def _without_flag(line: str) -> str:
    flagged = _FLAGGED.fullmatch(line)
    return flagged[1] if flagged else line


def _without_suffix(line: str) -> str:
    stem, suffix = os.path.splitext(line)
    return stem if suffix.lower() in IMAGE_SUFFIXES else line


def load_ground_truth(
    voc_root: str | Path,
    year: str,
    split: str,
    class_names: Sequence[str],
    ignore_exif: bool = False,
    remarks: FailFast | None = None,
) -> list[tuple[Path, GroundTruth]]:
    """Every image of a split with all its objects, difficult ones included; classes not in ``class_names`` left out.

    Nothing is ever skipped: DataError for the first annotation or image that is not right. ``remarks`` counts what was
    dealt with, such as boxes clipped and objects of other classes.
    """
    found = FailFast() if remarks is None else remarks
    year_dir = voc_year_dir(voc_root, year)
    index = index_images(year_dir)
    class_ids = {name: number for number, name in enumerate(class_names)}
    pairs = []
    for stem in read_image_set(year_dir, split, found):
        annotation = parse_annotation(annotation_path_for(year_dir, stem), found)
        image_path = image_path_for(year_dir, stem, index)
        pairs.append((image_path, _ground_truth(annotation, image_path, class_ids, ignore_exif, found)))
    return pairs


def ground_truth_beside(
    image_path: str | Path, class_names: Sequence[str], ignore_exif: bool = False, problems: Problems | None = None
) -> GroundTruth | None:
    """The ground truth of ``.../JPEGImages/ID.ext`` from ``.../Annotations/ID.xml``, difficult objects included.

    None when the image does not lie in a VOC layout or has no annotation; DataError when that is not right. With
    ``problems``, objects that are not right go there and are left out.
    """
    image = Path(image_path)
    xml_path = _xml_of(image.parent.parent, os.path.splitext(image.name)[0])
    if image.parent.name != "JPEGImages" or not xml_path.is_file():
        return None
    found = FailFast() if problems is None else problems
    class_ids = {name: number for number, name in enumerate(class_names)}
    return _ground_truth(parse_annotation(xml_path, found), image, class_ids, ignore_exif, found)


def _ground_truth(
    annotation: Annotation, image_path: Path, class_ids: dict[str, int], ignore_exif: bool, problems: Problems
) -> GroundTruth:
    size_hw = probe(image_path, ignore_exif, problems.listener("wrong extension")).size_hw
    objects = known_objects(fit_to_image(annotation, size_hw, problems), class_ids, problems)
    return GroundTruth(
        annotation.image_id,
        np.array([item.box_xyxy for item in objects], np.float64).reshape(-1, 4),
        np.array([class_ids[item.name] for item in objects], np.int64),
        np.array([item.difficult for item in objects], np.bool_),
    )
