"""Cameras and network streams, always the newest frame, and files on servers, every frame; silences have limits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2

from engine.sources import VideoInput
from engine.video import of_size, plausible_fps
from utils.errors import FileError
from utils.types import ImageArray

OPEN_TIMEOUT_S = 10.0
STALL_TIMEOUT_S = 10.0
RECONNECTS = 3
POLL_S = 0.2
FRAMES_MISSING = 5
"""So many of the stated ones, or percent of them, may be lacking."""

OpenCapture = Callable[[VideoInput], Any]


def open_capture(source: VideoInput) -> Any:
    """OpenCV's capture of a webcam or stream; it may turn out not to be open."""
    if isinstance(source.place, int):
        return cv2.VideoCapture(source.place)
    limits = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(1000 * OPEN_TIMEOUT_S)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1000 * STALL_TIMEOUT_S)),
    ]
    return cv2.VideoCapture(str(source.place), cv2.CAP_FFMPEG, limits)


class LiveVideo:
    """A webcam or stream. A thread reads it, so that slow work skips frames and does not fall behind.

    ``size_hw`` is that of the first frame; ``fps`` is None where the source does not say. What ``ends``, a file that
    lies on a server, is read frame by frame, however slow the work is.
    """

    def __init__(
        self,
        source: VideoInput,
        capture: OpenCapture = open_capture,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        reconnects: int = RECONNECTS,
    ) -> None:
        """FileError when nothing comes from ``source``."""
        self.source = source
        self.reconnected = 0
        self._open = capture
        self._stall_timeout_s = stall_timeout_s
        self._reconnects = reconnects
        self._news = threading.Condition()
        self._frame: ImageArray | None = None
        self._attempts = 0
        found = self._opened()
        if found is None:
            raise FileError(f"{source}: {_what_to_do(source)}")
        opened, first = found
        self.size_hw: tuple[int, int] = first.shape[:2]
        self.fps = plausible_fps(opened.get(cv2.CAP_PROP_FPS))
        stated = opened.get(cv2.CAP_PROP_FRAME_COUNT)
        self._stated = int(stated) if math.isfinite(stated) and stated > 0 else 0
        self.ends = self._stated > 0
        self._start_reading(opened, first)

    def read(self, stopped: Callable[[], bool] = lambda: False) -> ImageArray | None:
        """The next frame of what ends, else the newest not read yet, RGB uint8; None once ``stopped`` or at the end.

        One that ends though it has no end, or is silent for too long, is opened again, a few times in a row; FileError
        when that does not help.
        """
        silent_since = time.monotonic()
        while not stopped():
            with self._news:
                if self._frame is None and not self._lost:
                    self._news.wait(POLL_S)
                frame, self._frame, lost = self._frame, None, self._lost
                self._news.notify()
            if frame is not None:
                return of_size(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), self.size_hw)  # type: ignore[arg-type]
            if lost and self.ends:
                self._refuse_part()
                return None
            if lost or time.monotonic() - silent_since > self._stall_timeout_s:
                if self.ends:  # opened again, it would begin anew
                    raise FileError(f"{self.source}: nothing more came after {self._seen} of {self._stated} frames")
                self._reopen(stopped)
                silent_since = time.monotonic()
        return None

    def _refuse_part(self) -> None:
        # Containers state a few frames more or less than there are, and those without a count what there would be at
        # one rate: where that varies, the time of the last frame tells.
        shown = max(self._seen, round(self._last_s * (self.fps or 0)))
        if self._stated - shown > max(FRAMES_MISSING, FRAMES_MISSING * self._stated // 100):
            raise FileError(f"{self.source}: broke off after {self._seen} of {self._stated} frames: get the file first")

    def close(self) -> None:
        """Gives the source back. Does not wait for a reading that hangs."""
        self._closed.set()

    def _opened(self) -> tuple[Any, ImageArray] | None:
        """The source's capture and first frame; None where there is none."""
        capture = self._open(self.source)
        good, first = capture.read() if capture.isOpened() else (False, None)
        if good and first is not None:
            return capture, first
        capture.release()
        return None

    def _start_reading(self, capture: Any, first: ImageArray) -> None:
        self._frame, self._lost = first, False
        self._closed = threading.Event()
        self._began = self._newest = time.monotonic()
        self._seen, self._last_s = 1, 0.0
        threading.Thread(target=self._read_on, args=(capture, self._closed), daemon=True).start()

    def _read_on(self, capture: Any, closed: threading.Event) -> None:
        """Runs in a thread of its own, which alone touches ``capture``: releasing it during a reading can crash."""
        good = True
        while good and not closed.is_set():
            good, frame = capture.read()
            with self._news:
                while self.ends and self._frame is not None and not closed.is_set():
                    self._news.wait(POLL_S)
                if closed.is_set():
                    break
                if good:
                    self._frame, self._newest = frame, time.monotonic()
                    self._seen += 1
                    self._last_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                else:
                    self._lost = True
                self._news.notify()
        capture.release()

    def _reopen(self, stopped: Callable[[], bool]) -> None:
        self._closed.set()
        # What is lost again at once has not been found.
        if self._newest - self._began > self._stall_timeout_s:
            self._attempts = 0
        while self._attempts < self._reconnects:
            waited_until = time.monotonic() + min(2.0**self._attempts, self._stall_timeout_s)
            self._attempts += 1
            while time.monotonic() < waited_until and not stopped():
                time.sleep(min(POLL_S, max(0.0, waited_until - time.monotonic())))
            if stopped():
                return
            if found := self._opened():
                self.reconnected += 1
                self._start_reading(*found)
                return
        raise FileError(f"{self.source}: no more frames, and {self._reconnects} attempts to reconnect did not help")


def _what_to_do(source: VideoInput) -> str:
    if isinstance(source.place, int):
        return "no such webcam, or another program uses it; numbers start at 0"
    return f"nothing comes from this address within {OPEN_TIMEOUT_S:g} s; check it, and that the network reaches it"
