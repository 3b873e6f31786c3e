from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from nets.decode import decode, decode_boxes, slot_geometry
from tests.encoding import encode_boxes, slot_count
from tests.specs import detector_spec
from utils.targets import assign


def raw_outputs(spec, batch=2, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    depth = 3 * spec.slot_values
    sides = {"P3": spec.input_size // 8, "P4": spec.input_size // 16, "P5": spec.input_size // 32}
    return {
        level: tf.constant(rng.normal(0, scale, (batch, side, side, depth)).astype(np.float32))
        for level, side in sides.items()
    }


def test_exp_decode_of_one_slot_by_hand() -> None:
    spec = detector_spec(input_size=64)
    outputs = {name: np.zeros((1, side, side, 24), np.float32) for name, side in (("P3", 8), ("P4", 4), ("P5", 2))}
    # P4, row 1, column 2, second anchor (62 x 45): t = (0, ln 3, ln 2, 0).
    outputs["P4"][0, 1, 2, 8:12] = [0, np.log(3), np.log(2), 0]
    boxes = decode({k: tf.constant(v) for k, v in outputs.items()}, spec).boxes_xyxy.numpy()[0]
    slot = 8 * 8 * 3 + (1 * 4 + 2) * 3 + 1
    # centre ((2 + 1/2) / 4, (1 + 3/4) / 4), size (2 * 62, 45) / 64
    cx, cy, w, h = 0.625, 0.4375, 124 / 64, 45 / 64
    np.testing.assert_allclose(boxes[slot], [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], rtol=1e-6)


def test_bounded_decode_reaches_half_a_cell_beyond_and_four_anchors() -> None:
    spec = detector_spec(decode="bounded")
    cells = tf.constant([[0.5, 0.5, 0.1, 0.1]])
    anchors = tf.constant([[0.2, 0.1]])
    far = decode_boxes(tf.constant([[50.0, -50.0, 50.0, -50.0]]), cells, anchors, spec).numpy()[0]
    # centre x = 0.5 + 1.5 cells, y = 0.5 - 0.5 cells; width = 4 anchors, height 0
    np.testing.assert_allclose(far, [0.65 - 0.4, 0.45, 0.65 + 0.4, 0.45], atol=1e-6)
    middle = decode_boxes(tf.zeros((1, 4)), cells, anchors, spec).numpy()[0]
    np.testing.assert_allclose(middle, [0.55 - 0.1, 0.55 - 0.05, 0.55 + 0.1, 0.55 + 0.05], atol=1e-6)


@pytest.mark.parametrize("kind", ["exp", "bounded"])
def test_decode_of_encode_is_the_box(kind: str) -> None:
    spec = detector_spec(decode=kind, input_size=128)
    rng = np.random.default_rng(1)
    centres, sizes = rng.uniform(20, 108, (40, 2)), rng.uniform(12, 40, (40, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    targets = assign(boxes, spec)
    cells, anchors = slot_geometry(raw_outputs(spec, 1), spec)
    wanted = tf.constant(boxes[targets.box_indices] / 128, tf.float32)
    cells, anchors = tf.gather(cells, targets.slots), tf.gather(anchors, targets.slots)
    raw = encode_boxes(wanted, cells, anchors, spec)
    assert np.isfinite(raw).all()
    np.testing.assert_allclose(decode_boxes(raw, cells, anchors, spec), wanted, atol=2e-6)


def test_a_batch_equals_its_images_one_by_one_and_eager_equals_traced() -> None:
    spec = detector_spec(input_size=96)
    outputs = raw_outputs(spec, 3)
    together = decode(outputs, spec)
    traced = tf.function(lambda o: decode(o, spec))(outputs)
    for i in range(3):
        alone = decode({k: v[i : i + 1] for k, v in outputs.items()}, spec)
        for whole, single, graph in zip(together, alone, traced, strict=True):
            np.testing.assert_allclose(whole[i], single[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(whole[i], graph[i], rtol=1e-5, atol=1e-6)


def test_every_slot_is_decoded_once() -> None:
    spec = detector_spec(input_size=96)
    slots = decode(raw_outputs(spec), spec)
    assert slots.boxes_xyxy.shape == (2, slot_count(spec), 4)
    assert slots.objectness.shape == (2, slot_count(spec))
    assert slots.class_logits.shape == (2, slot_count(spec), 3)
