"""From a config and folders of images to a classifier ready to learn; everything that can be wrong is found here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from engine.checkpoint import classifier_spec_of, start_from, starting_point
from engine.classification_task import ClassificationTask
from engine.image_check import check_images
from engine.plan import smallest_input
from nets.backbones import backbone_spec, official_file
from nets.classifier import build_classifier_of, classification_layer
from utils.classifier_config import ClassifierRunConfig, ClassifierSpec
from utils.errors import ConfigError, DataError, FileError
from utils.image_folders import LabelledImage, LabelledImages, read_image_folders
from utils.image_headers import probe
from utils.letterbox import place
from utils.machine import package_versions
from utils.progress import Reporter

MB = 1 << 20


class ClassificationSetup:
    """How a classifier's run begins."""

    class_source = "data.dir"
    fitted: Collection[str] = ()

    def __init__(self, config: ClassifierRunConfig) -> None:
        self.config = config
        self._images: LabelledImages | None = None

    def spec(self, warn: Callable[[str], None] | None = None) -> ClassifierSpec:
        """What the run builds; reads the names of the folders."""
        model = self.config.model
        return ClassifierSpec(
            class_names=self._folders(warn).class_names,
            backbone=backbone_spec(model.backbone).name,
            input_size=model.input_size,
            resize=model.resize,
            crop_fraction=model.crop_fraction,
            batch_norm_momentum=model.batch_norm_momentum,
            stochastic_depth=model.stochastic_depth,
            ignore_exif=self.config.data.ignore_exif,
            versions=package_versions(),
        )

    def fit(self, spec: ClassifierSpec, reporter: Reporter) -> ClassifierSpec:
        """``spec``: nothing of a classifier is fitted before it learns."""
        del reporter
        return spec

    def write_fitted(self, folder: Path) -> None:
        """Nothing."""

    def inputs(self) -> Mapping[str, str]:
        """The folder of the run."""
        return {"data.dir": self.config.data.dir}

    def task(
        self, spec: ClassifierSpec, weights: str, strategy: tf.distribute.Strategy, reporter: Reporter
    ) -> ClassificationTask:
        """Looks at the images, builds the classifier."""
        folders = self._folders(None)
        sizes = self._sizes(folders.train + folders.val, reporter)
        train = _large_enough(folders.train, sizes, "training", reporter)
        val = _large_enough(folders.val, sizes, "validation", reporter)
        keep_decoded = sum(3 * height * width for height, width in sizes.values()) <= self.config.data.cache_mb * MB
        with strategy.scope():
            model = initial_classifier(spec, weights, reporter, self.config.train.seed)
        return ClassificationTask(self.config, spec, model, train, val, keep_decoded)

    def _folders(self, warn: Callable[[str], None] | None) -> LabelledImages:
        data = self.config.data
        if not data.dir:
            raise ConfigError("--data: missing: give the folder that holds a folder of images for each class")
        if self._images is None:
            self._images = read_image_folders(data.dir, data.val_fraction, data.split_seed, warn)
        return self._images

    def _sizes(self, images: tuple[LabelledImage, ...], reporter: Reporter) -> dict[str, tuple[int, int]]:
        """Height and width of each image by its path."""
        model, ignore_exif = self.config.model, self.config.data.ignore_exif
        smallest = smallest_input(self.config)

        def size_hw(path: str) -> tuple[int, int]:
            size = probe(path, ignore_exif=ignore_exif).size_hw
            if model.resize == "letterbox":
                place(size, smallest, model.resize, path)
            return size

        paths = [image.path for image in images]
        return dict(zip(paths, check_images(paths, size_hw, reporter), strict=True))


def initial_classifier(spec: ClassifierSpec, weights: str, reporter: Reporter, seed: int = 0) -> keras.Model:
    """A classifier with its first weights.

    ``weights``: "none" (drawn from ``seed``); "imagenet", "package" or an ``.h5`` file; a classifier's checkpoint or
    a run with one, whose last layer is kept where the classes are the same. FileError for another backbone's.
    """
    found = starting_point(weights)
    if found is None:
        start = official_file(spec.backbone, reporter=reporter) if weights == "imagenet" else weights
        return build_classifier_of(spec, start, seed)
    path, checkpoint = found
    theirs = classifier_spec_of(checkpoint, path)
    if theirs.backbone != spec.backbone:
        raise FileError(
            f"{path}: backbone: {theirs.backbone!r}: this run's model has {spec.backbone!r}; make them the same"
        )
    model = build_classifier_of(spec, seed=seed)
    tensors = checkpoint.weights()
    last = {v.path: np.asarray(v) for v in classification_layer(model, spec.backbone).variables}
    same = theirs.class_names == spec.class_names
    start_from(model, tensors if same else {**tensors, **last}, path)
    taken = len(model.weights) - (0 if same else len(last))
    reporter.note(f"{path}: took {taken} tensors{'' if same else '; the last layer starts anew'}")
    return model


def _large_enough(
    images: tuple[LabelledImage, ...], sizes: Mapping[str, tuple[int, int]], part: str, reporter: Reporter
) -> tuple[LabelledImage, ...]:
    """Those of more than a single pixel. DataError when none is left."""
    kept = tuple(image for image in images if max(sizes[image.path]) > 1)
    if len(kept) < len(images):
        reporter.say(f"{len(images) - len(kept)} images of a single pixel left out of {part}")
    if not kept:
        raise DataError(f"{images[0].path}: no image is left for {part}: give photos of more than a single pixel")
    return kept
