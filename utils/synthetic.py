"""A Pascal VOC dataset that we draw ourselves, so that everything can be tried and tested without a download."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from utils.errors import ConfigError
from utils.folders import replacing_folder
from utils.machine import usable_cores
from utils.progress import Quiet, Reporter
from utils.synthetic_objects import OBJECTS
from utils.synthetic_scene import draw_photo
from utils.types import Annotation, IntArray
from utils.voc_writing import format_annotation

CLASS_NAMES = tuple(sorted(OBJECTS))
DEFAULT_SIZE_HW = (240, 320)
DEFAULT_DIFFICULTY = 0.4
TEST_SHARE, VAL_SHARE = 0.18, 0.07

_YEAR = "VOC2007"
_SPLIT_STREAM = 0x5917
"""Keeps the draw of the splits apart from those of the pictures, which are numbered from 1."""


def make_dataset(
    root: Path,
    images: int,
    seed: int,
    size_hw: tuple[int, int] = DEFAULT_SIZE_HW,
    difficulty: float = DEFAULT_DIFFICULTY,
    progress: Reporter | None = None,
) -> None:
    """Draws ``root``/VOC2007 with Annotations, JPEGImages and ImageSets/Main/{train,val,trainval,test}.txt.

    Picture i depends on (seed, i, size_hw, difficulty) alone, so a larger set begins with the pictures of a smaller
    one. The folder appears when it is complete, or not at all.

    Args:
        root: a VOCdevkit folder; made where missing.
        images: how many pictures, at least 3: 18 % go to test, 7 % to val, the rest to train.
        seed: of everything random.
        size_hw: typical height and width in pixels; each side varies by up to a seventh.
        difficulty: 0 (calm) to 1 (crowded, noisy, dim, small).
        progress: told of every picture.

    Raises:
        ConfigError: an impossible argument, or a dataset that is there already.
        FileError: the folder cannot be written.
    """
    final = Path(root) / _YEAR
    _check(final, images, seed, size_hw, difficulty)
    with replacing_folder(final) as unfinished:
        _draw_all(unfinished, images, seed, size_hw, difficulty, progress or Quiet())
        _write_splits(unfinished / "ImageSets" / "Main", images, seed)


def _check(final: Path, images: int, seed: int, size_hw: tuple[int, int], difficulty: float) -> None:
    if seed < 0:
        raise ConfigError(f"seed: {seed}: must be 0 or more")
    if images < 3:
        raise ConfigError(f"images: {images}: must be at least 3, one for each of train, val and test")
    if min(size_hw) < 64 or max(size_hw) > 4096:
        raise ConfigError(f"size: {size_hw[1]}x{size_hw[0]}: each side must lie in 64..4096 px")
    if not 0 <= difficulty <= 1:
        raise ConfigError(f"difficulty: {difficulty}: must lie in 0..1")
    if final.exists():
        raise ConfigError(f"{final}: exists already: choose another folder, or remove it first")


def _draw_all(
    folder: Path, images: int, seed: int, size_hw: tuple[int, int], difficulty: float, progress: Reporter
) -> None:
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir()
    draw = partial(_draw_one, folder, seed, size_hw, difficulty)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for _ in progress.track(pool.map(draw, range(1, images + 1)), "drawing", images, " pictures"):
            pass


def _draw_one(folder: Path, seed: int, size_hw: tuple[int, int], difficulty: float, index: int) -> None:
    jpeg, objects, drawn_hw = draw_photo(seed, index, size_hw, difficulty)
    stem = f"{index:06d}"
    (folder / "JPEGImages" / f"{stem}.jpg").write_bytes(jpeg)
    drawn = Annotation(folder / "Annotations" / f"{stem}.xml", drawn_hw, objects)
    drawn.xml_path.write_bytes(format_annotation(drawn, f"{stem}.jpg"))


def _write_splits(folder: Path, images: int, seed: int) -> None:
    order = 1 + np.random.default_rng((seed, 0, _SPLIT_STREAM)).permutation(images)
    test, val = max(1, round(TEST_SHARE * images)), max(1, round(VAL_SHARE * images))
    splits = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
    splits["trainval"] = order[test:]
    folder.mkdir(parents=True)
    for name, members in splits.items():
        (folder / f"{name}.txt").write_text(_lines(members), encoding="utf-8")


def _lines(members: IntArray) -> str:
    return "".join(f"{index:06d}\n" for index in sorted(members.tolist()))
