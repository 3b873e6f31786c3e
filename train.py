"""Train a detector: annotation lists in, checkpoints, curves and pictures out."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from engine.launch import carry_out
from utils.command_line import training_request
from utils.config import RunConfig
from utils.door import run_door
from utils.progress import Reporter
from utils.quiet import quieten_libraries

DESCRIPTION = """Train a detector on annotation lists, which voc_annotation.py writes.

  python voc_annotation.py --voc VOCdevkit --out lists
  python train.py --data.train lists/2007_train.txt --data.val lists/2007_val.txt --run-dir logs/first \\
                  --model.backbone efficientnet_lite0 --model.weights package
  python train.py --config configs/bccd.yaml --run-dir logs/first --train.epochs 50
  python train.py --config configs/bccd.yaml --dry-run          what would it take?
  python train.py --resume logs/first                           after a stop, a crash or a power cut

A recipe file sets any of the fields below, and flags override it. Of the run directory, plots/first_batch.jpg shows
what the network is taught: look at it before you wait for hours."""


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the arguments, trains, says what came of it."""
    request = training_request(DESCRIPTION, RunConfig, sys.argv[1:] if argv is None else argv)
    quieten_libraries()
    ended = carry_out(request, Reporter())
    for line in ended.report:
        print(line)
    summary = ended.summary
    if summary is None:
        return ended.exit_code
    print(summary)
    print(f"detector: {summary.run_dir / 'best'}   curves: {summary.run_dir / 'plots' / 'curves.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(run_door(main))
