"""Many photos through a classifier: what classify.py predicts and measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from engine.classifier import Classifier
from engine.outputs import save_picture
from engine.pipeline import THREADS, batches, in_order
from utils.classification_metrics import ClassificationMetrics, evaluate_classes
from utils.classification_report import mistakes_sheet, save_confusion
from utils.errors import UserError
from utils.files import write_atomically
from utils.image_folders import LabelledImage
from utils.images import read_image
from utils.progress import Reporter
from utils.types import FloatArray, ImageArray
from utils.views import fixed_view


def classify_files(
    classifier: Classifier, paths: Sequence[str | Path], batch_size: int, reporter: Reporter, ignore_exif: bool = False
) -> Iterator[tuple[str, FloatArray | UserError]]:
    """Path and class probabilities [C] of every photo in order, or what is wrong with it; reads ahead in threads."""
    jobs = (partial(_view, classifier, str(path), ignore_exif, reporter.say) for path in paths)
    with ThreadPoolExecutor(THREADS) as pool, closing(in_order(pool, jobs, 2 * batch_size)) as views:
        work = reporter.track(zip(map(str, paths), views, strict=True), "classifying", len(paths), " images")
        for batch in batches(work, batch_size):
            good = [view for _, view in batch if not isinstance(view, UserError)]
            found = iter(classifier.probabilities(np.stack(good)) if good else ())
            for path, view in batch:
                yield path, view if isinstance(view, UserError) else next(found)


def measure_images(
    classifier: Classifier, images: Sequence[LabelledImage], batch_size: int, reporter: Reporter
) -> tuple[ClassificationMetrics, FloatArray]:
    """What the classifier is worth on labelled images, and its probabilities [N, C]. DataError: one cannot be read."""
    rows = []
    for _, found in classify_files(classifier, [image.path for image in images], batch_size, reporter):
        if isinstance(found, UserError):
            raise found
        rows.append(found)
    probabilities = np.stack(rows)
    true_ids = np.array([image.class_id for image in images])
    return evaluate_classes(probabilities, true_ids, classifier.spec.class_names), probabilities


def write_report(
    folder: Path,
    metrics: ClassificationMetrics,
    images: Sequence[LabelledImage],
    probabilities: FloatArray,
    ignore_exif: bool = False,
) -> None:
    """``metrics.json``, ``confusion.png`` and ``mistakes.jpg`` in ``folder``; ``probabilities`` [N, C] of N images."""
    write_atomically(folder / "metrics.json", json.dumps(metrics.to_dict(), indent=2, ensure_ascii=False) + "\n")
    save_confusion(metrics, folder / "confusion.png")
    true_ids = np.array([image.class_id for image in images])
    paths = [image.path for image in images]
    sheet = mistakes_sheet(paths, probabilities, true_ids, metrics.class_names, ignore_exif)
    save_picture(folder / "mistakes.jpg", sheet)


def _view(classifier: Classifier, path: str, ignore_exif: bool, warn: Callable[[str], None]) -> ImageArray | UserError:
    spec = classifier.spec
    try:
        image = read_image(path, ignore_exif=ignore_exif or spec.ignore_exif, warn=warn)
        return fixed_view(image, spec.input_size, spec.resize, spec.crop_fraction, path)
    except UserError as error:
        return error
