"""Batches for training and validation. A sample is decided by (seed, epoch, index), so any step can be made again."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2
import grain
import numpy as np

from utils.augment import augment_sample, fit_sample
from utils.config import AugmentConfig, DetectorSpec, LossConfig
from utils.errors import ConfigError
from utils.images import read_image
from utils.targets import assign
from utils.types import FloatArray, ImageArray, IntArray, Record

MAX_THREADS = 16
SHUFFLE_STREAM, SAMPLE_STREAM, BATCH_STREAM = 0, 1, 2
SampleT = TypeVar("SampleT")


@dataclass(frozen=True, eq=False)
class Batch:
    """``images`` [B, S, S, 3] uint8 and the targets of the task's loss; ``paths`` B image files.

    ``dropped`` counts boxes that found no slot.
    """

    images: ImageArray
    targets: dict[str, np.ndarray]
    paths: tuple[str, ...]
    dropped: int = 0


class Dataset(ABC, Generic[SampleT]):
    """Batches in a random order that the seed and the epoch decide, made ahead in threads."""

    def __init__(self, count: int, seed: int = 0, threads: int = 0) -> None:
        self.count = count
        self.seed = seed
        self.threads = threads or min(os.cpu_count() or 1, MAX_THREADS)
        # Our threads already use every core; OpenCV's own would only compete with them.
        cv2.setNumThreads(1)

    def __len__(self) -> int:
        return self.count

    @abstractmethod
    def sample(self, epoch: int, index: int) -> SampleT:
        """Sample ``index`` as ``epoch`` sees it."""

    @abstractmethod
    def batch(self, samples: Sequence[SampleT], epoch: int, step: int) -> Batch:
        """The batch of ``samples``, the ``step``-th of ``epoch``."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Whole batches in an epoch. ConfigError when there is not even one."""
        if len(self) < batch_size:
            raise ConfigError(
                f"batch size: {batch_size}: the list has only {len(self)} images; "
                f"the largest batch that works is {len(self)}"
            )
        return len(self) // batch_size

    def order(self, epoch: int) -> IntArray:
        """The order in which ``epoch`` visits the samples."""
        return np.random.default_rng((self.seed, SHUFFLE_STREAM, epoch)).permutation(len(self))

    def training_batches(self, epoch: int, batch_size: int, first_step: int = 0) -> Iterator[Batch]:
        """Shuffled whole batches of ``epoch`` from ``first_step`` on; what does not fill a batch is left out."""
        order = self.order(epoch)[: self.steps_per_epoch(batch_size) * batch_size]
        return self._batches(epoch, order, batch_size, first_step)

    def validation_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every sample once, in order; the last batch may be smaller."""
        return self._batches(0, np.arange(len(self)), batch_size)

    def _batches(self, epoch: int, order: IntArray, batch_size: int, first_step: int = 0) -> Iterator[Batch]:
        def made(step: int) -> Batch:
            indices = order[step * batch_size : (step + 1) * batch_size].tolist()
            return self.batch([self.sample(epoch, index) for index in indices], epoch, step)

        # A thread makes a whole batch: what passes from thread to thread costs more than a small image does.
        steps = grain.MapDataset.source(range(first_step, -(-len(order) // batch_size))).map(made)
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=self.threads + 1)
        return iter(steps.to_iter_dataset(options))


@dataclass(frozen=True, eq=False)
class Sample:
    """A network input with its targets; boxes are fractions of the input's side."""

    record: Record
    image: ImageArray
    boxes_xyxy: FloatArray
    class_ids: IntArray
    slots: IntArray
    box_indices: IntArray
    dropped: int


class DetectionDataset(Dataset[Sample]):
    """Reads, varies and assigns the samples of an annotation list."""

    def __init__(
        self,
        records: Sequence[Record],
        spec: DetectorSpec,
        loss: LossConfig,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        threads: int = 0,
    ) -> None:
        super().__init__(len(records), seed, threads)
        self.records = records
        self.spec = spec
        self.loss = loss
        self.augment = augment if augment is not None and augment.enabled else None
        # With the other decode a prediction cannot leave its own cell.
        self.neighbour_cells = loss.neighbour_cells and spec.decode == "bounded"

    def sample(self, epoch: int, index: int) -> Sample:
        """Sample ``index`` of the list as ``epoch`` sees it."""
        record = self.records[index]
        image = read_image(record.image_path, ignore_exif=self.spec.ignore_exif)
        size, rule = self.spec.input_size, self.spec.resize
        if self.augment is None:
            image, boxes, class_ids = fit_sample(image, record.boxes_xyxy, record.class_ids, size, rule)
        else:
            rng = np.random.default_rng((self.seed, SAMPLE_STREAM, epoch, index))
            image, boxes, class_ids = augment_sample(
                image, record.boxes_xyxy, record.class_ids, size, rule, self.augment, rng
            )
        targets = assign(boxes, self.spec, self.loss.assignment, self.loss.assignment_iou, self.neighbour_cells)
        return Sample(record, image, boxes / size, class_ids, targets.slots, targets.box_indices, targets.dropped)

    def batch(self, samples: Sequence[Sample], epoch: int, step: int) -> Batch:
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
    return Batch(np.stack([s.image for s in samples]), targets, paths, sum(s.dropped for s in samples))


def _padded(rows: Sequence[np.ndarray], fill: float, dtype: type) -> np.ndarray:
    padded = np.full((len(rows), max(len(row) for row in rows), *rows[0].shape[1:]), fill, dtype)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded
