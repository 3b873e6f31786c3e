"""ONNX files, converted by tf2onnx."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from engine.export.graph import serving_function
from engine.inference import Predictor
from engine.runtimes.session import require
from utils.artifact import Artifact
from utils.files import write_atomically

OPSET = 18
"""Old enough for runtimes of 2023, new enough to need no workarounds."""


def write_onnx(predictor: Predictor, artifact: Artifact, path: Path) -> None:
    """Writes the detector as an ONNX file. FileError when the place cannot be written."""
    write_atomically(path, onnx_model(predictor, artifact).SerializeToString())


def onnx_model(predictor: Predictor, artifact: Artifact) -> Any:
    """The detector as an ONNX ModelProto, checked by ONNX's own checker."""
    onnx = require("onnx", "onnx")
    tf2onnx = require("tf2onnx", "tf2onnx")
    # It reports every step of its work as a warning.
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = serving_function(predictor, artifact)
    model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    model.graph.name = "detector"
    model.graph.doc_string = ""
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    if artifact.precision == "float16":
        _halve_kernels(onnx, model)
    if artifact.nms:
        # An initializer with the name of an input is its default: runtimes need not be given it.
        defaults = {"score": artifact.score, "iou": artifact.iou}
        tensor = onnx.helper.make_tensor
        float32 = onnx.TensorProto.FLOAT
        model.graph.initializer.extend(tensor(name, float32, [], [value]) for name, value in defaults.items())
    onnx.helper.set_model_props(model, artifact.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    return model


def _halve_kernels(onnx: Any, model: Any) -> None:
    """Stores the kernels of convolutions in float16; a Cast to float32, which runtimes do once at loading, follows.

    The whole network in float16 would be slower on CPUs, which compute it through float32, and less exact.
    """
    kernels = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    casts = []
    for tensor in [one for one in model.graph.initializer if one.name in kernels]:
        half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
