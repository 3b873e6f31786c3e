"""One side of a benchmark: a process of its own that exports, or loads a detector and runs it when it is told to."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.evaluation import evaluate_records, samples_of_list
from engine.export.images import photos_of_list, photos_to_compare
from engine.runtimes.choice import choose, load_detector
from engine.runtimes.session import ArtifactPredictor
from utils.artifact_files import artifact_kind
from utils.errors import UserError
from utils.machine import MIB, peak_memory_mib
from utils.progress import Quiet
from utils.quiet import native_stderr_held_back, quieten_libraries

WARM_UP = 3
PHOTOS, PARITY_PHOTOS = 16, 4


def serve(connection: Connection, task: Callable[..., Any], *given: Any) -> None:
    """Runs ``task`` and answers over ``connection``: pairs of whether it went well, and the answer or the reason.

    An answer of the task is sent; where it is a generator, it is sent the questions that come, until there is none.
    """
    quieten_libraries()
    # Ctrl-C reaches every process of a terminal; the one that was asked ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = task(*given)
        if not isinstance(result, Generator):
            connection.send((True, result))
            return
        connection.send((True, next(result)))
        while (question := connection.recv()) is not None:
            connection.send((True, result.send(question)))
    except UserError as error:
        connection.send((False, str(error)))
    except Exception as error:  # a runtime's own, which should not end the others
        connection.send((False, f"{type(error).__name__}: {error}"))


def export(checkpoint: Path, name: str, folder: Path, calibrate: str | None) -> list[str]:
    """Writes the format ``name`` into ``folder``. What the parity report finds wrong with it."""
    with native_stderr_held_back():
        from engine.export.jobs import ExportRequest, export_all

        request = ExportRequest(checkpoint, (name,), folder, calibrate=calibrate, images=PARITY_PHOTOS)
        return [problem for parity in export_all(request, Quiet()) for problem in parity.problems()]


def detector(weights: Path, list_file: str | None, batch_size: int) -> Generator[Any, Any, None]:
    """Loads a detector and answers with its runtime and precision; then answers what it is asked.

    ``("time", size, repeats)`` gives for so many batches the seconds from photos to boxes, and those of the processor;
    ``("memory",)`` the most megabytes held so far; ``("map",)`` VOC mAP@0.5 on the list, None without objects.
    """
    made = load_detector(weights)
    precision = made.artifact.precision if isinstance(made, ArtifactPredictor) else "float32"
    listed = photos_of_list(list_file, made.spec, PHOTOS) if list_file else []
    photos = itertools.cycle(listed or photos_to_compare(weights, made.spec, PHOTOS)[0])

    def seconds(size: int) -> tuple[float, float]:
        batch = list(itertools.islice(photos, size))
        start, cpu_start = time.perf_counter(), time.process_time()
        made.predict_batch(batch)
        return time.perf_counter() - start, time.process_time() - cpu_start

    for size in (1, batch_size):
        for _ in range(WARM_UP):
            seconds(size)
    answer: Any = choose(artifact_kind(weights), None, weights), precision
    while True:
        question, *given = yield answer
        if question == "time":
            size, repeats = given
            answer = [seconds(size) for _ in range(repeats)]
        elif question == "memory":
            answer = peak_memory_mib() * MIB / 1e6
        else:
            assert list_file is not None
            samples = samples_of_list(list_file, made.spec.class_names, made.spec.ignore_exif)
            answer = evaluate_records(made, samples, batch_size=batch_size).metrics.voc_map_50
