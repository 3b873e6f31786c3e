"""One export from the checkpoint to the last report: what export.py does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine.evaluation import ground_truths_for
from engine.export.calibration import climb
from engine.export.graph import versions
from engine.export.images import photos_of_list, photos_to_compare
from engine.export.parity import Parity, ParityCheck
from engine.export.to_onnx import write_onnx
from engine.export.to_onnx_int8 import write_onnx_int8
from engine.export.to_openvino import write_openvino
from engine.export.to_openvino_int8 import write_openvino_int8
from engine.export.to_saved_model import write_saved_model
from engine.inference import Predictor
from engine.runtimes.choice import load_exported
from utils.artifact import Artifact
from utils.export_formats import INT8
from utils.progress import Reporter
from utils.records import read_annotation_list

WRITERS: dict[str, tuple[Callable[..., None], str]] = {
    "onnx": (write_onnx, "{}.onnx"),
    "openvino": (write_openvino, "{}_openvino"),
    "saved_model": (write_saved_model, "{}_saved_model"),
    "onnx-int8": (write_onnx_int8, "{}_int8.onnx"),
    "openvino-int8": (write_openvino_int8, "{}_int8_openvino"),
}
"""What writes each format, and the name it gets."""


@dataclass(frozen=True)
class ExportRequest:
    """What is wanted. ``measure`` and ``calibrate`` are annotation lists; photos of the latter set the int8 ranges."""

    checkpoint: Path
    formats: tuple[str, ...]
    out: Path
    nms: bool = False
    score: float = 0.5
    iou: float = 0.3
    license: str = "not stated"
    measure: str | None = None
    calibrate: str | None = None
    images: int = 16
    calibration_images: int = 128


def export_all(request: ExportRequest, reporter: Reporter) -> Iterator[Parity]:
    """Writes every format and yields its report as it comes.

    ConfigError for what cannot be exported so; FileError for a checkpoint that cannot be read or a place that cannot be
    written; DataError for photos that cannot be used.
    """
    predictor = Predictor.load(request.checkpoint)
    spec = predictor.spec
    same = {name: getattr(request, name) for name in ("nms", "score", "iou", "license")}
    artifact = Artifact(spec, versions=versions(), **same)
    photos = photos_of_list(request.calibrate, spec, request.calibration_images) if request.calibrate else []
    inputs = [predictor.prepare([photo])[1] for photo in photos]
    samples = []
    if request.measure:
        records = read_annotation_list(request.measure, len(spec.class_names))
        samples = ground_truths_for(records, spec.class_names, spec.ignore_exif)
    photos, where = photos_to_compare(request.checkpoint, spec, request.images)
    reporter.say(f"compared on {where}")
    check = ParityCheck.of(predictor, photos, samples, (request.score, request.iou), reporter)
    for name in request.formats:
        write, form = WRITERS[name]
        path = request.out / form.format(request.checkpoint.name + ("_nms" if request.nms else ""))
        reporter.say(f"writing {path}")
        if name not in INT8:
            write(predictor, artifact, path)
            yield check.compare(load_exported(path), path)
            continue
        for calibration in climb(inputs, predictor.model):
            quantised = replace(artifact, precision="int8", in_float=calibration.in_float)
            write(predictor, quantised, path, calibration)
            parity = check.compare(load_exported(path), path)
            if not (problems := parity.problems()):
                break
            reporter.say(f"{path}: in float: {', '.join(calibration.in_float)}: {'; '.join(problems)}")
        yield parity
