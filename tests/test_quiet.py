from __future__ import annotations

import os

import pytest

from utils.errors import FileError
from utils.quiet import native_stderr_held_back, quieten_libraries


def test_what_native_code_says_is_dropped_when_all_is_well(capfd):
    with native_stderr_held_back():
        os.write(2, b"chatter")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_it_comes_after_all_when_something_fails(capfd):
    def fail() -> None:
        with native_stderr_held_back():
            os.write(2, b"the reason")
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert capfd.readouterr().err == "the reason"


def test_an_error_that_says_it_all_stays_the_only_line(capfd):
    def refuse() -> None:
        with native_stderr_held_back():
            os.write(2, b"chatter")
            raise FileError("best: checksum: does not match")

    with pytest.raises(FileError):
        refuse()
    assert capfd.readouterr().err == ""


def test_levels_that_the_user_set_stay(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.delenv("OPENCV_LOG_LEVEL", raising=False)
    quieten_libraries()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert os.environ.pop("OPENCV_LOG_LEVEL") == "SILENT"
