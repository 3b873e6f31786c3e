from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.checkpoint import Checkpoint, is_checkpoint, read_checkpoint, save_checkpoint
from tests.conftest import ROOT
from tests.specs import detector_spec
from utils.errors import FileError

SPEC = detector_spec(class_names=("Zelle", "細胞", "a b"))


def small(seed: int = 0) -> Checkpoint:
    rng = np.random.default_rng(seed)
    tensors = {"model/a/kernel": rng.normal(size=(3, 4)).astype(np.float32), "optimizer/step": np.int64(7)}
    return Checkpoint(SPEC, {k: np.asarray(v) for k, v in tensors.items()}, {"epoch": 3, "note": "ü"})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "deep" / "last", small())
    back = read_checkpoint(tmp_path / "deep" / "last")
    assert back.spec == SPEC
    assert back.info == {"epoch": 3, "note": "ü"}
    assert set(back.tensors) == {"model/a/kernel", "optimizer/step"}
    np.testing.assert_array_equal(back.group("model")["a/kernel"], small().tensors["model/a/kernel"])
    assert back.group("optimizer")["step"] == 7
    assert back.group("optimizer")["step"].shape == ()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["last"]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "last"
    save_checkpoint(path, small())
    good = path.read_bytes()
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        with pytest.raises(FileError, match="last"):
            read_checkpoint(path)


@pytest.mark.parametrize("kept", [0, 5, 40, 600, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "last"
    save_checkpoint(path, small())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FileError):
        read_checkpoint(path)


FOREIGN = [b"", b"<html>not found</html>", b"\x80\x04\x95pickle", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"]


@pytest.mark.parametrize("content", FOREIGN)
def test_foreign_files_are_refused_and_nothing_runs(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best"
    path.write_bytes(content)
    assert not is_checkpoint(path)
    with pytest.raises(FileError, match="not a checkpoint"):
        read_checkpoint(path)


def test_missing_files_and_directories_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="pipe: is no regular file"):
        read_checkpoint(tmp_path / "pipe")
    with pytest.raises(FileError, match="No such file"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileError, match="is a directory"):
        read_checkpoint(tmp_path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last"
    save_checkpoint(path, small(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        save_checkpoint(path, small(2))
    np.testing.assert_array_equal(read_checkpoint(path).tensors["model/a/kernel"], small(1).tensors["model/a/kernel"])
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def seeds_in(*paths: Path) -> list[int]:
    """Which of the ``small`` checkpoints each is."""
    kernels = [read_checkpoint(path).tensors["model/a/kernel"] for path in paths]
    known = [small(seed).tensors["model/a/kernel"] for seed in range(4)]
    return [next(seed for seed, one in enumerate(known) if np.array_equal(one, kernel)) for kernel in kernels]


@pytest.mark.parametrize("links", [True, False])
def test_the_one_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    last, previous = tmp_path / "last", tmp_path / "previous"
    save_checkpoint(last, small(0), previous)
    assert not previous.exists()
    for seed in (1, 2):
        save_checkpoint(last, small(seed), previous)
        assert seeds_in(last, previous) == [seed, seed - 1]
    assert {path.name for path in tmp_path.iterdir()} == {"last", "previous"}


def test_a_last_that_is_a_link_to_another_disk_stays_one_and_loses_nothing(tmp_path):
    (tmp_path / "disk").mkdir()
    last, previous = tmp_path / "last", tmp_path / "previous"
    save_checkpoint(last, small(0), previous)
    last.rename(tmp_path / "disk" / "last")
    last.symlink_to(tmp_path / "disk" / "last")
    for seed in (1, 2, 3):
        save_checkpoint(last, small(seed), previous)
        assert seeds_in(last, previous) == [seed, seed - 1]
    assert last.is_symlink()


class KilledError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("links", [True, False])
def test_killed_at_any_moment_of_a_save_two_different_checkpoints_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    left = 0

    def counted(act: Callable[..., None]) -> Callable[..., None]:
        def acting(*arguments: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            if act is link and not links:
                raise OSError(1, "Operation not permitted")
            act(*arguments)

        return acting

    link = os.link
    for name in ("fsync", "link", "replace"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    last, previous = tmp_path / "last", tmp_path / "previous"
    remained = []
    for moment in itertools.count():
        left = 100
        for seed in (0, 1):
            save_checkpoint(last, small(seed), previous)
        left = moment
        try:
            save_checkpoint(last, small(2), previous)
        except KilledError:
            remained.append(seeds_in(last, previous))
        else:
            break
    # Writing, the second name, the change of names: each can be the last.
    assert len(remained) == (4 if links else 5)
    assert [1, 0] in remained
    assert all(seeds in ([1, 0], [2, 0], [2, 1]) for seeds in remained)


def test_equal_states_have_equal_digests_and_others_have_not(tmp_path: Path) -> None:
    def digest(info: dict | None = None, **tensors: np.ndarray) -> str:
        return Checkpoint(SPEC, tensors, info or {}).digest()

    a, b = np.arange(4, dtype=np.float32), np.ones((2, 2), np.float32)
    save_checkpoint(tmp_path / "last", Checkpoint(SPEC, {"b": b, "a": a}, {"position": {"step": 3, "best": 0.1}}))
    same = digest({"position": {"best": 0.1, "step": 3}, "metrics": {"seconds": 5}}, a=a, b=b)
    assert read_checkpoint(tmp_path / "last").digest() == same
    nearly = np.nextafter(a, 5)
    others = [
        digest(a=a, b=b),
        digest(a=b, b=a),
        digest(a=nearly, b=b),
        digest(a=a.reshape(2, 2), b=b),
        digest(a=a.view(np.int32), b=b),
        digest(a=a),
        digest(a=a, c=b),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_any_safetensors_reader_can_read_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best", small())
    code = f"from safetensors.numpy import load_file; print(sorted(load_file({str(tmp_path / 'best')!r})))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.strip() == "['model/a/kernel', 'optimizer/step']"


def test_a_checkpoint_is_known_whatever_its_class_list_is(tmp_path: Path) -> None:
    # The entries of the metadata come in an order of their own in every file.
    spec = detector_spec(class_names=tuple(f"class number {i}" for i in range(500)))
    for number in range(12):
        path = tmp_path / str(number)
        save_checkpoint(path, Checkpoint(spec, small().tensors, {}))
        assert is_checkpoint(path)
