from __future__ import annotations

from pathlib import Path

import pytest

from engine.runtimes.choice import SESSIONS, choose, load_detector
from tests.small_run import small_spec
from utils.artifact import Artifact
from utils.artifact_files import RUNTIMES, artifact_kind
from utils.errors import ConfigError, FileError


def test_what_a_file_says_of_itself_reads_back() -> None:
    artifact = Artifact(small_spec(), "int8", ("logits",), True, True, 0.25, 1 / 3, "CC BY 4.0 — 细胞", {"onnx": "1"})
    metadata = artifact.to_metadata()
    assert "".join(metadata.values()).isascii()
    assert Artifact.from_metadata(metadata, "x") == artifact


def test_a_foreign_file_is_told_from_one_of_another_version() -> None:
    with pytest.raises(FileError, match="says nothing of a detector"):
        Artifact.from_metadata({"names": "{0: 'cat'}"}, "x.onnx")
    for change in ({"detector": "{}"}, {"precision": "int4"}):
        with pytest.raises(FileError, match="another version"):
            Artifact.from_metadata({**Artifact(small_spec()).to_metadata(), **change}, "x.onnx")


def test_kinds_are_told_by_name_and_content(tmp_path: Path) -> None:
    for name in ("ov", "sm", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "ov" / "model.xml").touch()
    (tmp_path / "sm" / "saved_model.pb").touch()
    (tmp_path / "run" / "best").touch()
    names = {"ov": "openvino", "sm": "saved_model", "ov/model.xml": "openvino", "a.onnx": "onnx"}
    assert {name: artifact_kind(tmp_path / name) for name in names} == names
    assert artifact_kind(tmp_path / "run") is None
    assert artifact_kind(tmp_path / "run" / "best") is None


def test_every_runtime_has_its_session() -> None:
    assert set(RUNTIMES) == set(SESSIONS)


def test_the_runtime_fits_or_is_refused() -> None:
    assert choose("onnx", None, "a.onnx") == "onnxruntime"
    assert choose("onnx", "openvino", "a.onnx") == "openvino"
    assert choose(None, None, "best") == choose(None, "tensorflow", "best") == "tensorflow"
    with pytest.raises(ConfigError, match=r"onnxruntime: best is a checkpoint, which tensorflow runs; see export.py"):
        choose(None, "onnxruntime", "best")
    with pytest.raises(ConfigError, match=r"a\.onnx is of the kind onnx, which onnxruntime or openvino runs"):
        choose("onnx", "tensorflow", "a.onnx")
    with pytest.raises(ConfigError, match="unknown"):
        choose("onnx", "onnxrt", "a.onnx")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        load_detector(tmp_path / "gone.onnx")
