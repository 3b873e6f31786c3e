"""Export a trained detector to ONNX, OpenVINO, LiteRT or a SavedModel, and check that it finds what it found."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from utils.arguments import Parser, count, share
from utils.door import run_door
from utils.errors import ParityError
from utils.export_formats import FORMATS, check_formats
from utils.progress import Reporter
from utils.quiet import native_stderr_held_back, quieten_libraries
from utils.run_files import find_checkpoint

DESCRIPTION = """Export a trained detector, and check that the file finds what the checkpoint finds.

  python export.py logs/first --format onnx
  python export.py logs/first --format onnx openvino saved_model --out exported
  python export.py logs/first --format onnx --nms               boxes come out, not raw outputs
  python export.py logs/first --format litert --half             for phones, half the size
  python export.py logs/first --format onnx-int8 --calibrate lists/2007_train.txt --measure lists/2007_val.txt

Each file takes raw RGB and says what it is: classes, size, anchors, thresholds, licence, versions. predict.py,
get_map.py and yolo.Detector take it in place of a checkpoint; all but SavedModels then run without TensorFlow.
Needs: pip install -r requirements-export.txt"""
EPILOG = """exit codes: 0 done; 2 usage, or a package is missing; 3 a file finds something else than the checkpoint,
or a photo could not be used; 4 a file could not be read or written."""


def arguments(argv: Sequence[str] | None) -> Namespace:
    """The command line, checked. ConfigError when it cannot be understood."""
    made = Parser(DESCRIPTION)
    made.epilog = EPILOG
    add = made.add_argument
    add("weights", metavar="RUN", help="run directory, or a checkpoint such as logs/first/best")
    add("--format", nargs="+", required=True, choices=FORMATS, help="what to write")
    add("--out", type=Path, metavar="DIR", help="where files go (default: export/ beside the checkpoint)")
    add("--nms", action="store_true", help="decode and suppress inside the file: boxes come out")
    add("--half", action="store_true", help="weights in 16 bits: half the size, computed in 32 bits as before")
    add(
        "--dynamic-size",
        action="store_true",
        help="leave the side open, too: predict.py --size N, Detector(input_size=)",
    )
    add("--score", type=share, default=0.5, help="lowest score to show, stored in the file (default: 0.5)")
    add("--iou", type=share, default=0.3, help="overlap above which the weaker box goes, stored too (default: 0.3)")
    add("--license", default="not stated", metavar="TEXT", help="licence of your weights, stored in the file")
    add("--measure", metavar="LIST", help="annotation list: compare mAP on it, too")
    add("--calibrate", metavar="LIST", help="annotation list whose photos set the ranges of int8")
    add("--images", type=count, default=16, metavar="N", help="photos to compare boxes on (default: 16)")
    return made.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Exports, compares, says what came of it. ParityError when a file finds something else."""
    given = arguments(argv)
    quieten_libraries()
    check_formats(given.format, given.calibrate, given.nms, given.half, given.dynamic_size)
    checkpoint = find_checkpoint(given.weights)
    with native_stderr_held_back():
        from engine.export.jobs import ExportRequest, export_all
    from engine.export.report import parity_table, write_parity

    same = ("nms", "half", "score", "iou", "license", "measure", "calibrate", "images")
    out = given.out or checkpoint.parent / "export"
    formats = tuple(dict.fromkeys(given.format))
    wanted = {name: getattr(given, name) for name in same}
    request = ExportRequest(checkpoint, formats, out, any_size=given.dynamic_size, **wanted)
    problems = []
    for parity in export_all(request, Reporter()):
        write_parity(parity)
        print(parity_table(parity))
        problems += [f"{parity.path}: {problem}" for problem in parity.problems()]
    if problems:
        raise ParityError(f"{'; '.join(problems)}: do not use it")


if __name__ == "__main__":
    sys.exit(run_door(main))
