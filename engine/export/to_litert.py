"""LiteRT (TensorFlow Lite) files, for phones and small computers."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
import zipfile
from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from engine.export.calibration import Calibration
from engine.export.graph import serving_function
from engine.inference import Predictor
from engine.runtimes.session import require
from utils.artifact import METADATA_FILE, Artifact
from utils.files import write_atomically
from utils.quiet import native_stderr_held_back


def write_litert(predictor: Predictor, artifact: Artifact, path: Path) -> None:
    """Writes a .tflite file, in float32 or with weights in float16. FileError when the place cannot be written."""
    with tempfile.TemporaryDirectory() as folder, native_stderr_held_back():
        _save_frozen(predictor, artifact, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if artifact.precision == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        model = converter.convert()
    _write(model, artifact, path)


def write_litert_int8(predictor: Predictor, artifact: Artifact, path: Path, calibration: Calibration) -> None:
    """Writes a .tflite file in int8 whose input stays uint8 and whose outputs float32. Errors as ``write_litert``."""
    with tempfile.TemporaryDirectory() as folder, native_stderr_held_back(), warnings.catch_warnings():
        # What quantises selectively still uses the interpreter of TensorFlow, which says that it will go.
        warnings.simplefilter("ignore", UserWarning)
        _save_frozen(predictor, artifact, folder)
        in_float = _in_float(tf.lite.TFLiteConverter.from_saved_model(folder).convert(), calibration)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: calibration.feeds(artifact)
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=in_float)
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
        )
        model = debugger.get_nondebug_quantized_model()
    _write(model, artifact, path)


def _save_frozen(predictor: Predictor, artifact: Artifact, folder: str) -> None:
    """A SavedModel without variables, which the converter would keep as such and fold no batch normalization.

    And without the gradients that swish brings along, which cannot be saved once the graph is frozen.
    """
    function = serving_function(predictor, artifact)
    traced = function.get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced)
    names = sorted(traced.structured_outputs)  # the order in which TensorFlow flattens a dictionary
    named = tf.function(
        lambda images: dict(zip(names, frozen(images), strict=True)), input_signature=function.input_signature
    )
    signatures = {"serving_default": named.get_concrete_function()}
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(tf.Module(), folder, signatures, options)


def _in_float(model: bytes, calibration: Calibration) -> list[str]:
    """Names of the tensors of the float ``model`` whose operations stay in float: outputs, and what rungs name."""
    interpreter = require("ai_edge_litert.interpreter", "ai-edge-litert").Interpreter(model_content=model)
    outputs = [one["name"] for one in interpreter.get_output_details()]
    return outputs + calibration.kept(one["name"] for one in interpreter.get_tensor_details())


def _write(model: bytes, artifact: Artifact, path: Path) -> None:
    """Appends the metadata as a ZIP archive, where LiteRT's own tools look for files that belong to a model."""
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(METADATA_FILE, json.dumps(artifact.to_metadata(), indent=1))
    write_atomically(path, file.getvalue())
