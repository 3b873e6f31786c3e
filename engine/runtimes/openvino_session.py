"""OpenVINO models, and ONNX files, in OpenVINO."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.runtimes.session import Arrays, require
from utils.artifact import Artifact
from utils.artifact_files import OPENVINO_FILE
from utils.errors import ConfigError, FileError

METADATA = "efficientnet_yolo3"
"""The section of rt_info that holds ``Artifact.to_metadata``, as one JSON text."""


@cache
def openvino_core() -> Any:
    """The only Core of this process, which lasts as long as it does. ConfigError where OpenVINO is missing.

    A Core's CPU plugin gives the main thread a stack for signals, and when it ends puts back the one that it found. Of
    two that end in the order in which they began, the second puts back freed memory, and Ctrl-C becomes a
    segmentation fault.
    """
    return require("openvino", "openvino").Core()


class OpenVinoSession:
    """``path``, a folder that export.py wrote, its model.xml or an ONNX file, compiled for the CPU in float32.

    Without being told, OpenVINO computes in bfloat16 where the CPU can, and the boxes move. ConfigError for an
    ONNX file with suppression inside, whose defaults OpenVINO takes for constants.
    """

    def __init__(self, path: Path) -> None:
        core = openvino_core()
        file = path / OPENVINO_FILE if path.is_dir() else path
        try:
            model = core.read_model(file)
            self._compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise FileError(f"{file}: not a model that OpenVINO can use: {error}") from error
        self.artifact = Artifact.from_metadata(_metadata(model, path), path)
        if self.artifact.nms and len(model.inputs) == 1:
            raise ConfigError(f"{path}: OpenVINO would fix its thresholds: export with --format openvino for it")

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name."""
        found = self._compiled(dict(inputs), share_inputs=True)
        return {output.get_any_name(): np.asarray(value) for output, value in found.items()}


def _metadata(model: Any, path: Path) -> dict[str, str]:
    if model.has_rt_info(METADATA):
        try:
            return json.loads(model.get_rt_info(METADATA).astype(str))
        except ValueError as error:
            raise FileError(f"{path}: {METADATA}: {error}: give a file that export.py wrote") from error
    # The reader of ONNX files puts their metadata here.
    if model.has_rt_info("framework"):
        return {name: value.astype(str) for name, value in model.get_rt_info("framework").astype(dict).items()}
    return {}
