"""What a training door does with what it was asked for: train, try it dry, or start workers on a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.interrupts import SIGNALLED, stop_on_signals
from utils.cluster import read_cluster
from utils.command_line import DOORS, TrainingRequest
from utils.progress import Reporter
from utils.quiet import native_stderr_held_back

if TYPE_CHECKING:
    from engine.position import TrainingSummary


class Ended(NamedTuple):
    """How it ended: ``summary`` of a run that came to its end (the chief's alone), ``report`` of a dry one."""

    exit_code: int = 0
    summary: TrainingSummary | None = None
    report: tuple[str, ...] = ()


def carry_out(request: TrainingRequest[Any], reporter: Reporter) -> Ended:
    """Does what was asked for. Loads TensorFlow where this process needs it."""
    resume = f"--resume {shlex.quote(request.run_dir)}"
    again = f"python {DOORS[type(request.config)][1]} {resume}"
    if request.cluster:
        from engine.ray_workers import run_on_ray

        code = run_on_ray(request.command, request.workers, reporter)
        if code > SIGNALLED and not request.dry_run and (Path(request.run_dir) / "last").exists():
            workers = f" --workers {request.workers}" if request.workers else ""
            reporter.say(f"stopped; go on with: {again} --cluster {request.cluster}{workers}")
        return Ended(code)
    with native_stderr_held_back():
        from engine.dry_run import try_run
        from engine.startup import requested_run

    if request.dry_run:
        return Ended(report=try_run(request.config, request.run_dir, reporter))
    trainer = requested_run(request, reporter)
    with stop_on_signals() as stop:
        summary = trainer.fit(stop)
    if stop.made and not summary.complete:
        alone = read_cluster().count == 1
        reporter.say(f"stopped; go on with: {again if alone else f'{resume}, on every worker'}")
        return Ended(stop.exit_code)
    return Ended(summary=summary if read_cluster().chief else None)
