"""What became of a dataset's photos before: none that a detector learned from is to become one that it is tested on."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from utils.errors import DataError, FileError
from utils.files import as_json, write_atomically
from utils.splits import SPLITS, Source, SplitRule, drawn, in_order, stems_cut
from utils.voc import index_images

MEMORY = "splits.json"
LOOKED_AT = 20
"""Photos that tell whether a folder is a copy of another."""
_PHOTOS = "JPEGImages"


def keep_earlier(sources: Sequence[Source], out: Path, rule: SplitRule) -> list[Source]:
    """``sources`` with what an earlier run into ``out`` made of their splits left as it was; only new images are drawn.

    What a detector was trained on would be in its test part otherwise, as soon as a photo is added. Another rule draws
    all anew. FileError where what is remembered cannot be read.
    """
    memory = _memory(out)
    known, left = [], dict(memory)
    for source in sources:
        known.append(found := _known(source, left))
        # Of two that have moved one was there.
        if found.known_as and not Path(found.known_as).is_dir():
            del left[found.known_as]
    kept: dict[str, Source] = {}
    # A copy comes after what it was copied from, so that what is new in both goes to one part.
    for source in sorted(known, key=lambda one: one.known_as != str(one.folder)):
        beside = kept.get(source.known_as)
        kept[str(source.folder)] = _kept(source, memory, rule, _parts(beside) if beside else {})
    return [kept[str(source.folder)] for source in sources]


def _known(source: Source, memory: Mapping[str, Any]) -> Source:
    """``source`` with what is remembered of its photos: by its own folder, or by those it was moved or copied from."""
    folder = str(source.folder)
    if folder in memory:
        return replace(source, known_as=folder, earlier=_earlier(memory[folder]))
    stems, found = stems_cut(source), []
    for one in memory:
        parts = _earlier(memory[one])
        shared, gone = stems & parts.keys(), not Path(one).is_dir()
        # Most of what is remembered is here. Of what is gone the photos cannot tell, so its path must end alike.
        alike = _alike(Path(one), source.folder)
        if 2 * len(shared) > len(parts) and alike and (gone or _is_copy(Path(one), source.folder, shared)):
            found.append((not gone, len(shared), alike, one))
    # What is surest counts most: copies, and those that share most.
    found.sort()
    earlier = {stem: part for *_, one in found for stem, part in _earlier(memory[one]).items()}
    return replace(source, known_as=found[-1][-1] if found else "", earlier=earlier)


def _is_copy(earlier: Path, folder: Path, stems: Collection[str]) -> bool:
    """Whether most of the photos of ``stems`` are the same in both folders, by the bytes of a few of them."""
    try:
        theirs, ours = index_images(earlier), index_images(folder)
    except DataError:
        # The one that is not asked for may have lost its photos.
        return False
    looked_at = sorted(stems)[:: -(-len(stems) // LOOKED_AT)]
    same = 0
    for stem in looked_at:
        if stem in theirs and stem in ours:
            one, other = earlier / _PHOTOS / theirs[stem][0], folder / _PHOTOS / ours[stem][0]
            with suppress(OSError):
                same += not (one.is_symlink() or other.is_symlink()) and filecmp.cmp(one, other, shallow=False)
    return 2 * same > len(looked_at)


def _alike(one: Path, other: Path) -> int:
    """How many parts of the two paths are the same, from the end."""
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _parts(source: Source) -> dict[str, str]:
    return {stem: split for split in source.cut for stem in source.splits.get(split, ())}


def _earlier(known: Mapping[str, Any]) -> dict[str, str]:
    return {stem: split for split, stems in known["parts"].items() for stem in stems}


def _kept(source: Source, memory: Mapping[str, Any], rule: SplitRule, beside: Mapping[str, str]) -> Source:
    known = memory.get(source.known_as)
    if not source.cut or known is None:
        return replace(source, earlier={})
    if rule.always or known["rule"] != rule.draws:
        replaces = source.known_as == str(source.folder) or not Path(source.known_as).is_dir()
        return replace(source, replaces=replaces, earlier={})
    earlier = {**source.earlier, **beside}
    splits = source.splits | drawn(stems_cut(source), source.cut, rule, earlier)
    return replace(source, splits=in_order(splits), earlier=earlier)


def _memory(out: Path) -> dict[str, Any]:
    path = out / MEMORY
    try:
        memory: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if not all(one["rule"] and _are_parts(one["parts"]) for one in memory.values()):
            raise ValueError("holds something else than the images of train, val and test")
        return memory
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileError(f"{path}: {error}: restore it, or remove it to split anew") from error


def _are_parts(given: Any) -> bool:
    return set(given) <= set(SPLITS) and all(
        isinstance(stems, list) and all(isinstance(stem, str) for stem in stems) for stems in given.values()
    )


def remember(sources: Sequence[Source], out: Path, rule: SplitRule) -> list[Path]:
    """Writes to ``out`` what ``keep_earlier`` goes by, images that are left out among it. Returns the path, if any."""
    memory, cut = _memory(out), [source for source in sources if source.cut]
    for source in cut:
        parts: dict[str, list[str]] = {split: [] for split in SPLITS}
        for stem, split in sorted({**source.earlier, **_parts(source)}.items()):
            parts[split].append(stem)
        if not Path(source.known_as).is_dir():
            memory.pop(source.known_as, None)
        memory[str(source.folder)] = {"rule": rule.draws, "parts": parts}
    if not cut:
        return []
    write_atomically(out / MEMORY, as_json(memory) + "\n")
    return [out / MEMORY]
