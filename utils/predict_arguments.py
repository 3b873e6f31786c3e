"""The command line of predict.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.arguments import Parser, count, share
from utils.artifact_files import RUNTIMES
from utils.errors import ConfigError

DESCRIPTION = """Detect objects in photos, videos and camera pictures.

  python predict.py photo.jpg --weights logs/first/best
  python predict.py holiday/ --recursive --weights logs/first/best --out found --json found.json --count
  python predict.py 'holiday/*.jpg' street.png --weights logs/first/best --score 0.3 --csv found.csv --crops
  python predict.py traffic.mp4 --weights logs/first/best --out found
  python predict.py 0 --weights logs/first/best --show          webcam 0; q or Ctrl-C ends it
  python predict.py photo.jpg --weights logs/first/best --fps   how fast is it here?

  python predict.py new/ --weights logs/first/best --voc-xml    label new photos: correct, train again
  find . -name '*.jpg' | python predict.py - --weights logs/first/best --jsonl - | jq .image
  curl https://host/a.jpg | python predict.py - --weights logs/first/best

Results keep the names of their inputs. A bad input is reported at the end, and the others are done."""
EPILOG = """exit codes: 0 done; 2 usage; 3 an input could not be used; 4 a file could not be read or written;
130 or 143 interrupted (a video is kept and plays up to there). Sound is not kept. More in docs/predict.md."""


def predict_arguments(words: Sequence[str] | None) -> Any:
    """What predict.py is to do. ConfigError when it cannot be understood."""
    made = Parser(DESCRIPTION)
    made.epilog = EPILOG
    _add_inputs(made)
    _add_results(made)
    given = made.parse_args(words)
    if not given.sources and not given.source_list:
        raise ConfigError("SOURCE: missing: give images, directories or videos, or --source-list FILE; see --help")
    return given


def _add_inputs(made: Parser) -> None:
    add = made.add_argument_group("what to look at, with what").add_argument
    add(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="image, directory, glob pattern, video, webcam number, stream URL; - is stdin: an image, or a list",
    )
    add("--source-list", type=Path, metavar="FILE", help="more sources, one a line")
    add("--recursive", action="store_true", help="search the directories below a directory, too")
    add("--weights", required=True, metavar="FILE", help="checkpoint such as logs/first/best, run, or exported file")
    add("--runtime", choices=RUNTIMES, help="what computes the network (default: what the weights are made for)")
    add("--size", type=count, metavar="N", help="side of the square photos are fed in (default: as in training)")
    add("--score", type=share, default=0.5, help="lowest score to show, 0..1 (default: 0.5)")
    add("--iou", type=share, default=0.3, help="overlap above which the weaker of two boxes goes (default: 0.3)")
    add("--batch", type=count, default=8, metavar="N", help="images given to the network at once (default: 8)")
    add("--ignore-exif", action="store_true", help="leave the EXIF orientation of photos alone")


def _add_results(made: Parser) -> None:
    add = made.add_argument_group("results").add_argument
    add("--out", default="predictions", type=Path, metavar="DIR", help="where results go (default: predictions)")
    add("--json", type=Path, metavar="FILE", help="all detections as one JSON document; here and below - is stdout")
    add("--jsonl", type=Path, metavar="FILE", help="a line of JSON an image as soon as it is done")
    add("--csv", type=Path, metavar="FILE", help="all detections as a table, one a row")
    add("--coco", type=Path, metavar="FILE", help="all detections in COCO's JSON, with images and categories")
    add("--txt", action="store_true", help="DIR/txt/NAME.txt: name score left top right bottom")
    add("--voc-xml", action="store_true", help="DIR/voc/NAME.xml: Pascal VOC, to correct in LabelImg and train on")
    add("--yolo-txt", action="store_true", help="DIR/yolo/labels/NAME.txt: class x y width height score, 0..1")
    add("--crops", action="store_true", help="DIR/crops/CLASS/NAME_N.jpg: each detection cut out")
    add("--heatmap", action="store_true", help="DIR/heatmaps/NAME: where the detector sees any object at all")
    add("--count", action="store_true", help="print how many of each class, per image and in all")
    add("--show", action="store_true", help="show results in a window as they come; a key goes on, q closes it")
    add("--fps", action="store_true", help="measure latency and throughput here")
