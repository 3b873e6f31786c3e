"""What threads are at work on, mostly files: a disk or a network that hangs raises nothing, and is seen here."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HANGING_S = 5.0
"""Seconds after which the work on a file is given up as the program ends."""
INSISTED_S = 0.5
"""Seconds after which all such work is, for one who insists."""
_FILES: dict[int, tuple[str, float]] = {}
"""By thread, each with its beginning."""


@contextmanager
def at_work_on(path: str) -> Iterator[None]:
    """Around the preparing of a file by this thread, or other work that a name is given."""
    thread = threading.get_ident()
    around = _FILES.get(thread)
    _FILES[thread] = path, time.monotonic()
    try:
        yield
    finally:
        if around is None:
            del _FILES[thread]
        else:
            _FILES[thread] = around


def files_at_work() -> tuple[str, ...]:
    """The files that are being prepared at this moment."""
    return tuple(path for path, _ in _FILES.copy().values())


def leave_hanging_files(exit_code: int, insisted: bool = False) -> None:
    """Waits until nothing is at work, or ends the process where all that is takes long: Python would wait for it.

    For one who has ``insisted`` it ends soon, whatever is at work; Ctrl-C does that, too.
    """
    began = time.monotonic()
    while at_work := _FILES.copy():
        now = time.monotonic()
        youngest = min(now - since for _, since in at_work.values())
        if youngest > HANGING_S or (insisted and now - began > INSISTED_S):
            sys.stderr.write(f"ends without waiting for {', '.join(path for path, _ in at_work.values())}\n")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(exit_code)
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            insisted = True
