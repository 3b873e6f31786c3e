"""How long data is waited for, and what is said where none comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from engine.interrupts import StopRequest
from utils.at_work import files_at_work

T = TypeVar("T")
STALLED_S = 60.0
_END: Any = object()


class Waiting:
    """How long was waited for the items that ``over`` passes on. A stop that ``stop`` is asked for ends a wait.

    A disk or a network that hangs raises no error: of a wait longer than ``STALLED_S`` a line is said, with the files
    that are being prepared then.
    """

    def __init__(self, stop: StopRequest | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        self.seconds = 0.0
        self._stop, self._say = stop or StopRequest(), say
        self._since: float | None = None

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """``items``, each wait for the next one timed."""
        iterator, ended = iter(items), threading.Event()
        threading.Thread(target=self._watch, args=(ended,), daemon=True).start()
        try:
            while True:
                self._since = before = time.monotonic()
                try:
                    with self._stop.interrupting():
                        item = next(iterator, _END)
                finally:
                    self._since = None
                    self.seconds += time.monotonic() - before
                if item is _END:
                    return
                yield item
        finally:
            ended.set()

    def _watch(self, ended: threading.Event) -> None:
        told = None
        while not ended.wait(STALLED_S / 10):
            since = self._since
            if since is None or since == told or time.monotonic() - since < STALLED_S:
                continue
            told = since
            files = ", ".join(files_at_work()) or "another worker"
            self._say(f"no data for {STALLED_S:.0f} s: still waiting for {files}: does its disk or its network answer?")
