"""The formats of export.py: what has to be installed for each, and what each can do."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from utils.errors import ConfigError


@dataclass(frozen=True)
class Format:
    """``packages`` is what writes and runs it. The others say what it cannot do, and why: empty where it can."""

    packages: tuple[str, ...]
    int8: bool = False
    no_nms: str = ""
    no_half: str = ""
    no_any_size: str = ""


ONNX = ("onnx", "tf2onnx", "onnxruntime")
OPENVINO = ("onnx", "tf2onnx", "openvino")
LITERT = ("ai_edge_litert",)
NO_COMBINED_NMS = "LiteRT has no suppression per class: export without it, boxes are found outside"
FIXED_SIDE = "LiteRT needs to know the side: export at the size of the training"
SMALLER = "its weights take 8 bits already: export without it"
FORMATS = {
    "onnx": Format(ONNX),
    "openvino": Format(OPENVINO),
    "litert": Format(LITERT, no_nms=NO_COMBINED_NMS, no_any_size=FIXED_SIDE),
    "saved_model": Format((), no_half="TensorFlow computes in the type that it stores: choose another format"),
    "onnx-int8": Format(ONNX, int8=True, no_half=SMALLER),
    "openvino-int8": Format((*OPENVINO, "nncf"), int8=True, no_half=SMALLER),
    "litert-int8": Format(LITERT, int8=True, no_nms=NO_COMBINED_NMS, no_half=SMALLER, no_any_size=FIXED_SIDE),
}


def check_formats(names: Sequence[str], calibrate: str | None, nms: bool, half: bool, any_size: bool) -> None:
    """ConfigError for what cannot be exported so, found before TensorFlow takes its seconds to load."""
    for name in names:
        form = FORMATS[name]
        wanted = {"--nms": (nms, form.no_nms), "--half": (half, form.no_half)}
        wanted["--dynamic-size"] = (any_size, form.no_any_size)
        for option, (asked, why_not) in wanted.items():
            if asked and why_not:
                raise ConfigError(f"--format {name}: {option}: {why_not}")
        for package in form.packages:
            if importlib.util.find_spec(package) is None:
                what = package.replace("_", "-")
                raise ConfigError(f"--format {name}: {what} is not installed: pip install -r requirements-export.txt")
        if form.int8 and not calibrate:
            raise ConfigError(f"--format {name}: --calibrate LIST: missing: photos are needed to set the int8 ranges")
