"""The detector: a backbone and the YOLOv3 head, as one network from raw pixels to raw logits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nets.backbones import backbone_spec, build_backbone
from nets.head import KERNEL_STD, Head
from nets.layers import FusedBatchNormalization, LayerFactory
from utils.config import LEVELS, OBJECTNESS, DetectorSpec

BACKBONE = "backbone"


def build_detector(
    spec: DetectorSpec, backbone_weights: str | Path | None = None, seed: int = 0, input_shape: Any = (None, None, 3)
) -> keras.Model:
    """Raw RGB 0..255 [B, S, S, 3] (uint8 or float), S a multiple of 32 -> raw float32 logits by level.

    ``{"P3": [B, S/8, S/8, A * (5 + C)], "P4": [B, S/16, ...], "P5": [B, S/32, ...]}`` with A anchors of the mask;
    per anchor t_x, t_y, t_w, t_h, objectness, C classes. ``backbone_weights`` as in ``build_backbone``; what is not
    loaded starts from ``seed``. Errors as ``build_backbone``.
    """
    backbone = build_backbone(
        spec.backbone, input_shape, backbone_weights, spec.batch_norm_momentum, seed, spec.stochastic_depth
    )
    inputs = keras.Input(input_shape, name="image")
    taps = backbone(inputs)
    widths = backbone_spec(spec.backbone).head_widths or tuple(int(taps[level].shape[-1]) for level in LEVELS)
    outputs = tuple(len(mask) * spec.slot_values for mask in spec.masks)
    make = LayerFactory(seed, spec.batch_norm_momentum, kernel_std=KERNEL_STD)
    logits = Head(widths, outputs, make, spec.separable_head).apply(taps)
    model = keras.Model(inputs, logits, name="detector")
    if spec.prior_probability > 0:
        _expect_objects(model, spec)
    return model


def freeze_backbone(model: keras.Model, frozen: bool, batch_norm: bool = False) -> None:
    """Freezes (or unfreezes) the whole backbone: weights, batch normalization statistics and stochastic depth.

    With ``batch_norm`` its batch normalization stays frozen, scales and offsets included.
    A traced ``tf.function`` keeps what it was traced with: trace the training step again afterwards. ValueError when
    the model has no backbone.
    """
    found = [layer for layer in model.layers if layer.name == BACKBONE and layer.weights]
    if not found:
        raise ValueError(f"model {model.name!r} has no part named {BACKBONE!r} to freeze")
    for layer in found:
        layer.trainable = not frozen
        for part in layer.layers:
            if isinstance(part, FusedBatchNormalization):
                part.trainable = not (frozen or batch_norm)


def head_kernels(model: keras.Model) -> list[keras.Variable]:
    """The convolution kernels of the head, for the loss's L2 term; no biases, no batch normalization."""
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    return [layer.kernel for layer in model.layers if isinstance(layer, convolutions)]


def _expect_objects(model: keras.Model, spec: DetectorSpec) -> None:
    """Starts every slot's objectness at the prior probability, arXiv:1708.02002 section 4.1."""
    logit = -math.log((1 - spec.prior_probability) / spec.prior_probability)
    for level, mask in zip(LEVELS, spec.masks, strict=True):
        bias = np.zeros((len(mask), spec.slot_values), np.float32)
        bias[:, OBJECTNESS] = logit
        model.get_layer(f"head_{level}_logits").bias.assign(bias.ravel())
