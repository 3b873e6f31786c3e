"""Reading and writing videos through OpenCV: size, frame rate and every frame are kept; sound is not."""

from __future__ import annotations

import math
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from utils.errors import DataError, FileError
from utils.files import replacing
from utils.inputs import open_regular
from utils.quiet import native_stderr_held_back
from utils.types import ImageArray

ASSUMED_FPS = 25.0
FASTEST_FPS = 1000.0
CODECS = {
    ".mp4": ("mp4v",),
    ".m4v": ("mp4v",),
    ".mov": ("mp4v", "MJPG"),
    ".mkv": ("mp4v", "MJPG"),
    ".avi": ("XVID", "MJPG"),
    ".webm": ("VP90", "VP80"),
}
"""Codecs tried for each container, in order. OpenCV's own builds bring no H.264 encoder."""
OWN_CODEC = "own"
"""Motion JPEG by OpenCV itself, in AVI: the one writer that takes odd widths and heights."""


def plausible_fps(stated: float) -> float | None:
    """``stated`` where a video can have that rate, else None: files say 0, -1, NaN or 90000 when they do not know."""
    return stated if math.isfinite(stated) and 0 < stated <= FASTEST_FPS else None


class VideoFile:
    """A video file open for reading.

    ``size_hw`` in pixels, as shown; ``fps`` None and ``frame_count`` None where the file does not say.
    """

    def __init__(self, path: Path) -> None:
        """DataError when ``path`` is no video that can be read."""
        open_regular(path, "input video")[0].close()
        self.path = path
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        # One for all frames: memory that is new each time costs as much as decoding.
        self._bgr: np.ndarray | None = None
        self._first = self._read() if self._capture.isOpened() else None
        if self._first is None:
            self.close()
            raise DataError(f"{path}: not a video that can be read: convert it to MP4 with H.264")
        self.size_hw = self._first.shape[0], self._first.shape[1]
        self.fps = plausible_fps(self._capture.get(cv2.CAP_PROP_FPS))
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frame_count = round(count) if math.isfinite(count) and 0 < count < 2**31 else None

    def read(self, limit: int) -> list[ImageArray]:
        """The next frames, at most ``limit``, RGB uint8 [H, W, 3] of ``size_hw``; none at the end."""
        frames: list[ImageArray] = []
        while len(frames) < limit:
            frame = self._first if self._first is not None else self._read()
            self._first = None
            if frame is None:
                break
            frames.append(of_size(frame, self.size_hw))
        return frames

    def close(self) -> None:
        """Gives the file back."""
        self._capture.release()

    def _read(self) -> ImageArray | None:
        good, frame = self._capture.read(self._bgr)
        if not good:
            return None
        self._bgr = frame
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def of_size(frame: ImageArray, size_hw: tuple[int, int]) -> ImageArray:
    """The frame itself, or resized where a stream changed its size on the way: a video file has only one."""
    if frame.shape[:2] == size_hw:
        return frame
    return cv2.resize(frame, size_hw[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


class VideoSink:
    """A video file open for writing; made by ``writing_video``. ``path`` is where it will be, ``note`` what differs."""

    def __init__(self, temporary: Path, path: Path, codec: str, fps: float, size_hw: tuple[int, int]) -> None:
        self.path = path
        self.frames = 0
        self.note = ""
        self.size_hw = size_hw
        self._temporary = temporary
        self._fps = fps
        self._bgr = np.empty((*size_hw, 3), np.uint8)
        self._own = codec == OWN_CODEC
        backend, code = (cv2.CAP_OPENCV_MJPEG, "MJPG") if self._own else (cv2.CAP_FFMPEG, codec)
        # OpenCV's own writer takes whole rates only; the true one is put in the file at the end.
        rate = max(1.0, float(round(fps))) if self._own else fps
        fourcc = cv2.VideoWriter.fourcc(*code)
        # OpenCV prints what it thinks of a codec; whether it opens is all that counts.
        with native_stderr_held_back():
            self._writer = cv2.VideoWriter(str(temporary), backend, fourcc, rate, (size_hw[1], size_hw[0]))

    @property
    def is_open(self) -> bool:
        """Whether frames can be written."""
        return self._writer.isOpened()

    def write(self, frame_rgb: ImageArray) -> None:
        """Appends a frame of ``size_hw``."""
        if frame_rgb.shape[:2] != self.size_hw:
            raise ValueError(f"frame of {frame_rgb.shape[:2]} in a video of {self.size_hw}")
        self._writer.write(cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2BGR, dst=self._bgr))
        self.frames += 1

    def finish(self) -> None:
        """Completes the file. FileError when it does not hold what was written, as on a full disk."""
        self._writer.release()
        if self._own:
            _set_avi_rate(self._temporary, self._fps)
        check = cv2.VideoCapture(str(self._temporary), cv2.CAP_FFMPEG)
        count = check.get(cv2.CAP_PROP_FRAME_COUNT) if check.isOpened() and check.read()[0] else 0
        check.release()
        # Containers without an index tell the count from the duration, which may be off by a rounding.
        if not count or count < self.frames * 0.99 - 1:
            raise FileError(f"{self.path}: the video could not be completed: is the disk full?")

    def discard(self) -> None:
        """Lets go of the file."""
        self._writer.release()


@contextmanager
def writing_video(path: Path, fps: float, size_hw: tuple[int, int]) -> Iterator[VideoSink]:
    """A sink whose file appears, complete, when the block ends without error.

    A container or codec that cannot hold this video is replaced by Motion JPEG in AVI, which ``note`` then says.
    FileError when nothing can be written there.
    """
    target, codec, note = _choose(path, fps, size_hw)
    with replacing(target) as temporary:
        sink = VideoSink(temporary, target, codec, fps, size_hw)
        sink.note = note
        try:
            if not sink.is_open:
                raise FileError(f"{target}: the video writer does not open: is the directory writable, the disk full?")
            yield sink
            sink.finish()
        finally:
            sink.discard()


def fallback_path(path: Path) -> Path:
    """Where a video goes that no codec writes into the container of ``path``."""
    return path.with_name(f"{path.name}.avi")


def _choose(path: Path, fps: float, size_hw: tuple[int, int]) -> tuple[Path, str, str]:
    """The file to write, its codec, and what is not as ``path`` wished it."""
    video = f"{size_hw[1]}x{size_hw[0]} at {fps:g} frames/s"
    odd = any(side % 2 for side in size_hw)
    suffix = path.suffix.lower()
    for codec in () if odd else CODECS.get(suffix, ()):
        if _accepts(suffix, codec, fps, size_hw):
            return path, codec, ""
    if not _accepts(".avi", OWN_CODEC, fps, size_hw):
        raise FileError(f"{path}: no codec here can write a video of {video}")
    target = fallback_path(path)
    reason = f"codecs of {suffix} hold even sizes only" if odd else f"no codec here writes it as {suffix}"
    return target, OWN_CODEC, f"{path.name}: {video}: {reason}: the result is Motion JPEG, {target.name}"


def _accepts(suffix: str, codec: str, fps: float, size_hw: tuple[int, int]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / f"trial{suffix}"
        sink = VideoSink(trial, trial, codec, fps, size_hw)
        if sink.is_open:
            sink.write(np.zeros((*size_hw, 3), np.uint8))
        sink.discard()
        return sink.frames > 0 and trial.is_file() and trial.stat().st_size > 0


def _set_avi_rate(path: Path, fps: float) -> None:
    """Puts the exact frame rate into the headers of an AVI file (microseconds a frame, and rate over scale)."""
    with path.open("r+b") as file:
        head = file.read(512)
        main, stream = head.find(b"avih"), head.find(b"strh")
        if main < 0 or stream < 0:
            return
        file.seek(main + 8)
        file.write(struct.pack("<I", round(1e6 / fps)))
        # A stream header: type, handler, flags, priority and language, initial frames (20 bytes), scale, rate.
        file.seek(stream + 8 + 20)
        file.write(struct.pack("<II", 1000, round(1000 * fps)))
