"""Backbones by name; ``registry`` holds the table."""

from nets.backbones.build import build_backbone, build_classifier, trunk_layers
from nets.backbones.registry import BACKBONES, BackboneSpec, backbone_spec

__all__ = ["BACKBONES", "BackboneSpec", "backbone_spec", "build_backbone", "build_classifier", "trunk_layers"]
