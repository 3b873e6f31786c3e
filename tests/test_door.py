"""What the shell and the user get from a door, and what is told on the way."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.interrupts import StoppableReporter, StoppedError, StopRequest, stop_on_signals
from tests.conftest import ROOT
from utils.door import run_door
from utils.errors import ConfigError, DataError, DivergedError, FileError, UserError, did_you_mean
from utils.problems import FailFast, Problems
from utils.progress import Follower, Quiet, Reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_a_door_ends_with_the_code_its_work_returns(returned: int | None, code: int) -> None:
    assert run_door(lambda: returned) == code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("a: b"), 2, "a: b\n"),
        (ConfigError("x:\n  y"), 2, "x: y\n"),
        (DataError("a.xml: broken"), 3, "a.xml: broken\n"),
        (FileError("disk full"), 4, "disk full\n"),
        (DivergedError("loss"), 5, "loss\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 4, "a.txt: No such file or directory\n"),
        (OSError("strange"), 4, "strange\n"),
        (MemoryError(), 4, "memory ran out\n"),
        (MemoryError("Unable to allocate 9 GiB"), 4, "Unable to allocate 9 GiB\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt(143), 143, "interrupted\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert run_door(work) == code
    assert capsys.readouterr() == ("", said)


BROKEN = """
import os, signal, sys, time
from engine.interrupts import stop_on_signals
from utils.door import run_door
from utils.errors import FileError
from utils.progress import Reporter

def stopped():
    with stop_on_signals() as stop:
        Reporter().say("step 1")
        signal.raise_signal(signal.SIGINT)
        Reporter().say("stopped; go on with ...")
        return stop.exit_code

def failing():
    raise FileError("disk full")

def printing():
    print("a table")

def partly():
    print("a table", flush=True)
    return 3

def tabled():
    from rich.console import Console
    Console().print("a table")
    sys.stdout.isatty()
    print("a remark", file=sys.stderr, flush=True)
    return 3

def hung_up():
    with stop_on_signals() as stop:
        print("ready", flush=True)
        while not stop.made:
            time.sleep(0.01)
        print("3 photos", flush=True)
        return stop.exit_code

def hanging():
    import threading, time
    from utils import at_work
    at_work.HANGING_S = 0.3
    def read():
        with at_work.at_work_on("photo.jpg"):
            time.sleep(60)
    threading.Thread(target=read).start()
    return partly()

def piped():
    from pathlib import Path
    from utils.files import STDOUT, write_results
    write_results(STDOUT, "results")
    return 3

def main():
    return {which}()

sys.exit(run_door(main))
"""


@pytest.mark.parametrize(
    ("which", "broken", "code"),
    [
        ("stopped", "stderr", 130), ("failing", "stderr", 4), ("printing", "stderr", 0), ("printing", "stdout", 0),
        ("partly", "stdout", 3), ("partly", "no stdout", 3), ("stopped", "no stderr", 130), ("failing", "no stderr", 4),
        ("stopped", "full stderr", 130), ("failing", "full stderr", 4), ("printing", "full stdout", 4),
        ("tabled", "stdout", 3), ("tabled", "stderr", 3), ("tabled", "no stdout", 3), ("tabled", "no stderr", 3),
        ("tabled", "full stderr", 3), ("tabled", "full stdout", 4),
        ("hanging", "stderr", 3), ("hanging", "stdout", 3), ("hanging", "no stdout", 3), ("hanging", "no stderr", 3),
        ("piped", "stdout", 0), ("piped", "full stdout", 4), ("piped", "no stdout", 4),
    ],
)  # fmt: skip
def test_who_follows_may_go_and_the_work_ends_as_it_would(which: str, broken: str, code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    if broken.startswith("full"):
        if not Path("/dev/full").is_char_device():
            pytest.skip("needs /dev/full")
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, broken.split()[-1]: writer}
    command = [sys.executable, "-c", BROKEN.replace("{which}", which)]
    if broken.startswith("no"):
        command = ["sh", "-c", f'exec "$@" {1 + (broken == "no stderr")}>&-', "sh", *command]
    # As usual, stdout is written when it ends.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(command, cwd=ROOT, check=False, text=True, env=environment, timeout=30, **streams)
    os.close(writer)
    if broken.endswith("stderr"):
        assert "remark" not in ended.stdout
    assert ended.returncode == code, ended
    assert "Traceback" not in f"{ended.stderr}"
    assert "ignored" not in f"{ended.stderr}"


def test_what_a_closed_terminal_stops_ends_as_it_would() -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        # Tests may run under nohup; what hangs ends.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.alarm(60)
        os.execv(sys.executable, [sys.executable, "-c", BROKEN.replace("{which}", "hung_up")])
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 129


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_door(lambda: 1 // 0)


def test_the_nearest_known_word_is_named() -> None:
    assert did_you_mean("cra", ["car", "bus"]) == "; did you mean 'car'?"
    assert did_you_mean("zebra", ["car", "bus"]) == ""
    assert did_you_mean("car", []) == ""


def test_problems_are_collected_and_counted_by_kind() -> None:
    problems = Problems()
    problems.error("a.xml: broken")
    heard = problems.listener("clipped")
    heard("first")
    heard("second")
    assert problems.errors == ["a.xml: broken"]
    assert problems.warnings == {"clipped": 2}
    assert problems.examples == {"clipped": "first"}
    with pytest.raises(DataError, match="broken"):
        FailFast().error("a.xml: broken")


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_tracking_passes_everything_on_lazily(stream: type[io.StringIO]) -> None:
    taken = []

    def items():
        for number in range(3):
            taken.append(number)
            yield number

    tracked = Reporter(stream()).track(items(), "counting", total=3)
    assert next(iter(tracked)) == 0
    assert taken == [0]
    assert list(tracked) == [1, 2]
    assert list(Reporter(stream()).track([], "counting")) == []


def test_a_terminal_sees_a_bar_and_a_log_sees_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, log = Terminal(), io.StringIO()
    monkeypatch.setattr("utils.progress.PLAIN_EVERY_S", 0.0)
    for stream in (terminal, log):
        list(Reporter(stream).track(range(2), "counting", total=2, unit=" sheep"))
    assert "counting" in terminal.getvalue()
    assert log.getvalue() == "counting: 1/2 sheep\ncounting: 2/2 sheep\n"


def test_a_terminal_that_goes_away_does_not_end_the_work() -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    reporter = Reporter(Gone())
    reporter.say("x")
    assert list(reporter.track(range(3), "counting", total=3)) == [0, 1, 2]


def test_quiet_says_nothing_but_still_passes_on(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = Quiet()
    quiet.say("x")
    quiet.warn("x")
    assert list(quiet.track([1, 2], "counting")) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_worker_that_follows_tells_of_what_goes_wrong_with_itself_alone() -> None:
    log = io.StringIO()
    follower = StoppableReporter(Follower(log), StopRequest())
    follower.say("x")
    assert list(follower.track([1, 2], "counting")) == [1, 2]
    follower.warn("no data")
    assert log.getvalue() == "no data\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks_and_the_second_insists(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.made
        signal.raise_signal(number)
        assert stop.made
        assert stop.exit_code == code
        with pytest.raises(KeyboardInterrupt) as ended:
            signal.raise_signal(number)
        assert ended.value.args == (code,)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_of_another_worker_is_not_the_first_signal_of_this_one(number: signal.Signals, code: int) -> None:
    # Who stops a job sends every process a signal; workers agree to stop when the first of them has had its own.
    with stop_on_signals() as stop:
        stop.exit_code = 143
        signal.raise_signal(number)
        assert stop.exit_code == code
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.fixture
def not_under_nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("not_under_nohup")
def test_a_terminal_that_is_closed_asks_however_many_say_so() -> None:
    # The system and the shell do.
    with stop_on_signals() as stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
        assert stop.exit_code == 129


@pytest.mark.usefixtures("not_under_nohup")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_closes_the_terminal_has_not_asked_yet(number: signal.Signals, code: int) -> None:
    # A session that ends closes it and stops what ran there a moment later.
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(number)
        assert stop.exit_code == code
        signal.raise_signal(signal.SIGHUP)
        assert stop.exit_code == code
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_who_has_said_that_closing_the_terminal_is_no_matter_is_believed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.made
    finally:
        signal.signal(signal.SIGHUP, before)


def wrapped() -> None:
    try:
        signal.raise_signal(signal.SIGTERM)
    except StoppedError as error:
        raise TypeError("a library's own") from error


def swallowed() -> None:
    with suppress(StoppedError):
        signal.raise_signal(signal.SIGTERM)


def swallowed_before_a_bug() -> None:
    swallowed()
    raise TypeError


@pytest.mark.parametrize("work", [lambda: signal.raise_signal(signal.SIGTERM), wrapped, swallowed])
def test_a_signal_ends_what_it_may_interrupt_whatever_libraries_make_of_that(work: Callable[[], None]) -> None:
    with stop_on_signals() as stop:
        for _ in range(2):  # asked already, the second does not even begin
            with pytest.raises(StoppedError), stop.interrupting():
                work()
        assert stop.exit_code == 143


def test_work_within_work_that_may_be_interrupted_leaves_it_so() -> None:
    def work(stop: StopRequest) -> None:
        with stop.interrupting():
            with stop.interrupting():
                pass
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("went on")

    with stop_on_signals() as stop, pytest.raises(StoppedError):
        work(stop)


def test_what_may_be_interrupted_keeps_its_own_errors() -> None:
    with stop_on_signals() as stop:
        with pytest.raises(TypeError), stop.interrupting():
            raise TypeError
        # Afterwards a signal asks again.
        signal.raise_signal(signal.SIGTERM)
        assert stop.made
    with stop_on_signals() as stop, pytest.raises(TypeError), stop.interrupting():
        swallowed_before_a_bug()
