"""Several batches that make one update, against one batch of them all, on networks without batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.averaging import WeightAverage
from engine.classification_task import ClassificationTask
from engine.dataset import Batch
from engine.detection_task import DetectionTask
from engine.learner import Learner
from tests.drawn_data import draw_photo
from tests.labelled_folders import CLASSES, draw_folders
from tests.specs import REFERENCE_LOSS, detector_spec
from utils.classifier_config import ClassifierLossConfig, ClassifierRunConfig, ClassifierSpec
from utils.config import RunConfig, TrainConfig
from utils.image_folders import read_image_folders
from utils.recipe_config import LossConfig

SPEC = detector_spec(input_size=64, class_names=("red", "blue"), decode="bounded")


class Plain:
    """What there is to freeze and to decay in a network without a backbone."""

    model: keras.Model

    def freeze(self, frozen: bool, batch_norm: bool = False) -> None:
        self.model.trainable = True

    def head_kernels(self) -> Sequence[Any]:
        return [weight for weight in self.model.weights if weight.path.endswith("kernel")]


class PlainDetection(Plain, DetectionTask): ...


class PlainClassification(Plain, ClassificationTask): ...


def detection(folder, loss: LossConfig) -> DetectionTask:
    # None to five objects: some of the parts have none.
    records = [draw_photo(folder / f"{i}.png", i, objects) for i, objects in enumerate((0, 0, 5, 1))]
    image = keras.Input([None, None, 3], name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    levels = {
        level: keras.layers.Conv2D(21, stride, stride, name=level)(x)
        for level, stride in (("P3", 8), ("P4", 16), ("P5", 32))
    }
    return PlainDetection(RunConfig(loss=loss), SPEC, keras.Model(image, levels), records, records)


def classification(folder) -> ClassificationTask:
    images = read_image_folders(str(draw_folders(folder, train=2, val=1))).train[:4]
    image = keras.Input([None, None, 3], name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(image))
    model = keras.Model(image, keras.layers.Dense(3)(x))
    config = ClassifierRunConfig(loss=ClassifierLossConfig(label_smoothing=0.1))
    return PlainClassification(config, ClassifierSpec(CLASSES, "none", 32), model, images, images, False)


@pytest.fixture(autouse=True)
def eager():
    """Tracing takes longer than all that is computed here; traced runs are resumed in test_classification_task."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module", params=["classifier", "detector"])
def task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("data")
    return classification(folder) if request.param == "classifier" else detection(folder, LossConfig())


def two_steps(task, start: list[np.ndarray], **train: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Loss parts of the second step and the weights after it."""
    task.model.set_weights(start)
    strategy = tf.distribute.get_strategy()
    average = WeightAverage(task.model, 0.5, strategy)
    config = replace(TrainConfig(), optimizer="sgd", head_l2=1e-3, ema_decay=0.5, **train)
    learner = Learner(task, config, strategy, False, average)
    (batch,) = task.val_data.validation_batches(4)
    rate = 1.0 if config.clip_norm else 0.02
    learner.train_step(batch, rate)
    parts = learner.train_step(batch, rate)
    return parts, [*task.model.get_weights(), *average.tensors().values()]


@pytest.mark.parametrize("clip_norm", [0.0, 0.1])
def test_parts_of_a_batch_make_the_update_of_the_whole(task, clip_norm: float) -> None:
    start = task.model.get_weights()
    parts, weights = two_steps(task, start, clip_norm=clip_norm)
    for accumulate in (2, 4):
        found, ours = two_steps(task, start, clip_norm=clip_norm, accumulate=accumulate)
        np.testing.assert_allclose(found, parts, rtol=1e-4)
        for theirs, mine, before in zip(weights, ours, [*start, *start], strict=True):
            moved = np.linalg.norm(theirs - before)
            assert moved > 1e-5
            assert np.linalg.norm(mine - theirs) < 2e-3 * moved
    task.model.set_weights(start)


def test_an_update_is_as_long_as_clipping_lets_it_be(task) -> None:
    start = task.model.get_weights()
    (batch,) = task.val_data.validation_batches(4)
    moved = {}
    for clip_norm in (0.0, 0.01, 1e9):
        task.model.set_weights(start)
        config = replace(TrainConfig(), optimizer="sgd", momentum=0.0, head_l2=0.0, clip_norm=clip_norm)
        Learner(task, config, tf.distribute.get_strategy(), False).train_step(batch, 0.5)
        moved[clip_norm] = np.concatenate(
            [(after - before).ravel() for after, before in zip(task.model.get_weights(), start, strict=True)]
        )
    task.model.set_weights(start)
    assert np.linalg.norm(moved[0.01]) == pytest.approx(0.5 * 0.01, rel=1e-3)
    np.testing.assert_array_equal(moved[0.0], moved[1e9])
    # Shorter, and in no other direction.
    shorter = np.linalg.norm(moved[0.01]) / np.linalg.norm(moved[0.0])
    assert shorter < 0.5
    np.testing.assert_allclose(moved[0.01], shorter * moved[0.0], rtol=1e-3, atol=1e-7)


def test_what_a_part_counts_for_goes_by_the_positives_of_all_workers(tmp_path, monkeypatch) -> None:
    task = detection(tmp_path, LossConfig())
    (batch,) = task.val_data.validation_batches(4)
    learner = Learner(task, replace(TrainConfig(), accumulate=2), tf.distribute.get_strategy(), False)
    shares: list[float] = []

    def collect(images: Any, targets: Any, share: float, scale: float) -> Any:
        shares.append(share)
        return tf.zeros(len(learner.parts))

    monkeypatch.setattr(learner, "_collect", collect)
    monkeypatch.setattr(learner, "_update", lambda scale: 1.0)
    # The photos of the first part have no objects; those of another worker have 3 positives there and 4 in the second.
    others = np.array([(7, 4), (3, 2), (4, 2)])
    monkeypatch.setattr(learner.workers, "sum", lambda own: own + others)
    learner.train_step(batch, 0.01)
    positives = np.count_nonzero(batch.targets["slots"] >= 0)
    # The first part is divided by its 4 photos, which are more than its 3 positives.
    np.testing.assert_allclose(shares, [4 / (positives + 7), (positives + 4) / (positives + 7)], rtol=1e-6)
    shares.clear()
    monkeypatch.setattr(learner.workers, "sum", lambda own: own * [0, 1])
    learner.train_step(batch, 0.01)
    # Without any object the loss is that of an average photo.
    assert shares == [0.5, 0.5]


def test_where_levels_have_their_own_counts_the_losses_of_parts_are_averaged(tmp_path) -> None:
    task = detection(tmp_path, REFERENCE_LOSS)
    (batch,) = task.val_data.validation_batches(4)
    config = replace(TrainConfig(), optimizer="sgd", accumulate=2)
    learner = Learner(task, config, tf.distribute.get_strategy(), False)
    halves = [slice(0, 2), slice(2, 4)]
    alone = [
        learner.validation_step(Batch(batch.images[h], {k: v[h] for k, v in batch.targets.items()}, ())) for h in halves
    ]
    np.testing.assert_allclose(learner.train_step(batch, 0.01), np.mean(alone, axis=0), rtol=1e-4)
