"""A backbone with its classification top, as a run trains it: its loss, its head, and what stands still when frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from nets.backbones import backbone_spec, build_classifier
from nets.layers import FusedBatchNormalization, SeededDropout
from utils.classifier_config import ClassifierSpec

Tensor = Any


def build_classifier_of(spec: ClassifierSpec, weights: str | Path | None = None, seed: int = 0) -> keras.Model:
    """Raw RGB 0..255 [B, S, S, 3] (uint8 or float) -> float32 logits [B, C].

    ``weights`` as in ``build_classifier``, for all but the last layer, which with whatever is not loaded starts from
    ``seed``. Errors as there.
    """
    return build_classifier(
        spec.backbone,
        len(spec.class_names),
        weights=weights,
        batch_norm_momentum=spec.batch_norm_momentum,
        seed=seed,
        fresh_top=True,
        probabilities=False,
        stochastic_depth=spec.stochastic_depth,
    )


def freeze_features(model: keras.Model, backbone: str, frozen: bool, batch_norm: bool = False) -> None:
    """Freezes (or unfreezes) all but the classification layer and the dropout before it.

    That is weights, batch normalization statistics and stochastic depth; with ``batch_norm`` batch normalization stays
    frozen. A traced ``tf.function`` keeps what it was traced with.
    """
    last = classification_layer(model, backbone)
    for layer in model.layers:
        plain_dropout = isinstance(layer, SeededDropout) and not layer.whole_samples
        if layer is not last and not plain_dropout:
            still = frozen or (batch_norm and isinstance(layer, FusedBatchNormalization))
            layer.trainable = not still


def classification_layer(model: keras.Model, backbone: str) -> keras.layers.Layer:
    """The layer with one output per class."""
    return model.get_layer(backbone_spec(backbone).classification_layer)


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    sum_over_replicas: Callable[[Tensor], Tensor] = tf.identity,
) -> Tensor:
    """Mean cross-entropy of the global batch, a scalar.

    Args:
        logits: [B, C].
        labels: [B, C], shares that sum to 1.
        label_smoothing: share of the certainty that is spread over all classes (arXiv:1512.00567 section 7).
        sum_over_replicas: sums the count of images over all replicas; what N replicas return then adds up to the loss
            of one device with the whole batch.
    """
    classes = logits.shape[-1]
    wanted = labels * (1.0 - label_smoothing) + label_smoothing / classes
    charged = tf.nn.softmax_cross_entropy_with_logits(labels=wanted, logits=logits)
    images = sum_over_replicas(tf.cast(tf.shape(logits)[0], tf.float32))
    return tf.reduce_sum(charged) / images
