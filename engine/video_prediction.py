"""Prediction over videos, frame by frame in batches, and over cameras and streams for as long as they last."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from engine.live import LiveVideo
from engine.naming import OutputNames
from engine.pipeline import Failure, in_order
from engine.prediction import Done, Prediction, Shot, counted
from engine.sources import VideoInput
from engine.video import ASSUMED_FPS, VideoFile, VideoSink, writing_video
from utils.errors import MemoryRanOutError, UserError
from utils.types import ImageArray


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
    except MemoryRanOutError:
        raise  # the next source would need as much
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
            with closing(_written(run, source, name, video, sink, fps)) as frames:
                for _ in run.reporter.track(frames, path.name, video.frame_count, " frames"):
                    pass
    stated = f" of {video.frame_count}" if video.frame_count else ""
    if run.stop.made:
        run.reporter.say(f"{source}: interrupted: {sink.frames}{stated} frames are in {sink.path}")
    elif video.frame_count and sink.frames != video.frame_count:
        run.reporter.say(f"{source}: states {video.frame_count} frames and holds {sink.frames} that can be read")
    return sink


def _written(
    run: Prediction, source: VideoInput, name: OutputNames, video: VideoFile, sink: VideoSink, fps: float
) -> Generator[None, None, None]:
    """Yields once for each frame that is in the file. One thread reads, one writes, others do what is between."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reads = itertools.repeat(partial(video.read, run.options.batch_size))
        with closing(in_order(reader, reads, ahead=1)) as read:
            frames = itertools.chain.from_iterable(itertools.takewhile(bool, read))
            loads = (partial(_shot, run, source, name, frame, n, sink, fps) for n, frame in enumerate(frames))
            with closing(run.flow(loads, run.detect, run.finish)) as results:
                writes = (partial(sink.write, drawn) for drawn in _drawn(run, source, results))
                yield from in_order(writer, writes, run.options.batch_size)


def _drawn(run: Prediction, source: VideoInput, results: Iterable[Done | Failure]) -> Iterator[ImageArray]:
    for result in results:
        assert isinstance(result, Done)  # a frame that was read is there
        run.summary.frames += 1
        run.show(result.drawn, source.name, wait=False)
        yield result.drawn


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
                if not live.ends and int((time.monotonic() - start) * fps) < sink.frames:
                    continue  # faster than the file, which has a frame for this moment already
                shot = _shot(run, source, name, frame, sink.frames, sink, fps)
                (detections,) = run.detect([shot])
                seconds = time.monotonic() - start
                done = run.finish(shot, detections)
                run.record(done)
                run.summary.frames += 1
                # The detector may be slower than the camera: frames are repeated so that the file runs in real time.
                for _ in range(1 if live.ends else int(seconds * fps) + 1 - sink.frames):
                    sink.write(done.drawn)
                if not run.show(done.drawn, str(source), wait=False):
                    break
    run.reporter.say(f"{source}: {sink.frames} frames are in {sink.path}")
    if live.reconnected:
        run.reporter.say(f"{source}: was lost and found again {live.reconnected} times")
    if ended:
        run.failed(str(source), ended)
    return sink


def _shot(
    run: Prediction, source: VideoInput, name: OutputNames, frame: ImageArray, number: int, sink: VideoSink, fps: float
) -> Shot:
    """A frame as it goes through the detector. Frames are counted from 0."""
    more = {"frame": number, "time_s": round(number / fps, 6), "output": str(sink.path)}
    own = name.of_frame(number)
    return Shot(str(source), own.beside(".jpg").name, own, frame, run.predictor.ready(frame, str(source)), more)


def _rate(run: Prediction, source: VideoInput, fps: float | None) -> float:
    if fps is None:
        run.reporter.say(f"{source}: states no usable frame rate: {ASSUMED_FPS:g} frames/s assumed")
    return fps or ASSUMED_FPS


def _remark(run: Prediction, sink: VideoSink) -> None:
    if sink.note:
        run.reporter.say(sink.note)
