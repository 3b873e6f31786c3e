"""Classification, as the trainer sees it: labelled folders to learn from, cross-entropy, top-1 to measure by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine.classification_data import ClassificationDataset
from engine.classifier import Classifier
from engine.dataset import Batch, Dataset
from engine.outputs import save_picture
from engine.resume_check import fingerprint
from engine.run_directory import RunDirectory
from engine.task import Measurement, Tensor
from engine.waiting import Waiting
from engine.workers import Workers
from nets.classifier import classification_layer, classification_loss, freeze_features
from utils.classification_metrics import evaluate_classes
from utils.classification_report import mistakes_sheet, save_confusion
from utils.classifier_config import ClassifierRunConfig, ClassifierSpec
from utils.contact_sheet import contact_sheet
from utils.image_folders import LabelledImage
from utils.progress import Reporter
from utils.types import FloatArray

MOST_IMAGES, COLUMNS, CELL_PX = 32, 8, 200


class ClassificationTask:
    """A built classifier with the images to train on and to validate on."""

    parts: tuple[str, ...] = ("class",)
    target_signature: Mapping[str, tf.TensorSpec] = {"labels": tf.TensorSpec([None, None], tf.float32)}
    curves: Mapping[str, str] = {"top1": "top-1", "top5": "top-5"}

    def __init__(
        self,
        config: ClassifierRunConfig,
        spec: ClassifierSpec,
        model: keras.Model,
        train: Sequence[LabelledImage],
        val: Sequence[LabelledImage],
        keep_decoded: bool,
    ) -> None:
        self.spec, self.model = spec, model
        self.label_smoothing = config.loss.label_smoothing
        seed, threads = config.train.seed, config.data.threads
        self.train_data: Dataset[Any] = ClassificationDataset(
            train, spec, config.augment, seed, threads, keep_decoded, config.train.multi_scale
        )
        self.val_data: Dataset[Any] = ClassificationDataset(val, spec, None, seed, threads, keep_decoded)
        self.val = val
        parts = {"training images": train, "validation images": val}
        self.fingerprints: Mapping[str, str] = {
            # Data may move as a whole.
            part: fingerprint((Path(image.path).name, image.class_id) for image in found)
            for part, found in parts.items()
        }
        self.classifier = Classifier(model, spec)

    def freeze(self, frozen: bool, batch_norm: bool = False) -> None:
        """Freezes (or unfreezes) all but the last layer; with ``batch_norm`` batch normalization stays frozen."""
        freeze_features(self.model, self.spec.backbone, frozen, batch_norm)

    def head_kernels(self) -> Sequence[keras.Variable]:
        """The kernel of the last layer."""
        return [classification_layer(self.model, self.spec.backbone).kernel]

    def loss(
        self,
        outputs: Any,
        targets: Mapping[str, Tensor],
        sum_over_replicas: Callable[[Tensor], Tensor] = tf.identity,
        training: bool = True,
    ) -> Sequence[Tensor]:
        """Cross-entropy with the shares of each class, which are smoothed in training alone."""
        smoothing = self.label_smoothing if training else 0.0
        return [classification_loss(outputs, targets["labels"], smoothing, sum_over_replicas)]

    def weight(self, targets: Mapping[str, np.ndarray]) -> float:
        """Images."""
        return float(len(targets["labels"]))

    def measure(
        self,
        batch_size: int,
        run: RunDirectory,
        epoch: int,
        reporter: Reporter,
        workers: Workers,
        limit: int | None = None,
    ) -> Measurement:
        """Top-1 and top-5 on the validation images; pictures of what was taken for what."""
        val = self.val[:limit]
        data = ClassificationDataset(val, self.spec) if limit else self.val_data
        own = workers.shard.of(range(len(val)), batch_size)
        batches = data.validation_batches(batch_size, workers.shard)
        probabilities = np.zeros((len(val), len(self.spec.class_names)), np.float32)
        with workers.part():
            batches = Waiting(workers.own_stop, reporter.warn).over(batches)
            tracked = reporter.track(batches, "measuring", -(-len(own) // batch_size))
            found = [self.classifier.probabilities(batch.images) for batch in tracked]
            if found:
                probabilities[list(own)] = np.concatenate(found)
        probabilities = workers.sum(probabilities).astype(np.float32)
        true_ids = np.array([image.class_id for image in val])
        metrics = evaluate_classes(probabilities, true_ids, self.spec.class_names)

        def draw() -> None:
            save_confusion(metrics, run.plots / "confusion.png")
            self._draw_mistakes(run, val, probabilities, true_ids, epoch)

        workers.on_chief(draw)
        return Measurement({"top1": metrics.top1, "top5": metrics.top5}, metrics.top1)

    def draw_batch(self, run: RunDirectory, batch: Batch) -> None:
        """Views of a training batch, each under the classes it counts as."""
        titles = [self._title(shares) for shares in batch.targets["labels"][:MOST_IMAGES]]
        sheet = contact_sheet(list(batch.images[:MOST_IMAGES]), titles, COLUMNS, CELL_PX)
        save_picture(run.plots / "first_batch.jpg", sheet)
        run.log_picture("first_batch", sheet, 0)

    def _title(self, shares: FloatArray) -> str:
        present = np.argsort(-shares, kind="stable")[: np.count_nonzero(shares)]
        if len(present) == 1:
            return self.spec.class_names[present[0]]
        return " + ".join(f"{100 * shares[i]:.0f}% {self.spec.class_names[i]}" for i in present)

    def _draw_mistakes(
        self, run: RunDirectory, val: Sequence[LabelledImage], probabilities: FloatArray, true_ids: Any, epoch: int
    ) -> None:
        paths = [image.path for image in val]
        sheet = mistakes_sheet(paths, probabilities, true_ids, self.spec.class_names, self.spec.ignore_exif)
        save_picture(run.plots / "mistakes.jpg", sheet)
        run.log_picture("mistakes", sheet, epoch)
