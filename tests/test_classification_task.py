"""A classifier through the engine: what is learned, frozen, saved, gone on with, refused."""

from __future__ import annotations

import dataclasses
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import waiting
from engine.checkpoint import classifier_spec_of, detector_spec_of, read_checkpoint, save_checkpoint
from engine.classification_data import ClassificationDataset
from engine.classification_run import measure_images
from engine.classification_setup import ClassificationSetup, initial_classifier
from engine.classifier import Classifier, load_classifier
from engine.inference import Predictor
from engine.learner import Learner
from engine.run_directory import RunDirectory
from engine.startup import resume_run, start_run
from engine.workers import Workers
from nets.classifier import build_classifier_of, classification_layer
from nets.layers import SeededDropout
from tests.labelled_folders import CLASSES, draw_folders
from tests.runs_watched import Heard, StopAfter
from utils.classifier_config import (
    ClassifierAugmentConfig,
    ClassifierDataConfig,
    ClassifierLossConfig,
    ClassifierModelConfig,
    ClassifierRunConfig,
)
from utils.command_line import read_run_config
from utils.config import PhaseConfig, TrainConfig
from utils.errors import ConfigError, DataError, FileError
from utils.image_folders import read_image_folders
from utils.progress import Quiet

BACKBONE = "mobilenet_v1_0.25_shallow"
PHASES = (PhaseConfig(1, 3, True, 64), PhaseConfig(3, 3, False))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folders(tmp_path_factory.mktemp("data"), train=4, val=2)


def config(data: Path, **model: object) -> ClassifierRunConfig:
    return ClassifierRunConfig(
        ClassifierDataConfig(str(data), threads=1),
        ClassifierModelConfig(**{"backbone": BACKBONE, "input_size": 32, "resize": "stretch", **model}),
        ClassifierAugmentConfig(mixup=0.2, cutout=0.3),
        ClassifierLossConfig(label_smoothing=0.1),
        TrainConfig(
            phases=PHASES,
            freeze_epochs=0,
            epochs=3,
            eval_every=1,
            save_every=1,
            head_l2=1e-3,
            ema_decay=0.5,
            accumulate=2,
        ),
    )


def history(run: Path) -> list[dict]:
    return RunDirectory(run).read_metrics()


def weights(path: Path) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in read_checkpoint(path).tensors.items()}


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, the first frozen."""
    run = tmp_path_factory.mktemp("run") / "run"
    start_run(config(data), run, Quiet()).fit()
    return run


def test_a_run_leaves_its_files_and_numbers(finished: Path) -> None:
    for name in ("best", "last", "config.yaml", "classes.txt", "plots/curves.png", "plots/confusion.png",
                 "plots/mistakes.jpg", "plots/first_batch.jpg"):  # fmt: skip
        assert (finished / name).stat().st_size > 0, name
    assert (finished / "classes.txt").read_text().split() == list(CLASSES)
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert '"top1"' in lines[0]
    assert classifier_spec_of(read_checkpoint(finished / "best"), "best").class_names == CLASSES


def test_the_measured_classifier_is_the_saved_one(finished: Path, data: Path) -> None:
    metrics, probabilities = measure_images(
        Classifier.load(finished / "best"), read_image_folders(data).val, 4, Quiet()
    )
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert metrics.top1 == max(entry["top1"] for entry in history(finished))


def test_photos_that_measuring_waits_for_are_told_of(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "STALLED_S", 0.5)
    strategy, told, sample = tf.distribute.get_strategy(), threading.Event(), ClassificationDataset.sample
    lines: list[str] = []

    class Listening(Quiet):
        def warn(self, text: str) -> None:
            lines.append(text)
            told.set()

    def slow(*arguments: Any) -> Any:
        told.wait(20)
        return sample(*arguments)

    setup = ClassificationSetup(config(data))
    task = setup.task(setup.spec(), "none", strategy, Quiet())
    monkeypatch.setattr(ClassificationDataset, "sample", slow)
    task.measure(4, RunDirectory(tmp_path / "run"), 0, Listening(), Workers(strategy))
    assert re.search(r"still waiting for \S+\.png", lines[0])


def test_the_first_worker_alone_draws_what_was_measured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Any] = []
    monkeypatch.setattr(Workers, "on_chief", lambda self, work: left.append(work))
    setup, run = ClassificationSetup(config(data)), RunDirectory(tmp_path / "run")
    strategy = tf.distribute.get_strategy()
    setup.task(setup.spec(), "none", strategy, Quiet()).measure(4, run, 0, Quiet(), Workers(strategy))
    assert not run.path.exists()
    for work in left:
        work()
    assert {path.name for path in run.plots.iterdir()} >= {"confusion.png", "mistakes.jpg"}


def test_labels_are_smoothed_in_training_alone(data: Path) -> None:
    setup = ClassificationSetup(config(data))
    task = setup.task(setup.spec(), "none", tf.distribute.get_strategy(), Quiet())
    classification_layer(task.model, BACKBONE).bias.assign([3.0, 0.0, -3.0])
    batch = next(task.val_data.validation_batches(3))  # two bars, a disc
    logits = task.model(batch.images, training=False)

    def oracle(smoothing: float) -> float:
        return float(keras.losses.CategoricalCrossentropy(True, smoothing)(batch.targets["labels"], logits))

    assert abs(oracle(0.1) - oracle(0)) > 0.1
    (loss,) = task.loss(logits, batch.targets)
    assert float(loss) == pytest.approx(oracle(0.1), rel=1e-4)
    learner = Learner(task, TrainConfig(), tf.distribute.get_strategy(), frozen_backbone=True)
    assert learner.validation_step(batch)[0] == pytest.approx(oracle(0), rel=1e-4)


@pytest.mark.parametrize(
    "looks", [pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(10, marks=pytest.mark.slow)]
)
def test_stopped_and_resumed_equals_uninterrupted(finished: Path, data: Path, tmp_path: Path, looks: int) -> None:
    trainer = start_run(config(data), tmp_path / "run", Quiet())
    trainer.fit(StopAfter(looks))
    assert trainer.position.step < 6
    resume_run(config(data), tmp_path / "run", Quiet()).fit()
    assert weights(tmp_path / "run" / "last") == weights(finished / "last")
    assert [entry["train_loss"] for entry in history(tmp_path / "run")] == [
        entry["train_loss"] for entry in history(finished)
    ]


def test_the_average_is_what_is_measured_and_the_weights_learn_beside_it(finished: Path, data: Path) -> None:
    frozen, last = (read_checkpoint(finished / name) for name in ("checkpoints/epoch-0001", "last"))
    model = build_classifier_of(ClassificationSetup(config(data)).spec())
    start = {v.path: np.asarray(v) for v in model.weights}
    head = {v.path for v in classification_layer(model, BACKBONE).weights}
    assert {path for path in start if not np.array_equal(frozen.group("model")[path], start[path])} == head
    raw, average = last.group("model"), last.group("ema")
    assert average.keys() == start.keys()
    assert all(not np.array_equal(raw[path], average[path]) for path in start)
    # Where both are, the average is what others read.
    end = read_checkpoint(finished / "checkpoints/epoch-0003").group("model")
    for path in start:
        np.testing.assert_array_equal(end[path], average[path])
        np.testing.assert_array_equal(last.weights()[path], average[path])
    for variable in load_classifier(str(finished / "last"), None, None).model.weights:
        np.testing.assert_array_equal(variable, average[variable.path])


def test_a_run_older_than_a_field_goes_on_with_its_default(finished: Path, data: Path, tmp_path: Path) -> None:
    last = read_checkpoint(finished / "last")
    del last.info["position"]["measured_since_best"]
    for field in ("early_stopping", "ema_decay", "accumulate"):
        del last.info["config"]["train"][field]
    del last.info["config"]["train"]["phases"][1]["input_size"]
    save_checkpoint(tmp_path / "run" / "last", last)
    now = config(data)
    with pytest.raises(ConfigError, match=r"train\.accumulate: was 1, is 2; train\.ema_decay: was 0\.0, is 0\.5: r"):
        resume_run(now, tmp_path / "run", Quiet())
    before = dataclasses.replace(now, train=dataclasses.replace(now.train, ema_decay=0.0, accumulate=1))
    resume_run(before, tmp_path / "run", Quiet()).run.unlock()


def test_frozen_means_that_only_the_last_layer_learns(data: Path) -> None:
    setup = ClassificationSetup(config(data))
    task = setup.task(setup.spec(), "none", tf.distribute.get_strategy(), Quiet())
    before = {v.path: np.array(v) for v in task.model.variables}
    learner = Learner(task, TrainConfig(), tf.distribute.get_strategy(), frozen_backbone=True)
    for batch in task.train_data.training_batches(0, 6):
        learner.train_step(batch, 0.01)
    changed = {v.path for v in task.model.variables if not np.array_equal(before[v.path], np.array(v))}
    last = {v.path for v in classification_layer(task.model, BACKBONE).variables}
    state = {v.path for layer in task.model.layers if isinstance(layer, SeededDropout) for v in layer.variables}
    assert last <= changed <= last | state
    task.freeze(False)
    free = {v.path for v in task.model.trainable_variables}
    assert len(free) > len(last)
    task.freeze(False, batch_norm=True)
    still = {path for path in free if path.endswith(("gamma", "beta"))}
    assert {v.path for v in task.model.trainable_variables} == free - still < free


def test_it_learns_to_tell_drawn_shapes_apart(tmp_path: Path) -> None:
    data = draw_folders(tmp_path / "data", train=30, val=10)
    run = ClassifierRunConfig(
        ClassifierDataConfig(str(data), threads=1),
        ClassifierModelConfig(BACKBONE, input_size=32, resize="stretch", batch_norm_momentum=0.8),
        ClassifierAugmentConfig(area_min=1, hue=0, saturation=0, value=0),
        train=TrainConfig(freeze_epochs=0, epochs=8, batch_size=10, learning_rate=0.003, eval_every=8, save_every=0),
    )
    summary = start_run(run, tmp_path / "run", Quiet()).fit()
    assert summary.best_score is not None
    assert summary.best_score > 0.7


def test_starting_from_another_classifier_takes_what_fits(finished: Path, data: Path) -> None:
    heard = Heard()
    spec = ClassificationSetup(config(data)).spec()
    model = initial_classifier(spec, str(finished), heard, seed=5)
    stored = read_checkpoint(finished / "best").group("model")
    for variable in model.weights:
        np.testing.assert_array_equal(np.asarray(variable), stored[variable.path])
    other = dataclasses.replace(spec, class_names=("a", "b"), stochastic_depth=0.0)
    model = initial_classifier(other, str(finished), heard, seed=5)
    own = {v.path: np.asarray(v) for v in build_classifier_of(other, seed=5).weights}
    last = {v.path for v in classification_layer(model, BACKBONE).weights}
    for variable in model.weights:
        expected = own if variable.path in last else stored
        np.testing.assert_array_equal(np.asarray(variable), expected[variable.path])
    assert heard.lines[0].endswith(f"took {len(own)} tensors")
    assert heard.lines[1].endswith(f"took {len(own) - len(last)} tensors; the last layer starts anew")


def test_what_does_not_fit_is_refused(finished: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"backbone: 'mobilenet_v1_0\.25_shallow': this run's model has"):
        initial_classifier(
            dataclasses.replace(ClassificationSetup(config(data)).spec(), backbone="mobilenet_v1_0.25"),
            str(finished / "best"),
            Quiet(),
        )
    with pytest.raises(FileError, match="holds a classifier: a detector is needed here"):
        Predictor.load(finished / "best")
    with pytest.raises(FileError, match="holds a classifier"):
        detector_spec_of(read_checkpoint(finished / "best"), "x")
    with pytest.raises(ConfigError, match=r"lies in data\.dir"):
        start_run(config(data), data / "runs", Quiet())
    with pytest.raises(ConfigError, match="holds a run already"):
        start_run(config(data), finished, Quiet())
    with pytest.raises(ConfigError, match="backbone: mobilenet: unknown"):
        start_run(config(data, backbone="mobilenet"), tmp_path / "run", Quiet())
    with pytest.raises(ConfigError, match=r"--backbone: efficientnet_b0: .* holds mobilenet"):
        load_classifier(str(finished / "best"), "efficientnet_b0")
    with pytest.raises(ConfigError, match=r"--classes: 2 names: .* knows 3 classes"):
        load_classifier(str(finished / "best"), None, ("a", "b"))
    assert load_classifier(str(finished / "best"), None, ("a", "b", "c")).spec.class_names == ("a", "b", "c")


def test_other_classes_on_resuming_are_refused(finished: Path, tmp_path: Path) -> None:
    other = draw_folders(tmp_path / "data", train=4, val=2)
    for part in ("train", "val"):
        (other / part / "disc").rename(other / part / "ring")
    with pytest.raises(ConfigError, match=r"class list: .*data: was 'disc', is 'ring'.* --resume-anyway"):
        resume_run(config(other), finished, Quiet())
    for part in ("train", "val"):
        shutil.rmtree(other / part / "ring")
    with pytest.raises(ConfigError, match=r"class list: .*: had 3 classes, has 2: restore it or start a new run"):
        resume_run(config(other), finished, Quiet(), anyway=True)


def test_other_versions_are_said_on_resuming(finished: Path, data: Path, tmp_path: Path) -> None:
    last = read_checkpoint(finished / "last")
    older = dataclasses.replace(last.spec, versions={**last.spec.versions, "tensorflow": "2.1"})
    save_checkpoint(tmp_path / "run" / "last", dataclasses.replace(last, spec=older))
    heard = Heard()
    trainer = resume_run(config(data), tmp_path / "run", heard)
    trainer.run.unlock()
    said = f"tensorflow: was 2.1, is {tf.__version__}: from here on numbers may differ"
    assert [line for line in heard.lines if "was" in line] == [line for line in heard.lines if line.startswith(said)]
    assert any(line.startswith(said) for line in heard.lines)
    # From then on it is a run of these versions.
    assert trainer.task.spec.versions == last.spec.versions


def test_images_of_no_use_are_named_before_the_first_step(tmp_path: Path) -> None:
    data = draw_folders(tmp_path / "data", train=4, val=2)
    (data / "train" / "bar" / "page.jpg").write_text("<html></html>")
    (data / "val" / "disc" / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"page\.jpg: is an HTML page.* \(and 1 more\)"):
        start_run(config(data), tmp_path / "run", Quiet())


def test_single_pixels_are_left_out_and_counted(tmp_path: Path) -> None:
    import cv2

    data = draw_folders(tmp_path / "data", train=4, val=2)
    cv2.imwrite(str(data / "train" / "bar" / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    setup, heard = ClassificationSetup(config(data)), Heard()
    task = setup.task(setup.spec(), "none", tf.distribute.get_strategy(), heard)
    assert len(task.train_data) == 12
    assert heard.lines == ["1 images of a single pixel left out of training"]


def test_a_batch_is_classified_as_its_images_one_by_one(finished: Path) -> None:
    classifier = Classifier.load(finished / "best")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((20, 90), (64, 64), (1, 1))]
    together = classifier.predict_batch(images)
    alone = np.concatenate([classifier.predict_batch([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-5)


def test_a_run_goes_on_wherever_its_folder_is_named_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    start_run(config(Path(data.name)), tmp_path / "run", Quiet()).fit(StopAfter(2))
    again = read_run_config(tmp_path / "run" / "config.yaml", ClassifierRunConfig)
    assert again.data.dir == str(data)
    resume_run(again, tmp_path / "run", Quiet()).run.unlock()


def test_another_spelling_of_a_backbone_is_the_same_backbone(data: Path) -> None:
    run = config(data)
    spelled = dataclasses.replace(run, model=dataclasses.replace(run.model, backbone="mobilenet_v1_0.250_shallow"))
    assert ClassificationSetup(spelled).spec().backbone == "mobilenet_v1_0.25_shallow"
