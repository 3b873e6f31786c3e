"""ImageNet weights that come as a Python package: found where pip put them, checked byte for byte, never imported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from nets.backbones.efficientnet import STAGES, block_name
from nets.backbones.registry import PackagedFile
from nets.torch_file import Array, read_torch_tensors
from nets.weights import LoadReport, take
from utils.errors import ConfigError, FileError

OUTER_LAYERS = {
    "_conv_stem": "stem_conv",
    "_bn0": "stem_bn",
    "_conv_head": "top_conv",
    "_bn1": "top_bn",
    "_fc": "predictions",
}
BLOCK_LAYERS = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_bn",
    "_depthwise_conv": "dwconv",
    "_bn1": "bn",
    "_project_conv": "project_conv",
    "_bn2": "project_bn",
}
NORM_LEAVES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
STEP_COUNTER = "num_batches_tracked"
"""Of no use where the momentum is given."""


def load_packaged(
    model: keras.Model,
    packaged: PackagedFile,
    network: str,
    skip_layers: tuple[str, ...] = (),
    fresh_layers: tuple[str, ...] = (),
) -> LoadReport:
    """Gives every weight of an EfficientNet-Lite0 its value from the installed package; the rest is as ``load_h5``.

    ConfigError when the package is not installed, or in another version; FileError when its file is not the one
    published.
    """
    path = _installed(packaged)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}): {_again(packaged)}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != packaged.sha256:
        raise FileError(f"{path}: SHA-256 {found}: is not the published {packaged.sha256}: {_again(packaged)}")
    stored = keras_tensors(read_torch_tensors(data, path))
    return take(model, stored, path, skip_layers, fresh_layers, network)


def keras_tensors(tensors: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """PyTorch's name -> tensor as our layer -> leaf -> tensor in Keras' layout; what is unknown keeps its name."""
    layers = dict(OUTER_LAYERS)
    names = [block_name(number, repeat) for number, stage in enumerate(STAGES, 1) for repeat in range(stage.repeats)]
    for index, name in enumerate(names):
        layers |= {f"_blocks.{index}.{theirs}": f"{name}{ours}" for theirs, ours in BLOCK_LAYERS.items()}
    stored: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        theirs, _, leaf = name.rpartition(".")
        if leaf == STEP_COUNTER:
            continue
        ours = layers.get(theirs, theirs)
        leaves = NORM_LEAVES if ours.endswith("bn") else {"weight": "kernel"}
        stored.setdefault(ours, {})[leaves.get(leaf, leaf)] = _keras_layout(tensor, ours.endswith("dwconv"))
    return stored


def _keras_layout(tensor: Array, depthwise: bool) -> Array:
    if tensor.ndim == 4:  # [out, in, height, width]; of a depthwise kernel, "in" is the multiplier
        return tensor.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return tensor.T


def _installed(packaged: PackagedFile) -> Path:
    try:
        distribution = metadata.distribution(packaged.package)
    except metadata.PackageNotFoundError as error:
        raise ConfigError(f"weights: package: {packaged.package} is not installed: {packaged.install}") from error
    if distribution.version != packaged.version:
        raise ConfigError(
            f"weights: package: {packaged.package} {distribution.version} is installed, {packaged.version} is"
            f" needed: {packaged.install}"
        )
    return Path(str(distribution.locate_file(packaged.file)))


def _again(packaged: PackagedFile) -> str:
    return packaged.install.replace("install", "install --force-reinstall")
