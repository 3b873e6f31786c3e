"""Raw pixels to what a network was made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from nets.layers import PACKAGE


@dataclass(frozen=True)
class Normalisation:
    """What a network expects of its input: (x - mean) / std on raw RGB 0..255."""

    mean_px: tuple[float, float, float]
    std_px: tuple[float, float, float]


@keras.saving.register_keras_serializable(PACKAGE)
class PixelNormalization(keras.layers.Layer):  # type: ignore[misc]
    """(x - mean) / std per channel, in units of 0..255. uint8 or float [B, H, W, 3] -> float."""

    def __init__(self, mean_px: Sequence[float], std_px: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean_px = tuple(float(value) for value in mean_px)
        self.std_px = tuple(float(value) for value in std_px)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Raw RGB in, normalised RGB out."""
        x = tf.cast(inputs, tf.float32)
        mean_px, std_px = tf.constant(self.mean_px, x.dtype), tf.constant(self.std_px, x.dtype)
        return tf.cast((x - mean_px) * (1.0 / std_px), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments that rebuild the layer."""
        return {**super().get_config(), "mean_px": self.mean_px, "std_px": self.std_px}
