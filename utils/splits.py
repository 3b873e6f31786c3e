"""Which photos of a VOC folder are train, val and test: its ImageSets, or a cut of our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from utils.errors import ConfigError, did_you_mean
from utils.files import write_atomically
from utils.problems import Problems
from utils.voc import annotation_stems, image_sets, index_images, inner_folders, read_image_set, voc_year_dir, voc_years

SPLITS = ("train", "val", "test")
_IMAGE_SETS = Path("ImageSets", "Main")
_MEANT = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


@dataclass(frozen=True)
class SplitRule:
    """How a year without ImageSets is split: shares of all images (trainval) and of those (train)."""

    trainval_share: float = 0.9
    train_share: float = 0.9
    seed: int = 0
    always: bool = False
    """Split anew even where ImageSets exist."""

    @property
    def draws(self) -> list[float]:
        """What decides a new split."""
        return [self.trainval_share, self.train_share, self.seed]

    def __post_init__(self) -> None:
        for name, share in (("--trainval-percent", self.trainval_share), ("--train-percent", self.train_share)):
            if not 0 < share <= 1:
                raise ConfigError(f"{name}: {share}: must be above 0 and at most 1; 0.9 is 90 percent")
        if self.seed < 0:
            raise ConfigError(f"--seed: {self.seed}: must be 0 or more")


@dataclass(frozen=True)
class Source:
    """One VOC<year> folder and the image stems of its splits."""

    year: str
    folder: Path
    splits: dict[str, list[str]]
    cut: tuple[str, ...] = ()
    """The splits that we made, none where the folder has its own."""
    earlier: Mapping[str, str] = field(default_factory=dict)
    """Of a split that was made before and is kept: the part of each image, those that are gone among them."""
    replaces: bool = False
    """Whether it takes the place of a split that was made before."""
    known_as: str = ""
    """The folder that a split made before was of; not this one if the dataset was moved or copied."""


def find_sources(
    roots: Sequence[str | Path], years: Sequence[str] | None, rule: SplitRule, problems: Problems
) -> list[Source]:
    """The VOC<year> folders below ``roots``, each with its splits.

    ConfigError for a root that is none, or a year that no root has.
    """
    found = {root: voc_years(root) for root in dict.fromkeys(Path(root).resolve() for root in roots)}
    known = sorted(set(chain.from_iterable(found.values())))
    for year in years or ():
        if year not in known:
            raise ConfigError(
                f"--year: {year}: in no --voc folder{did_you_mean(year, known)}; there is {', '.join(known)}"
            )
    wanted = list(dict.fromkeys(years)) if years else known
    pairs = [(year, voc_year_dir(root, year)) for year in wanted for root in found if year in found[root]]
    return [_source(year, folder, rule, problems) for year, folder in pairs]


def refuse_inputs_as_output(out: Path, sources: Sequence[Source]) -> None:
    """ConfigError when the lists would land in a folder that is read."""
    target = out.resolve()
    for source in sources:
        if target == source.folder.parent or target.is_relative_to(source.folder):
            raise ConfigError(f"--out: {out}: is the input folder: give another, inputs are never changed")


def _source(year: str, folder: Path, rule: SplitRule, problems: Problems) -> Source:
    existing = [] if rule.always else image_sets(folder)
    for name in existing:
        meant = _MEANT.get(name.lower(), name.lower())
        if meant in (*SPLITS, "trainval") and meant not in existing:
            problems.warn("split of another name", f"{folder}: {_IMAGE_SETS / name}.txt: not used: call it {meant}.txt")
    for inner in inner_folders(folder):
        problems.warn("folder not searched", f"{inner}: nothing in it is used: put its files into {inner.parent.name}")
    splits = {split: read_image_set(folder, split, problems) for split in SPLITS if split in existing}
    splits = {split: stems for split, stems in splits.items() if stems}
    stems = annotation_stems(folder)
    cut: tuple[str, ...] = ()
    if "trainval" in existing and not {"train", "val"} & set(splits):
        cut = SPLITS[:2]
        splits |= drawn(read_image_set(folder, "trainval", problems), cut, rule, {})
    elif not splits:
        cut = SPLITS
        splits = drawn(stems, cut, rule, {})
        known = set(stems)
        for stem, names in index_images(folder).items():
            if stem not in known:
                problems.warn("image without annotation", f"{folder}: JPEGImages/{names[0]}: no annotation: not used")
    listed = set(chain.from_iterable(splits.values()))
    for stem in stems:
        if stem not in listed:
            problems.warn("annotation in no split", f"{folder}: Annotations/{stem}.xml: is in no split: not used")
    return Source(year, folder, in_order(splits), cut)


def in_order(splits: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Those that have images, train first."""
    return {split: splits[split] for split in SPLITS if splits.get(split)}


def stems_cut(source: Source) -> set[str]:
    """The images of the splits that we made."""
    return set(chain.from_iterable(source.splits.get(split, ()) for split in source.cut))


def drawn(
    stems: Collection[str], cut: Sequence[str], rule: SplitRule, earlier: Mapping[str, str]
) -> dict[str, list[str]]:
    """``stems`` dealt out to the splits ``cut``: by chance, but for those that ``earlier`` has somewhere."""
    splits = {}
    train, val, test = ({stem for stem, split in earlier.items() if split == one} for one in SPLITS)
    if "test" in cut:
        stems, splits["test"] = _cut(stems, rule.trainval_share, rule.seed, train | val, test)
    splits["train"], splits["val"] = _cut(stems, rule.train_share, rule.seed, train, val)
    return splits


def _cut(
    stems: Iterable[str], share: float, seed: int, first: Collection[str], second: Collection[str]
) -> tuple[list[str], list[str]]:
    """A random ``share`` of the stems with those of ``first``, and the rest with those of ``second``.

    Neither is empty if it can be avoided. Sorted before and after, so that it is the same everywhere.
    """
    ordered = sorted(stems)
    count = round(len(ordered) * share)
    if share < 1 and len(ordered) > 1:
        count = min(max(count, 1), len(ordered) - 1)
    ones = [stem for stem in ordered if stem in first]
    free = [stem for stem in ordered if stem not in first and stem not in second]
    order = np.random.default_rng(seed).permutation(len(free))
    ones += [free[i] for i in order[: max(0, count - len(ones))]]
    return sorted(ones), sorted(set(ordered).difference(ones))


def derived_folders(out: Path, sources: Sequence[Source]) -> list[tuple[Source, Path]]:
    """Where the splits that we made are written: OUT/VOC<year>, numbered when several roots have the year."""
    derived = [source for source in sources if source.cut]
    counts = Counter(source.year for source in derived)
    seen: Counter[str] = Counter()
    places = []
    for source in derived:
        seen[source.year] += 1
        number = f"-{seen[source.year]}" if counts[source.year] > 1 else ""
        places.append((source, out / f"VOC{source.year}{number}"))
    return places


def write_image_sets(source: Source, place: Path, listed: Collection[str]) -> list[Path]:
    """The splits of ``source`` as ImageSets below ``place``, less what is not ``listed``. Returns the paths."""
    folder = source.folder / "JPEGImages"
    there = {stem for stem, names in index_images(source.folder).items() if str(folder / names[0]) in listed}
    sets = {split: [stem for stem in source.splits.get(split, ()) if stem in there] for split in SPLITS}
    sets["trainval"] = sorted(sets["train"] + sets["val"])
    written = []
    for split, stems in sets.items():
        path = place / _IMAGE_SETS / f"{split}.txt"
        if stems:
            write_atomically(path, "".join(f"{stem}\n" for stem in stems))
            written.append(path)
        else:
            # Of an earlier split.
            path.unlink(missing_ok=True)
    return written


def split_lines(sources: Sequence[Source], out: Path, rule: SplitRule) -> Iterator[str]:
    """What a user reads of the splits that we made."""
    for source, place in derived_folders(out, sources):
        made = f"new split (seed {rule.seed}){', in place of the earlier one' if source.replaces else ''}"
        if source.earlier:
            new = len(stems_cut(source) - source.earlier.keys())
            of = f" (of {source.known_as})" if source.known_as != str(source.folder) else ""
            made = f"the earlier split{of} is kept, {new} new images joined it (--new-split draws all anew)"
        yield f"{made}: to measure on it, copy {place}/ImageSets into {source.folder}"
