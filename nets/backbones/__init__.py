"""Backbones by name; ``registry`` holds the table. ``python -m nets.backbones`` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nets.backbones.build import build_backbone, build_classifier, official_file, trunk_layers
    from nets.backbones.registry import BACKBONES, BackboneSpec, backbone_spec

__all__ = [
    "BACKBONES",
    "BackboneSpec",
    "backbone_spec",
    "build_backbone",
    "build_classifier",
    "official_file",
    "trunk_layers",
]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: python -m runs this file first, and TensorFlow must not load before it is kept quiet.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nets.backbones import build

    return getattr(build, name)
