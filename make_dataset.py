#!/usr/bin/env python
"""Draws a Pascal VOC dataset of photographic difficulty, to try and test everything without a download."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from utils.arguments import Parser, count, share
from utils.door import run_door
from utils.progress import Reporter
from utils.synthetic import CLASS_NAMES, DEFAULT_DIFFICULTY, DEFAULT_SIZE_HW, make_dataset

MORE = f"""
Classes: {", ".join(CLASS_NAMES)}. 18 % of the pictures go to test, 7 % to val, the rest to train.
The same seed gives the same files, byte for byte. Nothing is ever overwritten.

examples:
  python make_dataset.py --out demo/VOCdevkit --images 400 --seed 0
  python voc_annotation.py --voc demo/VOCdevkit --out demo
"""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line as values."""
    parser = Parser(__doc__ + "\n" + MORE)
    add = parser.add_argument
    height, width = DEFAULT_SIZE_HW
    add("--out", type=Path, required=True, metavar="DIR", help="VOCdevkit folder; VOC2007 is made inside it")
    add("--images", type=count, default=400, metavar="N", help="how many pictures (default: 400)")
    add("--seed", type=int, default=0, metavar="N", help="of everything random, 0 or more (default: 0)")
    add("--width", type=count, default=width, metavar="PX", help=f"typical width (default: {width})")
    add("--height", type=count, default=height, metavar="PX", help=f"typical height (default: {height})")
    harder = f"0 (calm) to 1 (crowded, noisy, dim, small) (default: {DEFAULT_DIFFICULTY})"
    add("--difficulty", type=share, default=DEFAULT_DIFFICULTY, metavar="D", help=harder)
    add("--preview", metavar="FILE", help="also write the first 12 pictures with their labels as one JPEG")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Draws the set and says where it lies."""
    args = arguments(argv)
    size_hw = (args.height, args.width)
    make_dataset(args.out, args.images, args.seed, size_hw, args.difficulty, Reporter())
    print(f"{args.images} pictures of {', '.join(CLASS_NAMES)} in {args.out / 'VOC2007'}")
    if args.preview:
        from utils.synthetic_preview import write_preview

        write_preview(args.preview, min(12, args.images), args.seed, size_hw, args.difficulty)
        print(f"preview: {args.preview}")
    return 0


if __name__ == "__main__":
    sys.exit(run_door(main))
