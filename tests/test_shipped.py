from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.classes import imagenet_class_names
from utils.shipped import own_or_shipped


def test_what_comes_along_is_found_from_any_folder_and_ones_own_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "model_data/yolo_anchors.txt"
    assert own_or_shipped(name) == ROOT / name
    (tmp_path / "model_data").mkdir()
    (tmp_path / name).write_text("1,2")
    assert own_or_shipped(name) == Path(name)


@pytest.mark.parametrize("name", ["model_data/none.txt", "README.md", "model_data_", ""])
def test_nothing_else_is_taken_from_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_or_shipped(name) == Path(name)


def test_imagenet_names_are_those_of_the_official_index_in_its_order() -> None:
    names = imagenet_class_names()
    assert (len(names), len(set(names))) == (1000, 1000)
    twice = {"crane (machine)": "crane", "maillot (tank suit)": "maillot"}
    official = [twice.get(name, name).replace(" ", "_") for name in names]
    # Of the names in imagenet_class_index.json (MD5 c2c37ea517e94d9795004a39431a14cb), joined by newlines.
    expected = "00431496b02b35ec4cfbd126430c7a150ff2d07ddc3d068de901f8e0aecdbe23"
    assert hashlib.sha256("\n".join(official).encode()).hexdigest() == expected
