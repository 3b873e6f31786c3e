"""TensorFlow SavedModels."""

from __future__ import annotations

import json
from pathlib import Path

import tensorflow as tf

from engine.devices import share_gpu_memory
from engine.memory import SMALLER, within_memory
from engine.runtimes.session import Arrays
from utils.artifact import METADATA_FILE, Artifact
from utils.errors import FileError


class SavedModelSession:
    """``path``, a folder, loaded. FileError when it cannot be."""

    def __init__(self, path: Path) -> None:
        try:
            metadata = json.loads((path / "assets" / METADATA_FILE).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise FileError(f"{path}: {METADATA_FILE}: {error}: give a folder that export.py wrote") from error
        self.artifact = Artifact.from_metadata(metadata, path)
        share_gpu_memory()
        try:
            self._loaded = tf.saved_model.load(str(path))  # owns what its functions use
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise FileError(f"{path}: cannot be loaded: {error}") from error
        self._serve = self._loaded.signatures["serving_default"]

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name. MemoryRanOutError where the inputs are too many at once."""
        with within_memory("finding objects", max(map(len, inputs.values())), SMALLER):
            tensors = {name: tf.constant(value) for name, value in inputs.items()}
            return {name: value.numpy() for name, value in self._serve(**tensors).items()}
