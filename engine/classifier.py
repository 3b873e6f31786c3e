"""From photos to class probabilities: the one path that validation, prediction and measuring share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.checkpoint import classifier_spec_of, is_checkpoint, read_checkpoint, rebuild
from engine.devices import forward, share_gpu_memory
from engine.memory import SMALLER, within_memory
from nets.backbones import backbone_spec, build_classifier
from utils.classes import imagenet_class_names
from utils.classifier_config import ClassifierSpec
from utils.errors import ClassCountError, ConfigError
from utils.types import FloatArray, ImageArray
from utils.views import fixed_view


class Classifier:
    """A classifier ready to use. ``spec`` says what it tells apart and how photos are fed to it."""

    def __init__(self, model: keras.Model, spec: ClassifierSpec) -> None:
        self.model = model
        self.spec = spec
        signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)]
        self._probabilities = tf.function(self._graph, input_signature=signature, autograph=False)

    @classmethod
    def load(cls, path: str | Path) -> Classifier:
        """Rebuilds the classifier of a checkpoint. FileError when the file is missing, foreign or damaged."""
        share_gpu_memory()
        checkpoint = read_checkpoint(path)
        spec = classifier_spec_of(checkpoint, path)
        return cls(rebuild(checkpoint, path), spec)

    @classmethod
    def official(cls, backbone: str, weights: str | Path, class_names: Sequence[str] | None = None) -> Classifier:
        """A backbone with published weights or those of an official-format ``.h5`` file, last layer included.

        ``class_names`` are ImageNet's unless given. ConfigError when there are not as many as the weights know.
        """
        share_gpu_memory()
        names = imagenet_class_names() if class_names is None else tuple(class_names)
        known = backbone_spec(backbone)
        model = build_classifier(backbone, len(names), weights=weights, probabilities=False)
        return cls(model, ClassifierSpec(names, known.name, known.default_size))

    def predict_batch(self, images: Sequence[ImageArray]) -> FloatArray:
        """Class probabilities of RGB uint8 images [H, W, 3] of any size. At least one -> [B, C] float32."""
        spec = self.spec
        views = [fixed_view(image, spec.input_size, spec.resize, spec.crop_fraction) for image in images]
        return self.probabilities(np.stack(views))

    def probabilities(self, views: ImageArray) -> FloatArray:
        """Class probabilities of network inputs. [B, S, S, 3] uint8 -> [B, C] float32.

        MemoryRanOutError where they are too many at once.
        """
        with within_memory("classifying", len(views), SMALLER):
            return self._probabilities(views).numpy()

    def _graph(self, views: Any) -> Any:
        return tf.nn.softmax(forward(self.model, views))


def load_classifier(weights: str, backbone: str | None = None, class_names: Sequence[str] | None = None) -> Classifier:
    """A classifier from a checkpoint (which says what it is), or from a backbone's name and its weights.

    ConfigError where what is given does not fit together.
    """
    if is_checkpoint(weights):
        classifier = Classifier.load(weights)
        spec = classifier.spec
        if backbone and backbone_spec(backbone).name != spec.backbone:
            raise ConfigError(f"--backbone: {backbone}: {weights} holds {spec.backbone}; leave the option out")
        if class_names:
            if len(class_names) != len(spec.class_names):
                raise ConfigError(
                    f"--classes: {len(class_names)} names: {weights} knows {len(spec.class_names)} classes"
                )
            classifier.spec = dataclasses.replace(spec, class_names=tuple(class_names))
        return classifier
    if not backbone:
        raise ConfigError(f"--backbone: missing: {weights} does not say what network it is of; give its name")
    try:
        return Classifier.official(backbone, weights, class_names)
    except ClassCountError as error:
        raise ConfigError(f"{error}; --classes: give a file with a name for each class of the weights") from error
