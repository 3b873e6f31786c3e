"""What each choice of the recipe is worth: one changed at a time, everything else as it was, in short trainings.

Scores are the mAP on the validation list after the last epoch. The recipe itself is trained from several seeds, whose
spread tells which differences mean something (docs/ablation.md has the tables).

    python voc_annotation.py --voc BCCD/VOCdevkit --year 2007 --out lists --skip-bad
    python -m benchmarks.ablation --config configs/bccd.yaml --epochs 60 --jobs 2 -- --model.backbone mobilenet_v2_0.35

What follows ``--`` changes every training. One that was finished is not repeated. A recipe with phases of its own says
itself how long it trains. Small networks use one core better than several: ``--jobs`` trains as many at once, each on
its own cores. What one seed leaves open, ``--only`` and ``--row-seeds`` ask more closely: the rows whose names contain
a word, from several seeds too, with their mean.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

CHANGES: dict[str, tuple[str, ...]] = {
    "one anchor a box (`loss.assignment best`)": ("--loss.assignment", "best"),
    "own cell only (`loss.neighbour_cells false`)": ("--loss.neighbour_cells", "false"),
    "objectness learns 1 (`loss.objectness_target one`)": ("--loss.objectness_target", "one"),
    "sums by level (`loss.normalisation level`)": ("--loss.normalisation", "level"),
    "unbounded sizes (`model.decode exp`)": ("--model.decode", "exp"),
    "no prior at the outputs (`model.prior_probability 0`)": ("--model.prior_probability", "0"),
    "SGD (`train.optimizer sgd`, rate 0.01)": ("--train.optimizer", "sgd", "--train.learning_rate", "0.01"),
    "no decay (`train.weight_decay 0`)": ("--train.weight_decay", "0"),
    "no clipping (`train.clip_norm 0`)": ("--train.clip_norm", "0"),
    "rate by the epoch (`train.schedule_by epoch`)": ("--train.schedule_by", "epoch"),
    "no warm-up (`train.warmup_epochs 0`)": ("--train.warmup_epochs", "0"),
    "fewer anchors a box (`loss.assignment_iou 0.6`)": ("--loss.assignment_iou", "0.6"),
    "more anchors a box (`loss.assignment_iou 0.25`)": ("--loss.assignment_iou", "0.25"),
    "more negatives (`loss.ignore_iou 0.7`)": ("--loss.ignore_iou", "0.7"),
    "statistics that follow faster (`model.batch_norm_momentum 0.9`)": ("--model.batch_norm_momentum", "0.9"),
    "blocks left out (`model.stochastic_depth 0.2`)": ("--model.stochastic_depth", "0.2"),
    "rate 0.001 (`train.learning_rate 0.001`)": ("--train.learning_rate", "0.001"),
    "momentum 0.9 (`train.momentum 0.9`)": ("--train.momentum", "0.9"),
    "boxes count 1 (`loss.box_weight 1`)": ("--loss.box_weight", "1"),
    "boxes count 2 (`loss.box_weight 2`)": ("--loss.box_weight", "2"),
    "boxes count 4 (`loss.box_weight 4`)": ("--loss.box_weight", "4"),
    "boxes count 8 (`loss.box_weight 8`)": ("--loss.box_weight", "8"),
    "boxes count 16 (`loss.box_weight 16`)": ("--loss.box_weight", "16"),
    "classes count twice (`loss.class_weight 1`)": ("--loss.class_weight", "1"),
    "objectness counts twice (`loss.objectness_weight 2`)": ("--loss.objectness_weight", "2"),
    "scaled by 0.25 to 2 (`augment.scale_min 0.25`, `scale_max 2`)": (
        *("--augment.scale_min", "0.25", "--augment.scale_max", "2"),
    ),
    "more colours (`augment.hue 0.1`, `saturation 0.7`, `value 0.4`)": (
        *("--augment.hue", "0.1", "--augment.saturation", "0.7", "--augment.value", "0.4"),
    ),
    "more proportions (`augment.aspect_jitter 0.3`)": ("--augment.aspect_jitter", "0.3"),
    "photos as they are (`augment.enabled false`)": ("--augment.enabled", "false"),
    "averaged weights (`train.ema_decay 0.998`)": ("--train.ema_decay", "0.998"),
    "no average (`train.ema_decay 0`)": ("--train.ema_decay", "0"),
    "mosaic (`augment.mosaic 0.5`, last 5 epochs without)": ("--augment.mosaic", "0.5", "--augment.close_mosaic", "5"),
    "mosaic of photos at full size (`augment.mosaic_scale 1` besides)": (
        *("--augment.mosaic", "0.5", "--augment.mosaic_scale", "1", "--augment.close_mosaic", "5"),
    ),
    "mixup (`augment.mixup 0.2`, last 5 epochs without)": ("--augment.mixup", "0.2", "--augment.close_mosaic", "5"),
    "label smoothing (`loss.label_smoothing 0.1`)": ("--loss.label_smoothing", "0.1"),
    "focal objectness (`loss.focal_gamma 1.5`)": ("--loss.focal_gamma", "1.5"),
    "weights by level (`loss.balance [4, 1, 0.4]`)": ("--loss.balance", "[4, 1, 0.4]"),
    "varied sides (`train.multi_scale 0.25`)": ("--train.multi_scale", "0.25"),
    "growing inputs (two fifths of the epochs at {side} px)": ("GROWING",),
    "anchors fitted to the boxes (`model.auto_anchors 1`)": ("--model.auto_anchors", "1"),
    "rare classes more often (`data.balance_classes 0.9`)": ("--data.balance_classes", "0.9"),
    "batches of four (`train.batch_size 4`)": ("--train.batch_size", "4"),
    "two batches an update (`train.accumulate 2`)": ("--train.accumulate", "2"),
    "turned by up to 10 degrees (`augment.degrees 10`)": ("--augment.degrees", "10"),
    "tilted (`augment.perspective 0.1`)": ("--augment.perspective", "0.1"),
    "slanted by up to 5 degrees (`augment.shear 5`)": ("--augment.shear", "5"),
    "shifted (`augment.translate 0.1`)": ("--augment.translate", "0.1"),
    "bfloat16 (`train.precision mixed_bfloat16`)": ("--train.precision", "mixed_bfloat16"),
    "L2 on the head (`train.head_l2 0.0005`)": ("--train.head_l2", "0.0005"),
    "Adam (`train.optimizer adam`)": ("--train.optimizer", "adam"),
    "batch norm that learns (`train.freeze_batch_norm false`)": ("--train.freeze_batch_norm", "false"),
    "the whole rate for the backbone (`train.backbone_rate 1`)": ("--train.backbone_rate", "1"),
    "rate in steps (`train.schedule step`)": ("--train.schedule", "step"),
}
RECIPE = "the recipe"


def growing(epochs: int, side: int) -> tuple[str, ...]:
    """Two fifths of the epochs on inputs of ``side`` pixels."""
    small = {"until_epoch": 2 * epochs // 5, "batch_size": 8, "frozen_backbone": False, "input_size": side}
    return ("--train.phases", json.dumps([small, {**small, "until_epoch": epochs, "input_size": 0}]))


def pool_on(jobs: int) -> ThreadPoolExecutor:
    """Threads with a share of this process's cores each, which what they start inherits. SystemExit for too many."""
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= jobs <= len(cores):
        raise SystemExit(f"--jobs: {jobs}: 1 to {len(cores)} can have cores of their own")
    shares = iter([cores[job::jobs] for job in range(jobs)])
    return ThreadPoolExecutor(jobs, initializer=lambda: os.sched_setaffinity(0, next(shares)))


def train(run_dir: Path, words: list[str]) -> dict[str, float]:
    """The measurements of a run's last epoch, trained unless it was before. SystemExit where that failed."""
    asked, done = run_dir.with_suffix(".words"), run_dir / "ablation.json"
    if asked.exists() and json.loads(asked.read_text()) != words:
        raise SystemExit(f"{run_dir}: was trained with other fields: give another --out")
    asked.write_text(json.dumps(words))
    if not done.exists():
        report = run_dir.with_suffix(".log")
        with report.open("wb") as log:
            again = ["--resume", str(run_dir)] if (run_dir / "last").exists() else [*words, "--run-dir", str(run_dir)]
            ended = subprocess.run([sys.executable, "train.py", *again], stdout=log, stderr=subprocess.STDOUT)
        if ended.returncode:
            print(f"{report}: training failed", file=sys.stderr, flush=True)
            raise SystemExit(1)
        done.write_text((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    return json.loads(done.read_text())


def row(name: str, seeds: list[dict[str, float]], reference: list[dict[str, float]] | None) -> str:
    """A line of the table: the mean of ``seeds``, from least to greatest if there are several."""
    cells = [name]
    for key in ("map_50", "coco_ap"):
        scores = sorted(found[key] for found in seeds)
        mean = statistics.mean(scores)
        change = f" ({mean - statistics.mean(found[key] for found in reference):+.3f})" if reference else ""
        spread = f", {scores[0]:.4f} to {scores[-1]:.4f}" if len(scores) > 1 else ""
        cells.append(f"{mean:.4f}{change}{spread}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Trains and prints a table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="the recipe, with the lists (default: every field's own default)")
    parser.add_argument("--epochs", type=int, default=60, help="of each training (default: 60)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the recipe itself (default: 3)")
    parser.add_argument("--row-seeds", type=int, default=1, help="trainings of each change (default: 1)")
    parser.add_argument("--only", action="append", metavar="WORD", help="changes with it in their names (default: all)")
    parser.add_argument("--out", type=Path, default=Path("ablation"), help="folder for the runs (default: ablation)")
    parser.add_argument("--small", type=int, default=192, metavar="PX", help="side of small inputs (default: 192)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once (default: 1)")
    parser.add_argument("words", nargs="*", metavar="-- FIELD VALUE", help="fields of all trainings")
    given = parser.parse_args()
    if min(given.seeds, given.row_seeds) < 1:
        parser.error("--seeds, --row-seeds: must be at least 1")
    given.out.mkdir(exist_ok=True, parents=True)
    common = ["--config", str(given.config)] if given.config else []
    common += ["--train.epochs", str(given.epochs), "--train.freeze_epochs", "0", "--train.eval_every", "0"]
    common += given.words
    pool = pool_on(given.jobs)

    def start(name: str, seed: int, *words: str) -> Future[dict[str, float]]:
        own = name if seed == 0 else f"{name}_seed_{seed}"
        return pool.submit(train, given.out / own, [*common, *words, "--train.seed", str(seed)])

    rows = {RECIPE: [start("recipe", seed) for seed in range(given.seeds)]}
    for name, words in CHANGES.items():
        full = name.format(side=given.small)
        if given.only and not any(word in full for word in given.only):
            continue
        own = growing(given.epochs, given.small) if words == ("GROWING",) else words
        run_dir = re.sub(r"\W+", "_", " ".join(own)).strip("_")
        rows[full] = [start(run_dir, seed, *own) for seed in range(given.row_seeds)]
    try:
        show(rows)
    finally:
        pool.shutdown(cancel_futures=True)


def show(rows: dict[str, list[Future[dict[str, float]]]]) -> None:
    """Prints the table, in order, as far as it is known; the first row is what the others are compared with."""
    print("| | mAP@0.5 | COCO AP |\n|---|---|---|")
    reference = None
    for name, trainings in rows.items():
        found = [training.result() for training in trainings]
        print(row(name, found, reference), flush=True)
        reference = reference or found


if __name__ == "__main__":
    main()
