"""Files appear whole or not at all, whatever they are called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.errors import FileError
from utils.files import as_json, remove_leftovers, replacing, write_atomically


def test_what_is_written_is_there_with_its_folders_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "c.txt", "ü\n")
    write_atomically(tmp_path / "a" / "b" / "d.bin", b"\x00")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "ü\n".encode()
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["c.txt", "d.bin"]


def test_the_suffix_is_that_of_the_target_and_the_content_replaces_the_old(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    target.write_text("old")
    with replacing(target) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from utils.files import replacing\n"
        "writers = [replacing(name) for name in sys.argv[1:]]\n"
        "for writer in writers: writer.__enter__().write_text('half')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    kept = {"last", ".lock", ".gitignore", ".a.b", "a.0123456789ab"}
    for name in kept:
        (tmp_path / name).write_text("whole")
    targets = [str(tmp_path / name) for name in ("last", "a.b.txt", "plots/ü.png")]
    subprocess.run([sys.executable, "-c", code, *targets], cwd=ROOT, check=False)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(kept) + len(targets)
    remove_leftovers(tmp_path)
    # Others may be writing below.
    assert len(list((tmp_path / "plots").iterdir())) == 1
    remove_leftovers(tmp_path / "plots")
    remove_leftovers(tmp_path / "not there")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == kept


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_work_that_fails_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail_half_way() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    code = "import os; os.umask(0o027); from utils.files import write_atomically as w; w('a', '')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["😀" * 62 + ".txt", "細" * 82 + ".txt", "a" * 250 + ".txt"])
def test_names_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"below\.txt: cannot be written"):
        write_atomically(tmp_path / "file" / "below.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="folder: cannot be written"):
        write_atomically(tmp_path / "folder", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_pipe_stays_one_and_a_link_leads_where_it_led(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="pipe: cannot be written: is no regular file"):
        write_atomically(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "elsewhere").mkdir()
    for name in ("there", "not yet"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere" / f"{name}.txt")
    (tmp_path / "elsewhere" / "there.txt").write_text("old")
    for name in ("there", "not yet"):
        write_atomically(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "elsewhere" / f"{name}.txt").read_text() == "new"


def test_json_carries_names_that_are_no_text() -> None:
    value = {"細胞": "caf\udce9"}
    assert json.loads(as_json(value).encode()) == value
    assert as_json({"細胞": 1}, indent=1) == '{\n "細胞": 1\n}'
