"""Compare every runtime and precision of a trained detector on this machine: speed, memory, mAP."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.arguments import Parser, count
from utils.artifact_files import find_weights
from utils.door import run_door
from utils.export_formats import FORMATS
from utils.progress import Reporter
from utils.quiet import native_stderr_held_back, quieten_libraries
from utils.run_files import find_checkpoint

DESCRIPTION = """Compare every runtime and precision of a trained detector on this machine.

  python benchmark.py logs/first --list lists/2007_val.txt
  python benchmark.py logs/first --format onnx onnx-int8 --calibrate lists/2007_train.txt --out compared
  taskset -c 0 python benchmark.py logs/first --format onnx --files logs/first/export/best_half.onnx     on one core

Exports what is missing, or older than the checkpoint, as export.py does. Then all detectors take turns, each in a
process of its own: milliseconds from photo to boxes, images a second in batches, CPU time, memory, and with --list mAP.
A format that cannot run here says why. Writes a table, benchmark.json and benchmark.png.
Needs: pip install -r requirements-export.txt"""
EPILOG = "exit codes: 0 done, whatever could run; 2 usage; 4 a file could not be read or written."


def arguments(argv: Sequence[str] | None) -> Any:
    """The command line, checked. ConfigError when it cannot be understood."""
    made = Parser(DESCRIPTION)
    made.epilog = EPILOG
    add = made.add_argument
    add("weights", metavar="RUN", help="run directory, or a checkpoint such as logs/first/best")
    add("--format", nargs="+", choices=FORMATS, metavar="NAME", help=f"only these: {', '.join(FORMATS)}")
    add("--files", nargs="+", type=Path, default=(), metavar="FILE", help="further exported files, as they are")
    add("--list", metavar="LIST", help="annotation list: measure mAP on it, and time its photos")
    add("--calibrate", metavar="LIST", help="photos that set the ranges of int8 (default: the run's training list)")
    add("--batch", type=count, default=8, metavar="N", help="images at once for the throughput (default: 8)")
    add("--rounds", type=count, default=10, metavar="N", help="turns each detector has (default: 10)")
    add("--exports", type=Path, metavar="DIR", help="where exported files are (default: export/ beside the checkpoint)")
    add("--out", type=Path, metavar="DIR", help="where results go (default: benchmark/ beside the checkpoint)")
    return made.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints the table, writes the files."""
    given = arguments(argv)
    quieten_libraries()
    checkpoint = find_checkpoint(given.weights)
    with native_stderr_held_back():
        from engine.benchmark import BenchmarkRequest, run_benchmark
    from rich.console import Console

    from utils.benchmark_report import benchmark_table, draw_benchmark, write_benchmark
    from utils.machine import machine_in_words

    folder = checkpoint.parent
    exports, out = given.exports or folder / "export", given.out or folder / "benchmark"
    formats = tuple(dict.fromkeys(given.format or FORMATS))
    files = [find_weights(path) for path in dict.fromkeys(given.files)]
    how = (given.list, given.calibrate, given.batch, given.rounds, files)
    rows = run_benchmark(BenchmarkRequest(checkpoint, exports, formats, *how), Reporter())
    machine = machine_in_words()
    about = {"checkpoint": str(checkpoint), "list": given.list, "batch": given.batch, "machine": machine}
    write_benchmark(rows, about, out / "benchmark.json")
    subtitle = f"from photo to boxes, in batches of {given.batch}, on {machine}"
    draw_benchmark(rows, f"Throughput of {checkpoint}", subtitle, out / "benchmark.png")
    Console(width=None if sys.stdout.isatty() else 140).print(
        benchmark_table(rows, f"{checkpoint} on {machine}", given.batch)
    )
    print(f"{out / 'benchmark.json'}, {out / 'benchmark.png'}")


if __name__ == "__main__":
    sys.exit(run_door(main))
