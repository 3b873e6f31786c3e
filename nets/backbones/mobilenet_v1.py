"""MobileNet v1 (arXiv:1704.04861) with the layer names and the arithmetic of the official Keras weights files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from nets.layers import FLOAT32, LayerFactory, PointwiseConv2D

# Pointwise channels and stride of conv_dw_1, conv_pw_1 and on; "shallow" leaves the five of the third row out.
BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
REPEATED = range(7, 12)


@dataclass(frozen=True)
class MobileNetV1:
    """One member of the family: ``alpha`` scales channels, ``shallow`` leaves out the repeated blocks."""

    alpha: float
    shallow: bool = False

    def filters(self, count: int) -> int:
        """``count`` scaled, cut to a whole number."""
        return max(1, int(count * self.alpha))

    def trunk(self, x: Any, make: LayerFactory) -> Any:
        """Normalised image [B, H, W, 3] -> output of block 13 [B, H/32, W/32, C]."""
        x = make.conv(self.filters(32), 3, "conv1", strides=2)(x)
        x = make.relu6("conv1_relu")(make.norm("conv1_bn")(x))
        for number, (filters, stride) in enumerate(BLOCKS, start=1):
            if not (self.shallow and number in REPEATED):
                x = _block(x, self.filters(filters), stride, number, make)
        return x

    def top(self, x: Any, classes: int, make: LayerFactory, probabilities: bool) -> Any:
        """Output of block 13 -> class probabilities [B, classes], or logits."""
        x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
        x = make.dropout(1e-3, "dropout")(x)
        start = make.predictions_initializer("conv_preds")
        x = PointwiseConv2D(classes, 1, kernel_initializer=start, dtype=FLOAT32, name="conv_preds")(x)
        x = keras.layers.Reshape((classes,), dtype=FLOAT32, name="reshape_2")(x)
        return keras.layers.Softmax(dtype=FLOAT32, name="predictions")(x) if probabilities else x


def _block(x: Any, filters: int, stride: int, number: int, make: LayerFactory) -> Any:
    """Depthwise 3x3 and pointwise 1x1: [B, H, W, C] -> [B, H/stride, W/stride, filters]."""
    padding = "same"
    if stride == 2:
        # Below and to the right at every size; 'same' would pad odd sizes on all sides.
        x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"conv_pad_{number}")(x)
        padding = "valid"
    for kind, layer in (
        ("dw", make.depthwise(3, f"conv_dw_{number}", stride, padding)),
        ("pw", make.conv(filters, 1, f"conv_pw_{number}")),
    ):
        x = make.norm(f"conv_{kind}_{number}_bn")(layer(x))
        x = make.relu6(f"conv_{kind}_{number}_relu")(x)
    return x
