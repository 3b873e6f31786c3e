"""Networks of keras.applications with random weights, and files of them in the format of the official weights."""

from __future__ import annotations

from pathlib import Path

import h5py
import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def official_model(name: str, size: int, include_top: bool = True, classes: int = 10, seed: int = 0) -> keras.Model:
    """The network that ``name`` must equal; no weight, batch normalization's included, is at a trivial value."""
    build = getattr(keras.applications, name.replace("efficientnet_b", "EfficientNetB"))
    model = build(include_top=include_top, weights=None, input_shape=(size, size, 3), classes=classes)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            set_input_rule(layer, IMAGENET_MEAN, IMAGENET_STD**2)
            continue
        for weight in layer.weights:
            value = _random_value(rng, weight)
            # Blocks that add little to what they are given; rounding errors would grow from one to the next otherwise.
            weight.assign(value * 0.2 if weight.path.endswith("project_bn/gamma") else value)
    return model


def set_input_rule(layer: keras.layers.Normalization, mean: np.ndarray, variance: np.ndarray) -> None:
    """What the layer subtracts and the square of what it divides by."""
    values = {"mean": mean, "variance": variance, "count": 0}
    layer.set_weights([np.reshape(values[weight.name], weight.shape) for weight in layer.weights])
    layer.finalize_state()


def _random_value(rng: np.random.Generator, weight: keras.Variable) -> np.ndarray:
    shape = tuple(weight.shape)
    if weight.name == "kernel":
        fan_in = shape[0] * shape[1] * (1 if shape[3] == 1 else shape[2]) if len(shape) == 4 else shape[0]
        return rng.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5)
    if weight.name in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, 0.3, shape)


def save_official(model: keras.Model, path: Path) -> Path:
    """Writes the weights as ``save_weights`` of Keras 2 did, which the published files come from."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return path
