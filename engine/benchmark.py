"""Every runtime and precision of a run, side by side on this machine: what benchmark.py does."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from engine.benchmark_worker import detector, export, serve
from engine.export.jobs import WRITERS
from utils.benchmark_report import Row
from utils.errors import FileError
from utils.progress import Reporter
from utils.run_files import list_of_run

CHECKPOINT = "checkpoint"
SINGLES, BATCHES = 6, 2
"""What each detector does in a round, one photo or one batch at a time."""


class WorkerError(Exception):
    """What a process was asked for could not be had; the message says why."""


@dataclass(frozen=True)
class BenchmarkRequest:
    """What is wanted. ``list_file`` and ``calibrate`` are annotation lists; ``formats`` those of export.py.

    ``files`` are further exported files to be measured as they are.
    """

    checkpoint: Path
    exports: Path
    formats: Sequence[str]
    list_file: str | None = None
    calibrate: str | None = None
    batch_size: int = 8
    rounds: int = 10
    files: Sequence[Path] = ()


def run_benchmark(request: BenchmarkRequest, reporter: Reporter) -> list[Row]:
    """A row for the checkpoint and for each format, in their order; one that cannot run says why.

    What is missing, or older than the checkpoint, is exported first. Each detector has a process of its own, all are
    loaded at once, and they take turns, so that other work on the machine slows all of them alike.
    """
    rows = {CHECKPOINT: Row(CHECKPOINT, request.checkpoint)}
    for name in request.formats:
        rows[name] = _exported(request, name, reporter)
    rows |= {str(path): Row(path.name, path) for path in request.files}
    with ExitStack() as stack:
        asks: dict[str, Callable[..., Any]] = {}
        for name, row in rows.items():
            if row.problem:
                continue
            reporter.say(f"loading {row.path}")
            with _noting(rows, name):
                given = (row.path, request.list_file, request.batch_size)
                ask = stack.enter_context(_process(detector, *given))
                runtime, precision = ask()
                asks[name] = ask
                rows[name] = replace(row, runtime=runtime, precision=precision)
        _time(request, rows, asks, reporter)
        if request.list_file:
            for name in reporter.track(list(asks), "measuring mAP", len(asks), " detectors"):
                with _noting(rows, name):
                    rows[name] = replace(rows[name], map_50=asks[name]("map"))
    return list(rows.values())


def _time(
    request: BenchmarkRequest, rows: dict[str, Row], asks: dict[str, Callable[..., Any]], reporter: Reporter
) -> None:
    singles: dict[str, list[tuple[float, float]]] = {name: [] for name in asks}
    batches: dict[str, list[tuple[float, float]]] = {name: [] for name in asks}
    for _ in reporter.track(range(request.rounds), "timing", request.rounds, " rounds"):
        for name in list(asks):
            with _noting(rows, name):
                singles[name] += asks[name]("time", 1, SINGLES)
                batches[name] += asks[name]("time", request.batch_size, BATCHES)
            if rows[name].problem:
                del asks[name]
    for name in list(asks):
        median_ms, p95_ms = (1000 * np.percentile([wall for wall, _ in singles[name]], (50, 95))).tolist()
        cpu_alone_s = float(np.median([cpu for _, cpu in singles[name]]))
        wall_s, cpu_s = np.median(batches[name], axis=0).tolist()
        with _noting(rows, name):
            measured = {"median_ms": median_ms, "p95_ms": p95_ms, "images_per_s": request.batch_size / wall_s}
            measured |= {"cpu_ms": 1000 * cpu_s / request.batch_size, "cpu_alone_ms": 1000 * cpu_alone_s}
            measured["peak_mb"] = asks[name]("memory")
            rows[name] = replace(rows[name], **measured)


def _exported(request: BenchmarkRequest, name: str, reporter: Reporter) -> Row:
    path = request.exports / WRITERS[name][1].format(request.checkpoint.name)
    row = Row(name, path)
    if path.exists() and path.stat().st_mtime >= request.checkpoint.stat().st_mtime:
        return row
    calibrate = (request.calibrate or _training_list(request.checkpoint)) if "int8" in name else None
    if "int8" in name and calibrate is None:
        return replace(row, problem="--calibrate LIST: missing: photos are needed to set the int8 ranges")
    reporter.say(f"exporting {path}")
    try:
        with _process(export, request.checkpoint, name, request.exports, calibrate) as ask:
            return replace(row, note="; ".join(ask()))
    except WorkerError as error:
        return replace(row, problem=str(error))


def _training_list(checkpoint: Path) -> str | None:
    """The list that the run was trained on, where its config still says so and it is still there."""
    try:
        path = list_of_run(checkpoint, "train")
    except FileError:
        return None
    return path if Path(path).is_file() else None


@contextmanager
def _noting(rows: dict[str, Row], name: str) -> Iterator[None]:
    """Puts what goes wrong in the block into the row."""
    try:
        yield
    except WorkerError as error:
        rows[name] = replace(rows[name], problem=str(error))


@contextmanager
def _process(task: Callable[..., Any], *given: Any) -> Iterator[Callable[..., Any]]:
    """A function that asks ``task`` in a process of its own, and, without a question, waits for its first answer."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, task, *given), daemon=True)
    process.start()
    there.close()

    def ask(*question: Any) -> Any:
        try:
            if question:
                here.send(question)
            good, answer = here.recv()
        except (EOFError, OSError) as error:
            process.join()
            raise WorkerError(f"its process ended with {process.exitcode}: out of memory?") from error
        if not good:
            raise WorkerError(" ".join(str(answer).split()))
        return answer

    try:
        yield ask
    finally:
        _end(process, here)


def _end(process: Any, connection: Connection) -> None:
    with suppress(OSError):  # it may have ended by itself
        connection.send(None)
    process.join(2)
    process.kill()
    process.join()
    connection.close()
