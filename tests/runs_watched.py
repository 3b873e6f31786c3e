"""Who asks a run to stop, and who listens to what it says."""

from __future__ import annotations

from engine.interrupts import StopRequest
from utils.progress import Quiet


class StopAfter(StopRequest):
    """Asks to stop once looked at ``looks`` times; a run looks before a phase, after steps and epochs."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def made(self) -> bool:
        self.looks -= 1
        return self.looks < 0


class Heard(Quiet):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
