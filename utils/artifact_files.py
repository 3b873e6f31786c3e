"""Exported files by their names: which format each is, and which runtimes read it. Loads nothing, for the doors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from utils.errors import FileError
from utils.run_files import find_checkpoint

SAVED_MODEL_FILE = "saved_model.pb"
OPENVINO_FILE = "model.xml"

Kind = Literal["onnx", "openvino", "litert", "saved_model"]
RUNTIMES: dict[str, tuple[Kind, ...]] = {
    "onnxruntime": ("onnx",),
    "openvino": ("openvino", "onnx"),
    "litert": ("litert",),
    "tensorflow": ("saved_model",),
}
"""What each runtime reads; of several that read a kind the first is taken. TensorFlow also runs checkpoints."""


def artifact_kind(path: str | Path) -> Kind | None:
    """The format of an exported file or folder by its name and contents; None for anything else."""
    place = Path(path)
    if place.is_dir():
        found: dict[str, Kind] = {SAVED_MODEL_FILE: "saved_model", OPENVINO_FILE: "openvino"}
        return next((kind for name, kind in found.items() if (place / name).is_file()), None)
    suffixes: dict[str, Kind] = {".onnx": "onnx", ".xml": "openvino", ".tflite": "litert"}
    return suffixes.get(place.suffix)


def find_weights(weights: str | Path) -> Path:
    """The exported file or folder that ``weights`` names, else the checkpoint that ``find_checkpoint`` finds.

    FileError when there is none.
    """
    if artifact_kind(weights) is None:
        return find_checkpoint(weights)
    if not Path(weights).exists():
        raise FileError(f"{weights}: no such file: export.py writes them")
    return Path(weights)
