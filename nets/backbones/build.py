"""From a name of the registry to a network, as a feature extractor or as a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from nets.backbones.packaged import load_packaged
from nets.backbones.registry import BACKBONES, BackboneSpec, OfficialFile, PackagedFile
from nets.fetch import fetch_official
from nets.layers import STOCHASTIC_DEPTH, LayerFactory, PixelNormalization
from nets.weights import load_h5
from utils.config import LEVELS
from utils.errors import ConfigError, did_you_mean

Shape = tuple[int | None, int | None, int]
PREDICTIONS = "predictions"


def backbone_spec(name: str) -> BackboneSpec:
    """The registry's row for ``name``; ConfigError naming the nearest when there is none."""
    if name not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise ConfigError(f"model.backbone: {name}: unknown{did_you_mean(name, BACKBONES)}; known are {known}")
    return BACKBONES[name]


def build_backbone(
    name: str,
    input_shape: Shape = (None, None, 3),
    weights: str | Path | None = None,
    batch_norm_momentum: float = 0.99,
    seed: int = 0,
    stochastic_depth: float = STOCHASTIC_DEPTH,
) -> keras.Model:
    """Raw RGB 0..255 [B, H, W, 3] (uint8 or float) -> ``{"P3": [B, H/8, W/8, C3], "P4": ..., "P5": ...}``.

    ``weights``: None (drawn from ``seed``), ``"imagenet"`` (the official file, downloaded once), ``"package"`` (the
    ImageNet file of an installed package) or an official-format ``.h5`` file, with or without top. ConfigError for an
    unknown name, a package that is not installed or a file of another network; FileError for a file that cannot be
    read or downloaded.
    """
    spec = backbone_spec(name)
    make = LayerFactory(seed, batch_norm_momentum, stochastic_depth=stochastic_depth)
    inputs, features = _trunk(spec, input_shape, make)
    whole = keras.Model(inputs, features)
    outputs = {level: whole.get_layer(tap).output for level, tap in zip(LEVELS, spec.taps, strict=True)}
    model = keras.Model(inputs, outputs, name="backbone")
    _load(model, spec, weights, spec.without_top, skip_layers=spec.top_layers)
    return model


def build_classifier(
    name: str,
    classes: int = 1000,
    input_shape: Shape = (None, None, 3),
    weights: str | Path | None = None,
    batch_norm_momentum: float = 0.99,
    seed: int = 0,
    fresh_top: bool = False,
) -> keras.Model:
    """Raw RGB 0..255 [B, H, W, 3] (uint8 or float) -> class probabilities [B, classes].

    ``weights`` and errors as ``build_backbone``. With ``fresh_top`` the last layer keeps its random start whatever the
    file holds, so that ``classes`` is free and a file without top will do.
    """
    spec = backbone_spec(name)
    if weights in ("imagenet", "package") and classes != 1000 and not fresh_top:
        raise ConfigError(f"classes: {classes}: ImageNet weights have 1000; fresh_top learns a new last layer")
    make = LayerFactory(seed, batch_norm_momentum)
    inputs, features = _trunk(spec, input_shape, make)
    model = keras.Model(inputs, spec.architecture.top(features, classes, make), name=name)
    fresh = (PREDICTIONS,) if fresh_top else ()
    official = spec.without_top if fresh_top else spec.with_top
    _load(model, spec, weights, official, skip_layers=fresh, fresh_layers=fresh)
    return model


def _trunk(spec: BackboneSpec, input_shape: Shape, make: LayerFactory) -> tuple[Any, Any]:
    inputs = keras.Input(input_shape, name="image")
    normalisation = spec.normalisation
    x = PixelNormalization(normalisation.mean_px, normalisation.std_px, name="normalization")(inputs)
    return inputs, spec.architecture.trunk(x, make)


def _load(
    model: keras.Model,
    spec: BackboneSpec,
    weights: str | Path | None,
    official: OfficialFile | None,
    skip_layers: tuple[str, ...],
    fresh_layers: tuple[str, ...] = (),
) -> None:
    if weights is None or weights == "none":
        return
    if weights == "package":
        load_packaged(model, _packaged(spec), spec.name, skip_layers, fresh_layers)
        return
    if weights == "imagenet":
        if official is None:
            raise ConfigError(
                f"model.weights: imagenet: no official file is of {spec.name}; use --model.weights package"
            )
        weights = fetch_official(official.url, official.md5)
    load_h5(model, weights, spec.normalisation, skip_layers, fresh_layers, network=spec.name)


def _packaged(spec: BackboneSpec) -> PackagedFile:
    if spec.packaged is None:
        have = ", ".join(row.name for row in BACKBONES.values() if row.packaged)
        raise ConfigError(f"model.weights: package: no package is of {spec.name}; set --model.backbone to {have}")
    return spec.packaged
