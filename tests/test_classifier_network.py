from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets.classifier import classification_loss


def random_batch(seed: int = 0, images: int = 6, classes: int = 4):
    rng = np.random.default_rng(seed)
    labels = rng.dirichlet([0.3] * classes, images).astype(np.float32)
    return rng.normal(0, 3, (images, classes)).astype(np.float32), labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_that_of_keras(seed: int, smoothing: float) -> None:
    logits, labels = random_batch(seed)
    oracle = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    assert float(classification_loss(logits, labels, smoothing)) == pytest.approx(
        float(oracle(labels, logits)), rel=1e-5
    )


def test_the_loss_of_a_sure_and_of_an_even_answer() -> None:
    labels = np.array([[1.0, 0.0]], np.float32)
    assert float(classification_loss(tf.constant([[100.0, 0.0]]), labels)) == pytest.approx(0)
    assert float(classification_loss(tf.constant([[0.0, 0.0]]), labels)) == pytest.approx(np.log(2))
    # A wrong answer, however sure, costs its margin and not infinity.
    assert float(classification_loss(tf.constant([[0.0, 100.0]]), labels)) == pytest.approx(100)


def test_shards_of_a_batch_add_up_to_its_loss() -> None:
    logits, labels = random_batch()
    whole = classification_loss(logits, labels, 0.1)
    halves = [classification_loss(logits[s], labels[s], 0.1, lambda count: 2 * count) for s in (slice(3), slice(3, 6))]
    assert float(tf.add_n(halves)) == pytest.approx(float(whole), rel=1e-6)
