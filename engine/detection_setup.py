"""From a config and two annotation lists to a detector ready to learn; everything that can be wrong is found here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from engine.checkpoint import is_checkpoint, read_checkpoint, restore_model
from engine.detection_task import DetectionTask
from engine.plan import detector_spec
from nets.detector import build_detector
from nets.layers import RANDOM_STATE
from utils.config import DetectorSpec, RunConfig
from utils.errors import DataError, FileError, UserError
from utils.image_headers import probe
from utils.letterbox import place
from utils.progress import Reporter
from utils.records import read_annotation_list, refuse_overlap
from utils.types import Record


class DetectionSetup:
    """How a detector's run begins."""

    class_source = "data.classes"

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def spec(self, warn: Callable[[str], None] | None = None) -> DetectorSpec:
        """What the run builds; reads the class and anchor files."""
        return detector_spec(self.config, warn)

    def inputs(self) -> Mapping[str, str]:
        """The lists of the run."""
        data = self.config.data
        return {"data.train": data.train, "data.val": data.val, "data.classes": data.classes}

    def task(
        self, spec: DetectorSpec, weights: str, strategy: tf.distribute.Strategy, reporter: Reporter
    ) -> DetectionTask:
        """Reads the lists, builds the detector."""
        train, val = read_lists(self.config, len(spec.class_names), reporter)
        with strategy.scope():
            model = initial_detector(spec, weights, self.config.train.seed)
        return DetectionTask(self.config, spec, model, train, val)


def read_lists(config: RunConfig, class_count: int, reporter: Reporter) -> tuple[list[Record], list[Record]]:
    """Both annotation lists, every image's header checked. DataError naming all files that cannot be used."""
    train = read_annotation_list(config.data.train, class_count)
    val = read_annotation_list(config.data.val, class_count)
    refuse_overlap(train, val)
    large_enough = _check_images(train + val, config, reporter)
    lists = []
    for path, records, kept in (
        (config.data.train, train, large_enough[: len(train)]),
        (config.data.val, val, large_enough[len(train) :]),
    ):
        if not all(kept):
            reporter.say(f"{path}: {kept.count(False)} images of a single pixel left out")
        lists.append([record for record, keep in zip(records, kept, strict=True) if keep])
        if not lists[-1]:
            raise DataError(f"{path}: no image is left: give photos of more than a single pixel")
    return lists[0], lists[1]


def _check_images(records: list[Record], config: RunConfig, reporter: Reporter) -> list[bool]:
    """Looks at every image's header; whether each is large enough to learn from. DataError naming one of no use."""
    problems: list[str] = []

    def look(record: Record) -> bool:
        try:
            size_hw = probe(record.image_path, ignore_exif=config.data.ignore_exif).size_hw
            place(size_hw, config.model.input_size, config.model.resize, record.image_path)
            return max(size_hw) > 1
        except UserError as error:
            problems.append(str(error))
            return False

    with ThreadPoolExecutor() as pool:
        large_enough = list(reporter.track(pool.map(look, records), "checking images", len(records)))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{min(problems)}{more}")
    return large_enough


def initial_detector(spec: DetectorSpec, weights: str, seed: int = 0) -> keras.Model:
    """A detector with its first weights: drawn from ``seed``, ImageNet's, a backbone's .h5 file, another detector's."""
    if weights == "none":
        return build_detector(spec, seed=seed)
    if not is_checkpoint(weights):
        return build_detector(spec, weights, seed)
    checkpoint = read_checkpoint(weights)
    for name in ("backbone", "separable_head", "decode", "masks"):
        theirs, ours = getattr(checkpoint.spec, name), getattr(spec, name)
        if theirs != ours:
            raise FileError(f"{weights}: {name}: {theirs!r}: this run's model has {ours!r}; make them the same")
    if len(checkpoint.spec.class_names) != len(spec.class_names):
        raise FileError(
            f"{weights}: classes: {len(checkpoint.spec.class_names)}: this run has {len(spec.class_names)}; "
            "start from weights with as many"
        )
    model = build_detector(spec, seed=seed)
    # Random state is the run's own, and which layers have any depends on model.stochastic_depth.
    tensors = {name: value for name, value in checkpoint.group("model").items() if RANDOM_STATE not in name}
    own = {v.path: np.asarray(v) for v in model.variables if RANDOM_STATE in v.path}
    restore_model(model, {**tensors, **own}, weights)
    return model
