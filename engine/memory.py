"""How a device says that its memory ran out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from utils.errors import MemoryRanOutError

_WORDS = ("out of memory", "out_of_memory", "failed to allocate", "alloc_failed", "allocation failed")
_NO_ALGORITHM = "no algorithm worked"
"""Of a convolution on a GPU: as a rule there was no room for what any way to compute it needs beside its inputs."""
SMALLER = "make it or the input size smaller"
"""Advice to whoever has no more exact one; around it, another ``within_memory`` has the last word."""


def ran_out_of_memory(error: Exception) -> bool:
    """Whether ``error``, of a step, means that there was no memory left, whoever else found that out before.

    The libraries that compute convolutions and matrix products on GPUs report it as an internal error.
    """
    if isinstance(error, tf.errors.ResourceExhaustedError | MemoryError | MemoryRanOutError):
        return True
    if isinstance(error, tf.errors.NotFoundError):
        return _NO_ALGORITHM in str(error).lower()
    internal = isinstance(error, tf.errors.InternalError | tf.errors.UnknownError)
    return internal and any(words in str(error).lower() for words in _WORDS)


@contextmanager
def within_memory(where: str, batch_size: int, advice: str) -> Iterator[None]:
    """Makes running out of memory in the block a MemoryRanOutError that names the batch size and says what to do."""
    try:
        yield
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        raise MemoryRanOutError(f"{where}: batch size: {batch_size}: does not fit into memory; {advice}") from error
