"""From a name of the registry to a network, as a feature extractor or as a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from nets.backbones.packaged import load_packaged
from nets.backbones.registry import BACKBONES, BackboneSpec, PackagedFile, backbone_spec
from nets.fetch import fetch_official
from nets.layers import FLOAT32, STOCHASTIC_DEPTH, LayerFactory
from nets.normalisation import PixelNormalization
from nets.weights import load_h5
from utils.config import LEVELS
from utils.errors import ClassCountError, ConfigError
from utils.progress import Reporter

Shape = tuple[int | None, int | None, int]


def build_backbone(
    name: str,
    input_shape: Shape = (None, None, 3),
    weights: str | Path | None = None,
    batch_norm_momentum: float = 0.99,
    seed: int = 0,
    stochastic_depth: float = STOCHASTIC_DEPTH,
    input_tensor: Any = None,
) -> keras.Model:
    """Raw RGB 0..255 [B, H, W, 3] (uint8 or float) -> ``{"P3": [B, H/8, W/8, C3], "P4": ..., "P5": ...}``.

    ``weights``: None or ``"none"`` (drawn from ``seed``), ``"imagenet"`` (the ``official_file``), ``"package"`` (the
    ImageNet file of an installed package) or an official-format ``.h5`` file, with or without top. ConfigError for an
    unknown name, a package that is not installed or a file of another network; FileError for a file that cannot be
    read or downloaded. ``input_tensor``, what ``keras.Input`` gave, is the network's input in place of a new one of
    ``input_shape``; ValueError for any other tensor, on which the network can be called instead.
    """
    spec = backbone_spec(name)
    make = _layers(spec, seed, batch_norm_momentum, stochastic_depth)
    inputs, features = _trunk(spec, input_shape, input_tensor, make)
    whole = keras.Model(inputs, features)
    outputs = {level: whole.get_layer(tap).output for level, tap in zip(LEVELS, spec.taps, strict=True)}
    model = keras.Model(inputs, outputs, name="backbone")
    _load(model, spec, weights, with_top=False, skip_layers=spec.top_layers)
    return model


def build_classifier(
    name: str,
    classes: int = 1000,
    input_shape: Shape = (None, None, 3),
    weights: str | Path | None = None,
    batch_norm_momentum: float = 0.99,
    seed: int = 0,
    fresh_top: bool = False,
    probabilities: bool = True,
    stochastic_depth: float = STOCHASTIC_DEPTH,
    input_tensor: Any = None,
) -> keras.Model:
    """Raw RGB 0..255 [B, H, W, 3] (uint8 or float) -> float32 class probabilities [B, classes], or logits.

    ``weights``, ``input_tensor`` and errors as ``build_backbone``; ``probabilities`` changes neither weights nor
    names. With ``fresh_top`` the last layer keeps its random start whatever the file holds, so that ``classes`` is
    free and a file without top will do; ClassCountError where, without it, the weights know another number.
    """
    spec = backbone_spec(name)
    if weights in ("imagenet", "package") and classes != 1000 and not fresh_top:
        raise ClassCountError(f"classes: {classes}: the ImageNet weights know 1000")
    make = _layers(spec, seed, batch_norm_momentum, stochastic_depth)
    inputs, features = _trunk(spec, input_shape, input_tensor, make)
    model = keras.Model(inputs, spec.architecture.top(features, classes, make, probabilities), name=name)
    fresh = (spec.classification_layer,) if fresh_top else ()
    _load(model, spec, weights, not fresh_top, skip_layers=fresh, fresh_layers=fresh)
    return model


def official_file(name: str, with_top: bool = False, reporter: Reporter | None = None) -> Path:
    """The official ImageNet weights of backbone ``name`` on this machine, downloaded once.

    ``reporter`` tells of the download. ConfigError where none are published, FileError when they cannot be had.
    """
    spec = backbone_spec(name)
    official = spec.with_top if with_top else spec.without_top
    if official is None:
        raise ConfigError(_no_official_file(spec))
    return fetch_official(official.url, official.md5, reporter)


def trunk_layers(classifier: keras.Model, name: str) -> list[keras.layers.Layer]:
    """The layers that the classifier of backbone ``name`` shares with its detector: all from the image to P5."""
    layers = list(classifier.layers)
    last = classifier.get_layer(backbone_spec(name).taps[-1])
    return layers[: layers.index(last) + 1]


def _layers(spec: BackboneSpec, seed: int, batch_norm_momentum: float, stochastic_depth: float) -> LayerFactory:
    return LayerFactory(seed, batch_norm_momentum, stochastic_depth=stochastic_depth, kernel_start=spec.kernel_start)


def _trunk(spec: BackboneSpec, input_shape: Shape, input_tensor: Any, make: LayerFactory) -> tuple[Any, Any]:
    inputs = keras.Input(input_shape, name="image") if input_tensor is None else _checked(input_tensor)
    normalisation = spec.normalisation
    normalise = PixelNormalization(normalisation.mean_px, normalisation.std_px, dtype=FLOAT32, name="normalization")
    return inputs, spec.architecture.trunk(normalise(inputs), make)


def _checked(tensor: Any) -> Any:
    if not keras.utils.is_keras_tensor(tensor) or keras.utils.get_source_inputs(tensor)[0] is not tensor:
        raise ValueError(
            f"input_tensor: {type(tensor).__name__}: give what keras.Input returned, or call the network on the tensor"
        )
    if len(tensor.shape) != 4 or tensor.shape[-1] != 3:
        raise ValueError(f"input_tensor: shape {tensor.shape}: must be [B, H, W, 3], raw RGB")
    return tensor


def _load(
    model: keras.Model,
    spec: BackboneSpec,
    weights: str | Path | None,
    with_top: bool,
    skip_layers: tuple[str, ...],
    fresh_layers: tuple[str, ...] = (),
) -> None:
    if weights is None or weights == "none":
        return
    if weights == "package":
        load_packaged(model, _packaged(spec), spec.name, skip_layers, fresh_layers)
        return
    if weights == "imagenet":
        weights = official_file(spec.name, with_top)
    load_h5(
        model,
        weights,
        spec.normalisation,
        skip_layers,
        fresh_layers,
        network=spec.name,
        classification_layer=spec.classification_layer,
        older_names=spec.older_names,
    )


def _no_official_file(spec: BackboneSpec) -> str:
    known = ", ".join(name for name, row in BACKBONES.items() if row.with_top)
    instead = "give package instead" if spec.packaged else f"there is one for {known}"
    return f"weights: imagenet: no official file for {spec.name}; {instead}"


def _packaged(spec: BackboneSpec) -> PackagedFile:
    if spec.packaged is None:
        have = ", ".join(row.name for row in BACKBONES.values() if row.packaged)
        raise ConfigError(f"weights: package: no package for {spec.name}; there is one for {have}")
    return spec.packaged
