"""Classifiers: train one on folders of photos, let it say what photos show, measure it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from engine.launch import carry_out
from utils.classes import read_classes
from utils.classifier_config import ClassifierRunConfig
from utils.classify_arguments import TRAIN, in_full, measure_arguments, predict_arguments
from utils.command_line import training_request
from utils.door import run_door
from utils.errors import ConfigError, did_you_mean
from utils.files import STDOUT, write_results
from utils.image_folders import part_of, read_labelled_folder
from utils.map_report import check_output
from utils.progress import Reporter
from utils.quiet import native_stderr_held_back, quieten_libraries

DESCRIPTION = """Train a classifier on folders of photos, classify photos with it, measure it.

  python classify.py train --data pets --backbone mobilenet_v1_1.0 --run-dir logs/pets
      pets/train/CLASS/*.jpg with pets/val or pets/test, or pets/CLASS/*.jpg with --val-fraction 0.2
  python classify.py train --config configs/cifar10_reference.yaml --data cifar10
  python classify.py train --resume logs/pets
  python classify.py predict photo.jpg holiday/ --weights logs/pets/best --top 3
  python classify.py predict photo.jpg --backbone efficientnet_b0 --weights imagenet --json found.json
  python classify.py measure --weights logs/pets/best --data pets --split test --out measured

python classify.py train --help, predict --help and measure --help explain the rest."""


def main(argv: Sequence[str] | None = None) -> int:
    """Does what the first word says."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in ([], ["-h"], ["--help"]):
        print(DESCRIPTION)
        return 0 if words else 2
    commands = {"train": train, "predict": predict, "measure": measure}
    if words[0] not in commands:
        raise ConfigError(f"{words[0]}: unknown command{did_you_mean(words[0], commands)}; see --help")
    quieten_libraries()
    return commands[words[0]](words[1:])


def train(words: list[str]) -> int:
    """``classify.py train``."""
    request = training_request(TRAIN, ClassifierRunConfig, in_full(words))
    ended = carry_out(request, Reporter())
    for line in ended.report:
        print(line)
    summary = ended.summary
    if summary is None:
        return ended.exit_code
    print(summary)
    print(f"classifier: {summary.run_dir / 'best'}   curves and pictures: {summary.run_dir / 'plots'}")
    return 0


def predict(words: list[str]) -> int:
    """``classify.py predict``."""
    given = predict_arguments(words)
    from engine.naming import refuse_inputs_as_files
    from engine.sources import find_sources

    sources, reporter = find_sources(given.sources, given.recursive), Reporter()
    videos = {str(one): f"{one}: is a video or a camera: only photos are read" for one in sources.videos}
    if not sources.images:
        raise ConfigError(next(iter(videos.values())))
    refuse_inputs_as_files(sources, [given.json] if given.json else [])
    classifier = _classifier(given, reporter)
    from engine.classification_run import classify_files
    from utils.classification_answers import Answers

    found = classify_files(classifier, [one.path for one in sources.images], given.batch, reporter, given.ignore_exif)
    answers = Answers.of(found, classifier.spec.class_names, given.top)
    answers.failed.update(videos | {one.source: str(one.error) for one in sources.failed})
    for line in (*sources.unread, *answers.failed.values()):
        reporter.say(line)
    Console(stderr=given.json == STDOUT).print(answers.table())
    if given.json:
        write_results(given.json, answers.json())
    return 3 if answers.failed else 0


def measure(words: list[str]) -> int:
    """``classify.py measure``."""
    given, reporter = measure_arguments(words), Reporter()
    folder = part_of(given.data, given.split, reporter.say)
    if given.out:
        check_output(given.out, [given.data])
    classifier = _classifier(given, reporter)
    from engine.classification_run import measure_images, write_report
    from utils.classification_report import class_table

    images = read_labelled_folder(folder, classifier.spec.class_names, reporter.say)
    metrics, probabilities = measure_images(classifier, images, given.batch, reporter)
    if given.out:
        write_report(given.out, metrics, images, probabilities, classifier.spec.ignore_exif)
    Console().print(class_table(metrics))
    return 0


def _classifier(given: Any, reporter: Reporter) -> Any:
    names = read_classes(given.classes, reporter.say) if given.classes else None
    with native_stderr_held_back():
        from engine.classifier import load_classifier
    return load_classifier(given.weights, given.backbone, names)


if __name__ == "__main__":
    sys.exit(run_door(main))
