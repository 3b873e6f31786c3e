from __future__ import annotations

import json
import subprocess
import sys

import keras
import pytest

from nets.backbones import BACKBONES, build_classifier
from nets.cost import multiply_adds
from tests.conftest import ROOT


def test_counted_by_hand() -> None:
    inputs = keras.Input((8, 6, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)  # 4 * 3 positions, 3 * 3 * 3 * 4 each = 1296
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(3, padding="valid")(x)  # 2 * 1 positions, 3 * 3 * 4 each = 72
    x = keras.layers.Conv2D(6, 1, groups=2)(x)  # 2 positions, 2 * 6 each = 24
    x = keras.layers.Dense(5)(keras.layers.Flatten()(x))  # 12 * 5 = 60
    model = keras.Model(inputs, x)
    assert multiply_adds(model) == 1296 + 72 + 24 + 60
    outer = keras.Input((8, 6, 3))
    assert multiply_adds(keras.Model(outer, keras.layers.Dense(2)(model(outer)))) == 1452 + 10


def test_unknown_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="conv1: size unknown"):
        multiply_adds(build_classifier("mobilenet_v1_0.25"))


# Millions at the default size: arXiv:1704.04861 tables 4 and 8, arXiv:1801.04381 table 4, and the tables of Keras and
# of the networks' authors (EfficientNet-B0 0.39 billion, DenseNet-121 2.83 billion).
@pytest.mark.parametrize(
    ("name", "published", "within"),
    [
        ("mobilenet_v1_1.0", 569, 0.005),
        ("mobilenet_v1_0.5", 149, 0.01),
        ("mobilenet_v1_1.0_shallow", 307, 0.005),
        ("mobilenet_v2_1.0", 300, 0.005),
        ("mobilenet_v2_1.4", 585, 0.01),
        ("efficientnet_b0", 390, 0.02),
        ("densenet121", 2834, 0.005),
    ],
)
def test_published_counts(name: str, published: int, within: float) -> None:
    size = BACKBONES[name].default_size
    assert multiply_adds(build_classifier(name, input_shape=(size, size, 3))) / 1e6 == pytest.approx(published, within)


def test_the_command_prints_what_was_asked_for_and_nothing_else() -> None:
    command = [sys.executable, "-m", "nets.backbones", "mobilenet_v1_0.25", "mobilenet_v1_0.3_shallow"]
    as_json = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = json.loads(as_json.stdout)
    assert (first["name"], first["size"], first["parameters"]) == ("mobilenet_v1_0.25", 224, 475_544)
    assert first["head_widths"] == [32, 64, 128]
    assert first["detector_parameters"] > first["parameters_without_top"] == 475_544 - 257_000
    assert second["imagenet_file"] is None
    # What takes long says how far it is, on a slow machine this too.
    assert all(line.startswith("building: ") for line in as_json.stderr.splitlines())
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "mobilenet_v1_0.3_shallow" in table.stdout
    assert "0.48" in table.stdout


def test_the_command_refuses_unknown_names() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nets.backbones", "mobilenet_v3"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "mobilenet_v3: unknown" in done.stderr
