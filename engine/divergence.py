"""When a run has learned itself out of numbers, and what is said then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from utils.errors import DivergedError


@contextmanager
def naming_images(where: str, paths: Sequence[str]) -> Iterator[None]:
    """Adds to a DivergedError of the block ``where`` it came, and the images of the batch that was learned from."""
    try:
        yield
    except DivergedError as error:
        images = f", or look at the images of this batch: {', '.join(paths)}" if paths else ""
        raise DivergedError(f"{where}: {error}{images}") from error


def refuse_diverged_loss(parts: np.ndarray, rate: float) -> None:
    """DivergedError unless all ``parts`` of a loss are numbers."""
    if not np.isfinite(parts).all():
        raise DivergedError(f"the loss is not a number any more; lower train.learning_rate (now {rate:g})")


def refuse_diverged_gradient(norm: float, rate: float) -> None:
    """DivergedError unless the ``norm`` of all gradients is a number: their update ruins every weight at once."""
    if not np.isfinite(norm):
        raise DivergedError(f"the gradient is not a number any more; lower train.learning_rate (now {rate:g})")


def refuse_diverged_weights(weights: Mapping[str, np.ndarray], rate: float) -> None:
    """DivergedError when a weight is not a number, which the loss would only show a step later."""
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise DivergedError(f"{name}: is not a number any more; lower train.learning_rate (now {rate:g})")
