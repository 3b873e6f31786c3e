"""How far a run has come, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from engine.run_directory import EpochMetrics


@dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    best_score: float = -1.0
    measured_since_best: int = 0
    """Measurements of this phase since the one that found ``best_score``."""
    history: list[EpochMetrics] = field(default_factory=list)
    epoch_sums: list[float] = field(default_factory=list)
    """Of each loss part, over the steps of the epoch so far."""
    epoch_dropped: int = 0
    in_phase: bool | None = None
    """Whether its phase was begun before; None: if a step of the epoch was, in checkpoints older than this field."""
    averaged_steps: int | None = None
    """Updates of the average of the weights; None: as many as steps, in checkpoints that are older than this field."""

    def begin_epoch(self) -> None:
        """Nothing of the epoch is done."""
        self.epoch_step, self.epoch_dropped = 0, 0
        self.epoch_sums = [0.0] * len(self.epoch_sums)


@dataclass(frozen=True)
class TrainingSummary:
    """What a run came to."""

    run_dir: Path
    complete: bool
    """Whether nothing is left to be done."""
    best_score: float | None
    score_title: str
    epochs: int
    minutes: float
    """In this process."""
    resumed: bool
    """Whether it had begun before."""

    def __str__(self) -> str:
        known = self.best_score is not None
        found = f"best {self.score_title} {self.best_score:.4f}" if known else f"{self.score_title} not measured"
        epochs = f"{self.epochs} epoch{'s' * (self.epochs != 1)}"
        took = f"{self.minutes:.1f} minutes"
        took = f"{epochs} ({took} since the run was resumed)" if self.resumed else f"{epochs} in {took}"
        return f"{took}, {found} on the validation data"
