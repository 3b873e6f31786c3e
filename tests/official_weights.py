"""Networks of keras.applications with random weights, and files of them in the format of the official weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras.src.applications import mobilenet as mobilenet_blocks
from keras.src.applications.densenet import DenseNet
from keras.src.legacy.saving import legacy_h5_format

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
TOPS = ("predictions/kernel", "conv_preds/kernel")


def official_model(name: str, size: int, include_top: bool = True, classes: int = 10, seed: int = 0) -> keras.Model:
    """The network that ``name`` must equal; no weight, batch normalization's included, is at a trivial value."""
    model = _build(name, include_top=include_top, weights=None, input_shape=(size, size, 3), classes=classes)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            set_input_rule(layer, IMAGENET_MEAN, IMAGENET_STD**2)
            continue
        for weight in layer.weights:
            value = _random_value(rng, weight)
            # Blocks that add little to what they are given; rounding errors would grow from one to the next otherwise.
            adds_little = weight.path.lower().endswith("project_bn/gamma")
            # Of many classes some must stand out, or all probabilities would agree by being small.
            stands_out = weight.path.endswith(TOPS)
            weight.assign(value * (0.2 if adds_little else 4 if stands_out and classes > 100 else 1))
    return model


def _build(name: str, **options: Any) -> keras.Model:
    applications = keras.applications
    if found := re.fullmatch(r"efficientnet_b(\d)", name):
        return getattr(applications, f"EfficientNetB{found[1]}")(**options)
    if found := re.fullmatch(r"densenet(\d+)", name):
        return getattr(applications, f"DenseNet{found[1]}")(**options)
    if found := re.fullmatch(r"densenet_([\d-]+)", name):
        return DenseNet([int(count) for count in found[1].split("-")], **options)
    if found := re.fullmatch(r"mobilenet_v1_([\d.]+)", name):
        return applications.MobileNet(alpha=float(found[1]), **options)
    if found := re.fullmatch(r"mobilenet_v1_([\d.]+)_shallow", name):
        return _shallow_mobilenet(float(found[1]), **options)
    if found := re.fullmatch(r"mobilenet_v2_([\d.]+)", name):
        return applications.MobileNetV2(alpha=float(found[1]), **options)
    raise ValueError(name)


def _shallow_mobilenet(alpha: float, include_top: bool, input_shape: tuple, classes: int, weights: None) -> keras.Model:
    """Keras' own blocks without those that repeat; Keras has no such network."""
    inputs = keras.Input(input_shape)
    x = mobilenet_blocks._conv_block(inputs, 32, alpha, strides=(2, 2))
    blocks = {1: (64, 1), 2: (128, 2), 3: (128, 1), 4: (256, 2), 5: (256, 1), 6: (512, 2), 12: (1024, 2), 13: (1024, 1)}
    for number, (filters, stride) in blocks.items():
        x = mobilenet_blocks._depthwise_conv_block(x, filters, alpha, strides=(stride, stride), block_id=number)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Reshape((1, 1, -1))(x)
        x = keras.layers.Conv2D(classes, 1, name="conv_preds")(x)
        x = keras.layers.Softmax(name="predictions")(keras.layers.Flatten()(x))
    return keras.Model(inputs, x)


def official_input(name: str, images: np.ndarray) -> np.ndarray:
    """Raw pixels as the official network of ``name`` wants them."""
    modules = {"mobilenet_v1": "mobilenet", "mobilenet_v2": "mobilenet_v2", "densenet": "densenet"}
    module = next((module for start, module in modules.items() if name.startswith(start)), "efficientnet")
    return getattr(keras.applications, module).preprocess_input(images.astype(np.float32))


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


# The names of an older Keras, which wrote the published files of MobileNet v2 and DenseNet.
OLDER = (
    (r"expanded_conv_(\w+)_BN", r"bn0_conv_0_bn_\1"),
    (r"expanded_conv_(\w+)", r"mobl0_conv_0_\1"),
    (r"block_(\d+)_(\w+)_BN", r"bn\1_conv_\1_bn_\2"),
    (r"block_(\d+)_(\w+)", r"mobl\1_conv_\1_\2"),
    (r"conv1_(conv|bn)", r"conv1/\1"),
    (r"predictions", "Logits"),
)


def with_older_names(path: Path) -> Path:
    """A file beside ``path`` with the same tensors, named as an older Keras did."""
    renamed = path.with_name("older.h5")
    with h5py.File(path) as old, h5py.File(renamed, "w") as new:
        layers = []
        for layer in old.attrs["layer_names"]:
            names = list(old[layer].attrs["weight_names"])
            if not names:
                continue
            pattern, name = next((pair for pair in OLDER if re.fullmatch(pair[0], layer)), (layer, layer))
            layers.append(re.sub(pattern, name, layer))
            group = new.create_group(layers[-1])
            leaves = [name.rpartition("/")[2] for name in names]
            group.attrs["weight_names"] = [f"{layers[-1]}/{leaf}:0" for leaf in leaves]
            for name, leaf in zip(names, leaves, strict=True):
                group[f"{layers[-1]}/{leaf}:0"] = old[layer][name][()]
        new.attrs["layer_names"] = layers
    return renamed
