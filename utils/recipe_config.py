"""How photos are varied and what the loss counts: the sections ``augment`` and ``loss`` of a detector's run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AugmentConfig:
    """How a training photo is varied. Every range is drawn uniformly."""

    enabled: bool = True
    """Whether photos are varied at all."""
    scale_min: float = 0.7
    """Smallest size of the photo in the input, as a factor of the fitting size."""
    scale_max: float = 1.5
    """Largest such factor; above 1 the photo is cropped."""
    aspect_jitter: float = 0.3
    """The proportions change by up to (1 + j) / (1 - j)."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    flip_vertical: float = 0.0
    """Probability of a vertical flip; for photos without an up, such as microscope slides."""
    degrees: float = 0.0
    """The photo is turned about its centre by up to so many degrees either way. What is learned is the upright box
    around the turned one, which is larger than the object: the more so, the larger the angle."""
    shear: float = 0.0
    """Its sides lean by up to so many degrees either way."""
    translate: float = 0.0
    """It is moved on by up to this share of the input's sides, so that parts of it may get lost; without, a photo that
    fits stays whole."""
    perspective: float = 0.0
    """It is tilted: in both directions one side is drawn longer than the opposite one, by up to (2 + p) / (2 - p)."""
    hue: float = 0.1
    """Hue is multiplied by 1 - this to 1 + this, each photo anew."""
    saturation: float = 0.7
    """So is the saturation."""
    value: float = 0.4
    """So is the brightness."""
    mosaic: float = 0.0
    """Probability of an input made of four photos, each in its quarter (arXiv:2004.10934)."""
    mosaic_scale: float = 0.5
    """How large photos are in a mosaic, as a factor of the size they would have alone."""
    mixup: float = 0.0
    """Probability of an input that is two blended, with the boxes of both; each may be a mosaic."""
    close_mosaic: int = 0
    """The last so many epochs do without mosaic and mixup and learn from photos as they are."""


@dataclass(frozen=True)
class LossConfig:
    """How the loss assigns boxes to anchors and weighs its parts."""

    assignment: Literal["best", "shape_iou"] = "shape_iou"
    """best: one anchor per box; shape_iou: also every anchor whose shape IoU exceeds assignment_iou."""
    assignment_iou: float = 0.4
    """What that shape IoU must exceed."""
    neighbour_cells: bool = True
    """With shape_iou and the bounded decode: also the slots of the two nearest neighbour cells."""
    ignore_iou: float = 0.5
    """An unassigned slot is a negative when its decoded box overlaps every true box by less than this."""
    objectness_target: Literal["one", "iou"] = "iou"
    """What a positive's objectness learns: 1, or the IoU of its decoded box with the truth."""
    normalisation: Literal["level", "positives"] = "positives"
    """level: each level's sums by its own counts; positives: sums over all levels by all positives, or by the photos of
    the batch where these are more."""
    box_weight: float = 4.0
    """Of the boxes (complete IoU) in the sum of the parts. Few classes that are easy to tell apart may gain by 8."""
    objectness_weight: float = 1.0
    """Of the objectness."""
    class_weight: float = 0.5
    """Of the classes."""
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Weights of the objectness loss for P3, P4, P5."""
    label_smoothing: float = 0.0
    """Share of the certainty about a class that is spread over all of them; 0: none."""
    focal_gamma: float = 0.0
    """Objectness that is right already counts less, by its distance from the target to this power (arXiv:1708.02002,
    2006.04388); the sum becomes smaller, which objectness_weight can make up for. 0: every slot counts alike."""
