"""Stopping neatly: the first Ctrl-C or SIGTERM asks, so that files can be closed; the second insists."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopRequest:
    """Whether the work should end, looked at between two pieces of it."""

    def __init__(self) -> None:
        self.exit_code = 0

    @property
    def made(self) -> bool:
        """True once a signal came."""
        return self.exit_code != 0


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block SIGINT and SIGTERM set the request that is yielded; a second one raises KeyboardInterrupt."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if request.made:
            raise KeyboardInterrupt
        request.exit_code = EXIT_CODES[signal.Signals(number)]

    before = {number: signal.signal(number, note) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
