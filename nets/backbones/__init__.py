"""Backbones by name; ``registry`` holds the table."""

from nets.backbones.build import backbone_spec, build_backbone, build_classifier
from nets.backbones.registry import BACKBONES, BackboneSpec

__all__ = ["BACKBONES", "BackboneSpec", "backbone_spec", "build_backbone", "build_classifier"]
