"""A parity report as text, and as JSON beside the file that it is about."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from engine.export.parity import BATCH, Measured, Parity
from engine.timing import Speed
from utils.files import write_atomically


def parity_table(parity: Parity) -> str:
    """What a person wants to know of a new file, against the checkpoint."""
    boxes, before, after, within = parity.boxes, parity.reference, parity.measured, parity.tolerance
    lines = [f"{parity.path}: {parity.artifact.precision}, {parity.size_bytes / 1e6:.1f} MB"]
    if parity.artifact.in_float:
        lines.append(f"  in float     {', '.join(parity.artifact.in_float)}")
    if parity.max_abs is not None and parity.max_rel is not None:
        lines.append(f"  raw outputs  differ by at most {parity.max_abs:.2g} ({parity.max_rel:.2g} of the largest)")
    lines += [
        f"  boxes        {boxes.matched} of {max(boxes.first, boxes.second)} above {parity.score:g} on {parity.images} "
        f"photos are the same to {within.px:g} px and {within.score:g}",
        f"               in score; these differ by at most {boxes.worst_px:.2g} px and {boxes.worst_score:.2g}",
        f"  batch of 1   {_in_words(after.one)}; checkpoint {_in_words(before.one)}",
        f"  batch of {BATCH}   {_in_words(after.batch)}; checkpoint {_in_words(before.batch)}",
    ]
    if after.map_50 is not None and before.map_50 is not None:
        lines.append(f"  VOC mAP@0.5  {after.map_50:.4f}, checkpoint {before.map_50:.4f}")
    elif parity.artifact.precision == "int8":
        lines.append("  VOC mAP@0.5  not measured, so nothing is known of its accuracy: give --measure LIST")
    return "\n".join(lines)


def write_parity(parity: Parity) -> Path:
    """Writes the report as NAME.parity.json beside the file, and returns where."""
    path = parity.path.with_name(f"{parity.path.name}.parity.json")
    document = {
        "file": parity.path.name,
        "precision": parity.artifact.precision,
        "in_float": parity.artifact.in_float,
        "tolerance": dataclasses.asdict(parity.tolerance),
        "nms": parity.artifact.nms,
        "size_bytes": parity.size_bytes,
        "images": parity.images,
        "score": parity.score,
        "raw_max_abs": parity.max_abs,
        "raw_max_rel": parity.max_rel,
        "boxes": dataclasses.asdict(parity.boxes),
        "this": _numbers(parity.measured),
        "checkpoint": _numbers(parity.reference),
        "problems": parity.problems(),
    }
    write_atomically(path, json.dumps(document, indent=2) + "\n")
    return path


def _in_words(speed: Speed) -> str:
    return f"median {speed.median_ms:.1f} ms, p95 {speed.p95_ms:.1f} ms, {speed.images_per_s:.1f} images/s"


def _numbers(measured: Measured) -> dict[str, Any]:
    speeds = {"batch_1": dataclasses.asdict(measured.one), f"batch_{BATCH}": dataclasses.asdict(measured.batch)}
    return {"voc_map_50": measured.map_50, **speeds}
