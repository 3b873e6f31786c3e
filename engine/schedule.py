"""The learning rate over a run: a rise, half a cosine and a rest, or steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.config import TrainConfig

REFERENCE_BATCH = 64
SGD_BOUNDS = (5e-4, 5e-2)
ADAM_BOUNDS = (3e-4, 1e-3)


@dataclass(frozen=True)
class Schedule:
    """Rates of one phase. ``epochs`` is the length of the whole run, whichever phase asks.

    ``warm_up`` is in epochs; None: a twentieth of them, at least one and at most three. One that is given leaves half
    of what is left, at least, to the fall.
    """

    base: float
    final: float
    epochs: int
    kind: str = "cosine"
    warm_up: float | None = None

    def rate(self, epoch: float) -> float:
        """Learning rate at ``epoch``, counted from 0 at the start of the run; fractions are allowed."""
        if self.kind == "step":
            decay = (self.final / self.base) ** (1 / 9)
            return self.base * decay ** (10 * epoch // self.epochs)
        warm_up, tail = min(max(0.05 * self.epochs, 1.0), 3.0), min(max(0.05 * self.epochs, 1.0), 15.0)
        if self.warm_up is not None:
            warm_up = self.warm_up
            tail = min(tail, 0.5 * (self.epochs - warm_up))
        start = max(0.1 * self.base, 1e-6)
        if warm_up > 0 and epoch <= warm_up:
            return (self.base - start) * (epoch / warm_up) ** 2 + start
        if epoch >= self.epochs - tail:
            return self.final
        progress = (epoch - warm_up) / (self.epochs - warm_up - tail)
        return self.final + 0.5 * (self.base - self.final) * (1 + math.cos(math.pi * progress))


def phase_schedule(train: TrainConfig, batch_size: int, epochs: int) -> Schedule:
    """The schedule of a phase with ``batch_size``, in a run of ``epochs`` epochs.

    With ``scale_learning_rate`` the rate follows the batch within the optimizer's bounds: clip(batch / 64 * lr0, ...).
    """
    base, final = train.learning_rate, train.learning_rate * train.min_learning_rate_ratio
    if train.scale_learning_rate:
        low, high = SGD_BOUNDS if train.optimizer == "sgd" else ADAM_BOUNDS
        share = batch_size / REFERENCE_BATCH
        base = min(max(share * base, low), high)
        final = min(max(share * final, low * 0.01), high * 0.01)
    return Schedule(base, final, epochs, train.schedule, train.warmup_epochs)
