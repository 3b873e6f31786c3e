from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
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
