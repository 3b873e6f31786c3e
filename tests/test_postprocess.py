"""NumPy's decoding and suppression against the traced ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nets.decode import decode
from nets.nms import suppress
from tests.specs import detector_spec
from utils.config import LEVELS, STRIDES, DetectorSpec
from utils.postprocess import MAX_PER_CLASS, find_boxes


def raw_outputs(spec: DetectorSpec, batch: int, seed: int, spread: float = 2.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    depth = spec.slot_values
    outputs = {}
    for level, mask in zip(LEVELS, spec.masks, strict=True):
        side = spec.input_size // STRIDES[level]
        outputs[level] = rng.normal(-1, spread, (batch, side, side, len(mask) * depth)).astype(np.float32)
    return outputs


def traced(outputs: dict[str, np.ndarray], spec: DetectorSpec, score: float, iou: float) -> Any:
    tensors = {level: tf.constant(value) for level, value in outputs.items()}
    return tf.function(lambda given: suppress(decode(given, spec), score, iou))(tensors)


@pytest.mark.parametrize(
    ("changes", "score", "iou"),
    [
        ({"decode": "bounded"}, 0.5, 0.3),
        ({"decode": "bounded", "class_names": tuple("abcdefghij")}, 0.001, 0.5),
        ({"decode": "exp", "masks": ((6, 7, 8), (0,), (4, 5))}, 0.2, 0.45),
        ({"decode": "exp", "class_names": ("one",)}, 0.0, 1.0),
    ],
)
def test_it_gives_what_the_traced_functions_give(changes: dict[str, Any], score: float, iou: float) -> None:
    spec = detector_spec(input_size=96, **changes)
    outputs = raw_outputs(spec, 3, seed=len(changes))
    expected = traced(outputs, spec, score, iou)
    found = find_boxes(outputs, spec, score, iou)
    assert len(found) == 3
    assert max(len(one.scores) for one in found) > 3
    for image, one in enumerate(found):
        count = int(expected.counts[image])
        assert len(one.scores) == count
        np.testing.assert_allclose(one.scores, expected.scores[image, :count], rtol=1e-5)
        np.testing.assert_array_equal(one.class_ids, expected.class_ids[image, :count])
        np.testing.assert_allclose(one.boxes_xyxy, expected.boxes_xyxy[image, :count], rtol=1e-5, atol=1e-5)


def test_the_cap_and_the_order_are_those_of_the_traced_functions() -> None:
    spec = detector_spec(input_size=416, decode="bounded", class_names=("a", "b"))
    outputs = raw_outputs(spec, 1, 5)
    for output in outputs.values():
        output[..., 4::7] += 6
    (one,) = find_boxes(outputs, spec, 0.3, 0.5)
    assert np.bincount(one.class_ids).tolist() == [MAX_PER_CLASS, MAX_PER_CLASS]
    assert (np.diff(one.scores) <= 0).all()
    expected = traced(outputs, spec, 0.3, 0.5)
    np.testing.assert_allclose(one.scores, expected.scores[0], rtol=1e-5)


def test_nothing_above_the_threshold_is_nothing() -> None:
    spec = detector_spec(input_size=64)
    outputs = {level: np.full_like(value, -200) for level, value in raw_outputs(spec, 2, 0).items()}
    for one in find_boxes(outputs, spec, 0.001, 0.5):
        assert (one.boxes_xyxy.shape, one.scores.shape, one.class_ids.shape) == ((0, 4), (0,), (0,))


def test_a_batch_equals_its_images_one_by_one() -> None:
    spec = detector_spec(input_size=64)
    outputs = raw_outputs(spec, 3, 7)
    for image, one in enumerate(find_boxes(outputs, spec, 0.2, 0.4)):
        (alone,) = find_boxes({level: value[image : image + 1] for level, value in outputs.items()}, spec, 0.2, 0.4)
        for whole, single in zip(one, alone, strict=True):
            np.testing.assert_array_equal(whole, single)
