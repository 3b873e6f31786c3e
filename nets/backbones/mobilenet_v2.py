"""MobileNet v2 (arXiv:1801.04381) with the layer names and the arithmetic of the official Keras weights files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from nets.layers import LayerFactory, multiple_of_8

EXPANSION = 6
# Output channels and stride of block 0 (which does not expand), 1, and on.
BLOCKS = (
    (16, 1),
    (24, 2), (24, 1),
    (32, 2), (32, 1), (32, 1),
    (64, 2), (64, 1), (64, 1), (64, 1),
    (96, 1), (96, 1), (96, 1),
    (160, 2), (160, 1), (160, 1),
    (320, 1),
)  # fmt: skip


@dataclass(frozen=True)
class MobileNetV2:
    """One member of the family: ``alpha`` scales channels."""

    alpha: float

    def trunk(self, x: Any, make: LayerFactory) -> Any:
        """Normalised image [B, H, W, 3] -> output of block 16 [B, H/32, W/32, C]."""
        x = make.conv(multiple_of_8(32 * self.alpha), 3, "Conv1", strides=2)(x)
        x = make.relu6("Conv1_relu")(make.norm("bn_Conv1")(x))
        for number, (filters, stride) in enumerate(BLOCKS):
            x = _block(x, multiple_of_8(int(filters * self.alpha)), stride, number, make)
        return x

    def top(self, x: Any, classes: int, make: LayerFactory, probabilities: bool) -> Any:
        """Output of block 16 -> class probabilities [B, classes], or logits."""
        x = make.conv(multiple_of_8(1280 * max(1.0, self.alpha)), 1, "Conv_1")(x)
        x = make.relu6("out_relu")(make.norm("Conv_1_bn")(x))
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        return make.predictions(classes, probabilities)(x)


def _block(inputs: Any, filters: int, stride: int, number: int, make: LayerFactory) -> Any:
    """Inverted residual with a linear bottleneck: [B, H, W, C] -> [B, H/stride, W/stride, filters]."""
    x, channels = inputs, int(inputs.shape[-1])
    name = f"block_{number}_" if number else "expanded_conv_"
    if number:
        x = make.conv(EXPANSION * channels, 1, f"{name}expand")(x)
        x = make.relu6(f"{name}expand_relu")(make.norm(f"{name}expand_BN")(x))
    x = make.depthwise(3, f"{name}depthwise", stride)(x)
    x = make.relu6(f"{name}depthwise_relu")(make.norm(f"{name}depthwise_BN")(x))
    x = make.norm(f"{name}project_BN")(make.conv(filters, 1, f"{name}project")(x))
    if stride == 1 and channels == filters:
        x = keras.layers.Add(name=f"{name}add")([inputs, x])
    return x
