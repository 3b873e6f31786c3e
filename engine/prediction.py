"""What prediction over photos and over videos have in common: what is wanted, how it goes, what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine.interrupts import StopRequest
from engine.label_files import detection_text, voc_xml, yolo_text
from engine.naming import CROPS, TEXTS, VOC_XML, YOLO_TEXTS, OutputNames
from engine.outputs import save_crops
from engine.pipeline import THREADS, Failure, flow
from engine.result_log import ResultFiles, ResultLog
from engine.viewer import Viewer
from utils.errors import UserError
from utils.files import write_atomically
from utils.progress import Reporter
from utils.types import Detections, ImageArray

if TYPE_CHECKING:
    from engine.photo_detector import PhotoDetector, Ready

R = TypeVar("R")


@dataclass(frozen=True)
class PredictOptions:
    """What is wanted. ``out_dir`` gets pictures and videos, and below it a folder of each kind of files beside them.

    ``files`` get all detections.
    """

    out_dir: Path
    score: float = 0.5
    iou: float = 0.3
    batch_size: int = 8
    ignore_exif: bool = False
    txt: bool = False
    voc_xml: bool = False
    yolo_txt: bool = False
    crops: bool = False
    heatmap: bool = False
    count: bool = False
    files: ResultFiles = field(default_factory=ResultFiles)


@dataclass
class Summary:
    """What was done.

    ``failed`` holds name and reason; ``samples`` the first photos or frames, for timing; ``interrupted`` is the exit
    code of the signal that ended the work early.
    """

    images: int = 0
    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, UserError]] = field(default_factory=list)
    samples: list[ImageArray] = field(default_factory=list)
    interrupted: int = 0

    @property
    def exit_code(self) -> int:
        """That of the interruption, if there was one; 0 when nothing failed, 3 when an input was bad."""
        if self.interrupted:
            return self.interrupted
        codes = [error.exit_code for _, error in self.failed]
        return 3 if 3 in codes else max(codes, default=0)

    def in_words(self, out_dir: Path) -> str:
        """One line for the end."""
        done = [_plural(number, what) for number, what in ((self.images, "image"), (self.frames, "frame")) if number]
        result = f"{' and '.join(done)}: {counted(self.counts)}; results in {out_dir}" if done else "nothing predicted"
        failed = f"; {_plural(len(self.failed), 'input')} could not be used" if self.failed else ""
        return result + failed + ("; interrupted" if self.interrupted else "")


@dataclass(frozen=True, eq=False)
class Shot:
    """A photo or a frame on its way: what it is called, what it shows, and how the network gets it.

    ``file_name`` is that of the image; ``more`` goes to the log. ``pixels`` are its own: in the end the result is drawn
    onto them.
    """

    source: str
    file_name: str
    name: OutputNames
    pixels: ImageArray
    ready: Ready
    more: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Done:
    """A shot whose files are written. ``drawn`` is the result as a picture."""

    shot: Shot
    detections: Detections
    drawn: ImageArray


@dataclass
class Prediction:
    """One run over many inputs. A bad input is noted in ``summary``, and the others go on.

    ``tell`` gets the lines the user asked for, ``reporter`` progress and remarks; ``stop`` is looked at after a batch.
    """

    predictor: PhotoDetector
    options: PredictOptions
    log: ResultLog
    reporter: Reporter
    tell: Callable[[str], None]
    stop: StopRequest
    viewer: Viewer | None = None
    summary: Summary = field(default_factory=Summary)

    def flow(
        self,
        loads: Iterable[Callable[[], Shot | Failure]],
        detect: Callable[[Sequence[Shot]], Sequence[R]],
        finish: Callable[[Shot, R], Done | Failure],
    ) -> Generator[Done | Failure, None, None]:
        """Loads, detects and finishes several at a time; notes what came of each, and yields it, in order."""
        size, stopped = self.options.batch_size, lambda: self.stop.made
        with ThreadPoolExecutor(THREADS) as pool, closing(flow(pool, loads, detect, finish, size, stopped)) as results:
            for result in results:
                if isinstance(result, Failure):
                    self.failed(result.source, result.error)
                else:
                    self.record(result)
                yield result

    def detect(self, shots: Sequence[Shot]) -> list[Detections]:
        """What each shot holds; keeps the first ones for ``Summary.samples``."""
        room = max(0, self.options.batch_size - len(self.summary.samples))
        self.summary.samples += [shot.pixels.copy() for shot in shots[:room]]
        return self.predictor.detect([shot.ready for shot in shots], self.options.score, self.options.iou)

    def finish(self, shot: Shot, detections: Detections) -> Done:
        """Writes the files beside the pictures, then draws onto the pixels of the shot. Runs in threads."""
        wanted, name, size_hw = self.options, shot.name, shot.ready.placement.size_hw
        if wanted.txt:
            self._write(TEXTS, name.beside(".txt"), detection_text(detections))
        if wanted.voc_xml:
            self._write(VOC_XML, name.beside(".xml"), voc_xml(detections, shot.file_name, size_hw))
        if wanted.yolo_txt:
            self._write(YOLO_TEXTS, name.beside(".txt"), yolo_text(detections, size_hw))
        if wanted.crops:
            save_crops(wanted.out_dir / CROPS, name.stem, shot.pixels, detections)
        return Done(shot, detections, detections.draw(shot.pixels, in_place=True))

    def record(self, done: Done) -> None:
        """Counts a result and writes it where all results go."""
        shot = done.shot
        self.log.add(shot.source, shot.ready.placement.size_hw, done.detections, **shot.more)
        self.summary.counts.update(done.detections.names)

    def show(self, drawn: ImageArray, title: str, wait: bool) -> bool:
        """Shows a result where a window is wanted. False once the user has closed it."""
        if self.viewer and not self.viewer.show(drawn, title, wait):
            self.viewer.close()
            self.viewer = None
            return False
        return True

    def failed(self, name: str, error: UserError) -> None:
        """Notes an input that could not be used."""
        self.log.failed(name, str(error))
        self.summary.failed.append((name, error))

    def _write(self, folder: str, file: Path, content: bytes | str) -> None:
        write_atomically(self.options.out_dir / folder / file, content, sync=False)


def counted(counts: Counter[str]) -> str:
    """``12 RBC, 1 WBC``, most frequent first."""
    return ", ".join(f"{number} {name}" for name, number in counts.most_common()) or "nothing found"


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
