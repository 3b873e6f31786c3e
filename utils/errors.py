"""Errors a user can cause, each with the exit code its door ends with.

A message is one line: ``file: field: value: what to do``. Doors print it on stderr and never show a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Base of everything a user can cause and mend. ``exit_code`` is what the shell gets."""

    exit_code = 2


class ConfigError(UserError):
    """Wrong usage or configuration (exit 2)."""


class ClassCountError(ConfigError):
    """Weights of another number of classes than the network has."""


class DataError(UserError):
    """Annotations, images or lists that cannot be used as they are (exit 3)."""

    exit_code = 3


class FileError(UserError):
    """Reading or writing failed: missing, unreadable, full disk, damaged checkpoint (exit 4)."""

    exit_code = 4


class MemoryRanOutError(UserError):
    """The batch does not fit into memory (exit 4)."""

    exit_code = 4


class LostWorkerError(UserError):
    """Another worker of the run is gone (exit 4)."""

    exit_code = 4


class ParityError(UserError):
    """An exported file does not give what the checkpoint gives (exit 3)."""

    exit_code = 3


class DivergedError(UserError):
    """The loss became NaN or infinite (exit 5)."""

    exit_code = 5


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'car'?``, or an empty string when nothing known is near ``word``."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
