"""Ten thousand images through predict.py's code, two thousand steps of training, each in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.small_run import write_run

GROWTH_MB = 16.0
"""The results alone, were they kept, would be over 20 MB: 10,000 times some 2 kB."""


@pytest.mark.slow
def test_memory_stays_flat_over_ten_thousand_images(tmp_path):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    from engine.export.to_onnx import write_onnx
    from engine.inference import Predictor
    from utils.artifact import Artifact

    predictor = Predictor.load(write_run(tmp_path / "run") / "best")
    write_onnx(predictor, Artifact(predictor.spec), tmp_path / "tiny.onnx")
    command = [sys.executable, "-m", "benchmarks.predict_memory", str(tmp_path / "tiny.onnx"), "--score", "0.9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert "10000 images, " in done.stdout
    growth = re.search(r"growth after the first tenth: (\S+) MB", done.stdout)
    assert growth is not None
    assert float(growth[1]) < GROWTH_MB, done.stdout


GROWTH_MIB = 16.0
"""The batches alone, were they kept, would be over 80 MiB: 1,800 of four images of 64 x 64 px."""


@pytest.mark.slow
def test_memory_stays_flat_over_two_thousand_steps():
    command = [sys.executable, "-m", "benchmarks.train_memory"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    growth = re.search(r"growth after the first tenth: (\S+) MiB", done.stdout)
    assert growth is not None
    assert float(growth[1]) < GROWTH_MIB, done.stdout
