"""Whether an exported file gives what the checkpoint gives, its size, its speed: the report of every export."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.evaluation import Sample, evaluate_records
from engine.inference import Predictor
from engine.photo_detector import PhotoDetector
from engine.runtimes.session import ArtifactPredictor
from engine.timing import Speed, measure_speed
from utils.artifact import Artifact, Precision
from utils.box_matching import Agreement, agreement
from utils.progress import Reporter
from utils.types import Detections, ImageArray

LOWEST_SCORE = 0.001
SAME_OUTPUTS, ORDER = 1e-5, 0.02
"""Raw outputs that differ by no more, as a share, may differ by ``ORDER`` in mAP: that is scores in another order."""
BATCH = 8
TIMED_BATCHES, TIMED_S = 20, 4.0


@dataclass(frozen=True)
class Tolerance:
    """How far corners of boxes in pixels of the photo, scores and VOC mAP@0.5 may lie from the checkpoint's.

    Without ``same_boxes`` boxes are counted and not asked to agree: what quantisation costs shows in the mAP.
    """

    px: float
    score: float
    map_50: float
    same_boxes: bool = True


TOLERANCES: dict[Precision, Tolerance] = {
    "float32": Tolerance(0.5, 1e-3, 0.001),
    "float16": Tolerance(1.0, 0.01, 0.002),
    "int8": Tolerance(4.0, 0.1, 0.01, same_boxes=False),
}


@dataclass(frozen=True)
class Measured:
    """What a detector gives on the images of a report: ``map_50`` is VOC mAP@0.5 on a list, where one was given."""

    detections: list[Detections]
    one: Speed
    batch: Speed
    map_50: float | None


@dataclass(frozen=True)
class Parity:
    """An exported file against the checkpoint. Raw differences are None where only boxes come out.

    ``max_rel`` is the largest difference of a level over the level's largest value.
    """

    path: Path
    artifact: Artifact
    images: int
    score: float
    boxes: Agreement
    max_abs: float | None
    max_rel: float | None
    size_bytes: int
    reference: Measured
    measured: Measured

    @property
    def tolerance(self) -> Tolerance:
        """What is allowed at this precision."""
        return TOLERANCES[self.artifact.precision]

    @property
    def map_gap(self) -> float:
        """How far the mAP@0.5 lies from the checkpoint's, for choosing among files; 0 where it was not measured."""
        before, after = self.reference.map_50, self.measured.map_50
        if self.max_abs is not None and not np.isfinite(self.max_abs):
            return math.inf
        if before is None or after is None:
            return 0.0
        return math.inf if math.isnan(after - before) else abs(after - before)

    def problems(self) -> list[str]:
        """What lies beyond the tolerance."""
        found, within = [], self.tolerance
        if within.same_boxes and self.boxes.unmatched:
            of = self.boxes.first + self.boxes.second
            found.append(
                f"{self.boxes.unmatched} of {of} boxes differ by over {within.px} px or {within.score} in score"
            )
        if self.max_abs is not None and not np.isfinite(self.max_abs):
            found.append("outputs are not finite")
        before, after = self.reference.map_50, self.measured.map_50
        # A detector that has learned little gives many boxes nearly the same score.
        same = within.same_boxes and self.max_rel is not None and self.max_rel <= SAME_OUTPUTS
        allowed = ORDER if same else within.map_50
        if before is not None and after is not None and not abs(before - after) <= allowed:
            found.append(f"mAP@0.5 is {after:.4f}, that of the checkpoint {before:.4f}: over {allowed} apart")
        return found


@dataclass(frozen=True)
class ParityCheck:
    """What the checkpoint gives, once, for all the files that are held to it."""

    reference: Predictor
    images: Sequence[ImageArray]
    samples: Sequence[Sample]
    iou: float
    score: float
    measured: Measured
    reporter: Reporter

    @classmethod
    def of(
        cls,
        reference: Predictor,
        images: Sequence[ImageArray],
        samples: Sequence[Sample],
        thresholds: tuple[float, float],
        reporter: Reporter,
    ) -> ParityCheck:
        """Measures the checkpoint. ``thresholds`` are score and IoU; where nothing is found, the score falls."""
        score, iou = thresholds
        while score > LOWEST_SCORE and not any(map(len, _detections(reference, images, score, iou))):
            score = max(score / 10, LOWEST_SCORE)
        measured = _measure(reference, images, samples, score, iou, reporter)
        return cls(reference, images, samples, iou, score, measured, reporter)

    def compare(self, exported: ArtifactPredictor, path: Path) -> Parity:
        """Holds the file at ``path``, loaded as ``exported``, to the checkpoint."""
        measured = _measure(exported, self.images, self.samples, self.score, self.iou, self.reporter)
        within = TOLERANCES[exported.artifact.precision]
        pairs = zip(self.measured.detections, measured.detections, strict=True)
        max_abs, max_rel = (None, None) if exported.artifact.nms else self._raw_differences(exported)
        return Parity(
            path,
            exported.artifact,
            len(self.images),
            self.score,
            agreement(pairs, self.score, within.px, within.score),
            max_abs,
            max_rel,
            _size(path),
            self.measured,
            measured,
        )

    def _raw_differences(self, exported: ArtifactPredictor) -> tuple[float, float]:
        largest: list[tuple[float, float]] = []
        for image in self.images:
            _, inputs = self.reference.prepare([image])
            ours = {level: value.numpy() for level, value in self.reference.raw_graph(inputs).items()}
            for level, theirs in exported.raw(inputs).items():
                apart = float(np.abs(theirs - ours[level]).max())
                largest.append((apart, apart / float(np.abs(ours[level]).max())))
        absolute, relative = np.max(largest, axis=0)
        return float(absolute), float(relative)


def _measure(
    detector: PhotoDetector,
    images: Sequence[ImageArray],
    samples: Sequence[Sample],
    score: float,
    iou: float,
    reporter: Reporter,
) -> Measured:
    one, many = (measure_speed(detector, images, size, score, iou, TIMED_BATCHES, TIMED_S) for size in (1, BATCH))
    map_50 = evaluate_records(detector, samples, reporter=reporter).metrics.voc_map_50 if samples else None
    return Measured(_detections(detector, images, score, iou), one, many, map_50)


def _detections(detector: PhotoDetector, images: Sequence[ImageArray], score: float, iou: float) -> list[Detections]:
    return [found for image in images for found in detector.predict_batch([image], score, iou)]


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
