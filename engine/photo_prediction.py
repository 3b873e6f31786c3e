"""Prediction over many photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import TypeAlias

from engine.naming import HEATMAPS, OutputNames
from engine.outputs import save_picture
from engine.pipeline import Failure
from engine.prediction import Done, Prediction, Shot, counted
from engine.sources import ImageInput
from utils.draw import overlay_heat
from utils.errors import DataError, UserError
from utils.images import decode_for_detector, read_for_detector
from utils.types import Detections, FloatArray

SHOWN_REMARKS = 5
Seen: TypeAlias = tuple[Detections, FloatArray | None]
"""What a photo holds, and where the detector sees any object at all, if that was asked for."""


def run_photos(run: Prediction, images: Sequence[ImageInput], names: Sequence[OutputNames]) -> None:
    """Predicts photos, each into the picture of its name. What makes one unusable is noted in ``run.summary``."""
    remarks: list[str] = []
    loads = (partial(_load, run, *pair, remarks.append) for pair in zip(images, names, strict=True))
    with closing(run.flow(loads, partial(_detect, run), partial(_finish, run))) as results:
        for result in run.reporter.track(results, "predicting", len(images), " images"):
            if isinstance(result, Done):
                run.summary.images += 1
                if run.options.count:
                    run.tell(f"{result.shot.source}: {counted(Counter(result.detections.names))}")
                run.show(result.drawn, result.shot.name.picture.name, wait=True)
    for remark in remarks[:SHOWN_REMARKS]:
        run.reporter.say(remark)
    if len(remarks) > SHOWN_REMARKS:
        run.reporter.say(f"and {len(remarks) - SHOWN_REMARKS} more such remarks")


def _load(run: Prediction, image: ImageInput, name: OutputNames, warn: Callable[[str], None]) -> Shot | Failure:
    source = str(image.path)
    try:
        spec, ignore_exif = run.predictor.spec, run.options.ignore_exif or None
        if image.data is None:
            pixels = read_for_detector(image.path, spec, ignore_exif, warn)
        else:
            pixels = decode_for_detector(image.data, source, spec, ignore_exif, warn)
    except UserError as error:
        return Failure(source, error)
    more = {"output": str(run.options.out_dir / name.picture)}
    return Shot(source, image.path.name, name, pixels, run.predictor.ready(pixels), more)


def _detect(run: Prediction, shots: Sequence[Shot]) -> list[Seen]:
    found = run.detect(shots)
    heats = [run.predictor.objectness_map(shot.pixels) if run.options.heatmap else None for shot in shots]
    return list(zip(found, heats, strict=True))


def _finish(run: Prediction, shot: Shot, seen: Seen) -> Done | Failure:
    detections, heat = seen
    heated = None if heat is None else overlay_heat(shot.pixels, heat)  # before boxes are drawn onto the pixels
    try:
        done = run.finish(shot, detections)
        save_picture(run.options.out_dir / shot.name.picture, done.drawn)
        if heated is not None:
            save_picture(run.options.out_dir / HEATMAPS / shot.name.picture, heated)
    except DataError as error:
        return Failure(shot.source, error)
    return done
