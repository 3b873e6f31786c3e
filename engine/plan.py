"""A run as a list of phases, and the detector it builds: what the config says, resolved once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.task import Config
from nets.backbones import backbone_spec
from utils.anchors import read_anchors
from utils.classes import CLASS_LIST, read_classes
from utils.config import LEVELS, DataConfig, DetectorSpec, PhaseConfig, RunConfig, multi_scale_sides
from utils.machine import package_versions
from utils.shipped import own_or_shipped

VOC_CLASSES = "model_data/voc_classes.txt"
FROZEN_SHARE = 6
"""One in so many epochs is frozen where the config leaves it open: the reference's 50 of 300."""

BACKBONE_RATE = 0.1


def phases(config: Config) -> tuple[PhaseConfig, ...]:
    """The phases in order: those listed, or frozen then unfrozen. Never one of no epochs."""
    train = config.train
    if train.phases:
        return train.phases
    frozen = PhaseConfig(frozen_until(config), train.freeze_batch_size, frozen_backbone=True)
    unfrozen = PhaseConfig(train.epochs, train.batch_size, frozen_backbone=False)
    found = [frozen] if frozen.until_epoch > 0 else []
    return (*found, unfrozen) if unfrozen.until_epoch > frozen.until_epoch else tuple(found)


def frozen_until(config: Config) -> int:
    """The epoch up to which the backbone is frozen, where no phases are listed."""
    if config.train.freeze_epochs is not None:
        return config.train.freeze_epochs
    return 0 if config.model.weights == "none" else config.train.epochs // FROZEN_SHARE


def freezes_batch_norm(config: Config) -> bool:
    """Whether the backbone's batch normalization stays as it was while its weights learn."""
    given = config.train.freeze_batch_norm
    return _knows_imagenet(config) if given is None else given


def backbone_rate(config: Config) -> float:
    """The share of the learning rate that the backbone takes."""
    given = config.train.backbone_rate
    return (BACKBONE_RATE if _knows_imagenet(config) else 1.0) if given is None else given


def _knows_imagenet(config: Config) -> bool:
    # Of classifiers, and of detectors that learn on from a run, nothing was measured.
    weights = config.model.weights
    return isinstance(config, RunConfig) and (weights in ("imagenet", "package") or weights.endswith(".h5"))


def smallest_input(config: Config) -> int:
    """The smallest side of an input that the run ever makes, in pixels."""
    full, train = config.model.input_size, config.train
    return min(full, *(multi_scale_sides(phase.input_size or full, train.multi_scale)[0] for phase in phases(config)))


def class_file(data: DataConfig) -> str:
    """The class list: the one that is named, or the one beside the training list, or VOC's."""
    beside = Path(data.train).parent / CLASS_LIST
    return data.classes or (str(beside) if beside.exists() else VOC_CLASSES)


def detector_spec(config: RunConfig, warn: Callable[[str], None] | None = None) -> DetectorSpec:
    """What the run builds: reads the class and anchor files, scales the anchors to the input size.

    ``warn`` hears of blank lines in the class list, which are ignored.
    """
    model = config.model
    anchors = read_anchors(own_or_shipped(model.anchors)) * (model.input_size / model.anchor_size)
    per_level = len(anchors) // len(LEVELS)
    backbone = backbone_spec(model.backbone)
    return DetectorSpec(
        class_names=read_classes(own_or_shipped(class_file(config.data)), warn),
        backbone=backbone.name,
        input_size=model.input_size,
        anchors_wh_px=tuple((float(w), float(h)) for w, h in anchors),
        masks=tuple(tuple(range(i * per_level, (i + 1) * per_level)) for i in range(len(LEVELS))),
        resize=model.resize,
        separable_head=backbone.separable_head if model.separable_head is None else model.separable_head,
        decode=model.decode,
        prior_probability=model.prior_probability,
        batch_norm_momentum=model.batch_norm_momentum,
        stochastic_depth=model.stochastic_depth,
        ignore_exif=config.data.ignore_exif,
        versions=package_versions(),
    )
