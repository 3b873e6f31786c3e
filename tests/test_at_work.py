"""Files whose preparing hangs, and what does not wait for them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine import evaluation
from engine.dataset import Shard
from engine.evaluation import evaluate_records
from engine.interrupts import StoppedError, stop_on_signals
from engine.workers import Workers
from tests.evaluation_data import truth
from tests.specs import detector_spec
from utils import at_work
from utils.at_work import at_work_on, files_at_work, leave_hanging_files
from utils.door import run_door


class ExitedError(Exception):
    """In place of the end of the process."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise ExitedError(code)

    monkeypatch.setattr(at_work, "HANGING_S", 0.4)
    monkeypatch.setattr(at_work.os, "_exit", leave)


def test_a_file_that_hangs_is_named_and_given_up(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with at_work_on(str(tmp_path / "a.png")), pytest.raises(ExitedError, match="143"):
        leave_hanging_files(143)
    assert capsys.readouterr().err == f"ends without waiting for {tmp_path / 'a.png'}\n"
    assert files_at_work() == ()


def test_a_file_within_another_is_the_one_at_work_until_it_is_done() -> None:
    with at_work_on("a.png"):
        with at_work_on("b.png"):
            assert files_at_work() == ("b.png",)
        assert files_at_work() == ("a.png",)
    assert files_at_work() == ()


def test_what_was_waited_for_already_is_given_up_at_once() -> None:
    with at_work_on("a.png"):
        time.sleep(0.5)
        before = time.monotonic()
        with pytest.raises(ExitedError, match="143"):
            leave_hanging_files(143)
        assert time.monotonic() - before < 0.4


def test_ctrl_c_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_work, "HANGING_S", 60)
    # A signal from a thread would end this very test where it came too early.
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(at_work, "time", clock)
    # Of a shell's job in the background it would be ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        with at_work_on("a.png"), pytest.raises(ExitedError, match="130"):
            leave_hanging_files(130)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < at_work.HANGING_S / 2


def test_one_who_insists_waits_for_nothing_that_goes_on_and_on() -> None:
    def insist() -> None:
        raise KeyboardInterrupt(143)

    def work() -> None:
        while not left:
            with at_work_on("a.png"):
                time.sleep(0.1)

    left: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    # Long enough to see no file at work, but for that one.
    with at_work_on("b.png"), pytest.raises(ExitedError, match="143"):
        run_door(insist)
    left.append(True)
    thread.join()


def test_what_is_merely_slow_is_waited_for() -> None:
    def work() -> None:
        for number in range(8):
            with at_work_on(f"{number}.png"):
                time.sleep(0.1)

    thread = threading.Thread(target=work)
    thread.start()
    while not files_at_work():
        time.sleep(0.001)
    leave_hanging_files(0)
    thread.join()


def test_of_several_workers_the_one_that_measures_on_a_hung_disk_heeds_a_signal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer, predictor = threading.Event(), SimpleNamespace(spec=detector_spec())

    def hang(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        answer.wait(10)

    several = Workers.__new__(Workers)
    several.alone, several.shard = False, Shard(0, 2)
    monkeypatch.setattr(
        several, "agree", lambda error=None: setattr(several.stop, "exit_code", several.own_stop.exit_code)
    )
    monkeypatch.setattr(evaluation, "decoded_ahead", lambda *_, **__: (hang() for _ in range(1)))
    samples = [(tmp_path / "0.png", truth("0"))]
    with stop_on_signals() as own:
        several.listen(own)
        with pytest.raises(StoppedError):
            evaluate_records(predictor, samples, workers=several)
    assert several.stop.exit_code == 143


def test_of_several_workers_the_one_that_waits_for_its_disk_heeds_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    several = Workers.__new__(Workers)
    several.alone = False

    def agree(error: object = None) -> None:
        assert error is None
        several.stop.exit_code = several.own_stop.exit_code

    def batches() -> Iterator[None]:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the disk was waited for")
        yield

    monkeypatch.setattr(several, "agree", agree)
    with stop_on_signals() as own:
        assert several.listen(own) is several.stop is not own
        with pytest.raises(StoppedError):
            next(several.in_step(batches()))
    assert several.stop.exit_code == 143
