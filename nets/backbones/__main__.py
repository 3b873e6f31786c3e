"""Print the backbones there are: ``python -m nets.backbones [NAME...] [--json]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from utils.arguments import Parser
from utils.door import run_door
from utils.progress import Reporter
from utils.quiet import native_stderr_held_back, quieten_libraries

DESCRIPTION = """The backbones, with parameters and multiply-adds: as a classifier of 1000 classes at the default size,
without its top, and as a 20-class detector at 416 px. Any other alpha or block list works too:
python -m nets.backbones mobilenet_v1_0.3 mobilenet_v2_0.6 densenet_6-12-24-16"""
DETECTOR_SIZE, DETECTOR_CLASSES = 416, 20


def main(argv: Sequence[str] | None = None) -> int:
    """Builds what is asked for, all by default, and prints a row for each."""
    parser = Parser(DESCRIPTION, "python -m nets.backbones")
    parser.add_argument("names", nargs="*", metavar="NAME", help="backbones to build; all of the table by default")
    parser.add_argument("--json", action="store_true", help="a JSON list, one object a backbone, in plain numbers")
    arguments = parser.parse_args(argv)
    quieten_libraries()
    with native_stderr_held_back():
        from nets.backbones import BACKBONES, backbone_spec

    specs = [backbone_spec(name) for name in arguments.names or BACKBONES]
    rows = Reporter().track(map(_row, specs), "building", len(specs))
    if arguments.json:
        print(json.dumps(list(rows), indent=1))
    else:
        _print_table(rows)
    return 0


def _row(spec: Any) -> dict[str, Any]:
    import keras

    from nets.backbones import build_classifier, trunk_layers
    from nets.cost import multiply_adds
    from nets.detector import build_detector
    from utils.config import DetectorSpec

    size = spec.default_size
    classifier = build_classifier(spec.name, input_shape=(size, size, 3))
    row = {
        "name": spec.name,
        "size": size,
        "parameters": classifier.count_params(),
        "multiply_adds": multiply_adds(classifier),
        "parameters_without_top": sum(layer.count_params() for layer in trunk_layers(classifier, spec.name)),
    }
    detector = build_detector(
        DetectorSpec(
            class_names=tuple(str(number) for number in range(DETECTOR_CLASSES)),
            backbone=spec.name,
            input_size=DETECTOR_SIZE,
            anchors_wh_px=((1.0, 1.0),) * 9,
            separable_head=spec.separable_head,
        ),
        input_shape=(DETECTOR_SIZE, DETECTOR_SIZE, 3),
    )
    row |= {
        "detector_parameters": detector.count_params(),
        "detector_multiply_adds": multiply_adds(detector),
        "taps": list(spec.taps),
        "head_widths": [int(detector.get_layer(f"head_P{level}_conv1").filters) for level in (3, 4, 5)],
        "separable_head": spec.separable_head,
        "mean_px": list(spec.normalisation.mean_px),
        "std_px": list(spec.normalisation.std_px),
        "imagenet_file": spec.with_top.url if spec.with_top else None,
        "imagenet_md5": spec.with_top.md5 if spec.with_top else None,
        "imagenet_package": spec.packaged.package if spec.packaged else None,
    }
    keras.backend.clear_session()
    return row


def _print_table(rows: Iterator[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    caption = (
        "params and mult-adds in millions: with top, 1000 classes, at this size; without top; as a detector of "
        f"{DETECTOR_CLASSES} classes at {DETECTOR_SIZE} px\nImageNet weights: md5 is a file with a published checksum, "
        "file one without, package what pip brings"
    )
    table = Table(caption=caption, caption_justify="left")
    columns = ("backbone", "size", "params", "mult-adds", "no top", "detector", "its m-a", "taps", "head", "ImageNet")
    for name in columns:
        table.add_column(name, justify="left" if name in ("backbone", "taps", "head", "ImageNet") else "right")
    for row in rows:
        millions = [f"{row[key] / 1e6:,.2f}" for key in ("parameters", "multiply_adds", "parameters_without_top")]
        millions += [f"{row[f'detector_{key}'] / 1e6:,.2f}" for key in ("parameters", "multiply_adds")]
        head = " ".join(map(str, row["head_widths"])) + (" separable" if row["separable_head"] else "")
        weights = ("md5" if row["imagenet_md5"] else "file") if row["imagenet_file"] else "none"
        weights = "package" if row["imagenet_package"] else weights
        table.add_row(row["name"], str(row["size"]), *millions, " ".join(row["taps"]), head, weights)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    sys.exit(run_door(main))
