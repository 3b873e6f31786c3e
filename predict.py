"""Detect objects in photos, videos and camera pictures: drawn results, labels, JSON, CSV, text, crops."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from utils.artifact_files import find_weights
from utils.door import run_door
from utils.files import refuse_replacing
from utils.predict_arguments import predict_arguments
from utils.progress import Reporter
from utils.quiet import quieten_libraries

if TYPE_CHECKING:
    from engine.prediction import PredictOptions
    from engine.viewer import Viewer


def main(argv: Sequence[str] | None = None) -> int:
    """Finds the inputs, predicts, says what came of it."""
    given = predict_arguments(argv)
    quieten_libraries()
    from engine.naming import refuse_overwriting
    from engine.predict_all import predict_all
    from engine.sources import find_sources
    from engine.timing import speed_table
    from utils.fonts import missing_note
    from yolo import Detector

    reporter, options = Reporter(), _options(given)
    stdin = getattr(sys.stdin, "buffer", None)
    sources = find_sources(given.sources, given.recursive, given.out, given.source_list, stdin)
    weights = find_weights(given.weights)
    refuse_replacing(options.files.paths, {"weights": weights, "--source-list": given.source_list})
    refuse_overwriting(sources, given.out, options.files.paths.values(), weights)
    how = (given.batch, given.ignore_exif or None, given.runtime, given.size)
    detector = Detector(weights, given.score, given.iou, *how)
    if note := missing_note(detector.class_names):
        reporter.say(note)
    viewer = _viewer(reporter) if given.show else None
    # Whoever reads results from stdout must not find words in them.
    tell = reporter.say if options.files.fill_stdout else print
    summary = predict_all(detector.predictor, sources, options, reporter, tell, viewer)
    for line in (*sources.unread, *(str(error) for _, error in summary.failed)):
        reporter.say(line)
    tell(summary.in_words(given.out))
    if given.fps and summary.samples and not summary.interrupted:
        tell(speed_table(detector.predictor, summary.samples, given.batch, given.score, given.iou))
    return summary.exit_code


def _options(given: Namespace) -> PredictOptions:
    from engine.prediction import PredictOptions
    from engine.result_log import ResultFiles

    files = ResultFiles(given.json, given.csv, given.coco, given.jsonl)
    same = ("score", "iou", "ignore_exif", "txt", "voc_xml", "yolo_txt", "crops", "heatmap", "count")
    wanted = {name: getattr(given, name) for name in same}
    return PredictOptions(given.out, batch_size=given.batch, files=files, **wanted)


def _viewer(reporter: Reporter) -> Viewer | None:
    from engine.viewer import open_viewer

    viewer = open_viewer()
    if isinstance(viewer, str):
        reporter.say(f"--show: {viewer}: going on without a window")
        return None
    return viewer


if __name__ == "__main__":
    sys.exit(run_door(main))
