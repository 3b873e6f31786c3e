"""From VOC folders to annotation lists: finds the splits, checks every file, makes the records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path

import numpy as np

from utils.annotations import fit_to_image, known_objects, parse_annotation
from utils.errors import DataError
from utils.image_headers import probe
from utils.problems import Problems
from utils.progress import Reporter
from utils.records import require_plain_path, write_annotation_list
from utils.split_memory import remember
from utils.splits import SPLITS, Source, SplitRule, derived_folders, write_image_sets
from utils.types import Annotation, Record
from utils.voc import (
    annotation_path_for,
    image_path_for,
    index_images,
)


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
    filled = {split for (_, split), records in lists.items() if records}
    for year, split in product(sorted({year for year, _ in lists}), SPLITS):
        # Another year may have it; photos to be tested on alone need none.
        needed = split != "test" and split not in filled and bool({"train", "val"} & filled)
        if not lists.get((year, split)) and ((year, split) in lists or needed):
            advice = f", and training needs it: more photos, or a {split}.txt of them" if needed else ""
            problems.warn("list without an image", f"{year}_{split}.txt: no image is left for it: not written{advice}")
    return lists


def require_objects(lists: dict[tuple[str, str], list[Record]], dataset: Dataset, class_names: Sequence[str]) -> None:
    """DataError when there is nothing to learn: no object of the class list in any image."""
    if any(len(record.class_ids) for records in lists.values() for record in records):
        return
    there = ", ".join(derive_classes(dataset)) or "none at all"
    wanted = ", ".join(class_names) or "any"
    raise DataError(f"no object is left in the whole set: classes wanted: {wanted}; in the annotations: {there}")


def _names_some(path: Path, sources: Sequence[Source]) -> bool:
    lines = path.read_bytes()
    return any(os.fsencode(f"{source.folder}{os.sep}") in lines for source in sources)


def write_lists(
    out: Path, lists: dict[tuple[str, str], list[Record]], sources: Sequence[Source], rule: SplitRule
) -> tuple[list[Path], list[Path]]:
    """Writes OUT/<year>_<split>.txt, and for derived splits the ImageSets too. What was left out is in neither.

    An earlier list of these photos is removed where there is no such split any more, or no image of it. Returns what
    was written and what was removed.
    """
    written, removed = [], []
    for year, split in product(sorted({source.year for source in sources}), SPLITS):
        path = out / f"{year}_{split}.txt"
        if records := lists.get((year, split)):
            written.append(path)
            write_annotation_list(path, records)
        elif path.is_file() and _names_some(path, sources):
            path.unlink()
            removed.append(path)
    listed = {record.image_path for records in lists.values() for record in records}
    for source, place in derived_folders(out, sources):
        written += write_image_sets(source, place, listed)
    return written + remember(sources, out, rule), removed
