"""Prediction over videos, frame by frame in batches, and over cameras and streams for as long as they last."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from engine.live import LiveVideo
from engine.naming import OutputNames
from engine.pipeline import in_order
from engine.prediction import Prediction, counted
from engine.sources import VideoInput
from engine.video import ASSUMED_FPS, VideoFile, VideoSink, writing_video
from utils.errors import UserError
from utils.types import Detections, ImageArray


def run_video(run: Prediction, source: VideoInput, name: OutputNames) -> None:
    """Predicts one video or camera into ``name.picture``. What makes it unusable is noted in ``run.summary``."""
    if run.options.heatmap:
        run.reporter.say(f"{source}: --heatmap is for photos, and left out here")
    before = run.summary.counts.copy()
    try:
        if isinstance(source.place, Path):
            sink = _run_file(run, source, source.place, name)
        else:
            sink = _run_live(run, source, name)
    except UserError as error:
        run.failed(str(source), error)
        return
    if run.options.count:
        run.tell(f"{source}: {counted(Counter(run.summary.counts) - before)} in {sink.frames} frames")


def _run_file(run: Prediction, source: VideoInput, path: Path, name: OutputNames) -> VideoSink:
    with closing(VideoFile(path)) as video:
        fps = _rate(run, source, video.fps)
        with writing_video(run.options.out_dir / name.picture, fps, video.size_hw) as sink:
            _remark(run, sink)
            drawn = _drawn_frames(run, source, name, video, sink, fps)
            for frame in run.reporter.track(drawn, path.name, video.frame_count, " frames"):
                sink.write(frame)
    stated = f" of {video.frame_count}" if video.frame_count else ""
    if run.stop.made:
        run.reporter.say(f"{source}: interrupted: {sink.frames}{stated} frames are in {sink.path}")
    elif video.frame_count and sink.frames != video.frame_count:
        run.reporter.say(f"{source}: states {video.frame_count} frames and holds {sink.frames} that can be read")
    return sink


def _drawn_frames(
    run: Prediction, source: VideoInput, name: OutputNames, video: VideoFile, sink: VideoSink, fps: float
) -> Iterator[ImageArray]:
    numbers = itertools.count()
    with ThreadPoolExecutor(1) as pool:
        jobs = itertools.repeat(partial(video.read, run.options.batch_size))
        with closing(in_order(pool, jobs, ahead=1)) as loaded:
            for frames in loaded:
                for frame, detections in zip(frames, run.predict(frames), strict=True):
                    yield _done(run, source, name, frame, detections, sink, next(numbers), fps)
                if run.stop.made or not frames:
                    return


def _run_live(run: Prediction, source: VideoInput, name: OutputNames) -> VideoSink:
    ended: UserError | None = None
    with closing(LiveVideo(source)) as live:
        fps = _rate(run, source, live.fps)
        run.reporter.say(f"{source}: running; {'q in the window or ' if run.viewer else ''}Ctrl-C ends it")
        with writing_video(run.options.out_dir / name.picture, fps, live.size_hw) as sink:
            _remark(run, sink)
            start = time.monotonic()
            while sink.frames == 0 or not run.stop.made:
                try:
                    frame = live.read(lambda: run.stop.made and sink.frames > 0)
                except UserError as error:
                    ended = error
                    break
                if frame is None:
                    break
                (detections,) = run.predict([frame])
                seconds = time.monotonic() - start
                drawn = _done(run, source, name, frame, detections, sink, sink.frames, fps)
                # The detector may be slower than the camera: frames are repeated so that the file runs in real time.
                for _ in range(int(seconds * fps) + 1 - sink.frames):
                    sink.write(drawn)
                if not run.show(drawn, str(source), wait=False):
                    break
    run.reporter.say(f"{source}: {sink.frames} frames are in {sink.path}")
    if live.reconnected:
        run.reporter.say(f"{source}: was lost and found again {live.reconnected} times")
    if ended:
        run.failed(str(source), ended)
    return sink


def _done(
    run: Prediction,
    source: VideoInput,
    name: OutputNames,
    frame: ImageArray,
    detections: Detections,
    sink: VideoSink,
    number: int,
    fps: float,
) -> ImageArray:
    """Records the detections of a frame and returns it drawn. Frames are counted from 0."""
    stem = name.stem.with_name(f"{name.stem.name}_{number:06d}")
    more = {"frame": number, "time_s": round(number / fps, 6), "output": str(sink.path)}
    run.record(str(source), stem, frame, detections, **more)
    run.summary.frames += 1
    drawn = detections.draw(frame)
    if not isinstance(source.place, Path):
        return drawn
    run.show(drawn, source.name, wait=False)
    return drawn


def _rate(run: Prediction, source: VideoInput, fps: float | None) -> float:
    if fps is None:
        run.reporter.say(f"{source}: states no usable frame rate: {ASSUMED_FPS:g} frames/s assumed")
    return fps or ASSUMED_FPS


def _remark(run: Prediction, sink: VideoSink) -> None:
    if sink.note:
        run.reporter.say(sink.note)
