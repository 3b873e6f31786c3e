"""GPUs, as far as a machine without one can tell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine import workers
from engine.classifier import Classifier
from engine.devices import gpu_advice, share_gpu_memory
from engine.inference import Predictor
from engine.runtimes.saved_model_session import SavedModelSession
from tests.conftest import ROOT
from tests.small_run import small_spec, write_run
from utils.artifact import METADATA_FILE, Artifact
from utils.errors import ConfigError, FileError, MemoryRanOutError
from utils.machine import machine_in_words, usable_memory_mib

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
    said = gpu_advice(devices)
    assert said is not None
    assert f"{sys.executable} -m pip install 'tensorflow[and-cuda]=={tf.__version__}'" in said
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_advice(devices) == said
    lines: list[str] = []
    monkeypatch.setattr(workers, "gpu_advice", lambda: said)
    workers.default_strategy(lines.append)
    assert lines == [said]


def test_nothing_is_said_of_a_gpu_that_is_not_there_or_hidden_or_used(
    devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for none in ("-1", "", "NoDevFiles"):
        with monkeypatch.context() as patch:
            patch.setenv("CUDA_VISIBLE_DEVICES", none)
            assert gpu_advice(devices) is None
    with monkeypatch.context() as patch:
        patch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
        assert gpu_advice(devices) is None
    (devices / "nvidia0").unlink()
    assert gpu_advice(devices) is None


def loaded(what: str, folder: Path) -> None:
    """Something that predicts, as far as it needs the GPU; what it is made of is not there."""
    if what == "detector":
        Predictor.load(write_run(folder) / "best")
    elif what == "classifier":
        with pytest.raises(FileError):
            Classifier.load(folder / "none")
    elif what == "official":
        with pytest.raises(ConfigError):
            Classifier.official("none", "imagenet")
    else:
        (folder / "assets").mkdir()
        described = json.dumps(Artifact(small_spec()).to_metadata())
        (folder / "assets" / METADATA_FILE).write_text(described)
        with pytest.raises(FileError):
            SavedModelSession(folder)


@pytest.mark.parametrize("what", ["detector", "classifier", "official", "saved_model"])
def test_what_predicts_takes_the_memory_of_a_gpu_as_it_needs_it(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set and then deleted, so that the end of the test takes away what it leaves.
    monkeypatch.setenv(GROWTH, "")
    monkeypatch.delenv(GROWTH)
    loaded(what, tmp_path)
    assert os.environ[GROWTH] == "true"
    monkeypatch.setenv(GROWTH, "false")
    share_gpu_memory()
    assert os.environ[GROWTH] == "false"


def out_of_memory(*_: object, **__: object) -> None:
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


@pytest.mark.parametrize("what", ["find", "objectness", "saved_model", "probabilities"])
def test_too_many_photos_at_once_are_told_in_a_line(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = np.zeros((3, 32, 32, 3), np.uint8)
    for owner in (Predictor, Classifier, SavedModelSession):
        monkeypatch.setattr(owner, "__init__", lambda self: None)
    # What each computes with is the one thing that it needs here.
    predictor, classifier, session = Predictor(), Classifier(), SavedModelSession()  # type: ignore[call-arg]
    predictor._detect = predictor._objectness = out_of_memory
    classifier._probabilities = session._serve = out_of_memory
    calls = {
        "find": lambda: predictor.find(photos, 0.5, 0.3),
        "objectness": lambda: predictor.objectness(photos),
        "saved_model": lambda: session.run({"images": photos}),
        "probabilities": lambda: classifier.probabilities(photos),
    }
    with pytest.raises(MemoryRanOutError, match=r": batch size: 3: does not fit into memory; make it or the input"):
        calls[what]()


def test_the_machine_in_words_names_the_gpus(tmp_path: Path) -> None:
    alone = machine_in_words(tmp_path / "none")
    assert " core" in alone
    for number in (1, 2):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t\t NVIDIA H{number}00\nIRQ:   \t\t {number}\n")
    assert machine_in_words(tmp_path) == f"{alone}, NVIDIA H100, NVIDIA H200"


@pytest.mark.parametrize(
    ("limits", "mib"),
    [
        ({}, 4096),
        ({"memory.max": "max\n"}, 4096),
        ({"memory.max": f"{1 << 30}\n"}, 1024),
        ({"memory/memory.limit_in_bytes": f"{1 << 31}\n"}, 2048),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 4096),
        ({"slurm/job_1/memory.max": f"{1 << 30}\n", "slurm/memory.max": f"{1 << 31}\n", "memory.max": "max\n"}, 1024),
        ({"memory/docker/memory.limit_in_bytes": f"{1 << 30}\n"}, 1024),
        ({"slurm/job_2/memory.max": f"{1 << 30}\n"}, 4096),
        ({"slurm/memory.max": f"{1 << 31}\n"}, 2048),
    ],
)
def test_memory_is_what_the_container_may_use(tmp_path: Path, limits: dict[str, str], mib: float) -> None:
    files = {
        "proc/meminfo": "MemTotal:        4194304 kB\nMemFree:          100 kB\n",
        "proc/self/cgroup": "4:cpu,memory:/docker\n2:pids:/other\n0::/slurm/job_1\n",
    }
    for name, text in {**files, **{f"sys/fs/cgroup/{name}": text for name, text in limits.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_memory_mib(tmp_path) == mib
    (tmp_path / "proc/self/cgroup").unlink()
    assert usable_memory_mib(tmp_path) == 4096


def test_this_machine_has_memory() -> None:
    assert usable_memory_mib() > 100


def test_a_training_on_two_devices_is_that_on_one(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.two_device_run", str(tmp_path)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["batch", "training"]
