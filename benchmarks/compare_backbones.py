"""Detectors with different backbones on one dataset, each given the same minutes of training on this machine.

Every contestant is tried for a few epochs first. Their pace says how many epochs fit into the minutes, so that its
learning rate has come down when the time is over. Then it is trained, measured on the test list, and timed.

    python voc_annotation.py --voc BCCD/VOCdevkit --year 2007 --out lists --skip-bad
    python -m benchmarks.compare_backbones --config configs/bccd.yaml --test lists/2007_test.txt --minutes 8
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.checkpoint import detector_spec_of, read_checkpoint
from engine.timing import measure_speed
from nets.cost import multiply_adds
from nets.detector import build_detector
from utils.images import read_image
from utils.records import read_annotation_list
from yolo import Detector

TRIED_EPOCHS = 3
"""Of each phase; the first traces the network and does not count."""
FROZEN_SHARE = 0.25
"""Of the minutes, where the backbone has learned before."""


@dataclass(frozen=True)
class Contestant:
    """A backbone and where it starts from."""

    backbone: str
    weights: str = "none"

    @property
    def has_learned(self) -> bool:
        """Whether there is something to keep frozen at first."""
        return self.weights != "none"


CONTESTANTS = (
    Contestant("efficientnet_b0"),
    Contestant("efficientnet_lite0", "package"),
    Contestant("mobilenet_v2_0.35"),
    Contestant("mobilenet_v1_0.25"),
    Contestant("densenet121"),
)


def run(*arguments: str | Path) -> None:
    """Runs a door. CalledProcessError where it fails; what it says goes to stderr."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True, stdout=sys.stderr)


def train(contestant: Contestant, config: Path, run_dir: Path, frozen: int, epochs: int) -> list[dict[str, Any]]:
    """The entries of a run's epochs."""
    if not (run_dir / "best").exists():
        run(
            *("train.py", "--config", config, "--run-dir", run_dir, "--train.eval_every", "0"),
            *("--model.backbone", contestant.backbone, "--model.weights", contestant.weights),
            *("--train.freeze_epochs", str(frozen), "--train.epochs", str(epochs)),
        )
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def epoch_seconds(entry: dict[str, Any]) -> float:
    """What the steps and the validation of an epoch took."""
    return float(entry["seconds"] + entry["validating_seconds"])


def epochs_for(seconds: float, contestant: Contestant, config: Path, run_dir: Path) -> tuple[int, int]:
    """How many frozen and how many epochs in all fill ``seconds``."""
    frozen = TRIED_EPOCHS if contestant.has_learned else 0
    tried = train(contestant, config, run_dir, frozen, frozen + TRIED_EPOCHS)
    paces = [
        statistics.mean([epoch_seconds(entry) for entry in tried[first + 1 : first + TRIED_EPOCHS]])
        for first in range(0, len(tried), TRIED_EPOCHS)
    ]
    if not contestant.has_learned:
        return 0, max(1, round(seconds / paces[0]))
    frozen = max(1, round(FROZEN_SHARE * seconds / paces[0]))
    return frozen, frozen + max(1, round((1 - FROZEN_SHARE) * seconds / paces[1]))


def compare(contestant: Contestant, given: argparse.Namespace) -> dict[str, Any]:
    """Trains, measures and times one of them."""
    folder = given.out / contestant.backbone
    frozen, epochs = epochs_for(60 * given.minutes, contestant, given.config, folder / "tried")
    entries = train(contestant, given.config, folder / "run", frozen, epochs)
    weights = folder / "run" / "best"
    run("get_map.py", "--weights", weights, "--list", given.test, "--out", folder / "map", "--no-plots")
    spec = detector_spec_of(read_checkpoint(weights), weights)
    model = build_detector(spec, input_shape=(spec.input_size, spec.input_size, 3))
    photos = [read_image(record.image_path) for record in read_annotation_list(given.test)[: given.photos]]
    return {
        "backbone": contestant.backbone,
        "weights": contestant.weights,
        "epochs": epochs,
        "frozen_epochs": frozen,
        "minutes": sum(epoch_seconds(entry) + (entry.get("measuring_seconds") or 0) for entry in entries) / 60,
        "training_images_per_s": {"frozen": speed(entries[1:frozen]), "unfrozen": speed(entries[frozen + 1 :])},
        "prediction_images_per_s": measure_speed(Detector(weights).predictor, photos, given.batch).images_per_s,
        "parameters": model.count_params(),
        "multiply_adds": multiply_adds(model),
        "metrics": json.loads((folder / "map" / "metrics.json").read_text()),
    }


def speed(entries: list[dict[str, Any]]) -> float | None:
    """Median of the epochs' images/s; None without epochs."""
    return statistics.median([entry["images_per_second"] for entry in entries]) if entries else None


COLUMNS = (
    *("backbone", "weights", "mAP@0.5", "COCO AP", "epochs", "minutes", "parameters, M", "multiply-adds, G"),
    *("training, images/s", "prediction, images/s"),
)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for row in rows:
        metrics, training = row["metrics"], row["training_images_per_s"].values()
        numbers = (
            *(f"{metrics['voc_map_50']:.4f}", f"{metrics['coco_ap']:.4f}", str(row["epochs"]), f"{row['minutes']:.1f}"),
            *(f"{row['parameters'] / 1e6:.2f}", f"{row['multiply_adds'] / 1e9:.2f}"),
            " then ".join(f"{value:.1f}" for value in training if value is not None),
            f"{row['prediction_images_per_s']:.1f}",
        )
        lines.append((row["backbone"], row["weights"], *numbers))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Prints a row for each contestant, and keeps everything in ``compared.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe with the lists to train and validate on")
    parser.add_argument("--test", type=Path, required=True, help="annotation list to measure on")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training for each (default: 8)")
    parser.add_argument("--photos", type=int, default=16, help="photos to time prediction with (default: 16)")
    parser.add_argument("--batch", type=int, default=8, help="photos predicted at once (default: 8)")
    parser.add_argument("--out", type=Path, default=Path("compared"), help="where runs go (default: compared)")
    given = parser.parse_args()
    rows = []
    for contestant in CONTESTANTS:
        rows.append(compare(contestant, given))
        (given.out / "compared.json").write_text(json.dumps(rows, indent=1))
        print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
