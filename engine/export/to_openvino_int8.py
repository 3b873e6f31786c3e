"""OpenVINO models in int8: quantised after training, ranges from photos (NNCF)."""

from __future__ import annotations

import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from engine.export.calibration import Calibration
from engine.export.to_openvino import openvino_model, save_openvino
from engine.inference import Predictor
from engine.runtimes.session import require
from utils.artifact import Artifact

CONVOLUTIONS = ("Convolution", "GroupConvolution")


def write_openvino_int8(predictor: Predictor, artifact: Artifact, path: Path, calibration: Calibration) -> None:
    """Writes the folder ``path`` with model.xml and model.bin in int8. FileError when the place cannot be written."""
    nncf = require("nncf", "nncf")
    advanced = require("nncf.quantization.advanced_parameters", "nncf")
    # It reports every operation that it leaves alone.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = openvino_model(predictor, artifact)
    operations = [one.get_friendly_name() for one in model.get_ordered_ops() if one.get_type_name() != "Constant"]
    in_float = {*_after_the_last_convolutions(model), *calibration.kept(operations)}
    # Its progress bar is not what a program's output is for.
    with redirect_stdout(sys.stderr):
        quantised = nncf.quantize(
            model,
            nncf.Dataset(list(calibration.feeds(artifact))),
            # Asymmetric activations: swish and leaky ReLU give far more above zero than below.
            preset=nncf.QuantizationPreset.MIXED,
            # By channel, as is the rule in front of depthwise convolutions, the convolution that gives the map and the
            # one that takes it get other kernels: slower ones, and on a CPU with AMX a small detector crashed in them.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_quantization_params=advanced.QuantizationParameters(per_channel=False)
            ),
            subset_size=len(calibration.inputs),
            ignored_scope=nncf.IgnoredScope(names=sorted(in_float), validate=False),
        )
    save_openvino(quantised, artifact, path)


def _after_the_last_convolutions(model: Any) -> list[str]:
    """Names of the operations that no convolution follows: the outermost convolutions and what comes after them."""
    before: set[str] = set()
    waiting = [one for one in model.get_ordered_ops() if one.get_type_name() in CONVOLUTIONS]
    while waiting:
        for value in waiting.pop().input_values():
            source = value.get_node()
            if source.get_friendly_name() not in before:
                before.add(source.get_friendly_name())
                waiting.append(source)
    return [name for name in (one.get_friendly_name() for one in model.get_ordered_ops()) if name not in before]
