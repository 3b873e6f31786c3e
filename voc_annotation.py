"""VOC folders in, annotation lists for training out, with a health report of the dataset.

Examples:
  python voc_annotation.py --voc VOCdevkit --out lists
      every year in VOCdevkit; writes lists/2007_train.txt, lists/2007_val.txt, ... and lists/classes.txt
  python voc_annotation.py --voc VOCdevkit --year 2007 2012 --classes model_data/voc_classes.txt --out lists
      two years, class ids as in the given list
  python voc_annotation.py --voc siteA siteB --out lists --skip-bad
      two folders at once, merged year by year; leaves out what is broken instead of stopping

A year's ImageSets/Main/{train,val,test}.txt are used as they are. A year without them is split at random; the split
is also written to DIR/VOC<year>/ImageSets, to be copied into your VOC folder so that get_map.py finds it. With photos
added, the same command leaves the others where they were (DIR/splits.json): else what a detector learned from would be
tested on. --new-split, another --seed or another share draws all anew.

Objects marked difficult are left out of the lists (evaluation reads them from the XML). Images without objects are
kept. Every problem is printed; with one, nothing is written and the exit code is 3. --skip-bad writes all the same and
leaves out the whole image of a broken annotation: without its broken box, the image would teach the detector that the
object there is background. An image in both train and val then stays in train.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from utils.annotate import derive_classes, make_records, read_dataset, require_objects, write_lists
from utils.arguments import Parser
from utils.classes import CLASS_LIST, changed_ids, read_classes, write_classes
from utils.door import run_door
from utils.errors import DataError
from utils.health import Health, health_parts, measure
from utils.health_plot import draw_health
from utils.problems import Problems
from utils.progress import Reporter
from utils.shipped import own_or_shipped
from utils.split_memory import keep_earlier
from utils.splits import (
    SplitRule,
    find_sources,
    refuse_inputs_as_output,
    split_lines,
)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = Parser(__doc__ or "")
    add = parser.add_argument
    add("--voc", nargs="+", required=True, metavar="FOLDER", help="VOCdevkit folders, each holding VOC<year> folders")
    add("--year", nargs="+", metavar="YEAR", help="years to use, such as 2007 2012 (default: all that are there)")
    add("--classes", metavar="FILE", help="class names, one a line (default: all names found, sorted)")
    add("--out", required=True, metavar="DIR", help="where the lists are written")
    add("--trainval-percent", type=float, default=0.9, metavar="P", help="of a new split: not test (default: 0.9)")
    add("--train-percent", type=float, default=0.9, metavar="P", help="of that: train, the rest val (default: 0.9)")
    add("--seed", type=int, default=0, help="decides a new split (default: 0)")
    add("--new-split", action="store_true", help="split anew, whatever ImageSets or an earlier split in DIR say")
    add("--skip-bad", action="store_true", help="leave out images with problems, say which, and write the rest")
    add("--ignore-exif", action="store_true", help="boxes were drawn on photos without their EXIF rotation")
    add("--no-report", action="store_true", help="no health report and no dataset.png")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Annotates; returns the exit code."""
    args, problems = arguments(argv), Problems()
    out = Path(args.out)
    rule = SplitRule(args.trainval_percent, args.train_percent, args.seed, args.new_split)
    listener = problems.listener("blank line in the class list")
    given = read_classes(own_or_shipped(args.classes), listener) if args.classes else ()
    sources = keep_earlier(find_sources(args.voc, args.year, rule, problems), out, rule)
    refuse_inputs_as_output(out, sources)
    dataset = read_dataset(sources, args.ignore_exif, problems, Reporter())
    class_names = given or derive_classes(dataset)
    lists = make_records(dataset, class_names, problems)
    health = measure(dataset, class_names)
    if not args.no_report:
        show(health)
    tell(problems, dataset.left_out, args.skip_bad)
    require_objects(lists, dataset, class_names)
    if problems.errors and not args.skip_bad:
        return DataError.exit_code
    changed = changed_ids(beside := out / CLASS_LIST, class_names)
    written, removed = write_lists(out, lists, sources, rule)
    # What belongs to these lists lies beside them, wherever it came from.
    if not (args.classes and beside.resolve() == Path(args.classes).resolve()):
        write_classes(beside, class_names)
        written.append(beside)
    if not args.no_report:
        written.append(out / "dataset.png")
        draw_health(health, written[-1])
    said = [f"wrote {path}" for path in written] + [f"removed {path}, an earlier list" for path in removed]
    print("\n".join([*said, *changed, *split_lines(sources, out, rule)]))
    return 0


def show(health: Health) -> None:
    """Prints the tables and figures."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    for part in health_parts(health):
        console.print(part)


def tell(problems: Problems, left_out: int, skip_bad: bool) -> None:
    """Prints warnings by kind, then every error and what becomes of it."""
    print(*problems.warning_lines(), sep="\n", end="\n" * bool(problems.warnings))
    for error in sorted(problems.errors):
        print(" ".join(error.splitlines()), file=sys.stderr)
    if problems.errors and skip_bad:
        print(f"{len(problems.errors)} problems: {left_out} images left out", file=sys.stderr)
    elif problems.errors:
        print(f"{len(problems.errors)} problems: nothing written; mend them, or give --skip-bad", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_door(main))
