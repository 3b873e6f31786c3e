"""How training grows: images/s and memory against batch, input size, boxes an image, length of the list, replicas.

  python -m benchmarks.growth [--axes batch size boxes list replicas] [--rounds 3] [--chart growth.png]
  python -m benchmarks.growth --small        small values and a small network, to try the command

Every measurement runs in a process of its own, so that its peak of memory is its own. A step is that of the trainer,
EfficientNet-B0 unless ``--backbone`` says otherwise, everything learning, on noise with boxes drawn at random; the
first two of each are not timed. Replicas are parts of one CPU, so they show what sharing out costs, not what it gains.
Lists name links to a few photos that are drawn for them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

CLASSES = 20
PHOTOS = 20
LOADED = 800
"""Images that the loader's speed is taken over."""
STEP_COLUMNS = {"seconds": "s a step", "cpu_s": "CPU s a step", "images_per_s": "images/s", "peak_mib": "peak MiB"}
LIST_COLUMNS = {
    "start_s": "s to start",
    "order_ms": "ms for an order",
    "first_batch_s": "s to first batch",
    "loader_per_s": "images/s from the loader",
    "grown_mib": "grown by MiB",
    "peak_mib": "peak MiB",
}


@dataclass(frozen=True)
class Axis:
    """What is varied, what stands still, and what is shown of it."""

    title: str
    name: str
    values: Sequence[int]
    fixed: Mapping[str, int]
    columns: Mapping[str, str]


AXES = {
    "batch": Axis("batch, at 224 px", "batch", (1, 2, 4, 8, 16), {"size": 224}, STEP_COLUMNS),
    "size": Axis("input size in px, batch 4", "size", (128, 192, 256, 320, 416, 512), {}, STEP_COLUMNS),
    "boxes": Axis("boxes an image, batch 4 at 224 px", "boxes", (1, 10, 50, 100, 500), {"size": 224}, STEP_COLUMNS),
    "replicas": Axis("replicas, batch 4 at 224 px", "replicas", (1, 2), {"size": 224}, STEP_COLUMNS),
    "list": Axis("lines of the training list", "lines", (1_000, 10_000, 50_000, 100_000, 200_000), {}, LIST_COLUMNS),
}
SMALL = {"batch": (1, 2), "size": (64, 96), "boxes": (1, 10), "replicas": (1, 2), "list": (100, 1_000)}
STEP = {"batch": 4, "size": 224, "boxes": 5, "replicas": 1}


def main() -> None:
    """Measures along the axes, prints a table for each, draws them on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=[*AXES], default=[*AXES], help="what to vary")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each measurement, the median counts")
    parser.add_argument("--backbone", default="efficientnet_b0")
    parser.add_argument("--small", action="store_true", help="small values and mobilenet_v1_0.25_shallow")
    parser.add_argument("--chart", type=Path, help="a PNG file to draw")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(json.loads(given.measure))))
        return
    backbone = "mobilenet_v1_0.25_shallow" if given.small else given.backbone
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for key in given.axes:
            axis, values = AXES[key], SMALL[key] if given.small else AXES[key].values
            if key == "list":
                draw_lists(Path(folder), values)
            found[key] = []
            for value in values:
                wanted = {"backbone": backbone, "rounds": given.rounds, "folder": folder, axis.name: value}
                found[key].append({axis.name: value, **in_child({**axis.fixed, **wanted})})
                print(f"{axis.name} {value}: {shown(found[key][-1], axis.columns)}", file=sys.stderr, flush=True)
    load = " ".join(f"{one:.2f}" for one in os.getloadavg())
    print(f"{backbone}, {os.cpu_count()} CPU cores, median of {given.rounds} steps, load average at the end {load}")
    for key, rows in found.items():
        print_table(AXES[key], rows)
    if given.chart:
        draw(found, given.chart)


def in_child(wanted: dict[str, Any]) -> dict[str, float]:
    """``measured`` in a process of its own. Ends with the child's words when it fails."""
    command = [sys.executable, "-m", "benchmarks.growth", "--measure", json.dumps(wanted)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{wanted}: exit {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(wanted: dict[str, Any]) -> dict[str, float]:
    """One measurement, in this process."""
    from utils.machine import peak_memory_mib
    from utils.quiet import quieten_libraries

    quieten_libraries()
    numbers = measured_list(wanted) if "lines" in wanted else measured_step({**STEP, **wanted})
    return {**numbers, "peak_mib": peak_memory_mib()}


def measured_step(wanted: dict[str, Any]) -> dict[str, float]:
    """Seconds of a training step, also of all cores together, which other programs disturb less; images/s."""
    import tensorflow as tf

    from engine.detection_task import DetectionTask
    from engine.learner import Learner
    from nets.detector import build_detector
    from utils.anchors import read_anchors
    from utils.config import DetectorSpec, RunConfig, TrainConfig

    strategy = tf.distribute.get_strategy()
    if wanted["replicas"] > 1:
        cpu, count = tf.config.list_physical_devices("CPU")[0], wanted["replicas"]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(count)])
    anchors = tuple(map(tuple, read_anchors(ROOT / "model_data" / "yolo_anchors.txt").tolist()))
    names = tuple(f"class {number}" for number in range(CLASSES))
    spec = DetectorSpec(names, wanted["backbone"], 416, anchors).at_size(wanted["size"])
    records = crowded_records(Path(wanted["folder"]), wanted["batch"], wanted["size"], wanted["boxes"])
    with strategy.scope():
        model = build_detector(spec)
    task = DetectionTask(RunConfig(), spec, model, records, records)
    learner = Learner(task, TrainConfig(), strategy, frozen_backbone=False)
    batch = next(task.val_data.validation_batches(len(records)))
    times, cpu_times = [], []
    for _ in range(2 + wanted["rounds"]):
        before, cpu_before = time.perf_counter(), time.process_time()
        learner.train_step(batch, 1e-4)
        times.append(time.perf_counter() - before)
        cpu_times.append(time.process_time() - cpu_before)
    seconds, cpu_s = statistics.median(times[2:]), statistics.median(cpu_times[2:])
    return {"seconds": seconds, "cpu_s": cpu_s, "images_per_s": wanted["batch"] / seconds}


def crowded_records(folder: Path, images: int, size: int, boxes: int) -> list[Any]:
    """``images`` squares of noise with ``boxes`` boxes each."""
    from engine.outputs import save_picture
    from utils.types import Record

    rng = np.random.default_rng(0)
    records = []
    for number in range(images):
        path = folder / f"crowd-{size}-{number}.png"
        save_picture(path, rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        sides = rng.uniform(8, size / 2, (boxes, 2))
        corners = rng.uniform(0, size - sides)
        classes = rng.integers(0, CLASSES, boxes)
        records.append(Record(str(path), np.concatenate([corners, corners + sides], axis=1), classes))
    return records


def draw_lists(folder: Path, lengths: Sequence[int]) -> None:
    """``N.txt`` for each length N, ``val.txt`` and ``classes.txt``; the images are links to ``PHOTOS`` files."""
    from engine.outputs import save_picture
    from utils.records import write_annotation_list
    from utils.types import Record

    rng = np.random.default_rng(0)
    photos = folder / "photos"
    photos.mkdir()
    for number in range(max(lengths) + PHOTOS):
        path = photos / f"{number:06d}.jpg"
        if number < PHOTOS:
            save_picture(path, rng.integers(0, 256, (5, 7, 3), dtype=np.uint8).repeat(20, axis=0).repeat(20, axis=1))
        else:
            os.link(photos / f"{number % PHOTOS:06d}.jpg", path)
    (folder / "classes.txt").write_text("".join(f"class {number}\n" for number in range(CLASSES)))
    records = []
    for number in range(max(lengths) + PHOTOS):
        count = int(rng.integers(1, 10))
        corners = rng.integers(0, 50, (count, 2)).astype(np.float64)
        boxes = np.concatenate([corners, corners + rng.integers(5, 50, (count, 2))], axis=1)
        records.append(Record(str(photos / f"{number:06d}.jpg"), boxes, rng.integers(0, CLASSES, count)))
    write_annotation_list(folder / "val.txt", records[:PHOTOS])
    for length in lengths:
        write_annotation_list(folder / f"{length}.txt", records[PHOTOS : PHOTOS + length])


def measured_list(wanted: dict[str, Any]) -> dict[str, float]:
    """What a training list of ``lines`` costs before the first step, besides the network, and what comes after it."""
    from engine.detection_setup import DetectionSetup, read_lists
    from engine.detection_task import DetectionTask
    from nets.detector import build_detector
    from utils.config import DataConfig, ModelConfig, RunConfig
    from utils.machine import memory_mib
    from utils.progress import Quiet

    folder = Path(wanted["folder"])
    data = DataConfig(str(folder / f"{wanted['lines']}.txt"), str(folder / "val.txt"), str(folder / "classes.txt"))
    anchors = str(ROOT / "model_data" / "yolo_anchors.txt")
    config = RunConfig(data, ModelConfig("mobilenet_v1_0.25_shallow", input_size=64, anchors=anchors))
    spec = DetectionSetup(config).spec()
    model = build_detector(spec)
    memory, before = memory_mib(), time.perf_counter()
    task = DetectionTask(config, spec, model, *read_lists(config, CLASSES, Quiet()))
    started = time.perf_counter()
    task.train_data.order(1)
    ordered = time.perf_counter()
    batches = task.train_data.training_batches(1, 8)
    next(batches)
    first = time.perf_counter()
    images = sum(len(batch.images) for batch in islice(batches, LOADED // 8))
    loaded = time.perf_counter()
    return {
        "start_s": started - before,
        "order_ms": 1000 * (ordered - started),
        "first_batch_s": first - ordered,
        "loader_per_s": images / (loaded - first),
        "grown_mib": memory_mib() - memory,
    }


def shown(row: Mapping[str, float], columns: Mapping[str, str]) -> str:
    """``s a step 0.123, images/s 32.5``."""
    return ", ".join(f"{title} {row[key]:.4g}" for key, title in columns.items())


def print_table(axis: Axis, rows: Sequence[Mapping[str, float]]) -> None:
    """As Markdown."""
    print(f"\n| {axis.title} | {' | '.join(axis.columns.values())} |")
    print(f"|{'---|' * (1 + len(axis.columns))}")
    for row in rows:
        cells = [f"{row[axis.name]:,}", *(f"{row[key]:.4g}" for key in axis.columns)]
        print(f"| {' | '.join(cells)} |")


def draw(found: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """A column of two charts for each axis: speed above, memory below."""
    from utils.metric_curves import new_figure, tidy
    from utils.metric_plots import save_figure

    figure = new_figure(3.2 * len(found), 5.0)
    charts = figure.subplots(2, len(found), squeeze=False)
    for column, (key, rows) in enumerate(found.items()):
        axis = AXES[key]
        speed = "start_s" if key == "list" else "images_per_s"
        for row, shown_key in enumerate((speed, "peak_mib")):
            chart = charts[row][column]
            chart.plot([one[axis.name] for one in rows], [one[shown_key] for one in rows], marker="o")
            chart.set_ylim(0, 1.1 * max(one[shown_key] for one in rows))
            chart.set_ylabel(axis.columns[shown_key])
            chart.set_xlabel(axis.title)
            tidy(chart)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
