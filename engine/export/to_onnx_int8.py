"""ONNX files in int8: quantised after training, ranges from photos (ONNX Runtime's static quantisation, QDQ)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.export.calibration import Calibration
from engine.export.to_onnx import onnx_model
from engine.inference import Predictor
from engine.runtimes.session import require
from utils.artifact import Artifact
from utils.files import write_atomically
from utils.quiet import native_stderr_held_back


def write_onnx_int8(predictor: Predictor, artifact: Artifact, path: Path, calibration: Calibration) -> None:
    """Writes the detector as an int8 ONNX file. FileError when the place cannot be written."""
    onnx = require("onnx", "onnx")
    quantization = require("onnxruntime.quantization", "onnxruntime")
    # Its sessions warn of initializers that are inputs, as the thresholds are.
    with tempfile.TemporaryDirectory() as place, native_stderr_held_back():
        float_file, prepared, int8_file = (Path(place) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(onnx_model(predictor, artifact), float_file)
        logging.getLogger().setLevel(logging.ERROR)
        quantization.shape_inference.quant_pre_process(float_file, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        quantization.quantize_static(
            prepared,
            int8_file,
            _reader(quantization, calibration.feeds(artifact)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_after_the_last_convolutions(graph) + calibration.kept(node.name for node in graph.node),
        )
        model = onnx.load(int8_file)
    onnx.helper.set_model_props(model, artifact.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString())


def _reader(quantization: Any, feeds: Iterator[dict[str, Any]]) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    return Reader()


def _after_the_last_convolutions(graph: Any) -> list[str]:
    """Names of the nodes that no convolution follows: the outermost convolutions and what comes after them."""
    makers = {output: node for node in graph.node for output in node.output}
    before: set[str] = set()
    waiting = [node for node in graph.node if node.op_type == "Conv"]
    while waiting:
        for source in filter(None, map(makers.get, waiting.pop().input)):
            if source.name not in before:
                before.add(source.name)
                waiting.append(source)
    return [node.name for node in graph.node if node.name not in before]
