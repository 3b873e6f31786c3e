"""The function that goes into exported files: raw pixels in, logits or boxes out, nothing of Python left in it."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import tensorflow as tf

from engine.inference import Predictor
from utils.artifact import Artifact
from utils.machine import package_versions

PACKAGES = ("onnx", "tf2onnx", "onnxruntime", "openvino", "nncf", "ai-edge-litert")


def serving_function(predictor: Predictor, artifact: Artifact) -> Any:
    """``images`` uint8 [B, S, S, 3], and with suppression inside ``score`` and ``iou`` -> outputs by name.

    A ``tf.function`` with one signature, as ``Artifact.to_metadata`` describes it. The batch is open, the side only
    where that is asked for: shapes that are known make the graph smaller and faster.
    """
    side = None if artifact.any_size else predictor.spec.input_size
    images = tf.TensorSpec([None, side, side, 3], tf.uint8, name="images")
    if not artifact.nms:
        return tf.function(lambda images: _named(predictor.raw_graph(images)), input_signature=[images])
    thresholds = [tf.TensorSpec([], tf.float32, name=name) for name in ("score", "iou")]

    def detect(images: Any, score: Any, iou: Any) -> dict[str, Any]:
        return _named(predictor.detect_graph(images, score, iou)._asdict())

    return tf.function(detect, input_signature=[images, *thresholds])


def versions() -> dict[str, str]:
    """The versions that made a file, for the record."""
    found = package_versions()
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _named(outputs: dict[str, Any]) -> dict[str, Any]:
    return {name: tf.identity(value, name=name) for name, value in outputs.items()}
