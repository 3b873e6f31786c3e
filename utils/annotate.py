"""From VOC folders to annotation lists: finds the splits, checks every file, makes the records."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from utils.annotations import fit_to_image, known_objects, parse_annotation
from utils.errors import ConfigError, DataError, did_you_mean
from utils.files import write_atomically
from utils.image_headers import probe
from utils.problems import Problems
from utils.progress import Reporter
from utils.records import require_plain_path, write_annotation_list
from utils.types import Annotation, Record
from utils.voc import (
    annotation_path_for,
    annotation_stems,
    image_path_for,
    image_sets,
    index_images,
    read_image_set,
    voc_year_dir,
    voc_years,
)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SplitRule:
    """How a year without ImageSets is split: shares of all images (trainval) and of those (train)."""

    trainval_share: float = 0.9
    train_share: float = 0.9
    seed: int = 0
    always: bool = False
    """Split anew even where ImageSets exist."""

    def __post_init__(self) -> None:
        for name, share in (("--trainval-percent", self.trainval_share), ("--train-percent", self.train_share)):
            if not 0 < share <= 1:
                raise ConfigError(f"{name}: {share}: must be above 0 and at most 1; 0.9 is 90 percent")
        if self.seed < 0:
            raise ConfigError(f"--seed: {self.seed}: must be 0 or more")


@dataclass(frozen=True)
class Source:
    """One VOC<year> folder and the image stems of its splits; ``derived`` when we made them."""

    year: str
    folder: Path
    splits: dict[str, list[str]]
    derived: bool


@dataclass(frozen=True)
class Sample:
    """An image whose annotation is right and fits it."""

    image_path: str
    annotation: Annotation


@dataclass
class Dataset:
    """What was read: the samples of each list, by (year, split), and how many images were left out."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    left_out: int = 0

    def all_samples(self) -> Iterable[Sample]:
        """The samples of every list in turn."""
        return chain.from_iterable(self.samples.values())


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
    splits = {split: read_image_set(folder, split, problems) for split in SPLITS if split in existing}
    splits = {split: stems for split, stems in splits.items() if stems}
    stems = annotation_stems(folder)
    derived = False
    if "trainval" in existing and not {"train", "val"} & set(splits):
        train, val = _cut(read_image_set(folder, "trainval", problems), rule.train_share, rule.seed)
        splits |= {"train": train, "val": val}
        derived = True
    elif not splits:
        trainval, test = _cut(stems, rule.trainval_share, rule.seed)
        train, val = _cut(trainval, rule.train_share, rule.seed)
        splits = {"train": train, "val": val, "test": test}
        derived = True
    listed = set(chain.from_iterable(splits.values()))
    for stem in stems:
        if stem not in listed:
            problems.warn("annotation in no split", f"{folder}: Annotations/{stem}.xml: is in no split: not used")
    return Source(year, folder, {split: splits[split] for split in SPLITS if splits.get(split)}, derived)


def _cut(stems: Iterable[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """A random ``share`` of the stems, and the rest, neither empty if it can be avoided.

    Sorted before and after, so that it is the same everywhere.
    """
    ordered = sorted(stems)
    order = np.random.default_rng(seed).permutation(len(ordered))
    count = round(len(ordered) * share)
    if share < 1 and len(ordered) > 1:
        count = min(max(count, 1), len(ordered) - 1)
    return sorted(ordered[i] for i in order[:count]), sorted(ordered[i] for i in order[count:])


def read_dataset(sources: Sequence[Source], ignore_exif: bool, problems: Problems, reporter: Reporter) -> Dataset:
    """Reads and checks everything the splits name. An image with any error is left out as a whole.

    Leaving out only the broken object would teach the detector that the object is background.
    """
    dataset = Dataset()
    total = sum(len(set(chain.from_iterable(source.splits.values()))) for source in sources)
    progress = iter(reporter.track(range(total), "checking annotations", total, " files"))
    for source in sources:
        _check_overlap(source, problems)
        index = index_images(source.folder)
        samples: dict[str, Sample | None] = {}
        for stem in dict.fromkeys(chain.from_iterable(source.splits.values())):
            next(progress)
            samples[stem] = _read_sample(source.folder, stem, index, ignore_exif, problems)
        dataset.left_out += sum(sample is None for sample in samples.values())
        train = set(source.splits.get("train", ()))
        for split, stems in source.splits.items():
            kept = (samples[stem] for stem in stems if split != "val" or stem not in train)
            dataset.samples.setdefault((source.year, split), []).extend(sample for sample in kept if sample)
    next(progress, None)
    return dataset


def _check_overlap(source: Source, problems: Problems) -> None:
    sets = {split: set(stems) for split, stems in source.splits.items()}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        for stem in sorted(sets.get(first, set()) & sets.get(second, set())):
            message = f"{source.folder}: ImageSets/Main/{second}.txt: {stem}: is in {first}.txt too: take it out of one"
            if second == "val":
                problems.error(message)
            else:
                problems.warn(f"image in {first} and {second}", message)


def _read_sample(
    folder: Path, stem: str, index: dict[str, list[str]], ignore_exif: bool, problems: Problems
) -> Sample | None:
    errors_before = len(problems.errors)
    try:
        annotation = parse_annotation(annotation_path_for(folder, stem), problems)
        image_path = os.fspath(image_path_for(folder, stem, index))
        require_plain_path(image_path)
        info = probe(image_path, ignore_exif, problems.listener("wrong extension"))
        annotation = fit_to_image(annotation, info.size_hw, problems)
    except DataError as error:
        problems.error(str(error))
    if len(problems.errors) > errors_before:
        return None
    return Sample(image_path, annotation)


def derive_classes(dataset: Dataset) -> tuple[str, ...]:
    """Every name that occurs, sorted by code point."""
    return tuple(sorted({item.name for sample in dataset.all_samples() for item in sample.annotation.objects}))


def make_records(
    dataset: Dataset, class_names: Sequence[str], problems: Problems
) -> dict[tuple[str, str], list[Record]]:
    """The lines of each list: known classes, difficult objects left out, images without objects kept.

    Objects of other classes are warned about, counted by class.
    """
    class_ids = {name: number for number, name in enumerate(class_names)}
    lists = {}
    for key, samples in dataset.samples.items():
        records = []
        for sample in samples:
            known = known_objects(sample.annotation, class_ids, problems)
            objects = [item for item in known if not item.difficult]
            boxes = np.array([item.box_xyxy for item in objects], np.float64).reshape(-1, 4)
            ids = np.array([class_ids[item.name] for item in objects], np.int64)
            records.append(Record(sample.image_path, boxes, ids))
        lists[key] = records
    return lists


def require_objects(lists: dict[tuple[str, str], list[Record]], dataset: Dataset, class_names: Sequence[str]) -> None:
    """DataError when there is nothing to learn: no object of the class list in any image."""
    if any(len(record.class_ids) for records in lists.values() for record in records):
        return
    there = ", ".join(derive_classes(dataset)) or "none at all"
    wanted = ", ".join(class_names) or "any"
    raise DataError(f"no object is left in the whole set: classes wanted: {wanted}; in the annotations: {there}")


def write_lists(out: Path, lists: dict[tuple[str, str], list[Record]], sources: Sequence[Source]) -> list[Path]:
    """Writes OUT/<year>_<split>.txt, and for derived splits the ImageSets too. Returns the paths."""
    written = []
    for (year, split), records in lists.items():
        if records:
            written.append(out / f"{year}_{split}.txt")
            write_annotation_list(written[-1], records)
    for source, folder in derived_folders(out, sources):
        sets = source.splits | {"trainval": sorted(source.splits.get("train", []) + source.splits.get("val", []))}
        for split, stems in sets.items():
            written.append(folder / "ImageSets" / "Main" / f"{split}.txt")
            write_atomically(written[-1], "".join(f"{stem}\n" for stem in stems))
    return written


def derived_folders(out: Path, sources: Sequence[Source]) -> list[tuple[Source, Path]]:
    """Where the splits that we made are written: OUT/VOC<year>, numbered when several roots have the year."""
    derived = [source for source in sources if source.derived]
    counts = Counter(source.year for source in derived)
    seen: Counter[str] = Counter()
    places = []
    for source in derived:
        seen[source.year] += 1
        number = f"-{seen[source.year]}" if counts[source.year] > 1 else ""
        places.append((source, out / f"VOC{source.year}{number}"))
    return places
