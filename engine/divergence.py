"""When a run has learned itself out of numbers, and what is said then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from utils.errors import DivergedError


def refuse_diverged_loss(parts: np.ndarray, where: str, rate: float, paths: Sequence[str]) -> None:
    """DivergedError unless all ``parts`` of a loss are numbers; ``paths`` are the images of its batch."""
    if not np.isfinite(parts).all():
        raise DivergedError(
            f"{where}: the loss is not a number any more; lower train.learning_rate (now {rate:g}) or look at the "
            f"images of this batch: {', '.join(paths)}"
        )


def refuse_diverged_weights(weights: Mapping[str, np.ndarray], where: str, rate: float) -> None:
    """DivergedError when a weight is not a number, which the loss would only show a step later."""
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise DivergedError(f"{where}: {name}: is not a number any more; lower train.learning_rate (now {rate:g})")
