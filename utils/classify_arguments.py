"""The command lines of classify.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.arguments import Parser, count
from utils.files import refuse_replacing
from utils.run_files import find_checkpoint

TRAIN = """Train a classifier on folders of photos named after their classes.

  python classify.py train --data pets --backbone mobilenet_v2_0.5 --run-dir logs/pets
  python classify.py train --data pets --val-fraction 0.2 --weights imagenet --train.freeze_epochs 5
  python classify.py train --resume logs/pets

--data DIR, --backbone NAME, --weights WEIGHTS and --val-fraction SHARE are short for --data.dir, --model.backbone,
--model.weights and --data.val_fraction."""
PREDICT = """Say what photos show. A bad photo is reported at the end, and the others are done.

  python classify.py predict photo.jpg holiday/ --weights logs/pets --top 3 --json found.json
  python classify.py predict photo.jpg --backbone efficientnet_b0 --weights imagenet
  python classify.py predict photo.jpg --backbone efficientnet_lite0 --weights package"""
MEASURE = """Measure a classifier on labelled photos.

  python classify.py measure --weights logs/pets --data pets --split test --out measured"""
PUBLISHED = ("imagenet", "package")
"""Weights that are no file of the user's."""
WEIGHTS = "checkpoint, run directory, .h5 file, imagenet or package"
SHORT = {
    "--data": "--data.dir",
    "--backbone": "--model.backbone",
    "--weights": "--model.weights",
    "--val-fraction": "--data.val_fraction",
}
"""Options of ``classify.py train`` that stand for a field of the config."""


def in_full(words: Sequence[str]) -> list[str]:
    """``words`` with the short options, alone or as ``--data=DIR``, replaced by the fields they stand for."""
    parts = [word.partition("=") for word in words]
    return [SHORT.get(option, option) + equals + value for option, equals, value in parts]


def predict_arguments(words: Sequence[str]) -> Any:
    """What ``classify.py predict`` is to do. ConfigError when it cannot be understood or would replace an input."""
    made = Parser(PREDICT, "classify.py predict")
    add = made.add_argument
    add("sources", nargs="+", metavar="IMAGE", help="image, directory or glob pattern")
    add("--weights", default="imagenet", help=f"{WEIGHTS} (default: imagenet)")
    _add_network(made)
    add("--top", type=count, default=5, metavar="N", help="how many classes to name (default: 5)")
    add("--batch", type=count, default=16, metavar="N", help="images given to the network at once (default: 16)")
    add("--json", type=Path, metavar="FILE", help="all answers as one JSON document; - is stdout")
    add("--recursive", action="store_true", help="search the directories below a directory, too")
    add("--ignore-exif", action="store_true", help="leave the EXIF orientation of photos alone")
    given = _with_weights_file(made.parse_args(words))
    weights = None if given.weights in PUBLISHED else given.weights
    refuse_replacing({"--json": given.json}, {"weights": weights, "classes": given.classes})
    return given


def measure_arguments(words: Sequence[str]) -> Any:
    """What ``classify.py measure`` is to do. ConfigError when it cannot be understood."""
    made = Parser(MEASURE, "classify.py measure")
    add = made.add_argument
    add("--weights", required=True, help=WEIGHTS)
    _add_network(made)
    add("--data", required=True, metavar="DIR", help="a folder for each class, in test/, val/ or here")
    add("--split", metavar="NAME", help="which folder of DIR (default: test, else val, else DIR itself)")
    add("--batch", type=count, default=16, metavar="N", help="images given to the network at once (default: 16)")
    add("--out", type=Path, metavar="DIR", help="where metrics.json, confusion.png and mistakes.jpg go")
    return _with_weights_file(made.parse_args(words))


def _add_network(made: Parser) -> None:
    made.add_argument("--backbone", metavar="NAME", help="what the weights are of; a checkpoint says it itself")
    made.add_argument(
        "--classes", metavar="FILE", help="class names, one a line (default: the checkpoint's, or ImageNet's)"
    )


def _with_weights_file(given: Any) -> Any:
    """``given`` with the file its weights are in, where they are the user's. FileError when there is none."""
    if given.weights not in PUBLISHED:
        given.weights = str(find_checkpoint(given.weights))
    return given
