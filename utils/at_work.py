"""Which files are being prepared, by which threads: a disk or a network that hangs raises nothing, and is seen here."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HANGING_S = 5.0
"""Seconds after which a file that is still being prepared as the program ends is given up."""
_FILES: dict[int, str] = {}


@contextmanager
def at_work_on(path: str) -> Iterator[None]:
    """Around the preparing of a file by this thread."""
    thread = threading.get_ident()
    around = _FILES.get(thread)
    _FILES[thread] = path
    try:
        yield
    finally:
        if around is None:
            del _FILES[thread]
        else:
            _FILES[thread] = around


def files_at_work() -> tuple[str, ...]:
    """The files that are being prepared at this moment."""
    return tuple(_FILES.values())


def leave_hanging_files(exit_code: int) -> None:
    """Ends the process where the same files have been waited for all the time: Python would wait for their threads."""
    seen, since = dict(_FILES), time.monotonic()
    while seen:
        if time.monotonic() - since > HANGING_S:
            sys.stderr.write(f"ends without waiting for {', '.join(seen.values())}\n")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(exit_code)
        time.sleep(0.01)
        if seen != _FILES:
            seen, since = dict(_FILES), time.monotonic()
