"""OpenVINO models, made from the ONNX model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.export.to_onnx import onnx_model
from engine.inference import Predictor
from engine.runtimes.openvino_session import METADATA, openvino_core
from engine.runtimes.session import require
from utils.artifact import Artifact
from utils.artifact_files import OPENVINO_FILE
from utils.folders import replacing_folder


def write_openvino(predictor: Predictor, artifact: Artifact, path: Path) -> None:
    """Writes the folder ``path`` with model.xml and model.bin. FileError when the place cannot be written."""
    save_openvino(openvino_model(predictor, artifact), artifact, path)


def openvino_model(predictor: Predictor, artifact: Artifact) -> Any:
    """The detector as an OpenVINO model in float32, whatever ``artifact`` says of precision."""
    proto = onnx_model(predictor, replace(artifact, precision="float32"))
    # OpenVINO has no defaults for inputs: it would make constants of them.
    inputs = {value.name for value in proto.graph.input}
    for initializer in [one for one in proto.graph.initializer if one.name in inputs]:
        proto.graph.initializer.remove(initializer)
    model = openvino_core().read_model(proto.SerializeToString())
    _simplify(model)
    return model


def _simplify(model: Any) -> None:
    """What OpenVINO's own converter does to every model: x * sigmoid(x) becomes one Swish, shapes become constants.

    The quantiser puts nothing inside a Swish, so that its convolution computes it on the way, in int8 too; between the
    two operations it would put a rounding of its own, and each would go over memory alone.
    """
    require("openvino._offline_transformations", "openvino").apply_moc_transformations(model, cf=False)


def save_openvino(model: Any, artifact: Artifact, path: Path) -> None:
    """Writes ``model`` with what ``artifact`` says of it as the folder ``path``."""
    openvino = require("openvino", "openvino")
    model.set_rt_info(json.dumps(artifact.to_metadata()), METADATA)
    with replacing_folder(path) as folder:
        openvino.save_model(model, folder / OPENVINO_FILE, compress_to_fp16=artifact.precision == "float16")
