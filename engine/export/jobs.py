"""One export from the checkpoint to the last report: what export.py does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tensorflow as tf

from engine.evaluation import samples_of_list
from engine.export.calibration import Calibration, climb
from engine.export.graph import versions
from engine.export.images import photos_of_list, photos_to_compare
from engine.export.parity import Parity, ParityCheck
from engine.export.to_litert import write_litert, write_litert_int8
from engine.export.to_onnx import write_onnx
from engine.export.to_onnx_int8 import write_onnx_int8
from engine.export.to_openvino import write_openvino
from engine.export.to_openvino_int8 import write_openvino_int8
from engine.export.to_saved_model import write_saved_model
from engine.inference import Predictor
from engine.runtimes.choice import load_exported
from utils.artifact import Artifact, Precision
from utils.export_formats import FORMATS
from utils.files import replacing, writing
from utils.folders import replacing_folder
from utils.progress import Reporter

WRITERS: dict[str, tuple[Callable[..., None], str]] = {
    "onnx": (write_onnx, "{}.onnx"),
    "openvino": (write_openvino, "{}_openvino"),
    "litert": (write_litert, "{}.tflite"),
    "saved_model": (write_saved_model, "{}_saved_model"),
    "onnx-int8": (write_onnx_int8, "{}_int8.onnx"),
    "openvino-int8": (write_openvino_int8, "{}_int8_openvino"),
    "litert-int8": (write_litert_int8, "{}_int8.tflite"),
}
"""What writes each format, and the name it gets."""


@dataclass(frozen=True)
class ExportRequest:
    """What is wanted. ``measure`` and ``calibrate`` are annotation lists; photos of the latter set the int8 ranges."""

    checkpoint: Path
    formats: tuple[str, ...]
    out: Path
    nms: bool = False
    half: bool = False
    any_size: bool = False
    score: float = 0.5
    iou: float = 0.3
    license: str = "not stated"
    measure: str | None = None
    calibrate: str | None = None
    images: int = 16
    calibration_images: int = 128

    def path(self, name: str) -> Path:
        """Where the file of the format ``name`` goes."""
        marks = {"_nms": self.nms, "_dynamic": self.any_size, "_half": self.half}
        return self.out / WRITERS[name][1].format("".join([self.checkpoint.name, *(m for m in marks if marks[m])]))


def export_all(request: ExportRequest, reporter: Reporter) -> Iterator[Parity]:
    """Writes every format and yields its report as it comes.

    ConfigError for what cannot be exported so; FileError for a checkpoint that cannot be read or a place that cannot be
    written; DataError for photos that cannot be used.
    """
    # On GPUs TensorFlow rounds what goes into a convolution to 10 bits, unless it is told to compute in float32.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    predictor = Predictor.load(request.checkpoint)
    spec = predictor.spec
    same = {name: getattr(request, name) for name in ("nms", "any_size", "score", "iou", "license")}
    precision: Precision = "float16" if request.half else "float32"
    artifact = Artifact(spec, precision, versions=versions(), **same)
    fitting = photos_of_list(request.calibrate, spec, request.calibration_images) if request.calibrate else []
    ladder = climb([predictor.prepare([photo])[1] for photo in fitting], predictor.model)
    samples = []
    if request.measure:
        samples = samples_of_list(request.measure, spec.class_names, spec.ignore_exif)
    photos, where = photos_to_compare(request.checkpoint, spec, request.images)
    reporter.say(f"compared on {where}")
    check = ParityCheck.of(predictor, photos, samples, (request.score, request.iou), reporter)
    for name in request.formats:
        path = request.path(name)
        reporter.say(f"writing {path}")
        if FORMATS[name].int8:
            yield _quantised(name, path, artifact, ladder, check)
        else:
            WRITERS[name][0](predictor, artifact, path)
            yield check.compare(load_exported(path), path)


def _quantised(name: str, path: Path, artifact: Artifact, ladder: Sequence[Calibration], check: ParityCheck) -> Parity:
    """Writes an int8 file, again with more layers in float as long as its mAP is too far off and there are more.

    Where none is near enough, ``path`` is the nearest. Until one is chosen, what was there before stays.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        trials = tempfile.TemporaryDirectory(dir=path.parent, prefix=".")
    tried: list[tuple[Parity, Path]] = []
    with trials as folder:
        for number, calibration in enumerate(ladder):
            trial = Path(folder) / str(number) / path.name
            marked = replace(artifact, precision="int8", in_float=calibration.in_float)
            WRITERS[name][0](check.reference, marked, trial, calibration)
            parity = replace(check.compare(load_exported(trial), trial), path=path)
            tried.append((parity, trial))
            if not (problems := parity.problems()):
                break
            check.reporter.say(f"{path}: with {_in_words(parity)} in float: {'; '.join(problems)}")
        best, chosen = min(tried, key=lambda one: one[0].map_gap)  # of equals the first, with the least in float
        if best is not parity:
            check.reporter.say(f"{path}: kept is the nearest, with {_in_words(best)} in float")
        with (replacing_folder if chosen.is_dir() else replacing)(path) as new:
            os.replace(chosen, new)
    return best


def _in_words(parity: Parity) -> str:
    return ", ".join(parity.artifact.in_float)
