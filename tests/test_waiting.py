"""How long data was waited for, and who is told where none comes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine import waiting
from engine.interrupts import StoppedError
from engine.waiting import Waiting
from tests.runs_watched import Heard
from utils.at_work import at_work_on


def test_waiting_is_what_the_items_took_and_not_what_was_done_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock[0])

    def items():
        for number in range(3):
            clock[0] += 2
            yield number

    waited = Waiting()
    for _ in waited.over(items()):
        clock[0] += 100
    assert waited.seconds == 6


@pytest.mark.parametrize(("path", "named"), [("a/0.png", "a/0.png"), (None, "another worker")])
def test_a_long_wait_is_told_once_with_what_is_waited_for(
    path: str | None, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "STALLED_S", 0.5)
    reporter, told = Heard(), threading.Event()

    def say(text: str) -> None:
        reporter.say(text)
        told.set()

    def items():
        yield 1
        if path is None:
            told.wait(20)
        else:
            with at_work_on(path):
                told.wait(20)
        # Long enough for a second line, if there were one.
        threading.Event().wait(1)
        yield 2

    assert list(Waiting(say=say).over(items())) == [1, 2]
    (line,) = reporter.lines
    assert f"still waiting for {named}: does its disk or its network answer?" in line


def test_a_stop_of_somebody_else_passes_through(tmp_path: Path) -> None:
    def items():
        yield tmp_path
        raise StoppedError

    with pytest.raises(StoppedError):
        list(Waiting().over(items()))
