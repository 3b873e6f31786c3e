"""Detect objects in photos, videos and camera pictures: drawn results, JSON, CSV, text, crops."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import Parser, count, share
from utils.artifact_files import RUNTIMES, find_weights
from utils.door import run_door
from utils.files import refuse_replacing
from utils.progress import Reporter
from utils.quiet import allow_any_name, quieten_libraries

if TYPE_CHECKING:
    from engine.prediction import PredictOptions
    from engine.viewer import Viewer

DESCRIPTION = """Detect objects in photos, videos and camera pictures.

  python predict.py photo.jpg --weights logs/first/best
  python predict.py holiday/ --recursive --weights logs/first/best --out found --json found.json --count
  python predict.py 'holiday/*.jpg' street.png --weights logs/first/best --score 0.3 --csv found.csv --crops
  python predict.py traffic.mp4 --weights logs/first/best --out found
  python predict.py 0 --weights logs/first/best --show          webcam 0; q or Ctrl-C ends it
  python predict.py photo.jpg --weights logs/first/best --fps   how fast is it here?

Results keep the names of their inputs. A bad input is reported at the end, and the others are done."""
EPILOG = """exit codes: 0 done; 2 usage; 3 an input could not be used; 4 a file could not be read or written;
130 or 143 interrupted (a video is kept and plays up to there). Sound is not kept."""


def arguments(argv: Sequence[str] | None) -> Namespace:
    """The command line, checked. ConfigError when it cannot be understood."""
    made = Parser(DESCRIPTION)
    made.epilog = EPILOG
    add = made.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="image, directory, glob pattern, video, webcam number, stream URL")
    add("--weights", required=True, metavar="FILE", help="checkpoint such as logs/first/best, run, or exported file")
    add("--runtime", choices=RUNTIMES, help="what computes the network (default: what the weights are made for)")
    add("--size", type=count, metavar="N", help="side of the square photos are fed in (default: as in training)")
    add("--out", default="predictions", type=Path, metavar="DIR", help="where results go (default: predictions)")
    add("--score", type=share, default=0.5, help="lowest score to show, 0..1 (default: 0.5)")
    add("--iou", type=share, default=0.3, help="overlap above which the weaker of two boxes goes (default: 0.3)")
    add("--json", type=Path, metavar="FILE", help="all detections as one JSON document")
    add("--csv", type=Path, metavar="FILE", help="all detections as a table, one a row")
    add("--txt", action="store_true", help="DIR/txt/NAME.txt: name score left top right bottom")
    add("--crops", action="store_true", help="DIR/crops/CLASS/NAME_N.jpg: each detection cut out")
    add("--heatmap", action="store_true", help="DIR/heatmaps/NAME: where the detector sees any object at all")
    add("--count", action="store_true", help="print how many of each class, per image and in all")
    add("--show", action="store_true", help="show results in a window as they come; a key goes on, q closes it")
    add("--fps", action="store_true", help="measure latency and throughput here")
    add("--recursive", action="store_true", help="search the directories below a directory, too")
    add("--batch", type=count, default=8, metavar="N", help="images given to the network at once (default: 8)")
    add("--ignore-exif", action="store_true", help="leave the EXIF orientation of photos alone")
    return made.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Finds the inputs, predicts, says what came of it."""
    given = arguments(argv)
    quieten_libraries()
    allow_any_name()
    from engine.naming import refuse_overwriting
    from engine.predict_all import predict_all
    from engine.sources import find_sources
    from engine.timing import speed_table
    from utils.fonts import missing_note
    from yolo import Detector

    reporter = Reporter()
    sources = find_sources(given.sources, given.recursive, skip=given.out)
    weights = find_weights(given.weights)
    refuse_replacing({"--json": given.json, "--csv": given.csv}, {"weights": weights})
    refuse_overwriting(sources, given.out, [file for file in (given.json, given.csv) if file], weights)
    how = (given.batch, given.ignore_exif or None, given.runtime, given.size)
    detector = Detector(weights, given.score, given.iou, *how)
    if note := missing_note(detector.class_names):
        reporter.say(note)
    viewer = _viewer(reporter) if given.show else None
    summary = predict_all(detector.predictor, sources, _options(given), reporter, print, viewer)
    for _, error in summary.failed:
        reporter.say(str(error))
    print(summary.in_words(given.out))
    if given.fps and summary.samples and not summary.interrupted:
        print(speed_table(detector.predictor, summary.samples, given.batch, given.score, given.iou))
    return summary.exit_code


def _options(given: Namespace) -> PredictOptions:
    from engine.prediction import PredictOptions

    same = ("score", "iou", "ignore_exif", "txt", "crops", "heatmap", "count")
    wanted = {name: getattr(given, name) for name in same}
    return PredictOptions(given.out, batch_size=given.batch, json_file=given.json, csv_file=given.csv, **wanted)


def _viewer(reporter: Reporter) -> Viewer | None:
    from engine.viewer import open_viewer

    viewer = open_viewer()
    if isinstance(viewer, str):
        reporter.say(f"--show: {viewer}: going on without a window")
        return None
    return viewer


if __name__ == "__main__":
    sys.exit(run_door(main))
