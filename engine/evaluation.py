"""From photos to metrics: the one evaluator that the trainer and get_map share."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from engine.pipeline import THREADS
from engine.waiting import Waiting
from utils.config import DetectorSpec
from utils.errors import DataError
from utils.images import preparing, read_for_detector
from utils.metrics import Metrics, evaluate
from utils.problems import Problems
from utils.progress import Quiet, Reporter
from utils.records import LIST_ANEW, read_annotation_list, refuse_other_classes
from utils.types import Detections, FloatArray, GroundTruth, ImageArray, IntArray, Record
from utils.voc import ground_truth_beside

if TYPE_CHECKING:
    from engine.workers import Workers

SCORE, IOU = 0.001, 0.5
LONGEST_ID = 250
"""Bytes of an image id, of the 255 that a file's name has room for."""
Sample = tuple[Path, GroundTruth]


class BatchPredictor(Protocol):
    """What can be measured: ``engine.inference.Predictor`` and whatever finds objects like it."""

    @property
    def spec(self) -> DetectorSpec:
        """Its class names and how it reads photos."""
        ...

    def predict_batch(self, images: Sequence[ImageArray], score: float, iou: float) -> list[Detections]:
        """Detections of each RGB uint8 image [H, W, 3], boxes in its own pixels."""
        ...


class Evaluation(NamedTuple):
    """Metrics and what they were computed from: the detections by image id."""

    metrics: Metrics
    detections: dict[str, Detections]


def evaluate_records(
    predictor: BatchPredictor,
    samples: Sequence[Sample],
    *,
    batch_size: int = 8,
    score_threshold: float = 0.5,
    reporter: Reporter | None = None,
    workers: Workers | None = None,
) -> Evaluation:
    """Runs ``predictor`` over every image and measures what it finds; nothing is ever skipped.

    Detections are taken at score 0.001 and NMS IoU 0.5. Images are decoded in threads while the model runs, at most
    two batches ahead.

    Args:
        predictor: the detector.
        samples: (image path, what it holds) pairs, as ``ground_truths_for`` makes them.
        batch_size: images per step of the model, at least 1.
        score_threshold: where precision, recall, F1 and the confusion matrix are taken.
        reporter: is told the progress.
        workers: share the images between them; each gets the whole result.

    Raises:
        DataError: an image cannot be read.
    """
    names = predictor.spec.class_names
    reporter = reporter or Quiet()
    own = samples if workers is None else workers.shard.of(samples, batch_size)

    def decode(path: Path) -> ImageArray:
        with preparing(path):
            return read_for_detector(path, predictor.spec)

    images = decoded_ahead([path for path, _ in own], decode, ahead=2 * batch_size)
    detections: dict[str, Detections] = {}
    with nullcontext() if workers is None else workers.part(), closing(images):
        tracked = reporter.track(own, "measuring", total=len(own), unit=" images")
        waiting = Waiting(None if workers is None else workers.own_stop, reporter.warn)
        pairs = zip(tracked, waiting.over(images), strict=True)
        while batch := list(islice(pairs, batch_size)):
            found = predictor.predict_batch([image for _, image in batch], score=SCORE, iou=IOU)
            for ((_, truth), _), one in zip(batch, found, strict=True):
                detections[truth.image_id] = one
    if workers is not None and not workers.alone:
        ids = [truth.image_id for _, truth in samples]
        detections = gathered(detections, ids, predictor.spec.class_names, workers)
    metrics = evaluate([truth for _, truth in samples], detections, names, score_threshold)
    return Evaluation(metrics, detections)


def gathered(
    own: Mapping[str, Detections], image_ids: Sequence[str], class_names: Sequence[str], workers: Workers
) -> dict[str, Detections]:
    """The detections that all workers found together, by image id. ``image_ids`` are those of all images."""
    counts = workers.sum(np.array([len(own[i]) if i in own else 0 for i in image_ids])).astype(int)
    ends = np.cumsum(counts)
    rows = np.zeros((int(counts.sum()), 6))
    for image_id, start, end in zip(image_ids, ends - counts, ends, strict=True):
        if image_id in own:
            found = own[image_id]
            rows[start:end] = np.column_stack([found.boxes_xyxy, found.scores, found.class_ids])
    # Sums with zeros are exact, and float64 holds float32 and class ids as they are.
    parts = np.split(workers.sum(rows), ends[:-1])
    return {i: _from_rows(part, class_names) for i, part in zip(image_ids, parts, strict=True)}


def _from_rows(rows: FloatArray, class_names: Sequence[str]) -> Detections:
    class_ids = rows[:, 5].astype(np.int64)
    names = tuple(class_names[i] for i in class_ids)
    return Detections(rows[:, :4].astype(np.float32), rows[:, 4].astype(np.float32), class_ids, names)


def decoded_ahead(
    paths: Sequence[Path], decode: Callable[[Path], ImageArray], ahead: int
) -> Generator[ImageArray, None, None]:
    """Yields ``decode(path)`` in order, with at most ``ahead`` images decoded or waiting at any moment."""
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
    remaining, over = iter(paths), False
    try:
        waiting: deque[Future[ImageArray]] = deque(pool.submit(decode, path) for path in islice(remaining, ahead))
        while waiting:
            image = waiting.popleft().result()
            waiting.extend(pool.submit(decode, path) for path in islice(remaining, 1))
            yield image
        over = True
    except DataError:
        over = True
        raise
    finally:
        # Whoever stops does not wait for a disk that may not answer.
        pool.shutdown(wait=over, cancel_futures=True)


def samples_of_list(path: str | Path, class_names: Sequence[str], ignore_exif: bool = False) -> list[Sample]:
    """``ground_truths_for`` what an annotation list holds. DataError where its ids mean other classes."""
    refuse_other_classes(path, class_names, f"{LIST_ANEW} and the classes.txt of the run")
    return ground_truths_for(read_annotation_list(path, len(class_names)), class_names, ignore_exif)


def ground_truths_for(records: Sequence[Record], class_names: Sequence[str], ignore_exif: bool = False) -> list[Sample]:
    """What each image of an annotation list holds, for evaluation: the boxes of its line, to be found.

    Where the image lies in a VOC folder, the difficult objects of its XML, which lists leave out, are added, and all
    come in the order of the XML, as those of ``load_ground_truth`` do. Objects that are broken in the XML were left out
    of the list on purpose and stay out. Image ids are the file stems, or, where two images share a stem, longer parts
    of their paths. DataError when an image is listed twice.
    """
    ids = image_ids([record.image_path for record in records])
    return [
        (Path(record.image_path), _ground_truth(record, image_id, class_names, ignore_exif))
        for record, image_id in zip(records, ids, strict=True)
    ]


def _ground_truth(record: Record, image_id: str, class_names: Sequence[str], ignore_exif: bool) -> GroundTruth:
    beside = ground_truth_beside(record.image_path, class_names, ignore_exif, Problems())
    if beside is None:
        certain = np.zeros(len(record.class_ids), np.bool_)
        return GroundTruth(image_id, record.boxes_xyxy, record.class_ids, certain)
    listed, written = _objects(record.boxes_xyxy, record.class_ids), _objects(beside.boxes_xyxy, beside.class_ids)
    left, marked = Counter(listed), list(zip(written, beside.difficult.tolist(), strict=True))
    # In the order of the XML, as ``load_ground_truth`` has them: of equal overlaps the first object counts.
    kept = np.array([difficult or _take(left, one) for one, difficult in marked], np.bool_)
    # A list may hold difficult objects too, when its maker asked for them.
    left.subtract(one for one, difficult in marked if difficult)
    own = np.array([_take(left, one) for one in listed], np.bool_)
    return GroundTruth(
        image_id,
        np.concatenate([beside.boxes_xyxy[kept], record.boxes_xyxy[own]]),
        np.concatenate([beside.class_ids[kept], record.class_ids[own]]),
        np.concatenate([beside.difficult[kept], np.zeros(own.sum(), np.bool_)]),
    )


def _objects(boxes_xyxy: FloatArray, class_ids: IntArray) -> list[tuple[float, ...]]:
    return [(*box, class_id) for box, class_id in zip(boxes_xyxy.tolist(), class_ids.tolist(), strict=True)]


def _take(left: Counter[tuple[float, ...]], one: tuple[float, ...]) -> bool:
    """Whether ``left`` had one more of these, which it has no longer."""
    left[one] -= 1
    return left[one] >= 0


def image_ids(paths: Sequence[str]) -> list[str]:
    """A distinct id for every image: its stem, kept whole at dots, or, where stems repeat, its file name or as much of
    its path as tells all apart.

    In a path "/" becomes "%2F", and of one too long for a file's name a hash stands for it. DataError when an image is
    listed twice.
    """
    repeated = [path for path, times in Counter(paths).items() if times > 1]
    if repeated:
        raise DataError(f"{repeated[0]}: listed twice: every image counts once; remove one of the lines")
    names = [Path(path).name for path in paths]
    ids, depth = [Path(name).stem for name in names], 1
    if len(set(ids)) < len(ids):
        ids = names
    while len(set(ids)) < len(ids):
        depth += 1
        parts = ("/".join(path.split("/")[-depth:]) for path in paths)
        ids = [part.replace("%", "%25").replace("/", "%2F") for part in parts]
    return [_short_enough(one, path) for one, path in zip(ids, paths, strict=True)]


def _short_enough(image_id: str, path: str) -> str:
    if len(os.fsencode(image_id)) <= LONGEST_ID:
        return image_id
    return f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}_{Path(path).stem[-40:]}"
