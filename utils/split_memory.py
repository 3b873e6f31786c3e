"""What became of a dataset's photos before: none that a detector learned from is to become one that it is tested on."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    return [_kept(source, memory, rule) for source in _known(sources, memory)]


def _known(sources: Sequence[Source], memory: Mapping[str, Any]) -> Iterator[Source]:
    """``sources`` with what they are remembered as: by their own folder, or by what they were moved or copied from."""
    gone = {folder for folder in memory if not Path(folder).is_dir()}
    taken: set[str] = set()
    for source in sources:
        known_as = str(source.folder)
        if known_as not in memory:
            stems, folder = stems_cut(source), source.folder
            shared = {one: stems & _earlier(memory[one]).keys() for one in memory.keys() - taken}
            found = [
                one
                for one, here in shared.items()
                # Most of what is remembered is here.
                if 2 * len(here) > len(_earlier(memory[one]))
                and _alike(Path(one), folder)
                and (one in gone or _is_copy(Path(one), folder, here))
            ]
            # Of several the one whose path ends alike.
            known_as = max(found, key=lambda one: (_alike(Path(one), folder), one), default="")
            taken |= {known_as} & gone
        yield replace(source, known_as=known_as)


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


def _earlier(known: Mapping[str, Any]) -> dict[str, str]:
    return {stem: split for split, stems in known["parts"].items() for stem in stems}


def _kept(source: Source, memory: Mapping[str, Any], rule: SplitRule) -> Source:
    known = memory.get(source.known_as)
    if not source.cut or known is None:
        return source
    if rule.always or known["rule"] != rule.draws:
        return replace(source, replaces=True)
    earlier = _earlier(known)
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
        now = {stem: split for split in source.cut for stem in source.splits.get(split, ())}
        parts: dict[str, list[str]] = {split: [] for split in SPLITS}
        for stem, split in sorted({**source.earlier, **now}.items()):
            parts[split].append(stem)
        if not Path(source.known_as).is_dir():
            memory.pop(source.known_as, None)
        memory[str(source.folder)] = {"rule": rule.draws, "parts": parts}
    if not cut:
        return []
    write_atomically(out / MEMORY, as_json(memory) + "\n")
    return [out / MEMORY]
