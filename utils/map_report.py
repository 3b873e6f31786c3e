"""The folder that a measurement leaves: numbers, text files and plots."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.classes import CLASS_LIST
from utils.errors import ConfigError
from utils.files import write_atomically
from utils.folders import refuse_file_in_the_way
from utils.map_files import FOUND_FOLDER, TRUTH_FOLDER, write_map_files
from utils.metrics import Metrics
from utils.progress import Reporter
from utils.types import Detections, GroundTruth

METRICS_FILE, PLOTS_FOLDER = "metrics.json", "plots"


def check_output(folder: str | Path, inputs: Sequence[str | Path], roots: Sequence[str | Path] = ()) -> None:
    """ConfigError when writing to ``folder`` would touch what is not ours.

    That is: when it lies in one of ``inputs``, is one of ``roots``, or holds text files, plots or a class list that no
    measurement wrote. A measurement replaces what the one before it left; ``metrics.json`` tells that there was one.
    """
    out = Path(folder)
    inside = [given for given in inputs if out.resolve().is_relative_to(Path(given).resolve())]
    same = [given for given in roots if out.resolve() == Path(given).resolve()]
    if inside or same:
        raise ConfigError(f"--out: {out}: is or lies in the input {(inside + same)[0]}; choose another folder")
    refuse_file_in_the_way(out, "--out")
    foreign = [name for name in (TRUTH_FOLDER, FOUND_FOLDER, PLOTS_FOLDER, CLASS_LIST) if (out / name).exists()]
    if foreign and not (out / METRICS_FILE).is_file():
        raise ConfigError(f"--out: {out / foreign[0]}: exists, but no {METRICS_FILE} beside it; choose another folder")


def write_report(
    folder: str | Path,
    metrics: Metrics,
    ground_truths: Sequence[GroundTruth],
    detections: Mapping[str, Detections],
    reporter: Reporter,
    plots: bool = True,
) -> None:
    """Writes ``metrics.json``, the text files of utils.map_files and, unless told otherwise, ``plots/``.

    Without plots, those of an earlier measurement are removed: they would show other numbers.
    """
    out = Path(folder)
    write_atomically(out / METRICS_FILE, json.dumps(metrics.to_dict(), indent=2, allow_nan=False) + "\n")
    write_map_files(out, ground_truths, detections, metrics.class_names)
    if plots:
        from utils.metric_plots import draw_plots  # matplotlib takes a second to load

        draw_plots(metrics, out / PLOTS_FOLDER, reporter)
    elif (out / PLOTS_FOLDER).is_dir():
        shutil.rmtree(out / PLOTS_FOLDER)
