from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from utils.classification_metrics import among_first, evaluate_classes, worst_mistakes
from utils.classification_report import class_table, in_words, mistakes_sheet, save_confusion
from utils.errors import ConfigError


def random_case(images: int = 300, classes: int = 12, seed: int = 0):
    rng = np.random.default_rng(seed)
    true_ids = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)) + 1.5 * np.eye(classes)[true_ids]
    shares = np.exp(logits)
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), true_ids


def names(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def test_numbers_of_a_case_by_hand() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.2, 0.5, 0.3]])
    metrics = evaluate_classes(probabilities, np.array([0, 1, 1, 1]), ("a", "b", "c"))
    assert metrics.confusion.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert metrics.top1 == 3 / 4
    assert metrics.top5 is None, "of three classes five are always right"
    a, b, c = metrics.classes
    assert (a.precision, a.recall, a.f1) == (1 / 2, 1.0, 2 / 3)
    assert (b.precision, b.recall, b.images, b.predicted) == (1.0, 2 / 3, 3, 2)
    assert (c.precision, c.recall, c.f1) == (None, None, None)
    # Classes without images have no part in the mean: (1 + 2/3) / 2.
    assert metrics.mean_recall == pytest.approx(5 / 6)
    assert metrics.loss == pytest.approx(-np.log([0.8, 0.3, 0.7, 0.5]).mean())


@pytest.mark.parametrize("seed", range(5))
def test_numbers_agree_with_keras_and_tensorflow(seed: int) -> None:
    probabilities, true_ids = random_case(seed=seed)
    metrics = evaluate_classes(probabilities, true_ids, names(12))
    top1 = keras.metrics.sparse_categorical_accuracy(true_ids, probabilities)
    top5 = keras.metrics.sparse_top_k_categorical_accuracy(true_ids, probabilities, k=5)
    loss = keras.losses.sparse_categorical_crossentropy(true_ids, probabilities)
    assert metrics.top1 == pytest.approx(float(np.mean(top1)))
    assert metrics.top5 == pytest.approx(float(np.mean(top5)))
    assert metrics.loss == pytest.approx(float(np.mean(loss)), rel=1e-5)
    matrix = tf.math.confusion_matrix(true_ids, probabilities.argmax(axis=1), 12).numpy()
    np.testing.assert_array_equal(metrics.confusion, matrix)
    assert sum(one.images for one in metrics.classes) == metrics.images == 300


def test_of_equal_probabilities_the_lower_class_comes_first() -> None:
    even = np.full((3, 4), 0.25)
    assert among_first(even, np.array([0, 1, 3]), 2).tolist() == [True, True, False]
    assert evaluate_classes(even, np.array([0, 1, 3]), names(4)).top1 == 1 / 3


def test_a_probability_of_0_costs_much_and_not_infinity() -> None:
    metrics = evaluate_classes(np.array([[1.0, 0.0]]), np.array([1]), ("a", "b"))
    assert 20 < metrics.loss < 30


def test_no_images_measure_nothing() -> None:
    with pytest.raises(ConfigError, match="no image"):
        evaluate_classes(np.zeros((0, 2)), np.zeros(0, np.int64), ("a", "b"))


def test_the_surest_mistakes_come_first() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    assert worst_mistakes(probabilities, np.array([0, 1, 0, 1]), 2).tolist() == [2, 3]
    assert worst_mistakes(probabilities, np.array([0, 0, 1, 0]), 5).tolist() == []


def test_the_numbers_survive_json() -> None:
    metrics = evaluate_classes(*random_case(), names(12))
    plain = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert plain["top1"] == metrics.top1
    assert plain["per_class"]["class 3"]["images"] == metrics.classes[3].images
    assert plain["confusion"]["counts"] == metrics.confusion.tolist()


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_the_confusion_chart_has_room_for_every_class(tmp_path: Path, classes: int) -> None:
    metrics = evaluate_classes(*random_case(400, classes), names(classes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_confusion(metrics, tmp_path / "confusion.png")
    height, width = cv2.imread(str(tmp_path / "confusion.png")).shape[:2]
    # A line of the smallest type takes some 12 px.
    assert max(300, 15 * classes) < min(height, width) <= max(height, width) < 7000


def test_the_table_names_every_class_and_says_the_whole() -> None:
    from rich.console import Console

    metrics = evaluate_classes(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]), ("[red]", "细胞"))
    console = Console(width=100, file=io.StringIO())
    console.print(class_table(metrics))
    text = console.file.getvalue()
    assert "[red]" in text
    assert "细胞" in text
    assert in_words(metrics) in text
    assert in_words(metrics).startswith("top-1 0.5000, loss ")


@pytest.mark.parametrize("wrong", [0, 3])
def test_a_sheet_shows_as_many_pictures_as_there_are_mistakes(tmp_path: Path, wrong: int) -> None:
    paths = []
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((8, 8, 3), (0, 0, 255), np.uint8))
        paths.append(str(tmp_path / f"{i}.png"))
    true_ids = np.array([1] * wrong + [0] * (4 - wrong))
    sheet = mistakes_sheet(paths, np.tile([0.9, 0.1], (4, 1)), true_ids, ("a", "b"))
    red = (sheet == (255, 0, 0)).all(axis=2).sum()
    assert red == pytest.approx(wrong * 260 * 260, rel=0.01)
