"""Measure a detector: VOC and COCO mAP, precision, recall and more, as tables, JSON, text files and plots."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.arguments import Parser, count, share
from utils.artifact_files import RUNTIMES
from utils.classes import CLASS_LIST, read_classes
from utils.door import run_door
from utils.errors import ConfigError
from utils.map_files import read_map_files
from utils.map_report import METRICS_FILE, check_output, write_report
from utils.metrics import Metrics, evaluate
from utils.problems import FailFast
from utils.progress import Reporter
from utils.quiet import quieten_libraries
from utils.types import Detections, GroundTruth

DESCRIPTION = """Measure a detector against labelled photos.

  python get_map.py --weights logs/first/best --voc VOCdevkit --year 2007 --set test --out map_out
  python get_map.py --weights logs/first/best --list lists/2007_val.txt --out map_val
  python get_map.py --from-files map_out

The first two run the detector; the last computes the same numbers again from the text files that they leave in
map_out/ground-truth and map_out/detection-results, or that any other detector wrote in that form:
"name left top right bottom [difficult]" and "name score left top right bottom", one line an object, one file an image.
"""

Measured = tuple[Metrics, Sequence[GroundTruth], dict[str, Detections]]


def _parser() -> Parser:
    made = Parser(DESCRIPTION)
    source = made.add_argument_group("what to measure")
    source.add_argument("--weights", help="checkpoint such as logs/first/best, run, or exported file")
    source.add_argument("--voc", help="VOCdevkit folder, which holds VOC2007 or the like")
    source.add_argument("--year", help="year of --voc (default: 2007)")
    source.add_argument("--set", help="split in ImageSets/Main of --voc (default: test)")
    source.add_argument("--list", help="annotation list, in place of --voc")
    source.add_argument("--from-files", metavar="DIR", help="folder with ground-truth/ and detection-results/")
    source.add_argument("--classes", help="class list for --from-files (default: DIR/classes.txt, or the names met)")
    how = made.add_argument_group("how")
    how.add_argument("--runtime", choices=RUNTIMES, help="what computes the network (default: as the weights ask)")
    how.add_argument("--size", type=count, help="side of the square photos are fed in (default: as in training)")
    how.add_argument("--score", type=share, default=0.5, help="score where P, R, F1, confusion are taken (0.5)")
    how.add_argument("--batch", type=count, default=8, help="images at once (default: 8)")
    how.add_argument("--out", help="output folder (default: map_out; with --from-files DIR_metrics)")
    how.add_argument("--no-plots", action="store_true", help="leave the plots out")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, writes the report, prints the tables."""
    quieten_libraries()
    _check(arguments := _parser().parse_args(argv))
    files = arguments.from_files
    out = Path(arguments.out or (f"{os.path.normpath(files)}_metrics" if files else "map_out"))
    photos = [Path(arguments.voc) / f"VOC{arguments.year or '2007'}"] if arguments.voc else []
    beside = [os.path.dirname(os.path.abspath(path)) for path in (arguments.list, arguments.classes) if path]
    check_output(out, photos, [path for path in (files, arguments.weights, arguments.voc, *beside) if path])
    measured = (_from_files if files else _by_running)(arguments, reporter := Reporter())
    write_report(out, *measured, reporter, plots=not arguments.no_plots)
    _show(measured[0], out)


def _check(arguments: argparse.Namespace) -> None:
    given = [name for name in ("weights", "voc", "list", "from_files") if getattr(arguments, name)]
    if given not in (["weights", "voc"], ["weights", "list"], ["from_files"]):
        raise ConfigError("give --weights with --voc or --list, or --from-files alone; see --help")
    if (arguments.year or arguments.set) and not arguments.voc:
        raise ConfigError("--year, --set: only for --voc: of a list or of files all is measured")
    if arguments.classes and not arguments.from_files:
        raise ConfigError("--classes: only for --from-files: a checkpoint brings its own classes")


def _from_files(arguments: argparse.Namespace, reporter: Reporter) -> Measured:
    beside = Path(arguments.from_files) / CLASS_LIST
    classes = arguments.classes or (beside if beside.is_file() else None)
    files = read_map_files(arguments.from_files, read_classes(classes, reporter.say) if classes else None)
    truths, found = files.ground_truths, files.detections
    return evaluate(truths, found, files.class_names, arguments.score), truths, found


def _by_running(arguments: argparse.Namespace, reporter: Reporter) -> Measured:
    from engine.evaluation import evaluate_records, samples_of_list
    from utils.voc import load_ground_truth
    from yolo import Detector

    detector, remarks = Detector(arguments.weights, runtime=arguments.runtime, input_size=arguments.size), FailFast()
    known = detector.class_names, detector.spec.ignore_exif
    if arguments.list:
        samples = samples_of_list(arguments.list, *known)
    else:
        samples = load_ground_truth(arguments.voc, arguments.year or "2007", arguments.set or "test", *known, remarks)
    for line in remarks.warning_lines():
        reporter.say(line)
    how = {"batch_size": arguments.batch, "score_threshold": arguments.score, "reporter": reporter}
    metrics, detections = evaluate_records(detector.predictor, samples, **how)
    return metrics, [truth for _, truth in samples], detections


def _show(metrics: Metrics, out: Path) -> None:
    from rich.console import Console

    from utils.metric_tables import class_table, summary_table

    Console().print(class_table(metrics), summary_table(metrics), sep="\n")
    if metrics.voc_map_50 is None:
        print(f"no mAP: none of the classes ({', '.join(metrics.class_names)}) has an object to find", file=sys.stderr)
    print(f"numbers, text files and plots: {out / METRICS_FILE} and beside it")


if __name__ == "__main__":
    sys.exit(run_door(main))
