"""LiteRT (TensorFlow Lite) files in LiteRT."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from engine.runtimes.session import Arrays, require
from utils.artifact import METADATA_FILE, Artifact
from utils.errors import FileError
from utils.machine import usable_cores


class LiteRtSession:
    """``path`` loaded for the CPU. FileError when it cannot be."""

    def __init__(self, path: Path) -> None:
        litert = require("ai_edge_litert.interpreter", "ai-edge-litert")
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                metadata = json.loads(archive.read(METADATA_FILE))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise FileError(f"{path}: {METADATA_FILE}: {error}: give a file that export.py wrote") from error
        self.artifact = Artifact.from_metadata(metadata, path)
        try:
            self._interpreter = litert.Interpreter(str(path), num_threads=usable_cores())
            self._interpreter.allocate_tensors()
            self._run = self._interpreter.get_signature_runner()
        except (RuntimeError, ValueError) as error:
            raise FileError(f"{path}: not a LiteRT file that can be used: {error}") from error

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name. Another batch than before makes room for itself first."""
        try:
            return self._run(**inputs)
        except (RuntimeError, ValueError) as error:
            raise FileError(f"{self._path}: cannot be computed: {error}: export it again") from error
