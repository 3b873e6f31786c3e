"""OpenVINO models, made from the ONNX model."""

from __future__ import annotations

import json
from pathlib import Path

from engine.export.folders import replacing_folder
from engine.export.to_onnx import onnx_model
from engine.inference import Predictor
from engine.runtimes.openvino_session import METADATA
from engine.runtimes.session import require
from utils.artifact import Artifact
from utils.artifact_files import OPENVINO_FILE


def write_openvino(predictor: Predictor, artifact: Artifact, path: Path) -> None:
    """Writes the folder ``path`` with model.xml and model.bin. FileError when the place cannot be written."""
    openvino = require("openvino", "openvino")
    proto = onnx_model(predictor, artifact)
    # OpenVINO has no defaults for inputs: it would make constants of them.
    inputs = {value.name for value in proto.graph.input}
    for initializer in [one for one in proto.graph.initializer if one.name in inputs]:
        proto.graph.initializer.remove(initializer)
    model = openvino.Core().read_model(proto.SerializeToString())
    model.set_rt_info(json.dumps(artifact.to_metadata()), METADATA)
    with replacing_folder(path) as folder:
        openvino.save_model(model, folder / OPENVINO_FILE, compress_to_fp16=False)
