"""From a name of the registry to a network, as a feature extractor or as a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from nets.backbones.registry import BACKBONES, BackboneSpec, OfficialFile, backbone_spec
from nets.fetch import fetch_official
from nets.layers import STOCHASTIC_DEPTH, LayerFactory, PixelNormalization
from nets.weights import load_h5
from utils.config import LEVELS
from utils.errors import ConfigError

Shape = tuple[int | None, int | None, int]


def build_backbone(
    name: str,
    input_shape: Shape = (None, None, 3),
    weights: str | Path | None = None,
    batch_norm_momentum: float = 0.99,
    seed: int = 0,
    stochastic_depth: float = STOCHASTIC_DEPTH,
) -> keras.Model:
    """Raw RGB 0..255 [B, H, W, 3] (uint8 or float) -> ``{"P3": [B, H/8, W/8, C3], "P4": ..., "P5": ...}``.

    ``weights``: None (drawn from ``seed``), ``"imagenet"`` (the official file, downloaded once) or an official-format
    ``.h5`` file, with or without top. ConfigError for an unknown name or a file of another network; FileError for a
    file that cannot be read or downloaded.
    """
    spec = backbone_spec(name)
    make = LayerFactory(seed, batch_norm_momentum, stochastic_depth=stochastic_depth)
    inputs, features = _trunk(spec, input_shape, make)
    whole = keras.Model(inputs, features)
    outputs = {level: whole.get_layer(tap).output for level, tap in zip(LEVELS, spec.taps, strict=True)}
    model = keras.Model(inputs, outputs, name="backbone")
    path = _weights_path(weights, spec, spec.without_top)
    if path is not None:
        _load(model, path, spec, skip_layers=spec.top_layers)
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
) -> keras.Model:
    """Raw RGB 0..255 [B, H, W, 3] (uint8 or float) -> float32 class probabilities [B, classes], or logits.

    ``weights`` and errors as ``build_backbone``; ``probabilities`` changes neither weights nor names. With
    ``fresh_top`` the last layer keeps its random start whatever the file holds, so that ``classes`` is free and a file
    without top will do.
    """
    spec = backbone_spec(name)
    if weights == "imagenet" and classes != 1000 and not fresh_top:
        raise ConfigError(f"classes: {classes}: ImageNet weights have 1000; fresh_top learns a new last layer")
    make = LayerFactory(seed, batch_norm_momentum, stochastic_depth=stochastic_depth)
    inputs, features = _trunk(spec, input_shape, make)
    model = keras.Model(inputs, spec.architecture.top(features, classes, make, probabilities), name=name)
    path = _weights_path(weights, spec, spec.without_top if fresh_top else spec.with_top)
    if path is not None:
        fresh = (spec.classification_layer,) if fresh_top else ()
        _load(model, path, spec, skip_layers=fresh, fresh_layers=fresh)
    return model


def trunk_layers(classifier: keras.Model, name: str) -> list[keras.layers.Layer]:
    """The layers that the classifier of backbone ``name`` shares with its detector: all from the image to P5."""
    layers = list(classifier.layers)
    last = classifier.get_layer(backbone_spec(name).taps[-1])
    return layers[: layers.index(last) + 1]


def _trunk(spec: BackboneSpec, input_shape: Shape, make: LayerFactory) -> tuple[Any, Any]:
    inputs = keras.Input(input_shape, name="image")
    normalisation = spec.normalisation
    x = PixelNormalization(normalisation.mean_px, normalisation.std_px, name="normalization")(inputs)
    return inputs, spec.architecture.trunk(x, make)


def _weights_path(weights: str | Path | None, spec: BackboneSpec, official: OfficialFile | None) -> Path | None:
    if weights is None or weights == "none":
        return None
    if weights != "imagenet":
        return Path(weights)
    if official is None:
        known = ", ".join(name for name, row in BACKBONES.items() if row.with_top)
        raise ConfigError(f"model.weights: imagenet: no official file for {spec.name}; there is one for {known}")
    return fetch_official(official.url, official.md5)


def _load(model: keras.Model, path: Path, spec: BackboneSpec, **layers: tuple[str, ...]) -> None:
    load_h5(
        model,
        path,
        spec.normalisation,
        **layers,
        network=spec.name,
        classification_layer=spec.classification_layer,
        older_names=spec.older_names,
    )
