"""CPU milliseconds an image takes from decoded photo to boxes, for a checkpoint or an exported file.

  taskset -c 0 python benchmarks/exported.py logs/first/best
  taskset -c 0 python benchmarks/exported.py logs/first/export/best.onnx --runtime openvino

CPU time of the process, not wall time, so that other work on the machine counts little. On one core (taskset) no
runtime keeps threads that spin while they wait.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.runtimes.choice import load_detector
from utils.artifact_files import RUNTIMES
from utils.images import decode_image
from utils.quiet import quieten_libraries
from utils.synthetic import DEFAULT_DIFFICULTY, DEFAULT_SIZE_HW
from utils.synthetic_scene import draw_photo


def main() -> None:
    """Times batches of 1 and 8 drawn photos and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--runtime", choices=RUNTIMES)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    quieten_libraries()
    detector = load_detector(given.weights, given.runtime)
    drawn = [draw_photo(0, index, DEFAULT_SIZE_HW, DEFAULT_DIFFICULTY)[0] for index in range(1, 9)]
    photos = [decode_image(jpeg, "drawn photo") for jpeg in drawn]
    for size in (1, 8):
        times = []
        for turn in range(3 + given.rounds):
            start = time.process_time()
            detector.predict_batch(photos[:size])
            if turn >= 3:
                times.append((time.process_time() - start) * 1000 / size)
        print(f"batch of {size}: median {statistics.median(times):.1f} CPU ms an image")


if __name__ == "__main__":
    main()
