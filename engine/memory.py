"""How a device says that its memory ran out."""

from __future__ import annotations

import tensorflow as tf

_WORDS = ("out of memory", "out_of_memory", "failed to allocate", "alloc_failed", "allocation failed")


def ran_out_of_memory(error: Exception) -> bool:
    """Whether ``error``, of a step, means that there was no memory left.

    The libraries that compute convolutions and matrix products on GPUs report it as an internal error.
    """
    if isinstance(error, tf.errors.ResourceExhaustedError | MemoryError):
        return True
    internal = isinstance(error, tf.errors.InternalError | tf.errors.UnknownError)
    return internal and any(words in str(error).lower() for words in _WORDS)
