"""DenseNet (arXiv:1608.06993) with the layer names and the arithmetic of the official Keras weights files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras

from nets.layers import LayerFactory

GROWTH = 32
BOTTLENECK = 4
EPSILON = 1.001e-5


@dataclass(frozen=True)
class DenseNet:
    """One member of the family: how many layers each of the four dense blocks has."""

    blocks: tuple[int, int, int, int]

    def trunk(self, x: Any, make: LayerFactory) -> Any:
        """Normalised image [B, H, W, 3] -> output of the last dense block [B, H/32, W/32, C], normalised."""
        make = replace(make, batch_norm_epsilon=EPSILON)
        x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(x)
        x = make.conv(64, 7, "conv1_conv", strides=2, padding="valid")(x)
        x = keras.layers.ReLU(name="conv1_relu")(make.norm("conv1_bn")(x))
        x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
        x = keras.layers.MaxPooling2D(3, 2, name="pool1")(x)
        for number, count in enumerate(self.blocks, start=2):
            if number > 2:
                x = _transition(x, f"pool{number - 1}_", make)
            for layer in range(1, count + 1):
                x = _dense_layer(x, f"conv{number}_block{layer}_", make)
        return keras.layers.ReLU(name="relu")(make.norm("bn")(x))

    def top(self, x: Any, classes: int, make: LayerFactory, probabilities: bool) -> Any:
        """Output of the trunk -> class probabilities [B, classes], or logits."""
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        return make.predictions(classes, probabilities)(x)


def _dense_layer(inputs: Any, name: str, make: LayerFactory) -> Any:
    """[B, H, W, C] -> the same and 32 new channels."""
    x = keras.layers.ReLU(name=f"{name}0_relu")(make.norm(f"{name}0_bn")(inputs))
    x = make.conv(BOTTLENECK * GROWTH, 1, f"{name}1_conv")(x)
    x = keras.layers.ReLU(name=f"{name}1_relu")(make.norm(f"{name}1_bn")(x))
    x = make.conv(GROWTH, 3, f"{name}2_conv")(x)
    return keras.layers.Concatenate(name=f"{name}concat")([inputs, x])


def _transition(x: Any, name: str, make: LayerFactory) -> Any:
    """[B, H, W, C] -> [B, H/2, W/2, C/2]."""
    x = keras.layers.ReLU(name=f"{name}relu")(make.norm(f"{name}bn")(x))
    x = make.conv(int(x.shape[-1]) // 2, 1, f"{name}conv")(x)
    return keras.layers.AveragePooling2D(2, 2, name=f"{name}pool")(x)
