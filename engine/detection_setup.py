"""From a config and two annotation lists to a detector ready to learn; everything that can be wrong is found here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from engine.checkpoint import Checkpoint, start_from, starting_point
from engine.detection_task import DetectionTask
from engine.image_check import check_images
from engine.plan import class_file, detector_spec, smallest_input
from nets.backbones import official_file
from nets.detector import BACKBONE, build_detector
from nets.layers import RANDOM_STATE
from utils.anchor_fit import better_anchors, input_sizes
from utils.anchors import write_anchors
from utils.annotations import EDGE_TOLERANCE_PX
from utils.augment import MIN_SIDE_PX
from utils.config import LEVELS, DetectorSpec, RunConfig
from utils.errors import ConfigError, DataError, FileError
from utils.image_headers import probe
from utils.letterbox import Placement, place
from utils.progress import Reporter
from utils.records import LIST_ANEW, read_annotation_list, refuse_other_classes, refuse_overlap
from utils.types import FloatArray, Record


class DetectionSetup:
    """How a detector's run begins."""

    class_source = "data.classes"

    def __init__(self, config: RunConfig) -> None:
        data = dataclasses.replace(config.data, classes=class_file(config.data))
        self.config = dataclasses.replace(config, data=data)
        self.fitted: Collection[str] = ("anchors_wh_px",) if config.model.auto_anchors else ()
        self._anchors_wh: FloatArray | None = None
        self._lists: tuple[list[Record], list[Record]] | None = None

    def spec(self, warn: Callable[[str], None] | None = None) -> DetectorSpec:
        """What the run builds; reads the class and anchor files."""
        return detector_spec(self.config, warn)

    def fit(self, spec: DetectorSpec, reporter: Reporter) -> DetectorSpec:
        """``spec``, or with anchors fitted to the training list, as ``model.auto_anchors`` has it.

        DataError where a list's ids mean other classes.
        """
        for path in (self.config.data.train, self.config.data.val):
            refuse_other_classes(path, spec.class_names, f"give that class list, or {LIST_ANEW}")
        least = self.config.model.auto_anchors
        if not least:
            return spec
        train, _ = self._read(spec, reporter)
        boxes_wh, _ = input_sizes(train, spec.input_size, spec.resize, spec.ignore_exif, reporter)
        given = np.array(spec.anchors_wh_px)
        self._anchors_wh, said = better_anchors(boxes_wh, given, least, self.config.train.seed, reporter)
        if said:
            reporter.note(f"model.auto_anchors: {said}")
        if self._anchors_wh is None:
            return spec
        return dataclasses.replace(spec, anchors_wh_px=tuple((float(w), float(h)) for w, h in self._anchors_wh))

    def write_fitted(self, folder: Path) -> None:
        """``anchors.txt``, in pixels of ``model.input_size``, where anchors were fitted."""
        if self._anchors_wh is not None:
            write_anchors(folder / "anchors.txt", self._anchors_wh)

    def inputs(self) -> Mapping[str, str]:
        """Lists, classes and anchors."""
        data = self.config.data
        return {
            "data.train": data.train,
            "data.val": data.val,
            "data.classes": class_file(data),
            "model.anchors": self.config.model.anchors,
        }

    def task(
        self, spec: DetectorSpec, weights: str, strategy: tf.distribute.Strategy, reporter: Reporter
    ) -> DetectionTask:
        """Reads the lists, builds the detector."""
        train, val = self._read(spec, reporter)
        with strategy.scope():
            model = initial_detector(spec, weights, reporter, self.config.train.seed, self.config.model.fresh_outputs)
        return DetectionTask(self.config, spec, model, train, val)

    def _read(self, spec: DetectorSpec, reporter: Reporter) -> tuple[list[Record], list[Record]]:
        if self._lists is None:
            self._lists = read_lists(self.config, len(spec.class_names), reporter)
        return self._lists


def read_lists(config: RunConfig, class_count: int, reporter: Reporter) -> tuple[list[Record], list[Record]]:
    """Both annotation lists, every image's header checked. DataError naming all files that cannot be used."""
    for name in ("train", "val"):
        if not Path(path := getattr(config.data, name)).exists():
            made = f"make it with voc_annotation.py, or give --data.{name}; no list is made that no photo is left for"
            raise ConfigError(f"data.{name}: {path}: no such annotation list: {made}")
    train = read_annotation_list(config.data.train, class_count)
    val = read_annotation_list(config.data.val, class_count)
    refuse_overlap(train, val)
    placements = _check_images(train + val, config, reporter)
    lists = []
    for path, records, placed in (
        (config.data.train, train, placements[: len(train)]),
        (config.data.val, val, placements[len(train) :]),
    ):
        kept = [(record, found) for record, found in zip(records, placed, strict=True) if max(found.size_hw) > 1]
        if not kept:
            raise DataError(f"{path}: no image is left: give photos of more than a single pixel")
        if len(kept) < len(records):
            reporter.say(f"{path}: {len(records) - len(kept)} images of a single pixel left out")
        _check_boxes(path, kept, config.model.input_size, reporter)
        lists.append([record for record, _ in kept])
    if not any(len(record.class_ids) for record in lists[0]):
        raise DataError(
            f"{config.data.train}: no line has a box, so there is nothing to learn: a line is IMAGE X1,Y1,X2,Y2,CLASS "
            "...; make the list with voc_annotation.py"
        )
    if not any(len(record.class_ids) for record in lists[1]):
        reporter.say(
            f"{config.data.val}: no object in it: there will be no mAP, `best` is the newest, nothing stops early"
        )
    return lists[0], lists[1]


def _check_boxes(path: str, placed: Sequence[tuple[Record, Placement]], input_size: int, reporter: Reporter) -> None:
    """Says how many boxes no input can show.

    DataError naming a box that is further outside its photo than rounding puts it, as for a VOC XML.
    """
    counts = [len(record.boxes_xyxy) for record, _ in placed]
    boxes = np.concatenate([record.boxes_xyxy for record, _ in placed])
    edges = np.repeat([found.size_hw[::-1] * 2 for _, found in placed], counts, axis=0)
    beyond = np.maximum(-boxes, boxes - edges).max(axis=1, initial=0)
    outside = np.flatnonzero(beyond > EDGE_TOLERANCE_PX)
    if len(outside):
        record, found = placed[int(np.searchsorted(np.cumsum(counts), outside[0], side="right"))]
        box = ",".join(f"{edge:g}" for edge in boxes[outside[0]])
        height, width = found.size_hw
        more = f" (and {len(outside) - 1} more)" if len(outside) > 1 else ""
        raise DataError(
            f"{path}: {record.image_path}: box {box}: outside the photo of {width}x{height}{more}: photos of another "
            "size, or turned otherwise (data.ignore_exif)? make the list again with voc_annotation.py"
        )
    sides = (boxes[:, 2:] - boxes[:, :2]) * np.repeat([found.scale_xy for _, found in placed], counts, axis=0)
    # ``fit_sample`` leaves them out.
    if tiny := np.count_nonzero((sides <= MIN_SIDE_PX).any(axis=1)):
        reporter.say(
            f"{path}: boxes of at most {MIN_SIDE_PX:g} px in an input of {input_size} px, which nothing learns: "
            f"{tiny}: give a larger --model.input_size"
        )


def _check_images(records: list[Record], config: RunConfig, reporter: Reporter) -> list[Placement]:
    """Looks at every image's header: where each lies in the input. DataError naming one of no use."""

    smallest = smallest_input(config)

    def placed(path: str) -> Placement:
        size_hw = probe(path, ignore_exif=config.data.ignore_exif).size_hw
        place(size_hw, smallest, config.model.resize, path)
        return place(size_hw, config.model.input_size, config.model.resize, path)

    return check_images([record.image_path for record in records], placed, reporter)


def initial_detector(
    spec: DetectorSpec, weights: str, reporter: Reporter, seed: int = 0, fresh_outputs: bool = False
) -> keras.Model:
    """A detector with its first weights.

    ``weights``: "none" (drawn from ``seed``); "imagenet", "package" or an ``.h5`` file for the backbone; a checkpoint,
    or a run with one: a detector's starts the whole, or with ``fresh_outputs`` all but the output layers, a
    classifier's the backbone. ``reporter`` tells what was taken, of a download, and when a detector's anchors or
    classes are not those of ``spec``.
    """
    found = starting_point(weights)
    if found is None:
        start = official_file(spec.backbone, reporter=reporter) if weights == "imagenet" else weights
        return build_detector(spec, start, seed)
    path, checkpoint = found
    _refuse_other_network(checkpoint, spec, path, fresh_outputs)
    model = build_detector(spec, seed=seed)
    given = checkpoint.weights()
    if isinstance(checkpoint.spec, DetectorSpec) and fresh_outputs:
        own = {one.path: np.asarray(one) for level in LEVELS for one in model.get_layer(f"head_{level}_logits").weights}
        start_from(model, {**given, **own}, path)
        reporter.note(f"{path}: all but its output layers is taken, which learn anew (model.fresh_outputs)")
        return model
    if isinstance(checkpoint.spec, DetectorSpec):
        start_from(model, given, path)
        theirs = checkpoint.spec.at_size(spec.input_size)
        if not np.allclose(theirs.anchors_wh_px, spec.anchors_wh_px):
            reporter.say(
                f"{path}: its head learned other anchors than this run has: its sizes no longer fit; "
                "to keep them, give its own as --model.anchors and --model.anchor_size, without --model.auto_anchors"
            )
        pairs = zip(theirs.class_names, spec.class_names, strict=True)
        if changed := [f"{before!r} is {now!r}" for before, now in pairs if before != now]:
            reporter.say(
                f"{path}: its head learned other classes, of which {', '.join(changed)} now; to keep them, give its "
                "own as --data.classes, and lists made with it"
            )
        return model
    backbone = model.get_layer(BACKBONE)
    shared = {variable.path for variable in backbone.weights}
    start_from(backbone, {name: value for name, value in given.items() if name in shared}, path)
    left = sum(name not in shared and RANDOM_STATE not in name for name in given)
    reporter.note(
        f"{path}: the backbone starts from {len(shared)} tensors of this classifier; {left} of its top are left out"
    )
    return model


def _refuse_other_network(checkpoint: Checkpoint, spec: DetectorSpec, path: Path, fresh_outputs: bool) -> None:
    theirs = checkpoint.spec
    # A classifier shares nothing but its backbone.
    detector = theirs if isinstance(theirs, DetectorSpec) else None
    # What outputs mean does not matter where they are not taken.
    whole = None if fresh_outputs else detector
    if whole and len(whole.anchors_wh_px) != len(spec.anchors_wh_px):
        raise FileError(
            f"{path}: anchors: {len(whole.anchors_wh_px)}: this run has {len(spec.anchors_wh_px)}; give as many "
            "(--model.anchors)"
        )
    for name in ("backbone", *(("separable_head",) if detector else ()), *(("decode", "masks") if whole else ())):
        found, ours = getattr(theirs, name), getattr(spec, name)
        if found != ours:
            raise FileError(f"{path}: {name}: {found!r}: this run's model has {ours!r}; make them the same")
    if whole and len(whole.class_names) != len(spec.class_names):
        raise FileError(
            f"{path}: classes: {len(whole.class_names)}: this run has {len(spec.class_names)}; "
            "start from weights with as many, or leave their outputs out (--model.fresh_outputs true)"
        )
