"""One training run as data: what it reads, what it builds, how it learns. Frozen, resolved once, saved with the run.

Command line and YAML name the fields as written here (``--train.epochs 300``). The defaults are the recipe that
measured best; ``configs/reference.yaml`` holds the reference recipe of the application this one descends from.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from utils.config_rules import broken_rules
from utils.errors import ConfigError
from utils.letterbox import ResizeRule
from utils.recipe_config import AugmentConfig, LossConfig

LEVELS = ("P3", "P4", "P5")
STRIDES = {"P3": 8, "P4": 16, "P5": 32}
OBJECTNESS = 4
"""Place of the objectness among the raw values of a slot: after the box, before the classes."""
AUTO = -1
"""A batch size that ``engine.batch_size`` finds."""
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]


@dataclass(frozen=True)
class DataConfig:
    """What a run reads."""

    train: str = "2007_train.txt"
    """Annotation list to train on, as voc_annotation.py writes it."""
    val: str = "2007_val.txt"
    """Annotation list to validate on."""
    classes: str | None = None
    """Class names, one a line; null: classes.txt beside the training list, as voc_annotation.py writes it, and without
    that model_data/voc_classes.txt."""
    ignore_exif: bool = False
    """Leave the EXIF orientation of photos alone."""
    threads: int = 0
    """Threads that decode and augment; 0 means one per CPU core, at most 16."""
    balance_classes: float = 0.0
    """Photos of classes that fewer than this share of the photos have are trained on more often, by up to the root of
    this / the class's share (arXiv:1908.03195). An epoch has as many photos as before: common ones make room, and
    steps, schedule and resuming stay exact. 0: all alike."""


@dataclass(frozen=True)
class ModelConfig:
    """What a run builds."""

    backbone: str = "efficientnet_b0"
    """A name that python -m nets.backbones prints, such as efficientnet_b0; mobilenet_v1_0.3, mobilenet_v2_0.6,
    mobilenet_v1_0.3_shallow and densenet_6-12-24-16 take any other alpha and blocks."""
    weights: str = "none"
    """Start of the backbone: none, imagenet, package, or a weights file; a checkpoint starts the whole detector."""
    fresh_outputs: bool = False
    """Leaves the output layers of such a checkpoint out, for a detector of other classes."""
    input_size: int = 416
    """Side of the square input in pixels, a multiple of 32."""
    resize: ResizeRule = "letterbox"
    """How a photo becomes the square: letterbox keeps its proportions, stretch does not."""
    anchors: str = "model_data/yolo_anchors.txt"
    """Anchor sizes (width,height in pixels at anchor_size), comma-separated."""
    anchor_size: int = 416
    """The input size that the anchors file was made for; they are scaled to input_size."""
    auto_anchors: float = 0.0
    """Recall that the anchors must have on the training list, such as 0.98: the share of boxes that one covers with a
    shape IoU of 0.5. Under it, a new run fits as many by k-means and takes them if theirs is better. 0: off."""
    separable_head: bool | None = None
    """Swap each 3x3 of the head for a depthwise 3x3 and a 1x1; null: the backbone's default (true for MobileNets)."""
    decode: Literal["exp", "bounded"] = "bounded"
    """exp: YOLOv3's exp(t) sizes; bounded: centre 2 sigmoid - 0.5, size (2 sigmoid)^2, which cannot explode."""
    prior_probability: float = 0.01
    """Objectness that an untrained detector gives every slot (arXiv:1708.02002); 0 leaves the biases at zero."""
    stochastic_depth: float = 0.2
    """EfficientNets: share of training steps that skip the last block (earlier ones less)."""
    batch_norm_momentum: float = 0.97
    """How slowly the BatchNorm statistics follow; 0.99 is Keras' own, three times as slow."""


@dataclass(frozen=True)
class PhaseConfig:
    """A stretch of epochs with one setting. ``until_epoch`` is exclusive and counts from the start of the run."""

    until_epoch: int
    batch_size: int
    frozen_backbone: bool
    input_size: int = 0
    """Side of the inputs it learns from, in pixels; 0: model.input_size, which is what validation always sees."""


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast a run learns."""

    freeze_epochs: int | None = None
    """The backbone stays frozen up to this epoch; 0 trains everything from the start; null: for a sixth of the epochs,
    or not at all where model.weights is none."""
    freeze_batch_norm: bool | None = None
    """While the backbone learns its batch normalization stays as it was, of which ImageNet knows more than a few photos
    do. null: of a detector that starts from ImageNet weights (imagenet, package, an .h5 file)."""
    backbone_rate: float | None = None
    """Share of the learning rate that the backbone takes, decay included; null: 0.1 of such a detector, else all."""
    epochs: int = 300
    """Epochs of the whole run, the frozen ones included."""
    freeze_batch_size: int = 16
    """Images in a batch, over all devices, while the backbone is frozen; -1 as below."""
    batch_size: int = 8
    """Images in a batch, over all devices, afterwards; -1: as many as fit into GPU memory, on a CPU the default."""
    accumulate: int = 1
    """So many batches make one update, as a batch that many times as large would that memory has no room for; BatchNorm
    still sees each alone. 1: every batch makes one."""
    phases: tuple[PhaseConfig, ...] = ()
    """Any other list of phases, in place of freeze_epochs, epochs and the batch sizes, such as
    [{until_epoch: 8, batch_size: 4, frozen_backbone: false, input_size: 256}, {until_epoch: 60, ...}]."""
    precision: Precision = "auto"
    """What steps compute in, with weights in float32; auto: bfloat16 or float16 on a GPU that is fast at it."""
    multi_scale: float = 0.0
    """Every batch has a side of its own: a multiple of 32 within input_size * (1 - this) and input_size * (1 + this),
    which seed, epoch and step decide. Validation stays at model.input_size. 0: all batches alike."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    """What takes the steps; sgd is with Nesterov momentum."""
    learning_rate: float = 0.001
    """Base rate lr0. See scale_learning_rate."""
    scale_learning_rate: bool = False
    """Use clip(batch / 64 * lr0) between the optimizer's bounds, the reference's rule; off: lr0 as it is."""
    min_learning_rate_ratio: float = 0.01
    """The final rate as a share of the base rate."""
    schedule: Literal["cosine", "step"] = "cosine"
    """cosine: after a warm-up, down to the last twentieth (at most 15 epochs), where it stays; step: in ten equal
    stages, without either."""
    warmup_epochs: float | None = None
    """Epochs in which the cosine's rate first rises, from a tenth; null: a twentieth of all, one to three; 0: none."""
    schedule_by: Literal["epoch", "step"] = "step"
    """Whether the rate changes once an epoch or at every step."""
    momentum: float = 0.937
    """SGD momentum, or beta1 of Adam and AdamW."""
    weight_decay: float = 0.0
    """Decoupled decay of AdamW, on kernels only, such as 0.05; the other optimizers do not use it."""
    head_l2: float = 0.0
    """L2 on the head's kernels, part of the loss; the reference's is 0.0005."""
    clip_norm: float = 10.0
    """Gradients are scaled down to this global norm; 0 turns it off."""
    ema_decay: float = 0.0
    """Share of the weights' moving average that a step keeps, such as 0.9998 (less at first). The average is what is
    measured and saved as `best`; the weights go on learning beside it. 0: none."""
    eval_every: int = 10
    """Epochs between mAP measurements; the last epoch is always measured. 0: that alone."""
    early_stopping: int = 0
    """End the run after so many measurements of its last phase without a better score than the best yet; 0: never."""
    save_every: int = 50
    """Epochs between the periodic checkpoints that are kept; 0: none."""
    save_minutes: float = 10.0
    """Minutes after which `last` is saved within an epoch too; 0: only at the ends of epochs."""
    save_steps: int = 0
    """Steps after which it is, counted from the start of the run; 0: only by save_minutes."""
    seed: int = 0
    """Decides the start of the weights, the order of the photos and how they are varied."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise ConfigError(problem)


_FIELDS = {
    "must lie in 0..1": "loss.assignment_iou loss.ignore_iou loss.label_smoothing augment.flip augment.flip_vertical "
    "augment.hue augment.saturation augment.value augment.mosaic augment.mixup augment.translate "
    "data.balance_classes model.auto_anchors",
    "must lie in 0..180": "augment.degrees",
    "must lie in 0..45, 45 excluded": "augment.shear",
    "must lie in 0..1, 1 excluded": "augment.aspect_jitter augment.perspective model.stochastic_depth "
    "model.prior_probability model.batch_norm_momentum",
    "must be at least 1": "model.anchor_size",
    "must be a multiple of 32": "model.input_size",
    "must be above 0": "augment.scale_min augment.scale_max augment.mosaic_scale",
    "must be 0 or more": "data.threads augment.close_mosaic loss.focal_gamma loss.box_weight loss.objectness_weight "
    "loss.class_weight",
}
_TRAIN_FIELDS = {
    "must lie in 0..1": "train.min_learning_rate_ratio train.backbone_rate",
    "must lie in 0..1, 1 excluded": "train.momentum train.ema_decay train.multi_scale",
    "must be at least 1": "train.epochs train.accumulate",
    "must be above 0": "train.learning_rate",
    "must be 0 or more": "train.warmup_epochs train.early_stopping train.weight_decay train.head_l2 train.clip_norm "
    "train.eval_every train.save_every train.save_minutes train.save_steps train.seed",
    "must be at least 1, or -1 for what fits": "train.batch_size train.freeze_batch_size",
}


def _problems(config: RunConfig) -> list[str]:
    found = broken_rules(config, _FIELDS) + train_problems(config)
    if config.augment.scale_min > config.augment.scale_max:
        found.append(f"augment.scale_min: {config.augment.scale_min}: must be at most augment.scale_max")
    if not all(0 <= weight < math.inf for weight in config.loss.balance):
        found.append(f"loss.balance: {list(config.loss.balance)}: each must be a number, 0 or more")
    if any(phase.input_size % 32 for phase in config.train.phases):
        found.append("train.phases: input_size must be a multiple of 32, or 0 for model.input_size")
    return found


def train_problems(config: Any) -> list[str]:
    """What is wrong with ``config.train``, a TrainConfig."""
    train: TrainConfig = config.train
    found = broken_rules(config, _TRAIN_FIELDS)
    if train.schedule == "step" and train.min_learning_rate_ratio == 0 and not train.scale_learning_rate:
        # Every step takes the same share off, whose product never is 0. The scaled rate has a lower bound of its own.
        found.append("train.min_learning_rate_ratio: 0: must be above 0 with train.schedule step")
    if train.freeze_epochs is not None and not 0 <= train.freeze_epochs <= train.epochs:
        found.append(f"train.freeze_epochs: {train.freeze_epochs}: must lie in 0..train.epochs ({train.epochs})")
    if train.early_stopping and not train.eval_every:
        found.append(f"train.early_stopping: {train.early_stopping}: needs measurements: train.eval_every above 0")
    epochs = train.phases[-1].until_epoch if train.phases else train.epochs
    if train.warmup_epochs is not None and train.warmup_epochs >= epochs:
        found.append(f"train.warmup_epochs: {train.warmup_epochs:g}: must be less than all epochs ({epochs})")
    ends = [0, *(phase.until_epoch for phase in train.phases)]
    if ends != sorted(set(ends)) or any(phase.batch_size < 1 and phase.batch_size != AUTO for phase in train.phases):
        found.append("train.phases: until_epoch must rise from phase to phase and batch_size be at least 1, or -1")
    if any(phase.input_size != 0 and phase.input_size < 32 for phase in train.phases):
        found.append("train.phases: input_size must be at least 32, or 0 for model.input_size")
    return found or _multi_scale_problems(train, config.model.input_size)


def _multi_scale_problems(train: TrainConfig, input_size: int) -> list[str]:
    if not train.multi_scale:
        return []
    sizes = sorted({phase.input_size or input_size for phase in train.phases} or {input_size})
    return [
        f"train.multi_scale: {train.multi_scale}: leaves one multiple of 32 at most around {size}: make it larger"
        for size in sizes
        if len(multi_scale_sides(size, train.multi_scale)) < 2
    ]


def multi_scale_sides(input_size: int, share: float) -> tuple[int, ...]:
    """The sides that ``train.multi_scale`` draws from, in pixels, rising; ``input_size`` alone when ``share`` is 0."""
    if not share:
        return (input_size,)
    # 1 - 0.7 is a little more than 0.3, which must not lose a side.
    lowest = max(1, math.ceil(input_size * (1 - share) / 32 - 1e-6))
    highest = math.floor(input_size * (1 + share) / 32 + 1e-6)
    return tuple(32 * count for count in range(lowest, highest + 1))


@dataclass(frozen=True)
class DetectorSpec:
    """What rebuilds a detector and tells how to feed and read it. Saved inside every checkpoint.

    ``anchors_wh_px`` are in pixels of ``input_size``, in file order; ``masks`` index them for P3, P4, P5.
    """

    class_names: tuple[str, ...]
    backbone: str
    input_size: int
    anchors_wh_px: tuple[tuple[float, float], ...]
    masks: tuple[tuple[int, ...], ...] = ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    resize: ResizeRule = "letterbox"
    separable_head: bool = False
    decode: Literal["exp", "bounded"] = "bounded"
    prior_probability: float = 0.01
    batch_norm_momentum: float = 0.97
    stochastic_depth: float = 0.2
    ignore_exif: bool = False
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def slot_values(self) -> int:
        """Raw values of one slot: four of the box, the objectness, one of each class."""
        return OBJECTNESS + 1 + len(self.class_names)

    def at_size(self, input_size: int) -> DetectorSpec:
        """The same detector on inputs of another side: the anchors keep their share of it."""
        factor = input_size / self.input_size
        anchors = tuple((w * factor, h * factor) for w, h in self.anchors_wh_px)
        return dataclasses.replace(self, input_size=input_size, anchors_wh_px=anchors)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``from_dict`` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DetectorSpec:
        """The inverse of ``to_dict``, also after a trip through JSON, where tuples became lists."""
        fixed = dict(values)
        fixed["class_names"] = tuple(values["class_names"])
        fixed["anchors_wh_px"] = tuple((float(w), float(h)) for w, h in values["anchors_wh_px"])
        fixed["masks"] = tuple(tuple(int(i) for i in mask) for mask in values["masks"])
        return cls(**fixed)
