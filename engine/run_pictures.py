"""Pictures a person checks a run by: the first training batch as the network sees it, and validation detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.dataset import Batch
from engine.outputs import save_picture
from engine.run_directory import RunDirectory
from utils.config import DetectorSpec
from utils.contact_sheet import contact_sheet
from utils.draw import draw_boxes
from utils.files import replacing
from utils.images import preparing, read_image
from utils.metric_curves import overview_figure
from utils.metric_plots import save_figure
from utils.metrics import Metrics
from utils.types import Detections, GroundTruth, ImageArray

MOST_IMAGES = 16
COLUMNS = 4
CELL_PX = 360
SHOWN_PX = 720
SHOWN_SCORE = 0.3


def draw_batch(run: RunDirectory, batch: Batch, spec: DetectorSpec) -> None:
    """``plots/first_batch.jpg``: augmented images of a batch with the boxes that the targets were made from."""
    pictures = [_with_targets(batch, i, spec) for i in range(min(len(batch.images), MOST_IMAGES))]
    titles = [Path(path).name for path in batch.paths[: len(pictures)]]
    _publish(run, "first_batch", contact_sheet(pictures, titles, COLUMNS, CELL_PX), 0)


def draw_predictions(
    run: RunDirectory,
    truths: Sequence[tuple[Path, GroundTruth]],
    detections: Mapping[str, Detections],
    epoch: int,
    ignore_exif: bool = False,
) -> None:
    """``plots/validation.jpg``: detections above a score of 0.3 in photos spread over the validation list."""
    chosen = np.unique(np.linspace(0, len(truths) - 1, MOST_IMAGES).astype(int))
    pictures, titles = [], []
    for index in chosen:
        path, truth = truths[index]
        found = detections[truth.image_id].above(SHOWN_SCORE)
        with preparing(path):
            pictures.append(found.draw(read_image(path, ignore_exif=ignore_exif)))
        titles.append(f"{path.stem}: {len(found)} found, {len(truth.boxes_xyxy)} labelled")
    _publish(run, "validation", contact_sheet(pictures, titles, COLUMNS, CELL_PX), epoch)


def draw_precision_recall(run: RunDirectory, metrics: Metrics, epoch: int) -> None:
    """``plots/precision_recall.png``: precision against recall on the validation list."""
    path = run.plots / "precision_recall.png"
    with replacing(path) as temporary:
        save_figure(overview_figure(metrics), temporary)
    run.log_picture("precision_recall", read_image(path), epoch)


def _publish(run: RunDirectory, name: str, sheet: ImageArray, epoch: int) -> None:
    save_picture(run.plots / f"{name}.jpg", sheet)
    run.log_picture(name, sheet, epoch)


def _with_targets(batch: Batch, index: int, spec: DetectorSpec) -> ImageArray:
    targets = batch.targets
    real = targets["slots"][index] >= 0
    # Small inputs are enlarged, so that lines and labels do not hide what they mark.
    shown = cv2.resize(batch.images[index], (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_CUBIC)
    boxes = targets["slot_boxes"][index][real] * SHOWN_PX
    labelled = np.concatenate([boxes, targets["slot_classes"][index][real][:, None]], axis=1)
    # With several anchors to a box it occurs several times.
    unique = np.unique(labelled, axis=0)
    class_ids = unique[:, 4].astype(np.int64)
    return draw_boxes(shown, unique[:, :4], class_ids, [spec.class_names[i] for i in class_ids])
