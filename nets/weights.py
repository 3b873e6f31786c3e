"""Weights files in the official Keras ``.h5`` format, read by layer name: every tensor is used, or left out on purpose.

Only tensors are read: nothing in a file is unpickled, imported or run, and no link out of the file is followed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from nets.normalisation import Normalisation
from utils.errors import ClassCountError, ConfigError, FileError
from utils.files import replacing

Tensors = dict[str, Any]
INPUT_LAYER = re.compile(r"(normalization|rescaling)(_\d+)?")


@dataclass(frozen=True)
class LoadReport:
    """What a load did: the tensors the network took, and those of the file it left out on purpose."""

    taken: tuple[str, ...]
    skipped: tuple[str, ...]


def load_h5(
    model: keras.Model,
    path: str | Path,
    normalisation: Normalisation,
    skip_layers: Collection[str] = (),
    fresh_layers: Collection[str] = (),
    network: str = "",
    classification_layer: str = "predictions",
    older_names: bool = False,
) -> LoadReport:
    """Gives every weight of ``model`` its value from the file, or changes nothing and raises.

    ``skip_layers`` of the file are not for this model; ``fresh_layers`` of the model keep what they have. The input
    layers of the file must mean ``normalisation``, which is part of the model; errors call the model ``network``. With
    ``older_names`` a file may name its layers otherwise, if they come in the order of the model's and, where those
    follow, of ``skip_layers``: every layer of such a network needs the one before, so their order is one and the same.
    FileError: missing, unreadable, damaged, not HDF5, with links out of it. ConfigError: weights of another network,
    class count or input rule.
    """
    file_path = Path(path)
    with _open(file_path) as file:
        stored = _stored_tensors(file, file_path)
        inputs = {name: tensors for name, tensors in stored.items() if INPUT_LAYER.fullmatch(name)}
        for tensors in inputs.values():
            _check_input_rule(tensors, normalisation, file_path)
        if older_names:
            own = [layer.name for layer in model.layers if layer.weights and layer.name not in fresh_layers]
            stored = _renamed(stored, list(dict.fromkeys([*own, *skip_layers])))
        left_out = {*inputs, *skip_layers}
        return take(model, stored, file_path, left_out, fresh_layers, network, classification_layer)


def take(
    model: keras.Model,
    stored: Mapping[str, Tensors],
    path: Path,
    left_out: Collection[str] = (),
    fresh_layers: Collection[str] = (),
    network: str = "",
    classification_layer: str = "predictions",
) -> LoadReport:
    """Gives every weight of ``model`` its value, or changes nothing and raises. ``stored``: layer -> leaf -> tensor.

    Layers ``left_out`` are not for this model; ``path`` is for messages; the rest and the errors are as ``load_h5``.
    """
    wanted = {
        layer.name: {_leaf(weight.path): weight for weight in layer.weights}
        for layer in model.layers
        if layer.weights and layer.name not in fresh_layers
    }
    used = {name: tensors for name, tensors in stored.items() if name not in left_out}
    _check_same_layers(wanted, used, network or model.name, classification_layer, path)
    pairs = [pair for name in wanted for pair in _pairs(name, wanted[name], used[name], classification_layer, path)]
    values = [(weight, _read(tensor, name, path)) for name, weight, tensor in pairs]
    for weight, value in values:
        weight.assign(value)
    skipped = tuple(f"{name}/{leaf}" for name in stored if name in left_out for leaf in stored[name])
    return LoadReport(tuple(name for name, _, _ in pairs), skipped)


def save_h5(model: keras.Model, path: str | Path, normalisation: Normalisation | None = None) -> None:
    """Writes the weights as the official files hold them, for ``load_h5`` and for Keras' own ``load_weights``.

    ``normalisation`` is written too where given: EfficientNet's files alone hold what their input is.
    """
    layers: dict[str, Tensors] = {
        layer.name: {_leaf(weight.path): np.asarray(weight) for weight in layer.weights}
        for layer in model.layers
        if layer.weights
    }
    if normalisation is not None:
        mean, std = (np.array(values, np.float32) / 255 for values in (normalisation.mean_px, normalisation.std_px))
        rule = {"mean": mean, "variance": std**2, "count": np.zeros((), np.float32)}
        layers = {"normalization": rule, **layers}
    with replacing(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, tensors in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{leaf}:0".encode() for leaf in tensors]
            for leaf, tensor in tensors.items():
                group[f"{name}/{leaf}:0"] = tensor


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    if path.is_dir():
        raise FileError(f"{path}: is a directory: a weights file (.h5) is needed here")
    if not path.exists():
        raise FileError(f"{path}: no such weights file")
    if not path.is_file():
        raise FileError(f"{path}: is not a regular file: a weights file (.h5) is needed here")
    try:
        with path.open("rb") as raw:
            start = raw.read(512)
        if not h5py.is_hdf5(path):
            raise FileError(f"{path}: {_what_it_is(start)}: a weights file in HDF5 format (.h5) is needed here")
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise FileError(f"{path}: damaged or unreadable ({reason}): fetch or export it again") from error


def _what_it_is(start: bytes) -> str:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "is empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "is a web page, not weights"
    if start.startswith(b"PK\x03\x04"):
        return "is a ZIP archive (such as .keras or a PyTorch file)"
    if start.startswith(b"\x80") and start[1:2] in b"\x02\x03\x04\x05":
        return "is a pickle, which could run code and is never opened"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself"
    return "is not HDF5"


def _stored_tensors(file: h5py.File, path: Path) -> dict[str, Tensors]:
    """Layer name -> leaf name -> dataset, for the layers that hold tensors."""
    _refuse_links(file, path, set())
    if "Lambda" in str(file.attrs.get("model_config", "")):
        raise FileError(f"{path}: holds a model with Lambda layers, which are code: export its weights alone")
    root = file.get("model_weights", file)
    names = _names(root, "layer_names")
    if not names:
        hint = "a Keras 3 .weights.h5, which has no layer names" if "layers" in file else "without 'layer_names'"
        raise FileError(f"{path}: is not in the official .h5 format ({hint}): save it as legacy HDF5 weights")
    own = "top_level_model_weights"
    stored = {}
    for name in (*names, *([own] if own in root else [])):
        paths = _names(root[name], "weight_names")
        tensors = {_leaf(weight): root[name][weight] for weight in paths}
        if len(tensors) != len(paths):
            raise ConfigError(f"{path}: {name}: is a model inside the model: a file with plain layers is needed here")
        if tensors:
            stored[name] = tensors
    return stored


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Keras splits a list too long for one HDF5 attribute over ``attribute0``, ``attribute1``, ..."""
    parts = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(f"{attribute}{len(parts)}")
    found = [name for part in parts for name in group.attrs[part]]
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in found]


def _leaf(weight_path: str) -> str:
    return re.sub(r":\d+$", "", weight_path.rpartition("/")[2])


def _refuse_links(group: h5py.Group, path: Path, seen: set[int]) -> None:
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise FileError(f"{path}: {group.name}/{name}: links to somewhere else, which is never followed")
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise FileError(f"{path}: {item.name}: keeps its data in another file, which is never opened")
        elif isinstance(item, h5py.Group) and address not in seen:
            seen.add(address)
            _refuse_links(item, path, seen)


def _check_input_rule(tensors: Tensors, normalisation: Normalisation, path: Path) -> None:
    if not {"mean", "variance"} <= set(tensors):
        return
    mean, variance = (np.ravel(tensors[leaf][()]).astype(np.float64) for leaf in ("mean", "variance"))
    ours_mean, ours_std = np.array(normalisation.mean_px) / 255, np.array(normalisation.std_px) / 255
    if mean.shape == (3,) and variance.shape == (3,):
        # The official files hold the standard deviation where the variance belongs; Keras' graph makes up for it.
        spread = np.allclose(variance, ours_std, atol=1e-4) or np.allclose(variance, ours_std**2, atol=1e-4)
        if spread and np.allclose(mean, ours_mean, atol=1e-4):
            return
        if not mean.any() and (variance == 1).all():
            warnings.warn(f"{path}: says nothing of its input's mean and std; the network's own are used", stacklevel=4)
            return
    rule = f"mean {mean.round(4).tolist()}, variance {variance.round(4).tolist()}"
    raise ConfigError(
        f"{path}: normalization: {rule}: these weights expect another input; this network uses"
        f" mean {ours_mean.round(4).tolist()}, std {ours_std.round(4).tolist()} of x/255"
    )


def _renamed(stored: Mapping[str, Tensors], names: Sequence[str]) -> dict[str, Tensors]:
    """The file's layers under the network's names, unless they have them. A file without top may lack the last."""
    if set(stored) <= set(names) or len(names) - len(stored) not in (0, 1):
        return dict(stored)
    return dict(zip(names, stored.values(), strict=False))


def _check_same_layers(
    wanted: Mapping[str, Any], stored: Mapping[str, Any], network: str, classification_layer: str, path: Path
) -> None:
    lacks = [name for name in wanted if name not in stored]
    extra = [name for name in stored if name not in wanted]
    if lacks == [classification_layer] and not extra:
        raise ConfigError(f"{path}: {classification_layer}: the file has no classification layer: give one with top")
    if lacks or extra:
        parts = [
            f"{what} {len(names)} layers (first {names[0]!r})"
            for what, names in (("it lacks", lacks), ("it alone has", extra))
            if names
        ]
        raise ConfigError(f"{path}: weights of another network than {network}: {', '.join(parts)}")


def _pairs(
    layer: str, weights: Tensors, tensors: Tensors, classification_layer: str, path: Path
) -> Iterator[tuple[str, Any, Any]]:
    if "depthwise_kernel" in tensors and "depthwise_kernel" not in weights:
        tensors = {leaf.removeprefix("depthwise_"): tensor for leaf, tensor in tensors.items()}
    if set(weights) != set(tensors):
        raise ConfigError(f"{path}: {layer}: holds {sorted(tensors)}, but the network needs {sorted(weights)}")
    for leaf, weight in weights.items():
        found, needed = tuple(tensors[leaf].shape), tuple(weight.shape)
        if layer == classification_layer and found != needed and found[:-1] == needed[:-1]:
            raise ClassCountError(f"{path}: {layer}: {found[-1]} classes in the file, {needed[-1]} in the network")
        if found != needed:
            raise ConfigError(f"{path}: {layer}/{leaf}: shape {found} in the file, {needed} in the network")
        yield f"{layer}/{leaf}", weight, tensors[leaf]


def _read(tensor: Any, name: str, path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    if tensor.dtype.kind != "f":
        raise FileError(f"{path}: {name}: holds {tensor.dtype}, not floating-point numbers")
    value = np.asarray(tensor[()], np.float32)
    if not np.isfinite(value).all():
        raise FileError(f"{path}: {name}: holds NaN or infinite values")
    return value
