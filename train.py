"""Train a detector: annotation lists in, checkpoints, curves and pictures out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from engine.interrupts import stop_on_signals
from utils.command_line import parse, read_run_config, run_config, run_config_parser
from utils.door import run_door
from utils.errors import ConfigError
from utils.progress import Reporter
from utils.quiet import native_stderr_held_back, quieten_libraries

DESCRIPTION = """Train a detector.
  python voc_annotation.py --voc VOCdevkit --out lists;
  python train.py --data.train lists/2007_train.txt --data.val lists/2007_val.txt --data.classes lists/classes.txt
  --run-dir logs/first;
  python train.py --resume logs/first.
A recipe file sets any of the fields below, and flags override it: python train.py --config configs/bccd.yaml"""


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the arguments, trains, says what came of it."""
    parser = run_config_parser(DESCRIPTION)
    parser.add_argument("--run-dir", type=str, default="logs/run", help="where the files of the new run go")
    parser.add_argument("--resume", type=str, help="a run directory: go on where that run stopped")
    words = sys.argv[1:] if argv is None else argv
    arguments = parse(parser, words)
    if arguments.resume:
        if any(word.startswith("--") and not word.startswith("--resume") for word in words):
            raise ConfigError("--resume: goes on with the run's own config; leave the other options out")
        config, run_dir = read_run_config(Path(arguments.resume) / "config.yaml"), arguments.resume
    else:
        config, run_dir = run_config(parser, arguments), arguments.run_dir

    quieten_libraries()
    with native_stderr_held_back():
        from engine.startup import resume_run, start_run

    trainer = (resume_run if arguments.resume else start_run)(config, run_dir, Reporter())
    with stop_on_signals() as stop:
        summary = trainer.fit(stop)
    if stop.made:
        print(f"stopped; go on with: python train.py --resume {run_dir}", file=sys.stderr)
        return stop.exit_code
    best = summary.best_score
    measured = "mAP not measured" if best is None else f"best {summary.score_title} {best:.4f} on the validation list"
    print(f"{summary.epochs} epochs in {summary.minutes:.1f} minutes, {measured}")
    print(f"detector: {summary.run_dir / 'best'}   curves: {summary.run_dir / 'plots' / 'curves.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(run_door(main))
