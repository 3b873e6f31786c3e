"""A backbone with its classification top, as a run trains it: its loss, its head, and what stands still when frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Tensor = Any


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
