from __future__ import annotations

import os
from pathlib import Path

import pytest

from utils.errors import FileError
from utils.folders import replacing_folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_folder_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / ("plots" + 249 * "x")  # the longest name that a folder may have
    for names in (["a.png", "b.png"], ["c.png"]):
        with replacing_folder(target) as fresh:
            assert names_in(fresh) == []
            for name in names:
                (fresh / name).touch()
        assert names_in(target) == names
    assert names_in(target.parent) == [target.name]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "plots"
    target.mkdir()
    (target / "old.png").touch()

    def fail() -> None:
        with replacing_folder(target) as fresh:
            (fresh / "new.png").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert names_in(target) == ["old.png"]
    assert names_in(tmp_path) == ["plots"]


def test_the_old_one_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    target = tmp_path / "plots"
    target.mkdir()
    (target / "old.png").touch()
    replace = os.replace

    def refuse_fresh(source: Path, place: Path) -> None:
        if Path(source).name == "fresh":
            raise OSError(28, "No space left on device")
        replace(source, place)

    monkeypatch.setattr("utils.folders.os.replace", refuse_fresh)
    with pytest.raises(FileError, match=r"plots: cannot be written: No space left"), replacing_folder(target):
        pass
    assert names_in(target) == ["old.png"]
    assert names_in(tmp_path) == ["plots"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"plots: cannot be written"), replacing_folder(tmp_path / "file" / "plots"):
        pass
