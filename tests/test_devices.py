"""GPUs, as far as a machine without one can tell."""

import os
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from engine import workers
from engine.devices import share_gpu_memory, unused_gpu
from engine.inference import Predictor
from tests.small_run import small_spec, write_run
from utils.errors import MemoryRanOutError
from utils.machine import machine_in_words

GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev with a GPU, which is neither hidden nor used."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    return tmp_path


def test_a_gpu_that_tensorflow_cannot_use_is_told_of_with_what_to_do(
    devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = unused_gpu(devices)
    assert said is not None
    assert f"{sys.executable} -m pip install 'tensorflow[and-cuda]=={tf.__version__}'" in said
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert unused_gpu(devices) == said
    lines: list[str] = []
    monkeypatch.setattr(workers, "unused_gpu", lambda: said)
    workers.default_strategy(lines.append)
    assert lines == [said]


def test_nothing_is_said_of_a_gpu_that_is_not_there_or_hidden_or_used(
    devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for none in ("-1", "", "NoDevFiles"):
        with monkeypatch.context() as patch:
            patch.setenv("CUDA_VISIBLE_DEVICES", none)
            assert unused_gpu(devices) is None
    with monkeypatch.context() as patch:
        patch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
        assert unused_gpu(devices) is None
    (devices / "nvidia0").unlink()
    assert unused_gpu(devices) is None


def test_what_predicts_takes_the_memory_of_a_gpu_as_it_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set and then deleted, so that the end of the test takes away what it leaves.
    monkeypatch.setenv(GROWTH, "")
    monkeypatch.delenv(GROWTH)
    Predictor.load(write_run(tmp_path) / "best")
    assert os.environ[GROWTH] == "true"
    monkeypatch.setenv(GROWTH, "false")
    share_gpu_memory()
    assert os.environ[GROWTH] == "false"


def test_too_many_photos_at_once_are_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    predictor = Predictor(tf.keras.Sequential(), small_spec())
    monkeypatch.setattr(predictor, "_detect", out_of_memory)
    size = predictor.spec.input_size
    with pytest.raises(MemoryRanOutError, match=r"^finding objects: batch size: 3: does not fit into memory; make"):
        predictor.find(tf.zeros([3, size, size, 3], tf.uint8).numpy(), 0.5, 0.3)


def test_the_machine_in_words_names_the_gpus(tmp_path: Path) -> None:
    alone = machine_in_words(tmp_path / "none")
    assert " core" in alone
    for number in (1, 2):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t\t NVIDIA H{number}00\nIRQ:   \t\t {number}\n")
    assert machine_in_words(tmp_path) == f"{alone}, NVIDIA H100, NVIDIA H200"
