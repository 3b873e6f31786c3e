"""Batches of labelled images. (seed, epoch, index) decide a view, (seed, epoch, batch) what it is mixed with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from engine.dataset import BATCH_STREAM, SAMPLE_STREAM, Batch, Dataset
from utils.classifier_config import ClassifierAugmentConfig, ClassifierSpec
from utils.image_folders import LabelledImage
from utils.images import read_image
from utils.types import FloatArray, ImageArray
from utils.views import CHANCES, fixed_view, mix, random_view

View = tuple[ImageArray, int]
"""A network input [S, S, 3] uint8 and the index of its image."""


class ClassificationDataset(Dataset[View]):
    """Reads and varies labelled images.

    A batch's targets are ``labels`` [B, C] float32, shares that sum to 1. With ``keep_decoded`` every image stays in
    memory as it was decoded, so that later epochs only vary it.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        spec: ClassifierSpec,
        augment: ClassifierAugmentConfig | None = None,
        seed: int = 0,
        threads: int = 0,
        keep_decoded: bool = False,
        multi_scale: float = 0.0,
    ) -> None:
        super().__init__(len(images), seed, threads, multi_scale)
        self.images = images
        self.spec: ClassifierSpec = spec
        self.augment = augment if augment is not None and augment.enabled else None
        self.class_ids = np.array([image.class_id for image in images], np.int64)
        self._decoded: dict[int, ImageArray] | None = {} if keep_decoded else None
        self._chances = lru_cache(maxsize=1)(self._draw)

    def sample(self, epoch: int, index: int) -> View:
        """The view of image ``index`` that ``epoch`` sees."""
        image, spec = self._read(index), self.spec
        if self.augment is None:
            return fixed_view(image, spec.input_size, spec.resize, spec.crop_fraction, self.path(index)), index
        chances = self._chances(epoch)[index]
        return random_view(image, spec.input_size, spec.resize, spec.crop_fraction, self.augment, chances), index

    def path(self, index: int) -> str:
        """The file of image ``index``."""
        return self.images[index].path

    def batch(self, samples: Sequence[View], epoch: int, number: int) -> Batch:
        """Stacks views with their labels, and mixes them where that is wanted."""
        indices = [index for _, index in samples]
        images = np.stack([view for view, _ in samples])
        labels = np.eye(len(self.spec.class_names), dtype=np.float32)[self.class_ids[indices]]
        if self.augment is not None and self.augment.mixup:
            rng = np.random.default_rng((self.seed, BATCH_STREAM, epoch, number))
            images, labels = mix(images, labels, self.augment.mixup, rng)
        return Batch(images, {"labels": labels}, tuple(self.path(index) for index in indices))

    def _read(self, index: int) -> ImageArray:
        if self._decoded is None:
            return read_image(self.path(index), ignore_exif=self.spec.ignore_exif)
        if index not in self._decoded:
            self._decoded[index] = read_image(self.path(index), ignore_exif=self.spec.ignore_exif)
        return self._decoded[index]

    def _draw(self, epoch: int) -> FloatArray:
        """Everything that chance decides in an epoch: [N, CHANCES]."""
        return np.random.default_rng((self.seed, SAMPLE_STREAM, epoch)).random((len(self), CHANCES), np.float32)
