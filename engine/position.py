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
    averaged_steps: int | None = None
    """Updates of the average of the weights; None: as many as steps, in checkpoints that are older than this field."""


@dataclass(frozen=True)
class TrainingSummary:
    """What a finished run came to."""

    run_dir: Path
    best_score: float | None
    score_title: str
    epochs: int
    minutes: float
