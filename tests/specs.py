"""Detector specs that many tests share."""

from __future__ import annotations

from typing import Any

from utils.command_line import parse, run_config, run_config_parser
from utils.config import DetectorSpec, RunConfig
from utils.recipe_config import LossConfig

ANCHORS = (
    (10.0, 13.0), (16.0, 30.0), (33.0, 23.0),
    (30.0, 61.0), (62.0, 45.0), (59.0, 119.0),
    (116.0, 90.0), (156.0, 198.0), (373.0, 326.0),
)  # fmt: skip

REFERENCE_LOSS = LossConfig(
    assignment="best",
    objectness_target="one",
    normalisation="level",
    box_weight=0.05,
    objectness_weight=5.0,
    class_weight=1.0,
    balance=(4.0, 1.0, 0.4),
)


def detector_spec(**changes: Any) -> DetectorSpec:
    """The reference's detector at 416 with three classes, unless changed. Anchors are not rescaled."""
    values: dict[str, Any] = {
        "class_names": ("a", "b", "c"),
        "backbone": "efficientnet_b0",
        "input_size": 416,
        "anchors_wh_px": ANCHORS,
        "decode": "exp",
    }
    return DetectorSpec(**{**values, **changes})


def config_from(*words: str) -> RunConfig:
    """What a command line of train.py asks for."""
    parser = run_config_parser("")
    return run_config(parser, parse(parser, words), RunConfig)
