from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.live import LiveVideo
from engine.sources import VideoInput
from engine.video import VideoFile, plausible_fps, writing_video
from utils.errors import DataError, FileError

FRAMES = 13


def frame(number: int, size_hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Grey that grows with the number, its upper left quarter blue."""
    image = np.full((*size_hw, 3), 40 + 12 * number, np.uint8)
    image[: size_hw[0] // 2, : size_hw[1] // 2] = (0, 0, 200)
    return image


def write(path: Path, fps: float, size_hw: tuple[int, int] = (48, 64), count: int = FRAMES):
    with writing_video(path, fps, size_hw) as sink:
        for number in range(count):
            sink.write(frame(number, size_hw))
    return sink


def read_all(path: Path) -> tuple[list[np.ndarray], VideoFile]:
    with closing(VideoFile(path)) as video:
        frames = []
        while some := video.read(5):
            frames += some
    return frames, video


@pytest.mark.parametrize(
    ("name", "fps"), [("a.mp4", 29.97), ("a.mov", 23.976), ("a.mkv", 12.5), ("a.avi", 25), ("a.webm", 30), ("b.m4v", 1)]
)
def test_count_size_rate_and_colours_are_kept(tmp_path, name, fps):
    sink = write(tmp_path / "new folder" / name, fps)
    assert (sink.path.name, sink.note) == (name, "")
    frames, video = read_all(sink.path)
    assert (len(frames), video.frame_count, video.size_hw) == (FRAMES, FRAMES, (48, 64))
    assert video.fps == pytest.approx(fps, abs=1e-3)
    for number in (0, FRAMES - 1):
        assert np.abs(frames[number][40:, 50:].astype(int) - (40 + 12 * number)).mean() < 6
    assert frames[0][5, 5, 2] > 150 > frames[0][5, 5, 0]


@pytest.mark.parametrize("fps", [23.976, 59.94, 7.5, 0.5])
def test_odd_sizes_are_kept_in_an_avi_and_said(tmp_path, fps):
    sink = write(tmp_path / "a.mp4", fps, (49, 63))
    assert sink.path.name == "a.mp4.avi"
    assert "even sizes only" in sink.note
    frames, video = read_all(sink.path)
    assert (len(frames), video.frame_count, video.size_hw) == (FRAMES, FRAMES, (49, 63))
    assert video.fps == pytest.approx(fps, abs=2e-3)


def test_a_container_that_is_not_written_is_replaced_and_said(tmp_path):
    sink = write(tmp_path / "a.xyz", 25)
    assert (sink.path.name, ".xyz" in sink.note) == ("a.xyz.avi", True)
    assert len(read_all(sink.path)[0]) == FRAMES


@pytest.mark.parametrize("stated", [0, -1, float("nan"), float("inf"), 90000])
def test_rates_no_video_has_are_unknown(stated):
    assert plausible_fps(stated) is None


def test_rates_videos_have_are_known():
    assert [plausible_fps(rate) for rate in (0.5, 25, 240)] == [0.5, 25, 240]


def test_a_failure_leaves_no_file(tmp_path):
    def fail() -> None:
        with writing_video(tmp_path / "a.mp4", 25, (48, 64)) as sink:
            sink.write(frame(0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_frame_of_another_size_is_refused_as_opencv_would_drop_it(tmp_path):
    with pytest.raises(ValueError, match="frame of"), writing_video(tmp_path / "a.mp4", 25, (48, 64)) as sink:
        sink.write(frame(0, (50, 64)))


def test_a_place_that_cannot_be_written_is_a_file_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be written"):
        write(tmp_path / "file" / "a.mp4", 25)


def test_a_video_that_cannot_be_completed_is_a_file_error(tmp_path, monkeypatch):
    class FullDisk:
        def __init__(self, *unused):
            pass

        def isOpened(self):
            return False

        def release(self):
            pass

    monkeypatch.setattr("engine.video.cv2.VideoCapture", FullDisk)
    with pytest.raises(FileError, match="disk full"):
        write(tmp_path / "a.mp4", 25)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"\0" * 5000)
    (tmp_path / "b.mp4").write_bytes(b"")
    (tmp_path / "c.mp4").mkdir()
    for name, says in (("a", "not a video"), ("b", "not a video"), ("c", "directory"), ("d", "no such")):
        with pytest.raises(DataError, match=says):
            VideoFile(tmp_path / f"{name}.mp4")


class Capture:
    """A camera that gives the frames of ``script``: None ends it, a float waits so many seconds."""

    def __init__(
        self, script: list[np.ndarray | float | None], opened: bool = True, fps: float = 0.0, frames: int = 0
    ) -> None:
        self.script = script
        self.opened = opened
        self.numbers = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: float(frames)}
        self.released = threading.Event()

    def isOpened(self) -> bool:
        return self.opened

    def read(self):
        while self.script:
            item = self.script.pop(0)
            if isinstance(item, float):
                time.sleep(item)
            else:
                return item is not None, item
        return False, None

    def get(self, what: int) -> float:
        return self.numbers.get(what, 0.0)

    def release(self) -> None:
        self.released.set()


def wait_until_all_is_read(capture: Capture) -> None:
    while capture.script:
        time.sleep(0.01)


def opener(*captures: Capture):
    waiting = list(captures)
    return lambda source: waiting.pop(0) if waiting else Capture([], opened=False)


def test_a_camera_gives_its_newest_frame_and_is_given_back():
    capture = Capture([frame(0), frame(1), frame(2), 5.0], fps=30)
    with closing(LiveVideo(VideoInput(0), opener(capture))) as live:
        assert (live.size_hw, live.fps) == ((48, 64), 30)
        wait_until_all_is_read(capture)
        assert live.read()[40, 50, 0] == frame(2)[40, 50, 0]
        asked = iter([False, True])
        assert live.read(lambda: next(asked)) is None


def test_a_frame_of_another_size_is_brought_to_the_first_one():
    capture = Capture([frame(0), frame(0, (96, 128)), 5.0])
    with closing(LiveVideo(VideoInput(0), opener(capture))) as live:
        wait_until_all_is_read(capture)
        assert live.read().shape == (48, 64, 3)


@pytest.mark.parametrize(("place", "says"), [(3, "no such webcam"), ("rtsp://nowhere/1", "nothing comes")])
def test_no_camera_is_a_file_error(place, says):
    with pytest.raises(FileError, match=says):
        LiveVideo(VideoInput(place), opener())


@pytest.mark.parametrize("silence", [[None], [30.0]], ids=["ends", "stalls"])
def test_a_lost_stream_is_opened_again(silence):
    first, second = Capture([frame(0), *silence]), Capture([frame(2), 30.0])
    with closing(LiveVideo(VideoInput("rtsp://x"), opener(first, second), stall_timeout_s=0.1)) as live:
        assert live.read()[40, 50, 0] == frame(0)[40, 50, 0]
        assert live.read()[40, 50, 0] == frame(2)[40, 50, 0]
        assert live.reconnected == 1


@pytest.mark.parametrize("captures", [1, 20], ids=["never comes back", "is lost at once again and again"])
def test_reconnecting_is_bounded(captures):
    opened = opener(*(Capture([frame(0)]) for _ in range(captures)))
    with closing(LiveVideo(VideoInput("rtsp://x"), opened, 0.05, reconnects=2)) as live:
        for _ in range(min(captures, 3)):
            assert live.read() is not None
        with pytest.raises(FileError, match="2 attempts"):
            live.read()
    assert live.reconnected == min(captures - 1, 2)


def test_what_was_found_again_for_a_while_may_be_lost_again():
    captures = [Capture([frame(0)]) for _ in range(4)]
    with closing(LiveVideo(VideoInput("rtsp://x"), opener(*captures), 0.05, reconnects=1)) as live:
        for _ in captures:
            assert live.read() is not None
            live._began -= 10
        assert live.reconnected == 3


@pytest.mark.parametrize(("stated", "rest"), [(1000, [None]), (1000, [30.0])], ids=["breaks off", "stalls"])
def test_a_file_on_a_server_of_which_much_is_missing_is_said(stated, rest):
    capture = Capture([frame(0), frame(1), *rest], frames=stated)
    with closing(LiveVideo(VideoInput("http://x/clip.mp4"), opener(capture), stall_timeout_s=0.1)) as live:
        assert [shade(live), shade(live)] == [shade_of(0), shade_of(1)]
        with pytest.raises(FileError, match="after 2 of 1000 frames"):
            live.read()


def test_of_a_file_on_a_server_each_frame_comes_once():
    capture = Capture([frame(number) for number in range(15)], frames=15)
    with closing(LiveVideo(VideoInput("http://x/clip.mp4"), opener(capture))) as live:
        assert live.ends
        assert [shade(live) for _ in range(15)] == [shade_of(number) for number in range(15)]
        assert live.read() is None
        assert live.reconnected == 0
    assert capture.released.wait(5)


def test_a_file_on_a_server_that_is_left_is_given_back():
    capture = Capture([frame(number) for number in range(15)], frames=15)
    with closing(LiveVideo(VideoInput("http://x/clip.mp4"), opener(capture))):
        pass
    assert capture.released.wait(5)


def test_a_file_on_a_server_whose_rate_varies_ends_where_its_time_does():
    # Containers without a count state that of the whole time at the mean or highest rate.
    capture = Capture([frame(0), frame(1)], fps=10, frames=1000)
    capture.numbers[cv2.CAP_PROP_POS_MSEC] = 99_000.0
    with closing(LiveVideo(VideoInput("http://x/clip.mkv"), opener(capture))) as live:
        while live.read() is not None:
            pass


def shade(live: LiveVideo) -> int:
    found = live.read()
    assert found is not None
    return int(found[40, 50, 0])


def shade_of(number: int) -> int:
    return int(frame(number)[40, 50, 0])
