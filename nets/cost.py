"""What a network costs: multiply-adds of one image, counted layer by layer."""

from __future__ import annotations

import math

import keras


def multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of the convolutions and dense layers for one image, models inside the model included.

    As the papers count: normalisations, activations, biases and poolings are left out. ValueError where a size is
    unknown: the model needs a fixed ``input_shape``.
    """
    return sum(_of_layer(layer) for layer in model.layers)


def _of_layer(layer: keras.layers.Layer) -> int:
    if isinstance(layer, keras.Model):
        return multiply_adds(layer)
    if not isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)):
        return 0
    positions = layer.output.shape[1:-1]
    if None in positions:
        raise ValueError(f"{layer.name}: size unknown: build the model with a fixed input_shape")
    # Every weight of a kernel is used once at every position of the output.
    return math.prod(positions) * math.prod(layer.kernel.shape)
