"""Prediction over many photos, and what is done with each photo or frame: drawn, logged, cut, counted, shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.interrupts import StopRequest
from engine.naming import CROPS, HEATMAPS, TEXTS, OutputNames
from engine.outputs import ResultLog, detection_text, save_crops, save_picture
from engine.pipeline import batches, in_order
from engine.sources import ImageInput
from engine.viewer import Viewer
from utils.draw import overlay_heat
from utils.errors import UserError
from utils.files import write_atomically
from utils.images import read_for_detector
from utils.progress import Reporter
from utils.types import Detections, ImageArray

if TYPE_CHECKING:
    from engine.photo_detector import PhotoDetector


@dataclass(frozen=True)
class PredictOptions:
    """What is wanted. ``out_dir`` gets pictures and videos, and below it txt/, crops/ and heatmaps/.

    ``json_file`` and ``csv_file`` get all detections.
    """

    out_dir: Path
    score: float = 0.5
    iou: float = 0.3
    batch_size: int = 8
    ignore_exif: bool = False
    txt: bool = False
    crops: bool = False
    heatmap: bool = False
    count: bool = False
    json_file: Path | None = None
    csv_file: Path | None = None


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

    def run_images(self, images: Sequence[ImageInput], names: Sequence[OutputNames]) -> None:
        """Predicts photos in batches, reading ahead. ``names`` begin with those of ``images``."""
        remarks: list[str] = []
        results = self._results(images, names[: len(images)], remarks.append)
        for _ in self.reporter.track(results, "predicting", len(images), " images"):
            pass
        for remark in remarks[:5]:
            self.reporter.say(remark)
        if len(remarks) > 5:
            self.reporter.say(f"and {len(remarks) - 5} more such remarks")

    def predict(self, images: list[ImageArray]) -> list[Detections]:
        """Detections of each image; keeps the first images for ``Summary.samples``."""
        if not images:
            return []
        self.summary.samples += images[: max(0, self.options.batch_size - len(self.summary.samples))]
        return self.predictor.predict_batch(images, score=self.options.score, iou=self.options.iou)

    def record(self, source: str, stem: Path, pixels: ImageArray, detections: Detections, **more: Any) -> None:
        """What photos and frames have in common. ``more`` goes to the log; ``stem`` names the files beside."""
        self.log.add(source, (pixels.shape[0], pixels.shape[1]), detections, **more)
        self.summary.counts.update(detections.names)
        if self.options.txt:
            file = self.options.out_dir / TEXTS / stem.with_name(f"{stem.name}.txt")
            write_atomically(file, detection_text(detections))
        if self.options.crops:
            save_crops(self.options.out_dir / CROPS, stem, pixels, detections)

    def show(self, drawn: ImageArray, title: str, wait: bool) -> bool:
        """Shows a result where a window is wanted. False once the user has closed it."""
        if self.viewer and not self.viewer.show(drawn, title, wait):
            self.viewer.close()
            self.viewer = None
            return False
        return True

    def failed(self, name: str, error: UserError) -> None:
        """Notes an input that could not be used."""
        self.summary.failed.append((name, error))

    def _results(
        self, images: Sequence[ImageInput], names: Sequence[OutputNames], warn: Callable[[str], None]
    ) -> Iterator[None]:
        """Yields once for each image that is done."""
        with ThreadPoolExecutor(2) as pool:
            jobs = (partial(self._load, image, warn) for image in images)
            with closing(in_order(pool, jobs, 2 * self.options.batch_size)) as loaded:
                for batch in batches(zip(images, names, loaded, strict=True), self.options.batch_size):
                    found = iter(self.predict([pixels for *_, pixels in batch if not isinstance(pixels, UserError)]))
                    for image, name, pixels in batch:
                        if isinstance(pixels, UserError):
                            self.failed(str(image.path), pixels)
                        else:
                            self._image_done(image, name, pixels, next(found))
                        yield
                    if self.stop.made:
                        return

    def _load(self, image: ImageInput, warn: Callable[[str], None]) -> ImageArray | UserError:
        try:
            return read_for_detector(image.path, self.predictor.spec, self.options.ignore_exif or None, warn)
        except UserError as error:
            return error

    def _image_done(self, image: ImageInput, name: OutputNames, pixels: ImageArray, detections: Detections) -> None:
        output = self.options.out_dir / name.picture
        drawn = detections.draw(pixels)
        save_picture(output, drawn)
        self.record(str(image.path), name.stem, pixels, detections, output=str(output))
        if self.options.heatmap:
            heat = overlay_heat(pixels, self.predictor.objectness_map(pixels))
            save_picture(self.options.out_dir / HEATMAPS / name.picture, heat)
        self.summary.images += 1
        if self.options.count:
            self.tell(f"{image.path}: {counted(Counter(detections.names))}")
        self.show(drawn, image.path.name, wait=True)


def counted(counts: Counter[str]) -> str:
    """``12 RBC, 1 WBC``, most frequent first."""
    return ", ".join(f"{number} {name}" for name, number in counts.most_common()) or "nothing found"


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
