"""What part of the bare network's throughput is left once photos are read, drawn and written: predict.py's whole way.

  python -m benchmarks.predict_flow logs/first/export/best.onnx
  python -m benchmarks.predict_flow logs/first/export/best.onnx --photos holiday --boxes 5

The rounds of the three take turns, so that other work on the machine slows all of them; on a busy machine the CPU time
of an image, which other work moves less, tells more than the rates. Bare is the network alone on
photos that are prepared. The directory holds JPEG files, the video the same photos as frames; pictures and a video with
boxes come out. For a detector that finds little, --boxes sets the score so that so many are drawn on a photo.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.photo_detector import PhotoDetector
from engine.pipeline import batches
from engine.predict_all import predict_all
from engine.prediction import PredictOptions
from engine.runtimes.choice import load_detector
from engine.runtimes.session import ArtifactPredictor
from engine.sources import find_sources
from engine.video import writing_video
from utils.artifact_files import RUNTIMES
from utils.images import read_image
from utils.progress import Quiet
from utils.quiet import quieten_libraries
from utils.synthetic import DEFAULT_DIFFICULTY, DEFAULT_SIZE_HW
from utils.synthetic_scene import draw_photo
from utils.types import ImageArray


def main() -> None:
    """Times the three in turn and prints their rates, and what part of the bare rate the others reach."""
    given = _arguments()
    quieten_libraries()
    detector = load_detector(given.weights, given.runtime)
    with tempfile.TemporaryDirectory() as made:
        folder, video, out = Path(made) / "photos", Path(made) / "video.mp4", Path(made) / "out"
        photos = _photos(folder, given.photos, given.count)
        _write_video(video, photos)
        score = _score(detector, photos[:16], given.boxes)
        ways = {
            "bare network": _bare(detector, photos, given.batch, score),
            "directory": _whole(detector, folder, out, given.batch, score),
            "video": _whole(detector, video, out, given.batch, score),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        cpu_ms: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(given.rounds + 1):
            for name, way in ways.items():
                start, cpu_start = time.perf_counter(), time.process_time()
                way()
                if turn:  # the first round warms up
                    rates[name].append(len(photos) / (time.perf_counter() - start))
                    cpu_ms[name].append(1000 * (time.process_time() - cpu_start) / len(photos))
    height, width = photos[0].shape[:2]
    print(f"{len(photos)} photos of {width}x{height}, batches of {given.batch}, score {score:.3g}")
    for name, of_rounds in rates.items():
        parts = [rate / bare for rate, bare in zip(of_rounds, rates["bare network"], strict=True)]
        low, part, high = np.percentile(parts, (0, 50, 100))
        rate, cpu = statistics.median(of_rounds), statistics.median(cpu_ms[name])
        spread = f"rounds {low:.0%} to {high:.0%}"
        print(f"{name:14s}{rate:7.1f} images/s {part:7.1%} of bare ({spread}) {cpu:7.1f} CPU ms an image")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--runtime", choices=RUNTIMES)
    parser.add_argument("--photos", type=Path, help="directory of JPEG files of one size (default: drawn photos)")
    parser.add_argument("--count", type=int, default=48, help="photos a round (default: 48)")
    parser.add_argument("--boxes", type=float, default=13, help="boxes to draw on a photo (default: 13)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def _photos(folder: Path, given: Path | None, count: int) -> list[ImageArray]:
    """Fills ``folder`` with ``count`` JPEG files, and returns what they show."""
    folder.mkdir()
    files = sorted(given.glob("*.jpg")) if given else []
    for number in range(count):
        data = (
            files[number % len(files)].read_bytes()
            if files
            else draw_photo(0, number + 1, DEFAULT_SIZE_HW, DEFAULT_DIFFICULTY)[0]
        )
        (folder / f"{number:04d}.jpg").write_bytes(data)
    return [read_image(file) for file in sorted(folder.iterdir())]


def _write_video(path: Path, photos: Sequence[ImageArray]) -> None:
    height, width = photos[0].shape[:2]
    with writing_video(path, 25, (height, width)) as sink:
        for photo in photos:
            sink.write(cv2.resize(photo, (width, height)))  # type: ignore[arg-type]


def _score(detector: PhotoDetector, photos: Sequence[ImageArray], boxes: float) -> float:
    """The score above which the photos hold ``boxes`` each, on average."""
    found = [one for batch in batches(photos, 8) for one in detector.predict_batch(batch, 0.01, 0.3)]
    scores = np.sort(np.concatenate([one.scores for one in found]))[::-1]
    return float(scores[min(len(scores) - 1, round(boxes * len(photos)))]) if len(scores) else 0.5


def _bare(detector: PhotoDetector, photos: Sequence[ImageArray], size: int, score: float) -> Callable[[], None]:
    inputs = [detector.prepare(batch)[1] for batch in batches(photos, size)]

    def run() -> None:
        for batch in inputs:
            if isinstance(detector, ArtifactPredictor) and not detector.artifact.nms:
                detector.raw(batch)
            else:
                detector.find(batch, score, 0.3)

    return run


def _whole(detector: PhotoDetector, source: Path, out: Path, size: int, score: float) -> Callable[[], None]:
    def run() -> None:
        options = PredictOptions(out, score, 0.3, size)
        summary = predict_all(detector, find_sources([str(source)]), options, Quiet())
        assert not summary.failed, summary.failed

    return run


if __name__ == "__main__":
    main()
