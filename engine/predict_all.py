"""One prediction run from the inputs to the last file: what predict.py does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.interrupts import stop_on_signals
from engine.naming import YOLO_CLASSES, name_outputs
from engine.photo_prediction import run_photos
from engine.prediction import Prediction, PredictOptions, Summary
from engine.result_log import result_log
from engine.sources import Sources
from engine.video_prediction import run_video
from engine.viewer import Viewer
from utils.classes import write_classes
from utils.progress import Reporter

if TYPE_CHECKING:
    from engine.photo_detector import PhotoDetector


def predict_all(
    predictor: PhotoDetector,
    sources: Sources,
    options: PredictOptions,
    reporter: Reporter,
    tell: Callable[[str], None] = lambda line: None,
    viewer: Viewer | None = None,
) -> Summary:
    """Predicts every input; see ``Prediction`` for the arguments. A signal ends it early, with all files complete."""
    names = name_outputs(sources)
    header = {
        "score": options.score,
        "iou": options.iou,
        "class_names": list(predictor.spec.class_names),
    }
    if options.yolo_txt:
        write_classes(options.out_dir / YOLO_CLASSES, predictor.spec.class_names)
    with stop_on_signals() as stop, result_log(options.files, header) as log:
        run = Prediction(predictor, options, log, reporter, tell, stop, viewer)
        for missing in sources.failed:
            reporter.say(f"{missing.error}: going on without it")
            run.failed(missing.source, missing.error)
        photos = len(sources.images)
        run_photos(run, sources.images, names[:photos])
        for video, name in zip(sources.videos, names[photos:], strict=True):
            if stop.made:
                break
            run_video(run, video, name)
        log.end(complete=not stop.made)
    run.summary.interrupted = stop.exit_code
    return run.summary
