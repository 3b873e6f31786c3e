"""What a check finds: errors stop the work, warnings are counted and summarised by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from utils.errors import DataError


class Problems:
    """Collects what is wrong with a dataset, so that one run shows everything.

    ``errors`` are whole messages; ``warnings`` counts each kind, ``examples`` holds the first message of each.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def error(self, message: str) -> None:
        """Notes something that makes a file unusable. ``message`` is ``file: field: value: what to do``."""
        self.errors.append(message)

    def warn(self, kind: str, message: str) -> None:
        """Notes something that is dealt with, such as kind "box clipped to the image"."""
        self.warnings[kind] += 1
        self.examples.setdefault(kind, message)

    def warning_lines(self) -> list[str]:
        """One line for each kind of warning, most frequent first, with its count and its first message."""
        return [f"warning: {kind}: {n}, such as {self.examples[kind]}" for kind, n in self.warnings.most_common()]

    def listener(self, kind: str) -> Callable[[str], None]:
        """``warn`` for one kind, for readers that only have a message."""
        return lambda message: self.warn(kind, message)


class FailFast(Problems):
    """Raises the first error as DataError, for callers that never skip."""

    def error(self, message: str) -> None:
        """DataError with ``message``."""
        raise DataError(message)
