"""Where the demo works, without its doors."""

from __future__ import annotations

from pathlib import Path

import pytest

import demo
from utils.errors import ConfigError


def test_the_folder_is_the_callers_whatever_folder_the_doors_run_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, ...]] = []

    def door(*words: str) -> None:
        opened.append(words)
        if words[0] == "predict.py":
            raise InterruptedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "_door", door)
    monkeypatch.setattr(demo, "_test_photos", lambda year_dir: [str(year_dir / "JPEGImages" / "a.jpg")])
    with pytest.raises(InterruptedError):
        demo.main(["--out", "mine", "--config", "own.yaml"])
    assert [words[0] for words in opened] == [
        "make_dataset.py",
        "voc_annotation.py",
        "kmeans_for_anchors.py",
        "train.py",
        "get_map.py",
        "predict.py",
    ]
    assert ("make_dataset.py", "--out", str(tmp_path / "mine" / "VOCdevkit")) == opened[0][:3]
    for _, *words in opened:
        for word in words:
            assert not word.startswith(("mine", "own.yaml"))


def test_only_what_a_demo_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_door", lambda *words: (_ for _ in ()).throw(InterruptedError))
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="did not make"):
        demo.main(["--out", str(tmp_path)])
    assert (tmp_path / "thesis.txt").exists()

    again = tmp_path / "demo"
    for _ in range(2):
        with pytest.raises(InterruptedError):
            demo.main(["--out", str(again)])
        (again / "left.txt").touch()
    with pytest.raises(InterruptedError):
        demo.main(["--out", str(again)])
    assert not (again / "left.txt").exists()


def test_a_door_that_fails_is_named_with_its_exit_code() -> None:
    with pytest.raises(demo.DoorFailedError, match=r"voc_annotation\.py: ended with exit code 2") as caught:
        demo._door("voc_annotation.py", "--no-such-flag")
    assert caught.value.exit_code == 2
