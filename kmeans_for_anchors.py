#!/usr/bin/env python
"""Fits the nine anchors of the detector to the boxes of your own annotation list."""

from __future__ import annotations

import argparse
import os
import sys

from utils.anchor_fit import AnchorFit, input_sizes, measure_fit
from utils.anchors import LEVEL_COUNT, RECALL_THRESHOLD, kmeans_anchors, read_anchors, write_anchors
from utils.arguments import Parser, count
from utils.config import LEVELS
from utils.door import run_door
from utils.errors import ConfigError, DataError
from utils.files import refuse_replacing
from utils.progress import Reporter
from utils.records import read_annotation_list
from utils.shipped import own_or_shipped
from utils.types import FloatArray

MORE = """
An anchor is a box shape that a prediction starts from. When your objects are unlike those of everyday photos (small
cells, tall bottles, wide ships), anchors fitted to them can make learning easier. Boxes are measured as training sees
them: in the square input, after the resize rule. k-means with the distance 1 - shape IoU does the rest.

Read the table so: "mean best IoU" is how well the best anchor covers a box, on average; "recall" is the share of boxes
that some anchor covers with an IoU of at least 0.5. A better fit need not mean a better detector: measure its mAP.

example:
  python kmeans_for_anchors.py --list 2007_train.txt --input-size 416 --out model_data/my_anchors.txt
  python train.py --model.anchors model_data/my_anchors.txt --model.anchor_size 416 ...
"""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line as values, checked."""
    parser = Parser(__doc__ + "\n" + MORE)
    add = parser.add_argument
    add("--list", required=True, metavar="FILE", help="annotation list, as voc_annotation.py writes it")
    add("--out", required=True, metavar="FILE", help="where the new anchors are written")
    add("--input-size", type=count, default=416, metavar="PX", help="side of the network's input (default: 416)")
    add("--resize", choices=("letterbox", "stretch"), default="letterbox", help="as in training (default: letterbox)")
    add("--count", type=count, default=9, metavar="N", help="how many anchors, a multiple of 3 (default: 9)")
    add("--seed", type=int, default=0, metavar="N", help="of the starts of k-means, 0 or more (default: 0)")
    add("--anchors", default="model_data/yolo_anchors.txt", metavar="FILE", help="anchors to compare with")
    add("--anchor-size", type=count, default=416, metavar="PX", help="input size --anchors was made for (default: 416)")
    add("--plot", metavar="FILE", help="picture of box sizes, old and new anchors (default: as --out, but .png)")
    add("--ignore-exif", action="store_true", help="leave the EXIF orientation of photos alone")
    args = parser.parse_args(argv)
    if args.count % LEVEL_COUNT:
        raise ConfigError(f"--count: {args.count}: must be a multiple of {LEVEL_COUNT}, as many for each level")
    if args.input_size % 32:
        raise ConfigError(f"--input-size: {args.input_size}: must be a multiple of 32")
    if args.seed < 0:
        raise ConfigError(f"--seed: {args.seed}: must be 0 or more")
    args.plot = args.plot or f"{os.path.splitext(args.out)[0]}.png"
    if os.path.realpath(args.plot) == os.path.realpath(args.out):
        raise ConfigError(f"--plot: {args.plot}: is --out too: choose another name")
    refuse_replacing({"--out": args.out, "--plot": args.plot}, {"annotation list": args.list, "anchors": args.anchors})
    return args


def main(argv: list[str] | None = None) -> int:
    """Fits, writes, compares."""
    args = arguments(argv)
    reporter = Reporter()
    old = read_anchors(own_or_shipped(args.anchors)) * (args.input_size / args.anchor_size)
    records = read_annotation_list(args.list)
    boxes_wh, left_out = input_sizes(records, args.input_size, args.resize, args.ignore_exif, reporter)
    if len(boxes_wh) == 0:
        raise DataError(f"{args.list}: no boxes: anchors need labelled objects")
    new = kmeans_anchors(boxes_wh, args.count, args.seed, progress=reporter)
    write_anchors(args.out, new)
    print_comparison(args, boxes_wh, old, new)
    if left_out:
        print(f"{left_out} boxes of 1 px or less in the input left out, as in training")
    print(f"anchors: {args.out} (for input size {args.input_size}: --model.anchor_size {args.input_size})")
    from utils.anchor_plot import draw_anchors  # matplotlib takes a second to load

    draw_anchors(boxes_wh, old, new, args.input_size, args.plot)
    print(f"plot: {args.plot}")
    return 0


def print_comparison(args: argparse.Namespace, boxes_wh: FloatArray, old: FloatArray, new: FloatArray) -> None:
    """Two tables: how well the anchors fit, and what they are."""
    from rich.console import Console
    from rich.table import Table

    scores = Table(title=f"{len(boxes_wh)} boxes at {args.input_size} px, {args.resize}", title_justify="left")
    for heading in ("anchors", "mean best IoU", f"recall at IoU {RECALL_THRESHOLD}", f"best at {'/'.join(LEVELS)}"):
        scores.add_column(heading, justify="left" if heading == "anchors" else "right")
    shapes = Table(title="width x height in input pixels", title_justify="left")
    for heading in ("anchors", *LEVELS):
        shapes.add_column(heading)
    for name, anchors in (("old", old), ("new", new)):
        fit: AnchorFit = measure_fit(boxes_wh, anchors)
        shares = "/".join(f"{share:.0%}" for share in fit.level_shares)
        scores.add_row(name, f"{fit.mean_best_iou:.4f}", f"{fit.recall:.4f}", shares)
        levels = anchors.reshape(LEVEL_COUNT, -1, 2)
        shapes.add_row(name, *("  ".join(f"{width:.0f}x{height:.0f}" for width, height in level) for level in levels))
    console = Console()
    console.print(scores)
    console.print(shapes)


if __name__ == "__main__":
    sys.exit(run_door(main))
