"""Memory of training over many steps: resident MiB after each tenth of them.

  python -m benchmarks.train_memory [--steps 2000]

A small detector learns from drawn photos through the trainer's own loader and learner, epoch after epoch.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import tensorflow as tf

from benchmarks.loader import drawn_records
from engine.detection_task import DetectionTask
from engine.learner import Learner
from engine.plan import detector_spec
from nets.detector import build_detector
from utils.config import DataConfig, ModelConfig, RunConfig
from utils.machine import memory_mib
from utils.quiet import quieten_libraries
from utils.synthetic import CLASS_NAMES

ANCHORS = Path(__file__).resolve().parent.parent / "model_data" / "yolo_anchors.txt"


def main() -> None:
    """Trains and prints a line for each tenth, then the growth after the first tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    quieten_libraries()
    sizes_mib: list[float] = []
    with tempfile.TemporaryDirectory() as made:
        classes = Path(made) / "classes.txt"
        classes.write_text("\n".join(CLASS_NAMES))
        model = ModelConfig("mobilenet_v1_0.25_shallow", input_size=given.size, anchors=str(ANCHORS))
        config = RunConfig(DataConfig(classes=str(classes), threads=2), model)
        spec = detector_spec(config)
        records = drawn_records(Path(made), given.images, (120, 160))
        task = DetectionTask(config, spec, build_detector(spec), records, records)
        learner = Learner(task, config.train, tf.distribute.get_strategy(), frozen_backbone=False)
        step = epoch = 0
        while step < given.steps:
            for batch in task.train_data.training_batches(epoch, given.batch):
                learner.train_step(batch, 1e-4)
                step += 1
                if step % max(given.steps // 10, 1) == 0:
                    sizes_mib.append(memory_mib())
                    print(f"{step:7d} steps  {sizes_mib[-1]:7.1f} MiB", flush=True)
                if step == given.steps:
                    break
            epoch += 1
    print(f"growth after the first tenth: {sizes_mib[-1] - sizes_mib[0]:.1f} MiB")


if __name__ == "__main__":
    main()
