from __future__ import annotations

import pytest
import tensorflow as tf

from engine.memory import SMALLER, ran_out_of_memory, within_memory
from utils.errors import MemoryRanOutError


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (MemoryError(), True),
        (tf.errors.InternalError(None, None, "cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY"), True),
        (tf.errors.UnknownError(None, None, "Failed to allocate 2 GiB"), True),
        (tf.errors.InternalError(None, None, "libdevice not found"), False),
        (tf.errors.InvalidArgumentError(None, None, "out of memory of shapes"), False),
        (ValueError("out of memory"), False),
        (tf.errors.NotFoundError(None, None, "No algorithm worked!  Error messages:\n  Profiling failure"), True),
        (tf.errors.NotFoundError(None, None, "out of memory: no such file"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error: Exception, out: bool) -> None:
    assert ran_out_of_memory(error) == out


def test_who_knows_the_options_has_the_last_word() -> None:
    with (
        pytest.raises(
            MemoryRanOutError, match=r"^logs/run: batch size: 8: does not fit into memory; lower train\.batch_size$"
        ),
        within_memory("logs/run", 8, "lower train.batch_size"),
        within_memory("finding objects", 2, SMALLER),
    ):
        raise MemoryError
