"""Work that overlaps: loading, detecting and finishing at the same time, in order, with bounds to what is in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from utils.errors import UserError
from utils.machine import usable_cores

T = TypeVar("T")
R = TypeVar("R")
D = TypeVar("D")

THREADS = max(2, min(8, usable_cores()))
"""Threads that load and finish; decoding, drawing and encoding let other threads run meanwhile."""


@dataclass(frozen=True)
class Failure:
    """An input that could not be used, in the place where what came of it would be."""

    source: str
    error: UserError


def flow(
    pool: Executor,
    loads: Iterable[Callable[[], T | Failure]],
    detect: Callable[[list[T]], Sequence[R]],
    finish: Callable[[T, R], D | Failure],
    batch_size: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[D | Failure, None, None]:
    """What comes of every load, in order: ``finish(item, result)`` or a ``Failure``.

    ``loads`` and ``finish`` run in ``pool`` while ``detect`` runs here, in batches that failures take no place in.
    Three batches are in memory at most: one is loaded, one detected, one finished. Once ``stopped``, what has been
    detected is still finished. Whatever is raised ends it, and nothing that waits in ``pool`` is begun.
    """

    def finishing() -> Generator[Callable[[], D | Failure], None, None]:
        with closing(in_order(pool, loads, batch_size)) as loaded:
            for batch in batches(loaded, batch_size, lambda item: not isinstance(item, Failure)):
                items = [item for item in batch if not isinstance(item, Failure)]
                results = iter(detect(items) if items else ())
                for item in batch:
                    yield partial(_itself, item) if isinstance(item, Failure) else partial(finish, item, next(results))
                if stopped():
                    return

    with closing(finishing()) as jobs, closing(in_order(pool, jobs, batch_size)) as finished:
        yield from finished


def in_order(pool: Executor, jobs: Iterable[Callable[[], T]], ahead: int) -> Generator[T, None, None]:
    """Results of ``jobs`` in their order, up to ``ahead`` of them worked out in ``pool`` before they are asked for."""
    pending: deque[Future[T]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(job))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def batches(items: Iterable[T], size: int, counts: Callable[[T], bool] = lambda item: True) -> Iterator[list[T]]:
    """``items`` in lists that hold ``size`` of those that ``counts``, the last one fewer."""
    batch: list[T] = []
    room = size
    for item in items:
        batch.append(item)
        room -= counts(item)
        if not room:
            yield batch
            batch, room = [], size
    if batch:
        yield batch


def _itself(failure: Failure) -> Failure:
    return failure
