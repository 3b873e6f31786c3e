"""In which floating-point type the layers of a network compute. Its variables are float32 whatever that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from nets.layers import FLOAT32


@contextmanager
def computing_in(model: keras.Model, precision: str) -> Iterator[None]:
    """Within, whatever calls or traces ``model`` computes in ``precision``, the name of a Keras dtype policy.

    Layers made with ``dtype=FLOAT32`` (the image's normalisation and those that end a network) stay as they are, so
    outputs are float32. Afterwards the model is the float32 network that it was; Keras' global policy is never touched.
    Not to be entered by replicas, which take turns in the middle of a network: enter it around all of them.
    """
    if precision == "float32":
        yield
        return
    policy = keras.DTypePolicy(precision)
    layers = [layer for layer in _layers(model) if layer.dtype_policy is not FLOAT32]
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = policy
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.dtype_policy = own


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """All within; not the models themselves, which would cast the raw pixels."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer
