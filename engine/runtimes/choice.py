"""Which runtime computes what is given: a checkpoint, or a file that export.py wrote."""

from __future__ import annotations

import importlib
from pathlib import Path

from engine.photo_detector import PhotoDetector
from engine.runtimes.session import ArtifactPredictor
from utils.artifact_files import RUNTIMES, Kind, artifact_kind, find_weights
from utils.errors import ConfigError
from utils.quiet import native_stderr_held_back

SESSIONS = {
    "onnxruntime": ("engine.runtimes.onnxruntime_session", "OnnxRuntimeSession"),
    "openvino": ("engine.runtimes.openvino_session", "OpenVinoSession"),
    "litert": ("engine.runtimes.litert_session", "LiteRtSession"),
    "tensorflow": ("engine.runtimes.saved_model_session", "SavedModelSession"),
}
"""Modules load when they are needed: TensorFlow takes seconds."""


def load_detector(weights: str | Path, runtime: str | None = None, input_size: int | None = None) -> PhotoDetector:
    """The detector of a checkpoint, of a run's best, or of an exported file, in ``runtime`` or else the usual one.

    ``input_size``: the side of the squares it is fed, in place of that of the training. ConfigError for a runtime or a
    size that does not fit, and for a runtime that is not installed; FileError when the file is missing or damaged.
    """
    path = find_weights(weights)
    detector = load_exported(path, runtime) if artifact_kind(path) else _load_checkpoint(path, runtime)
    if input_size is not None:
        detector.use_size(input_size)
    return detector


def load_exported(path: Path, runtime: str | None = None) -> ArtifactPredictor:
    """The detector of a file that export.py wrote. Errors as ``load_detector``."""
    module, session = SESSIONS[choose(artifact_kind(path), runtime, path)]
    with native_stderr_held_back():
        return ArtifactPredictor(getattr(importlib.import_module(module), session)(path))


def choose(kind: Kind | None, runtime: str | None, weights: str | Path) -> str:
    """The runtime for files of ``kind`` (None: a checkpoint). ConfigError when the one asked for does not read it."""
    able = [name for name, kinds in RUNTIMES.items() if kind in kinds] if kind else ["tensorflow"]
    if runtime is None:
        return able[0]
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime: {runtime}: unknown: choose from {', '.join(RUNTIMES)}")
    if runtime not in able:
        what = f"of the kind {kind}" if kind else "a checkpoint"
        raise ConfigError(f"runtime: {runtime}: {weights} is {what}, which {' or '.join(able)} runs; see export.py")
    return runtime


def _load_checkpoint(path: Path, runtime: str | None) -> PhotoDetector:
    choose(None, runtime, path)
    with native_stderr_held_back():
        from engine.inference import Predictor

        return Predictor.load(path)
