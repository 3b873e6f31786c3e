"""The formats of export.py, and what has to be installed for each."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from utils.errors import ConfigError

PACKAGES: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "tf2onnx", "onnxruntime"),
    "openvino": ("onnx", "tf2onnx", "openvino"),
    "saved_model": (),
    "onnx-int8": ("onnx", "tf2onnx", "onnxruntime"),
    "openvino-int8": ("onnx", "tf2onnx", "openvino", "nncf"),
}
INT8 = ("onnx-int8", "openvino-int8")


def check_formats(formats: Sequence[str], nms: bool, calibrate: str | None) -> None:
    """ConfigError for what cannot be exported so, found before TensorFlow takes its seconds to load."""
    for name in formats:
        for package in PACKAGES[name]:
            if importlib.util.find_spec(package) is None:
                what = package.replace("_", "-")
                raise ConfigError(f"--format {name}: {what} is not installed: pip install -r requirements-export.txt")
        if name in INT8 and not calibrate:
            raise ConfigError(f"--format {name}: --calibrate LIST: missing: photos are needed to set the int8 ranges")
