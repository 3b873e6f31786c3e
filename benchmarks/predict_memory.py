"""Memory of predict.py's code over many images: resident megabytes after each tenth of them.

  python -m benchmarks.predict_memory logs/first/export/best.onnx --count 10000

Every kind of result is written. The images are links to twenty files of different sizes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from engine.outputs import save_picture
from engine.predict_all import predict_all
from engine.prediction import PredictOptions
from engine.result_log import ResultFiles
from engine.runtimes.choice import load_detector
from engine.sources import find_sources
from utils.machine import MIB, memory_mib
from utils.progress import Quiet
from utils.quiet import quieten_libraries


def main() -> None:
    """Predicts and prints a line for each tenth, then the growth after the first tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--score", type=float, default=0.5)
    given = parser.parse_args()
    quieten_libraries()
    detector = load_detector(given.weights)
    sizes_mb: list[float] = []
    done = 0

    def tell(line: str) -> None:
        nonlocal done
        done += 1
        if done % (given.count // 10) == 0:
            sizes_mb.append(memory_mib() * MIB / 1e6)
            print(f"{done:7d} images  {sizes_mb[-1]:7.1f} MB", flush=True)

    with tempfile.TemporaryDirectory() as made:
        folder, out = Path(made) / "in", Path(made) / "out"
        link_photos(folder, given.count)
        files = ResultFiles(*(out / name for name in ("all.json", "all.csv", "all.coco", "all.jsonl")))
        wanted = {"txt": True, "voc_xml": True, "yolo_txt": True, "crops": True, "count": True}
        options = PredictOptions(out, given.score, files=files, **wanted)
        summary = predict_all(detector, find_sources([str(folder)]), options, Quiet(), tell)
    print(f"{summary.images} images, {summary.counts.total()} detections")
    print(f"growth after the first tenth: {max(sizes_mb) - sizes_mb[0]:.1f} MB")


def link_photos(folder: Path, count: int, different: int = 20) -> None:
    """Fills ``folder`` with ``count`` names for ``different`` JPEG files of rectangles, 50 to 145 pixels high."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number < different:
            blocks = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
            save_picture(path, blocks.repeat(10 + number, axis=0).repeat(10 + number // 2, axis=1))
        else:
            os.link(folder / f"{number % different:06d}.jpg", path)


if __name__ == "__main__":
    main()
