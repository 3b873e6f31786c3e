"""EfficientNet (arXiv:1905.11946) with the layer names and the arithmetic of the official Keras weights files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras

from nets.layers import LayerFactory, multiple_of_8
from nets.silu import Silu, SiluAndMean

SE_RATIO = 0.25


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution as B0 has them; width and depth are scaled from here."""

    kernel: int
    repeats: int
    filters_in: int
    filters_out: int
    expand: int
    stride: int


STAGES = (
    Stage(3, 1, 32, 16, 1, 1),
    Stage(3, 2, 16, 24, 6, 2),
    Stage(5, 2, 24, 40, 6, 2),
    Stage(3, 3, 40, 80, 6, 2),
    Stage(5, 3, 80, 112, 6, 1),
    Stage(5, 4, 112, 192, 6, 2),
    Stage(3, 1, 192, 320, 6, 1),
)


def block_name(stage: int, repeat: int) -> str:
    """What the names of a block's layers begin with; stages count from 1, repeats from 0."""
    return f"block{stage}{chr(ord('a') + repeat)}_"


@dataclass(frozen=True)
class EfficientNet:
    """One size of the family: ``width`` scales channels, ``depth`` scales repeats, ``dropout`` is before the top.

    ``lite`` makes B0 EfficientNet-Lite0: ReLU6 for swish, no squeeze-and-excitation. Larger Lites would also leave the
    stem, the top and the first and last stage unscaled.
    """

    width: float
    depth: float
    dropout: float
    lite: bool = False

    def filters(self, count: int) -> int:
        """``count`` scaled to a multiple of 8, never more than 10% below."""
        return multiple_of_8(count * self.width)

    def repeats(self, count: int) -> int:
        """``count`` scaled and rounded up."""
        return math.ceil(self.depth * count)

    def trunk(self, x: Any, make: LayerFactory) -> Any:
        """Normalised image [B, H, W, 3] -> output of stage 7 [B, H/32, W/32, C]."""
        x = make.conv(self.filters(32), 3, "stem_conv", strides=2)(x)
        x = _activation("stem_activation", self.lite, make)(make.norm("stem_bn")(x))
        block_count = sum(self.repeats(stage.repeats) for stage in STAGES)
        index = 0
        for number, stage in enumerate(STAGES, start=1):
            for repeat in range(self.repeats(stage.repeats)):
                first = repeat == 0
                block = Block(
                    name=block_name(number, repeat),
                    kernel=stage.kernel,
                    stride=stage.stride if first else 1,
                    filters_in=self.filters(stage.filters_in if first else stage.filters_out),
                    filters_out=self.filters(stage.filters_out),
                    expand=stage.expand,
                    drop_rate=make.stochastic_depth * index / block_count,
                    lite=self.lite,
                )
                x = block.apply(x, make)
                index += 1
        return x

    def top(self, x: Any, classes: int, make: LayerFactory, probabilities: bool) -> Any:
        """Output of stage 7 -> class probabilities [B, classes], or logits."""
        x = make.conv(self.filters(1280), 1, "top_conv")(x)
        x = _activation("top_activation", self.lite, make)(make.norm("top_bn")(x))
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = make.dropout(self.dropout, "top_dropout")(x)
        return make.predictions(classes, probabilities)(x)


@dataclass(frozen=True)
class Block:
    """Inverted residual (arXiv:1801.04381), unless ``lite`` with squeeze-and-excitation (arXiv:1709.01507)."""

    name: str
    kernel: int
    stride: int
    filters_in: int
    filters_out: int
    expand: int
    drop_rate: float
    lite: bool = False

    def apply(self, inputs: Any, make: LayerFactory) -> Any:
        """[B, H, W, filters_in] -> [B, H/stride, W/stride, filters_out]."""
        x, wide = inputs, self.filters_in * self.expand
        if self.expand != 1:
            x = make.conv(wide, 1, f"{self.name}expand_conv")(x)
            x = _activation(f"{self.name}expand_activation", self.lite, make)(make.norm(f"{self.name}expand_bn")(x))
        x = make.depthwise(self.kernel, f"{self.name}dwconv", strides=self.stride)(x)
        x = make.norm(f"{self.name}bn")(x)
        x = _activation(f"{self.name}activation", True, make)(x) if self.lite else self._excite(x, wide, make)
        x = make.norm(f"{self.name}project_bn")(make.conv(self.filters_out, 1, f"{self.name}project_conv")(x))
        if self.stride == 1 and self.filters_in == self.filters_out:
            if self.drop_rate > 0:
                x = make.dropout(self.drop_rate, f"{self.name}drop", whole_samples=True)(x)
            x = keras.layers.Add(name=f"{self.name}add")([x, inputs])
        return x

    def _excite(self, x: Any, wide: int, make: LayerFactory) -> Any:
        narrow = max(1, int(self.filters_in * SE_RATIO))
        x, weight = SiluAndMean(name=f"{self.name}activation")(x)
        weight = make.conv(narrow, 1, f"{self.name}se_reduce", bias=True, activation="silu")(weight)
        weight = make.conv(wide, 1, f"{self.name}se_expand", bias=True, activation="sigmoid")(weight)
        return keras.layers.Multiply(name=f"{self.name}se_excite")([x, weight])


def _activation(name: str, lite: bool, make: LayerFactory) -> Any:
    return make.relu6(name) if lite else Silu(name=name)
