"""Stopping neatly: the first Ctrl-C or SIGTERM asks, so that files can be closed; the second insists.

So does a terminal that is closed, once; ``nohup`` keeps that from a program.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from utils.at_work import at_work_on
from utils.progress import Reporter

T = TypeVar("T")

LEFT_AFTER_S = 3.0
"""Of the ten that a signal may take, so that saving has time."""
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SIGNALLED = 128
"""Exit codes above it say that a signal ended the run."""


class StoppedError(Exception):
    """Work was left in the middle because a stop was asked for."""


class StopRequest:
    """Whether the work should end, looked at between two pieces of it."""

    def __init__(self) -> None:
        self.exit_code = 0
        self.interrupts = False

    @property
    def made(self) -> bool:
        """True once a signal came."""
        return self.exit_code != 0

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Around long work that changes nothing: a signal ends it where it comes, with StoppedError.

        Signals reach the request of this process alone, so work that several workers do in step goes on to its end.
        """
        before, self.interrupts = self.interrupts, True
        try:
            if not self.exit_code:
                yield
        except Exception as error:
            # Libraries wrap what is raised within them; an error of their own is no stop, whatever was asked for.
            if not (self.exit_code and _comes_of_a_stop(error)):
                raise
        finally:
            self.interrupts = before
        # Or they drop it.
        if self.exit_code:
            raise StoppedError


def _comes_of_a_stop(error: BaseException | None) -> bool:
    """Whether ``error`` is a StoppedError, or was raised on account of one."""
    while error is not None and not isinstance(error, StoppedError):
        error = error.__cause__ or error.__context__
    return error is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block SIGINT, SIGTERM and SIGHUP set the request that is yielded; a second one of the first two raises
    KeyboardInterrupt.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    # What this process was told itself: other workers' stops become its own (``engine.workers``), and are no insisting.
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        closed, code = EXIT_CODES[signal.SIGHUP], EXIT_CODES[signal.Signals(number)]
        # Of a terminal that is closed both the system and the shell tell, and some then stop what ran there.
        if request.made and code == closed:
            return
        if any(one != closed for one in told):
            raise KeyboardInterrupt(request.exit_code)
        told.append(code)
        request.exit_code = code
        if request.interrupts:
            raise StoppedError

    heeded = EXIT_CODES.keys() - ({signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set())
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def left_on_a_stop(work: Callable[[], T], stop: StopRequest, name: str) -> T:
    """What ``work`` gives, which no signal can end where it is: a thread does it.

    StoppedError where it takes more than ``LEFT_AFTER_S`` after ``stop`` was made. It goes on then, and what it changes
    is no longer as it was; a door that ends before it says that ``name`` is left.
    """
    done: Future[T] = Future()

    def act() -> None:
        with at_work_on(name):
            try:
                done.set_result(work())
            except BaseException as error:  # raised below
                done.set_exception(error)

    threading.Thread(target=act, daemon=True).start()
    asked = None
    while not wait([done], timeout=LEFT_AFTER_S / 30).done:
        if stop.exit_code:
            asked = asked or time.monotonic()
            if time.monotonic() - asked > LEFT_AFTER_S:
                raise StoppedError
    return done.result()


class StoppableReporter(Reporter):
    """Tells what ``reporter`` tells, and leaves the work it tracks once ``stop`` is made."""

    def __init__(self, reporter: Reporter, stop: StopRequest) -> None:
        super().__init__(reporter.stream)
        self.reporter = reporter
        self.stop = stop

    def say(self, text: str) -> None:
        """One line."""
        self.reporter.say(text)

    def warn(self, text: str) -> None:
        """One line."""
        self.reporter.warn(text)

    def track(self, items: Iterable[T], description: str, total: int | None = None, unit: str = "") -> Iterator[T]:
        """Yields ``items``. StoppedError after the item during which the stop was asked for."""
        for item in self.reporter.track(items, description, total, unit):
            yield item
            if self.stop.made:
                raise StoppedError
