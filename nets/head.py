"""The YOLOv3 head (arXiv:1804.02767): a feature pyramid over three levels with one output branch each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from nets.layers import FLOAT32, LayerFactory
from utils.config import LEVELS

KERNEL_STD = 0.02


@dataclass(frozen=True)
class Head:
    """``widths`` are the channels n of P3, P4, P5; ``outputs`` the channels each level ends with."""

    widths: tuple[int, ...]
    outputs: tuple[int, ...]
    make: LayerFactory
    separable: bool = False

    def apply(self, taps: Mapping[str, Any]) -> dict[str, Any]:
        """``{"P3": [B, H, W, C3], "P4": ..., "P5": ...}`` -> raw logits ``{"P3": [B, H, W, outputs], ...}``."""
        found: dict[str, Any] = {}
        above = None
        for level, width, outputs in reversed(list(zip(LEVELS, self.widths, self.outputs, strict=True))):
            x = taps[level]
            if above is not None:
                up = self._unit(above, width, 1, f"head_{level}_up")
                up = keras.layers.UpSampling2D(2, name=f"head_{level}_upsample")(up)
                x = keras.layers.Concatenate(name=f"head_{level}_concat")([up, x])
            for number, (filters, size) in enumerate(_five(width), start=1):
                x = self._unit(x, filters, size, f"head_{level}_conv{number}")
            above = x
            x = self._unit(x, 2 * width, 3, f"head_{level}_out")
            last = self.make.conv(outputs, 1, f"head_{level}_logits", bias=True, dtype=FLOAT32)
            found[level] = last(x)
        return {level: found[level] for level in LEVELS}

    def _unit(self, x: Any, filters: int, size: int, name: str) -> Any:
        """Convolution, batch normalization, leaky ReLU; a 3x3 as depthwise and pointwise where separable."""
        if self.separable and size == 3:
            x = self._activate(self.make.depthwise(size, f"{name}_depthwise")(x), f"{name}_depthwise")
            size = 1
        return self._activate(self.make.conv(filters, size, name)(x), name)

    def _activate(self, x: Any, name: str) -> Any:
        return self.make.leaky_relu(f"{name}_activation")(self.make.norm(f"{name}_bn")(x))


def _five(width: int) -> Sequence[tuple[int, int]]:
    return ((width, 1), (2 * width, 3), (width, 1), (2 * width, 3), (width, 1))
