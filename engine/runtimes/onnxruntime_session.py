"""ONNX files in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

from engine.runtimes.session import Arrays, require
from utils.artifact import Artifact
from utils.errors import FileError
from utils.machine import usable_cores


class OnnxRuntimeSession:
    """``path`` loaded for the CPU. FileError when it cannot be."""

    def __init__(self, path: Path) -> None:
        runtime = require("onnxruntime", "onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        # Its own count ignores which cores this process may use, and its threads would take from those that decode and
        # draw the time in which they wait for each other in a loop.
        options.intra_op_num_threads = usable_cores()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # CPUs with AVX2 but no VNNI multiply bytes by signed bytes into 16 bits, which overflow; by unsigned ones not.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base of their own
            raise FileError(f"{path}: not an ONNX file that can be used: {error}") from error
        self._names = [output.name for output in self._session.get_outputs()]
        self.artifact = Artifact.from_metadata(self._session.get_modelmeta().custom_metadata_map, path)

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name."""
        return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))
