"""Looking at every image before a run, so that it does not end at the first bad one hours later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from utils.errors import DataError, UserError
from utils.progress import Reporter

T = TypeVar("T")


def check_images(paths: Sequence[str], look: Callable[[str], T], reporter: Reporter) -> list[T]:
    """What ``look`` says of each image. DataError naming one of no use and how many more there are."""
    problems: list[str] = []

    def looked(path: str) -> T | None:
        try:
            return look(path)
        except UserError as error:
            problems.append(str(error))
            return None

    with ThreadPoolExecutor() as pool:
        found = list(reporter.track(pool.map(looked, paths), "checking images", len(paths)))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{min(problems)}{more}")
    return found  # type: ignore[return-value]
