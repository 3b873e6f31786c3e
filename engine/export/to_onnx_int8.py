"""ONNX files in int8: quantised after training, ranges from photos (ONNX Runtime's static quantisation, QDQ)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.export.to_onnx import onnx_model
from engine.inference import Predictor
from engine.runtimes.session import require
from utils.artifact import Artifact
from utils.files import write_atomically
from utils.types import ImageArray


def write_onnx_int8(predictor: Predictor, artifact: Artifact, path: Path, inputs: Sequence[ImageArray]) -> None:
    """Writes the detector as an int8 ONNX file, its ranges taken from ``inputs`` [1, S, S, 3] each.

    The convolutions that give the logits stay in float: their outputs are what decoding reads, at full precision.
    """
    onnx = require("onnx", "onnx")
    quantization = require("onnxruntime.quantization", "onnxruntime")
    with tempfile.TemporaryDirectory() as place:
        float_file, prepared, int8_file = (Path(place) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(onnx_model(predictor, artifact), float_file)
        quantization.shape_inference.quant_pre_process(float_file, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        logging.getLogger().setLevel(logging.ERROR)
        quantization.quantize_static(
            prepared,
            int8_file,
            _reader(quantization, inputs),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_outermost_convolutions(graph),
        )
        model = onnx.load(int8_file)
    onnx.helper.set_model_props(model, artifact.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString())


def _reader(quantization: Any, inputs: Sequence[ImageArray]) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest: Iterator[dict[str, ImageArray]] = ({"images": one} for one in inputs)

        def get_next(self) -> dict[str, ImageArray] | None:
            return next(self._rest, None)

    return Reader()


def _outermost_convolutions(graph: Any) -> list[str]:
    """Names of the convolutions that each output comes from, and of what lies between."""
    makers = {output: node for node in graph.node for output in node.output}
    found = []
    for output in graph.output:
        node = makers[output.name]
        found.append(node.name)
        while node.op_type != "Conv":
            node = makers[node.input[0]]
            found.append(node.name)
    return found
