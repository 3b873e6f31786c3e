"""Exported detectors: what such a file says of itself, so that nothing else is needed to use it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from utils.config import STRIDES, DetectorSpec
from utils.errors import FileError

FORMAT = "efficientnet-yolo3 artifact 1"
METADATA_FILE = "metadata.json"
RAW_OUTPUTS = "P3, P4, P5: logits [batch, side, side, anchors * (5 + classes)], per anchor x, y, w, h, object, classes"
NMS_OUTPUTS = (
    "boxes_xyxy: [batch, most, 4], fractions of the input's side; scores, class_ids: [batch, most]; counts: [batch], "
    "how many of them are real"
)

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Artifact:
    """What travels inside an exported file.

    ``precision`` is that of the weights; with float16 ones runtimes compute in float32. ``in_float`` says which layers
    of an int8 file are not int8. With ``any_size`` not only the batch is open but also the side.

    With ``nms`` decoding and suppression are inside; ``score`` and ``iou`` are then inputs, with these values where
    the format knows defaults. Without, they are what the maker suggests.
    """

    spec: DetectorSpec
    precision: Precision = "float32"
    in_float: tuple[str, ...] = ()
    any_size: bool = False
    nms: bool = False
    score: float = 0.5
    iou: float = 0.3
    license: str = "not stated"
    versions: dict[str, str] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """Texts by name, for the formats' own metadata; ``from_metadata`` is the inverse. Values are ASCII."""
        trained = self.spec.input_size
        side = f"any multiple of {STRIDES['P5']}, trained at {trained}" if self.any_size else trained
        return {
            "format": FORMAT,
            "detector": json.dumps(self.spec.to_dict()),
            "input": f"images: uint8 [batch, side, side, 3], RGB 0..255; side: {side}; normalisation is inside",
            "outputs": NMS_OUTPUTS if self.nms else RAW_OUTPUTS,
            "precision": self.precision,
            "in_float": json.dumps(self.in_float),
            "any_size": json.dumps(self.any_size),
            "nms": json.dumps(self.nms),
            "score": repr(self.score),
            "iou": repr(self.iou),
            "license": json.dumps(self.license),
            "versions": json.dumps(self.versions),
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], source: str | Path) -> Artifact:
        """Reads what ``to_metadata`` made. FileError when it is not there or of another version."""
        if metadata.get("format") != FORMAT:
            raise FileError(f"{source}: metadata: says nothing of a detector: give a file that export.py wrote")
        try:
            return cls(
                spec=DetectorSpec.from_dict(json.loads(metadata["detector"])),
                precision=PRECISIONS[PRECISIONS.index(metadata["precision"])],
                in_float=tuple(json.loads(metadata["in_float"])),
                any_size=json.loads(metadata["any_size"]),
                nms=json.loads(metadata["nms"]),
                score=float(metadata["score"]),
                iou=float(metadata["iou"]),
                license=json.loads(metadata["license"]),
                versions=json.loads(metadata["versions"]),
            )
        except (TypeError, KeyError, ValueError) as error:
            raise FileError(f"{source}: metadata: {error}: made by another version of this application") from error
