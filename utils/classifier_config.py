"""One classifier run as data: what it reads, what it builds, how it learns. How long and how fast is a TrainConfig."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from utils.config import TrainConfig, train_problems
from utils.config_rules import broken_rules
from utils.errors import ConfigError

ViewRule = Literal["crop", "letterbox", "stretch"]


@dataclass(frozen=True)
class ClassifierDataConfig:
    """What a run reads."""

    dir: str = ""
    """Folder with a folder of images for each class, or with such folders in train/ and val/ or test/."""
    val_fraction: float = 0.0
    """Share of each class to validate on, where no folder says what validates; test/ is then left alone."""
    split_seed: int = 0
    """Decides which images that share is; of its own, so that runs of other seeds validate on the same."""
    ignore_exif: bool = False
    """Leave the EXIF orientation of photos alone."""
    threads: int = 0
    """Threads that decode and augment; 0 means one per CPU core, at most 16."""
    cache_mb: int = 1024
    """Decoded images are kept in memory when all of them fit into this many megabytes."""


@dataclass(frozen=True)
class ClassifierModelConfig:
    """What a run builds."""

    backbone: str = "efficientnet_b0"
    """A name of the backbone registry: python -m nets.backbones prints them."""
    weights: str = "none"
    """Start: none, imagenet, package, a weights file (.h5), or the checkpoint of another classifier run."""
    input_size: int = 224
    """Side of the square input in pixels, 32 or more."""
    resize: ViewRule = "crop"
    """How a photo becomes the square: crop takes the middle, letterbox keeps all and its proportions, stretch all."""
    crop_fraction: float = 0.875
    """With crop: the side of the middle square as a share of the photo's shorter side."""
    stochastic_depth: float = 0.2
    """EfficientNets: share of training steps that skip the last block (earlier ones less)."""
    batch_norm_momentum: float = 0.97
    """How slowly the BatchNorm statistics follow; 0.99 is Keras' own, and too slow for short runs."""


@dataclass(frozen=True)
class ClassifierAugmentConfig:
    """How a training photo is varied. Every range is drawn uniformly."""

    enabled: bool = True
    """Whether photos are varied at all."""
    area_min: float = 0.35
    """Below 1, a training view is a part of the photo of about this share of its area or more, made a square; 1: it is
    what validation sees."""
    aspect_max: float = 1.3333
    """The view's proportions differ from a square's by up to this factor."""
    shift_px: int = 0
    """The view is moved by up to so many input pixels each way, grey where it was."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    flip_vertical: float = 0.0
    """Probability of a vertical flip; for photos without an up."""
    hue: float = 0.05
    """Hue is multiplied by 1 - this to 1 + this, each photo anew."""
    saturation: float = 0.4
    """So is the saturation."""
    value: float = 0.3
    """So is the brightness."""
    cutout: float = 0.0
    """Side of a grey square put somewhere on the view, as a share of the input's side (arXiv:1708.04552); 0: none."""
    mixup: float = 0.0
    """Alpha of the Beta distribution that two images of a batch are mixed by (arXiv:1710.09412); 0: none."""


@dataclass(frozen=True)
class ClassifierLossConfig:
    """How wrong answers are charged."""

    label_smoothing: float = 0.0
    """Share of the certainty that is spread over all classes in training; the validation loss is without."""


@dataclass(frozen=True)
class ClassifierRunConfig:
    """Everything that decides a run."""

    data: ClassifierDataConfig = field(default_factory=ClassifierDataConfig)
    model: ClassifierModelConfig = field(default_factory=ClassifierModelConfig)
    augment: ClassifierAugmentConfig = field(default_factory=ClassifierAugmentConfig)
    loss: ClassifierLossConfig = field(default_factory=ClassifierLossConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(freeze_epochs=0, epochs=30, batch_size=64, eval_every=1, save_every=0)
    )

    def __post_init__(self) -> None:
        for problem in (*broken_rules(self, _FIELDS), *train_problems(self)):
            raise ConfigError(problem)


_FIELDS = {
    "must lie in 0..1": "augment.flip augment.flip_vertical augment.hue augment.saturation augment.value "
    "augment.cutout loss.label_smoothing",
    "must lie in 0..1, 1 excluded": "data.val_fraction model.stochastic_depth model.batch_norm_momentum",
    "must lie in 0..1, 0 excluded": "augment.area_min model.crop_fraction",
    "must be 0 or more": "data.split_seed data.threads data.cache_mb augment.shift_px augment.mixup",
    "must be at least 1": "augment.aspect_max",
    "must be at least 32": "model.input_size",
}


@dataclass(frozen=True)
class ClassifierSpec:
    """What rebuilds a classifier and tells how to feed and read it. Saved inside every checkpoint."""

    class_names: tuple[str, ...]
    backbone: str
    input_size: int
    resize: ViewRule = "crop"
    crop_fraction: float = 0.875
    batch_norm_momentum: float = 0.97
    stochastic_depth: float = 0.2
    ignore_exif: bool = False
    versions: dict[str, str] = field(default_factory=dict)

    def at_size(self, input_size: int) -> ClassifierSpec:
        """The same classifier on inputs of another side."""
        return dataclasses.replace(self, input_size=input_size)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``from_dict`` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClassifierSpec:
        """The inverse of ``to_dict``, also after a trip through JSON, where tuples became lists."""
        return cls(**{**values, "class_names": tuple(values["class_names"])})
