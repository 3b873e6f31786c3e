"""Batches for training and validation. A sample is decided by (seed, epoch, index), so any step can be made again."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import cv2
import grain
import numpy as np

from utils.augment import augment_sample, fit_sample
from utils.class_balance import repeat_factors, repeated
from utils.classifier_config import ClassifierSpec
from utils.config import DetectorSpec, multi_scale_sides
from utils.errors import ConfigError
from utils.images import preparing, read_image
from utils.machine import usable_cores
from utils.mosaic import LabelledView, blend, mosaic
from utils.recipe_config import AugmentConfig, LossConfig
from utils.targets import assign
from utils.types import FloatArray, ImageArray, IntArray, Record

MAX_THREADS = 16
SHUFFLE_STREAM, SAMPLE_STREAM, BATCH_STREAM, SIDE_STREAM, REPEAT_STREAM = 0, 1, 2, 3, 4
SampleT = TypeVar("SampleT")
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, eq=False)
class Batch:
    """``images`` [B, S, S, 3] uint8 and the targets of the task's loss; ``paths`` B image files.

    ``dropped`` counts boxes that found no slot; ``mixed_in`` are further files that the images show.
    """

    images: ImageArray
    targets: dict[str, np.ndarray]
    paths: tuple[str, ...]
    dropped: int = 0
    mixed_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shard:
    """The ``index``-th of ``count`` equal parts."""

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[ItemT], unit: int = 1) -> Sequence[ItemT]:
        """This part of ``items``, dealt out in runs of ``unit``."""
        if self.count == 1:
            return items
        return [item for i, item in enumerate(items) if i // unit % self.count == self.index]


WHOLE = Shard()


class Dataset(ABC, Generic[SampleT]):
    """Batches in a random order that the seed and the epoch decide, made ahead in threads.

    With ``multi_scale`` each training batch has a side of its own, which the seed, the epoch and the step decide.
    """

    spec: DetectorSpec | ClassifierSpec

    def __init__(self, count: int, seed: int = 0, threads: int = 0, multi_scale: float = 0.0) -> None:
        self.count = count
        self.seed = seed
        self.multi_scale = multi_scale
        self.threads = threads or min(usable_cores(), MAX_THREADS)
        # Our threads already use every core; OpenCV's own would only compete with them.
        cv2.setNumThreads(1)

    def __len__(self) -> int:
        return self.count

    def at_size(self, input_size: int) -> Self:
        """The same samples as inputs [input_size, input_size, 3]; 0: at the size they have."""
        if input_size in (0, self.spec.input_size):
            return self
        resized = copy.copy(self)
        resized.spec = self.spec.at_size(input_size)
        return resized

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides that training batches may have, from small to large."""
        return multi_scale_sides(self.spec.input_size, self.multi_scale)

    def at_largest(self) -> Self:
        """The same samples, all at the largest side that a training batch may have."""
        largest = copy.copy(self.at_size(self.sides[-1]))
        largest.multi_scale = 0.0
        return largest

    def side(self, epoch: int, step: int) -> int:
        """The side of the training batch of ``step``."""
        if not self.multi_scale:
            return self.spec.input_size
        return int(np.random.default_rng((self.seed, SIDE_STREAM, epoch, step)).choice(self.sides))

    @abstractmethod
    def sample(self, epoch: int, index: int) -> SampleT:
        """Sample ``index`` as ``epoch`` sees it."""

    @abstractmethod
    def path(self, index: int) -> str:
        """The file that sample ``index`` is read from."""

    @abstractmethod
    def batch(self, samples: Sequence[SampleT], epoch: int, number: int) -> Batch:
        """The batch of ``samples``; no other of ``epoch`` has its ``number``, on whichever worker."""

    def steps_per_epoch(self, images: int, accumulate: int = 1, devices: int = 1) -> int:
        """Steps of ``images`` in an epoch. ConfigError when there is not even one, with the largest batch that works.

        Such a step learns from ``accumulate`` batches, each shared by ``devices``.
        """
        if len(self) >= images:
            return len(self) // images
        most = len(self) // accumulate // devices * devices
        fields = "train.batch_size, freeze_batch_size or phases" if most else "train.accumulate or take fewer devices"
        advice = f"the largest batch that works is {most}: " * (most > 0)
        raise ConfigError(
            f"batch size: {images} images a step, of all devices and with train.accumulate: the list has only "
            f"{len(self)} images; {advice}lower {fields}"
        )

    def order(self, epoch: int) -> IntArray:
        """The order in which ``epoch`` visits the samples."""
        return np.random.default_rng((self.seed, SHUFFLE_STREAM, epoch)).permutation(len(self))

    def training_batches(
        self, epoch: int, batch_size: int, first_step: int = 0, shard: Shard = WHOLE, parts: int = 1
    ) -> Iterator[Batch]:
        """Shuffled whole batches of ``epoch`` from ``first_step`` on; what does not fill a batch is left out.

        Of each batch the samples of ``shard`` alone are read: its share of each of the ``parts`` that are learned from
        one after the other.
        """
        size, whole = batch_size // shard.count, self.order(epoch)[: self.steps_per_epoch(batch_size) * batch_size]
        own = whole.reshape(-1, shard.count, size // parts)[:, shard.index].ravel()
        return self._batches(epoch, own, range(first_step * size, len(own), size), size, first_step, self.side, shard)

    def validation_batches(self, batch_size: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        """Every sample once, in order; the last batch may be smaller. Of all batches those of ``shard``."""
        starts = shard.of(range(0, len(self), batch_size))
        return self._batches(0, np.arange(len(self)), starts, batch_size)

    def _batches(
        self,
        epoch: int,
        order: IntArray,
        starts: Sequence[int],
        size: int,
        first_step: int = 0,
        side: Callable[[int, int], int] = lambda *_: 0,
        shard: Shard = WHOLE,
    ) -> Iterator[Batch]:
        def made(place: int) -> Batch:
            step = first_step + place
            number = step * shard.count + shard.index
            data = self.at_size(side(epoch, step))
            indices = order[starts[place] : starts[place] + size].tolist()
            return self.batch([data._named_sample(epoch, index) for index in indices], epoch, number)

        # A thread makes a whole batch: what passes from thread to thread costs more than a small image does.
        batches = grain.MapDataset.source(range(len(starts))).map(made)
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=self.threads + 1)
        return iter(batches.to_iter_dataset(options))

    def _named_sample(self, epoch: int, index: int) -> SampleT:
        with preparing(self.path(index)):
            return self.sample(epoch, index)


@dataclass(frozen=True, eq=False)
class Sample:
    """A network input with its targets; boxes are fractions of the input's side. ``mixed_in``: further files in it."""

    record: Record
    image: ImageArray
    boxes_xyxy: FloatArray
    class_ids: IntArray
    slots: IntArray
    box_indices: IntArray
    dropped: int
    mixed_in: tuple[str, ...] = ()


class DetectionDataset(Dataset[Sample]):
    """Reads, varies and assigns the samples of an annotation list, with mosaic and mixup before ``mosaic_until``.

    With ``balance_classes`` training comes to photos of rare classes more often. Sample i + k * count is then photo i
    when it comes for the k-th time in an epoch, varied anew.
    """

    def __init__(
        self,
        records: Sequence[Record],
        spec: DetectorSpec,
        loss: LossConfig,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        threads: int = 0,
        mosaic_until: float = math.inf,
        multi_scale: float = 0.0,
        balance_classes: float = 0.0,
    ) -> None:
        super().__init__(len(records), seed, threads, multi_scale)
        self.records = records
        self.spec: DetectorSpec = spec
        self.loss = loss
        self.augment = augment if augment is not None and augment.enabled else None
        self.mosaic_until = mosaic_until
        self.repeats = repeat_factors([record.class_ids for record in records], balance_classes)
        # With the other decode a prediction cannot leave its own cell.
        self.neighbour_cells = loss.neighbour_cells and spec.decode == "bounded"

    def order(self, epoch: int) -> IntArray:
        """As many of the list as it has, drawn from all repetitions."""
        shown = repeated(self.repeats, np.random.default_rng((self.seed, REPEAT_STREAM, epoch)))
        return np.random.default_rng((self.seed, SHUFFLE_STREAM, epoch)).permutation(shown)[: len(self)]

    def sample(self, epoch: int, index: int) -> Sample:
        """Sample ``index`` as ``epoch`` sees it."""
        record, size = self.records[index % len(self)], self.spec.input_size
        others: list[int] = []
        if self.augment is None:
            image, boxes, class_ids = fit_sample(*self._photo(index), size, self.spec.resize)
        else:
            rng = np.random.default_rng((self.seed, SAMPLE_STREAM, epoch, index))
            mixing = epoch < self.mosaic_until
            view, others = self._view(index, self.augment, mixing, rng)
            if mixing and self.augment.mixup and rng.random() < self.augment.mixup:
                (other,) = self._partners(1, rng)
                second, more = self._view(other, self.augment, mixing, rng)
                view, others = blend(view, second, rng), [*others, other, *more]
            image, boxes, class_ids = view
        found = assign(boxes, self.spec, self.loss.assignment, self.loss.assignment_iou, self.neighbour_cells)
        mixed_in = tuple(self.records[i].image_path for i in others)
        return Sample(record, image, boxes / size, class_ids, found.slots, found.box_indices, found.dropped, mixed_in)

    def _view(
        self, index: int, augment: AugmentConfig, mixing: bool, rng: np.random.Generator
    ) -> tuple[LabelledView, list[int]]:
        """A random view of photo ``index``, or a mosaic that begins with it; which photos it has further."""
        size, rule = self.spec.input_size, self.spec.resize
        if not (mixing and augment.mosaic and rng.random() < augment.mosaic):
            return LabelledView(*augment_sample(*self._photo(index), size, rule, augment, rng)), []
        others = self._partners(3, rng)
        return mosaic([self._photo(i) for i in (index, *others)], size, rule, augment, rng), others

    def _partners(self, count: int, rng: np.random.Generator) -> list[int]:
        """Photos to mix in, each as likely as training comes to it."""
        if (self.repeats == 1).all():
            return rng.integers(len(self), size=count).tolist()
        ends = self.repeats.cumsum()
        return np.searchsorted(ends, rng.uniform(0, ends[-1], count), side="right").tolist()

    def _photo(self, index: int) -> LabelledView:
        record = self.records[index % len(self)]
        with preparing(record.image_path):
            image = read_image(record.image_path, ignore_exif=self.spec.ignore_exif)
        return LabelledView(image, record.boxes_xyxy, record.class_ids)

    def path(self, index: int) -> str:
        """The image file of sample ``index``."""
        return self.records[index % len(self)].image_path

    def batch(self, samples: Sequence[Sample], epoch: int, number: int) -> Batch:
        """``collate``: nothing here depends on the place in the epoch."""
        return collate(samples)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples, padding slots with -1 and boxes with zeros to the longest of the batch."""
    slots = _padded([s.slots for s in samples], -1, np.int32)
    slot_boxes = _padded([s.boxes_xyxy[s.box_indices] for s in samples], 0, np.float32)
    slot_classes = _padded([s.class_ids[s.box_indices] for s in samples], 0, np.int32)
    boxes = _padded([s.boxes_xyxy for s in samples], 0, np.float32)
    targets = {"slots": slots, "slot_boxes": slot_boxes, "slot_classes": slot_classes, "boxes": boxes}
    paths = tuple(s.record.image_path for s in samples)
    mixed_in = tuple(path for s in samples for path in s.mixed_in)
    return Batch(np.stack([s.image for s in samples]), targets, paths, sum(s.dropped for s in samples), mixed_in)


def _padded(rows: Sequence[np.ndarray], fill: float, dtype: type) -> np.ndarray:
    padded = np.full((len(rows), max(len(row) for row in rows), *rows[0].shape[1:]), fill, dtype)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded
