"""TensorFlow SavedModels, for TensorFlow Serving and its relatives."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import tensorflow as tf

from engine.export.graph import serving_function
from engine.inference import Predictor
from utils.artifact import METADATA_FILE, Artifact
from utils.folders import replacing_folder


def write_saved_model(predictor: Predictor, artifact: Artifact, path: Path) -> None:
    """Writes the folder ``path`` with the signature ``serving_default``. FileError when it cannot be written."""
    module = tf.Module()
    module.model = predictor.model  # owns the weights of the function
    module.serve = serving_function(predictor, artifact)
    with tempfile.TemporaryDirectory() as place, replacing_folder(path) as folder:
        metadata = Path(place) / METADATA_FILE
        metadata.write_text(json.dumps(artifact.to_metadata(), indent=1), "utf-8")
        module.metadata = tf.saved_model.Asset(str(metadata))
        signatures = {"serving_default": module.serve.get_concrete_function()}
        tf.saved_model.save(module, str(folder), signatures)
