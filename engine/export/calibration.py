"""What quantisation to int8 starts from: photos that set the ranges, and the layers that stay in float."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from utils.artifact import Artifact
from utils.types import FloatArray, ImageArray


@dataclass(frozen=True)
class Rung:
    """Layers that may stay in float, in words, and what finds their operations by name in every format's graph."""

    layers: str
    pattern: str


LADDER = (
    Rung("first convolution and output branches", r"backbone\w*/(normalization|stem_|[Cc]onv1|bn_Conv1)|head_P\d_out"),
    Rung("squeeze-and-excitation", r"_se_(reduce|expand|excite)"),
    Rung("head", r"head_P\d"),
)
"""What stays in float besides the logits, one more with each step, as long as the mAP asks for it."""


@dataclass(frozen=True)
class Calibration:
    """``inputs`` are prepared photos [1, S, S, 3] each; ``rungs`` what stays in float besides the logits.

    The convolutions that give the logits, and all that follows them, always do: their outputs are what decoding reads,
    at full precision.
    """

    inputs: Sequence[ImageArray]
    rungs: tuple[Rung, ...] = ()

    @property
    def in_float(self) -> tuple[str, ...]:
        """What stays in float, in words."""
        return ("logits", *(rung.layers for rung in self.rungs))

    def feeds(self, artifact: Artifact) -> Iterator[dict[str, ImageArray | FloatArray]]:
        """Inputs by name, a photo each, for a model that takes what ``artifact`` says."""
        thresholds = {"score": artifact.score, "iou": artifact.iou} if artifact.nms else {}
        fixed = {name: np.array(value, np.float32) for name, value in thresholds.items()}
        return ({"images": photo, **fixed} for photo in self.inputs)

    def kept(self, names: Iterable[str]) -> list[str]:
        """Those of the operations ``names`` that stay in float because of ``rungs``."""
        return [name for name in names if any(re.search(rung.pattern, name) for rung in self.rungs)]


def climb(inputs: Sequence[ImageArray], model: keras.Model) -> list[Calibration]:
    """What to try one after the other; rungs that ``model`` has no layers for are left out."""
    names = [f"backbone/{variable.path}" for variable in model.variables]
    rungs = [rung for rung in LADDER if any(re.search(rung.pattern, name) for name in names)]
    return [Calibration(inputs, tuple(rungs[:height])) for height in range(len(rungs) + 1)]
