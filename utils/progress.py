"""What a user sees of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar, cast

T = TypeVar("T")
PLAIN_EVERY_S = 10.0


class Unheard:
    """``stream``, but nobody needs to hear it: a closed pipe, a gone terminal, a log on a full disk are no errors.

    Unless their number is one of ``errors``.
    """

    def __init__(self, stream: TextIO, errors: Collection[int] = ()) -> None:
        self._stream, self._errors = stream, errors

    def write(self, text: str) -> int:
        """As far as it goes."""
        with self._unheard():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As far as it goes."""
        self.write("".join(lines))

    def flush(self) -> None:
        """As far as it goes."""
        with self._unheard():
            self._stream.flush()

    @contextmanager
    def _unheard(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in self._errors:
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Reporter:
    """Tells of progress on ``stream`` (stderr unless given). Safe to use without a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        # There is no stderr where a service closed it.
        self.stream = stream or sys.stderr or io.StringIO()

    def say(self, text: str) -> None:
        """One line. Where nobody hears it the work goes on."""
        unheard = Unheard(self.stream)
        unheard.write(text + "\n")
        unheard.flush()

    def note(self, text: str) -> None:
        """One line of what was decided, with which nothing is wrong."""
        self.say(text)

    def warn(self, text: str) -> None:
        """One line of what goes wrong here: of several workers each says its own."""
        self.say(text)

    def track(self, items: Iterable[T], description: str, total: int | None = None, unit: str = "") -> Iterator[T]:
        """Yields ``items`` while showing how far along they are and how long is left."""
        if self.stream.isatty():
            yield from self._bar(items, description, total)
        else:
            yield from self._plain(items, description, total, unit)

    def _bar(self, items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
        # rich takes a tenth of a second to import, which tools that finish at once should not wait for.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(file=cast(TextIO, Unheard(self.stream))), transient=True) as progress:
            yield from progress.track(items, total=total, description=description)

    def _plain(self, items: Iterable[T], description: str, total: int | None, unit: str) -> Iterator[T]:
        last = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            if time.monotonic() - last >= PLAIN_EVERY_S:
                last = time.monotonic()
                self.say(f"{description}: {done}{f'/{total}' if total else ''}{unit}")


class Quiet(Reporter):
    """Tells nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def track(self, items: Iterable[T], description: str, total: int | None = None, unit: str = "") -> Iterator[T]:
        """Just ``items``."""
        del description, total, unit
        yield from items


class Follower(Quiet):
    """Of several workers one that leaves the telling to the first, but for what goes wrong with itself."""

    def warn(self, text: str) -> None:
        """One line."""
        Reporter.say(self, text)
