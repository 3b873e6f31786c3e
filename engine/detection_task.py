"""Detection, as the trainer sees it: annotation lists to learn from, the YOLO loss, mAP to measure by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.dataset import Batch, Dataset, DetectionDataset
from engine.evaluation import evaluate_records, ground_truths_for
from engine.inference import Predictor
from engine.plan import phases
from engine.resume_check import fingerprint
from engine.run_directory import RunDirectory
from engine.run_pictures import draw_batch, draw_precision_recall, draw_predictions
from engine.task import Measurement, Tensor
from engine.workers import Workers
from nets.detector import freeze_backbone, head_kernels
from nets.loss import yolo_loss
from utils.config import DetectorSpec, RunConfig
from utils.progress import Reporter
from utils.types import Record


class DetectionTask:
    """A built detector with the records to train on and to validate on."""

    parts: tuple[str, ...] = ("box", "objectness", "class")
    target_signature: Mapping[str, tf.TensorSpec] = {
        "slots": tf.TensorSpec([None, None], tf.int32),
        "slot_boxes": tf.TensorSpec([None, None, 4], tf.float32),
        "slot_classes": tf.TensorSpec([None, None], tf.int32),
        "boxes": tf.TensorSpec([None, None, 4], tf.float32),
    }
    curves: Mapping[str, str] = {"map_50": "mAP@0.5", "coco_ap": "COCO AP"}

    def __init__(
        self, config: RunConfig, spec: DetectorSpec, model: keras.Model, train: list[Record], val: list[Record]
    ) -> None:
        self.spec, self.model = spec, model
        self.loss_config = config.loss
        seed, threads = config.train.seed, config.data.threads
        mosaic_until = phases(config)[-1].until_epoch - config.augment.close_mosaic
        self.train_data: Dataset[Any] = DetectionDataset(
            train,
            spec,
            config.loss,
            config.augment,
            seed,
            threads,
            mosaic_until,
            config.train.multi_scale,
            config.data.balance_classes,
        )
        self.val_data: Dataset[Any] = DetectionDataset(val, spec, config.loss, None, seed, threads)
        self.fingerprints: Mapping[str, str] = {"data.train": _fingerprint(train), "data.val": _fingerprint(val)}
        # Found now, what is wrong with the annotations does not end the run at its first measurement.
        self.truths = ground_truths_for(val, spec.class_names, spec.ignore_exif)
        self.predictor = Predictor(model, spec)

    def freeze(self, frozen: bool, batch_norm: bool = False) -> None:
        """Freezes (or unfreezes) the backbone; with ``batch_norm`` its batch normalization stays frozen."""
        freeze_backbone(self.model, frozen, batch_norm)

    def head_kernels(self) -> Sequence[keras.Variable]:
        """The kernels of the FPN head."""
        return head_kernels(self.model)

    def loss(
        self,
        outputs: Any,
        targets: Mapping[str, Tensor],
        sum_over_replicas: Callable[[Tensor], Tensor] = tf.identity,
        training: bool = True,
    ) -> Sequence[Tensor]:
        """Box, objectness and class loss."""
        config = self.loss_config if training else replace(self.loss_config, label_smoothing=0.0)
        return yolo_loss(outputs, dict(targets), self.spec, config, sum_over_replicas)

    def weight(self, targets: Mapping[str, np.ndarray]) -> float:
        """Positives; images where each level has counts of its own, which makes the sum an average of the batches'."""
        slots = targets["slots"]
        by_level = self.loss_config.normalisation == "level"
        return float(len(slots) if by_level else np.count_nonzero(slots >= 0))

    def measure(
        self,
        batch_size: int,
        run: RunDirectory,
        epoch: int,
        reporter: Reporter,
        workers: Workers,
        limit: int | None = None,
    ) -> Measurement:
        """The mAP on the validation list, by the evaluator that get_map uses; pictures of detections and curves."""
        truths = self.truths[:limit]
        metrics, detections = evaluate_records(
            self.predictor, truths, batch_size=batch_size, reporter=reporter, workers=workers
        )

        def draw() -> None:
            draw_predictions(run, truths, detections, epoch, self.spec.ignore_exif)
            draw_precision_recall(run, metrics, epoch)

        workers.on_chief(draw)
        entries = {"map_50": metrics.voc_map_50, "coco_ap": metrics.coco_ap}
        return Measurement(entries, metrics.voc_map_50)

    def draw_batch(self, run: RunDirectory, batch: Batch) -> None:
        """Augmented images with the boxes that the targets were made from."""
        draw_batch(run, batch, self.spec)


def _fingerprint(records: Sequence[Record]) -> str:
    # Data may move as a whole.
    names = (Path(r.image_path).name for r in records)
    return fingerprint((n, r.boxes_xyxy.tolist(), r.class_ids.tolist()) for n, r in zip(names, records, strict=True))
