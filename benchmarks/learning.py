"""What detectors have learned after so many minutes of training from scratch: ours, the reference, YOLO11n.

A minute is 60 seconds of CPU time on each core of the machine: of a program that keeps all of them busy a minute by the
clock, and unlike that the same when other programs run beside it. What a run holds as its best by the validation list
is copied at every mark, and measured on the test list when the time is over. With ``--core`` contenders learn side by
side, each on a core of its own, for as many times as long as there are cores.

    python voc_annotation.py --voc BCCD/VOCdevkit --year 2007 --out lists --skip-bad
    python -m benchmarks.learning run best --lists lists --minutes 10 20 40 60
    python -m benchmarks.learning run reference --lists lists --minutes 10 20
    python -m benchmarks.learning run yolo11n --lists lists --minutes 10 20 40 60 --python VENV/bin/python --epochs 300
    python -m benchmarks.learning show learning.png

VENV is a virtual environment of its own with ``pip install ultralytics``. A run is scheduled for the epochs of its
recipe, chosen to fill the last mark; those of YOLO11n are given here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from utils.classes import read_classes
from utils.image_headers import probe
from utils.map_files import FOUND_FOLDER, write_map_files
from utils.records import read_annotation_list
from utils.types import GroundTruth, Record

SIZE = 416
TITLES = {
    "best": "EfficientNet-B0, configs/bccd_hour.yaml",
    "small": "MobileNet v2 0.35, configs/bccd_small.yaml",
    "reference": "EfficientNet-B0, configs/reference.yaml",
    "yolo11n": "YOLO11n",
}
COLOURS = dict(zip(TITLES, ("C0", "C1", "C3", "C2"), strict=True))
CONFIGS = {"best": "configs/bccd_hour.yaml", "small": "configs/bccd_small.yaml", "reference": "configs/reference.yaml"}
YOLO_SCRIPT = Path(__file__).with_name("yolo11n.py")
RESULT = "learning.json"
METRICS = {"voc_map_50": "VOC mAP@0.5", "coco_ap": "COCO AP"}


@dataclass(frozen=True)
class Contender:
    """What trains, where it keeps its best, and what measures a copy of that into a folder."""

    words: tuple[str, ...]
    best: Path
    measure: Callable[[Path, Path], None]


def get_map(*words: str | Path | int) -> None:
    """Measures, without pictures. CalledProcessError where it fails."""
    subprocess.run([sys.executable, "get_map.py", *map(str, words), "--no-plots"], check=True, stdout=sys.stderr)


def ours(name: str, lists: Path, out: Path, seed: int, changes: list[list[str]]) -> Contender:
    """A recipe of this application, but for ``changes``: pairs of a field and its value."""
    words = (
        *(sys.executable, "train.py", "--config", CONFIGS[name], "--run-dir", str(out / "run")),
        *("--data.train", str(lists / "2007_train.txt"), "--data.val", str(lists / "2007_val.txt")),
        *("--data.classes", str(lists / "classes.txt"), "--model.weights", "none", "--model.input_size", str(SIZE)),
        *("--train.seed", str(seed)),
        *(word for field, value in changes for word in (f"--{field}", value)),
    )

    def measure(weights: Path, folder: Path) -> None:
        get_map("--weights", weights, "--list", lists / "2007_test.txt", "--out", folder)

    return Contender(words, out / "run" / "best", measure)


def yolo11n(python: Path, epochs: int, lists: Path, out: Path, seed: int) -> Contender:
    """Ultralytics' smallest of its eleventh generation, on the same photos."""
    data, place = yolo_dataset(lists, out / "data"), str(out.absolute())
    names = tuple(read_classes(str(lists / "classes.txt")))
    script = (str(python), str(YOLO_SCRIPT))

    def measure(weights: Path, folder: Path) -> None:
        records = read_annotation_list(str(lists / "2007_test.txt"), len(names))
        truths = [ground_truth(record) for record in records]
        write_map_files(folder / "files", truths, {}, names)
        photos = folder / "photos.txt"
        photos.write_text("".join(f"{record.image_path}\n" for record in records))
        found = folder / "files" / FOUND_FOLDER
        subprocess.run([*script, "find", weights, photos, found, "--size", str(SIZE)], check=True, stdout=sys.stderr)
        get_map("--from-files", folder / "files", "--out", folder)

    words = (*script, "train", str(data), place, *("--epochs", str(epochs), "--size", str(SIZE), "--seed", str(seed)))
    return Contender(words, out / "run" / "weights" / "best.pt", measure)


def ground_truth(record: Record) -> GroundTruth:
    """A line of a list as what is measured against; lists hold no difficult objects."""
    difficult = np.zeros(len(record.class_ids), bool)
    return GroundTruth(Path(record.image_path).stem, record.boxes_xyxy, record.class_ids, difficult)


def yolo_dataset(lists: Path, folder: Path) -> Path:
    """The photos of ``lists`` as Ultralytics reads them: links, and beside them a text file of boxes for each."""
    names = read_classes(str(lists / "classes.txt"))
    for split in ("train", "val"):
        images, labels = folder / "images" / split, folder / "labels" / split
        for place in (images, labels):
            place.mkdir(parents=True, exist_ok=True)
        for record in read_annotation_list(str(lists / f"2007_{split}.txt"), len(names)):
            photo = Path(record.image_path).absolute()
            height, width = probe(str(photo)).size_hw
            lines = []
            for (x1, y1, x2, y2), class_id in zip(record.boxes_xyxy.tolist(), record.class_ids.tolist(), strict=True):
                box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                lines.append(" ".join(map(str, (class_id, *box))))
            (images / photo.name).unlink(missing_ok=True)
            (images / photo.name).symlink_to(photo)
            (labels / f"{photo.stem}.txt").write_text("\n".join(lines))
    described = {"path": str(folder.absolute()), "train": "images/train", "val": "images/val"}
    # JSON is YAML.
    (folder / "data.yaml").write_text(json.dumps({**described, "names": dict(enumerate(names))}))
    return folder / "data.yaml"


def cpu_minutes(process: subprocess.Popen[bytes], cores: int) -> float:
    """CPU time of ``process`` in minutes of all ``cores``."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK") / 60 / cores


def train(contender: Contender, out: Path, marks: list[float], core: int | None) -> dict[float, Path]:
    """Trains up to the last mark, on ``core`` or on all. A copy of the best so far for each mark that found one."""
    copies: dict[float, Path] = {}
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, every if core is None else {core})
    started = time.monotonic()
    with (out / "train.log").open("wb") as log:
        process = subprocess.Popen(contender.words, stdout=log, stderr=subprocess.STDOUT)
        os.sched_setaffinity(0, every)
        for mark in marks:
            while process.poll() is None and cpu_minutes(process, len(every)) < mark:
                time.sleep(0.5)
            clock = (time.monotonic() - started) / 60
            print(f"{mark:g} minutes, {clock:.1f} by the clock", file=sys.stderr, flush=True)
            # What has found nothing yet has no best.
            if contender.best.exists():
                copies[mark] = out / f"after_{mark:g}{contender.best.suffix}"
                shutil.copyfile(contender.best, copies[mark])
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        elif process.returncode:
            raise SystemExit(f"{out / 'train.log'}: training failed")
        process.wait()
    return copies


def run(given: argparse.Namespace) -> None:
    """Trains and measures one contender; what it found goes to ``learning.json`` in its folder."""
    out = given.out / given.contender
    if out.exists():
        raise SystemExit(f"{out}: is there already: remove it, or give another --out")
    out.mkdir(parents=True)
    if given.contender == "yolo11n":
        contender = yolo11n(given.python, given.epochs, given.lists, out, given.seed)
    else:
        contender = ours(given.contender, given.lists, out, given.seed, given.change)
    found: dict[str, Any] = {}
    copies = train(contender, out, sorted(given.minutes), given.core)
    for mark in sorted(given.minutes):
        found[f"{mark:g}"] = {"voc_map_50": 0.0, "coco_ap": 0.0}
        if mark in copies:
            folder = out / f"map_{mark:g}"
            folder.mkdir()
            contender.measure(copies[mark], folder)
            found[f"{mark:g}"] = json.loads((folder / "metrics.json").read_text())
        (out / RESULT).write_text(json.dumps(found))


def show(given: argparse.Namespace) -> None:
    """Prints what was measured as a table, and draws it: a line a run, those of one contender in one colour."""
    found = [
        (name, json.loads((folder / name / RESULT).read_text()))
        for name in TITLES
        for folder in given.out
        if (folder / name / RESULT).exists()
    ]
    marks = sorted({mark for _, measured in found for mark in measured}, key=float)
    heads = ["mAP@0.5 (COCO AP) on the test list after", *(f"{mark} min" for mark in marks)]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True, layout="constrained")
    titles = TITLES | dict(given.label)
    for name, measured in found:
        cells = [
            f"{measured[m]['voc_map_50']:.4f} ({measured[m]['coco_ap']:.4f})" if m in measured else "" for m in marks
        ]
        print(f"| {' | '.join([titles[name], *cells])} |")
        for axis, key in zip(axes, METRICS, strict=True):
            minutes = sorted(measured, key=float)
            values = [measured[m][key] for m in minutes]
            axis.plot(list(map(float, minutes)), values, marker="o", color=COLOURS[name], label=titles[name])
    for axis, metric in zip(axes, METRICS.values(), strict=True):
        axis.set(xlabel="minutes of training", ylabel=f"{metric}, test photos", xlim=(0, None), ylim=(0, 1))
        axis.grid(alpha=0.3)
    # Of several runs of one contender the last.
    lines, labels = axes[1].get_legend_handles_labels()
    last = dict(zip(labels, lines, strict=True))
    axes[1].legend(list(last.values()), list(last))
    figure.savefig(given.picture, dpi=120)


def main() -> None:
    """Runs one contender, or shows all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    running = verbs.add_parser("run", help="train and measure one contender")
    running.add_argument("contender", choices=TITLES, help="what learns")
    running.add_argument("--lists", type=Path, required=True, help="folder that voc_annotation.py wrote")
    running.add_argument("--minutes", type=float, nargs="+", default=[10.0, 20.0, 40.0, 60.0], help="marks")
    running.add_argument("--python", type=Path, help="of the environment that has ultralytics, for yolo11n")
    running.add_argument("--epochs", type=int, default=300, help="that yolo11n's schedule is made for (default: 300)")
    running.add_argument("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    cores = sorted(os.sched_getaffinity(0))
    running.add_argument("--core", type=int, choices=cores, help="train on this one alone (default: on all)")
    running.add_argument(
        "--change", nargs=2, action="append", default=[], metavar=("FIELD", "VALUE"), help="another value for ours"
    )
    running.set_defaults(run=run)
    showing = verbs.add_parser("show", help="print and draw what was measured")
    showing.add_argument("picture", type=Path, help="PNG to write")
    showing.set_defaults(run=show)
    running.add_argument("--out", type=Path, default=Path("learning"), help="folder of the runs (default: learning)")
    showing.add_argument(
        "--out", type=Path, nargs="+", default=[Path("learning")], help="their folders, one a seed (default: learning)"
    )
    showing.add_argument(
        "--label", nargs=2, action="append", default=[], metavar=("CONTENDER", "TEXT"), help="another title for one"
    )
    given = parser.parse_args()
    yolo = getattr(given, "contender", None) == "yolo11n"
    if yolo and not given.python:
        parser.error("--python: is needed for yolo11n: the Python of an environment with ultralytics")
    if yolo and given.change:
        parser.error("--change: for ours; yolo11n trains by its own recipe")
    given.run(given)


if __name__ == "__main__":
    main()
