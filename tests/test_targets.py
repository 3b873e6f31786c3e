from __future__ import annotations

import numpy as np
import pytest

from tests.encoding import slot_count
from tests.specs import detector_spec
from utils.boxes import shape_iou
from utils.targets import assign, level_grids

# At 416 the slots are numbered P3: 52 * 52 * 3, then P4: 26 * 26 * 3, then P5: 13 * 13 * 3.
P4_START = 52 * 52 * 3
P5_START = P4_START + 26 * 26 * 3


def box(cx: float, cy: float, w: float, h: float) -> list[float]:
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def test_grids_and_slots_of_416() -> None:
    assert level_grids(416) == {"P3": 52, "P4": 26, "P5": 13}
    assert slot_count(detector_spec()) == (52 * 52 + 26 * 26 + 13 * 13) * 3


def test_a_box_takes_its_best_anchor_in_the_cell_of_its_centre() -> None:
    # 116 x 90 is anchor 6, the first of P5; centre (100, 200) lies in cell (3, 6) of the 13 x 13 grid.
    targets = assign(np.array([box(100, 200, 116, 90)]), detector_spec())
    assert targets.slots.tolist() == [P5_START + (6 * 13 + 3) * 3]
    assert targets.box_indices.tolist() == [0]
    assert targets.dropped == 0


def test_centres_stay_float_up_to_the_edge_of_a_cell() -> None:
    spec = detector_spec()
    left = assign(np.array([box(7.99, 4, 10, 13)]), spec).slots
    right = assign(np.array([box(8.0, 4, 10, 13)]), spec).slots
    assert (left.tolist(), right.tolist()) == ([0], [3])


def test_the_better_shape_keeps_a_contested_slot_and_the_other_takes_its_next_best() -> None:
    exact, rough = box(100, 200, 116, 90), box(101, 201, 110, 100)
    for order in ([exact, rough], [rough, exact]):
        targets = assign(np.array(order), detector_spec())
        owner = dict(zip(targets.slots.tolist(), targets.box_indices.tolist(), strict=True))
        assert owner[P5_START + (6 * 13 + 3) * 3] == order.index(exact)
        # 59 x 119 (anchor 5, last of P4) overlaps 110 x 100 by 5900 / (11000 + 7021 - 5900) = 0.487, more than
        # 156 x 198 by 11000 / 30888 = 0.356; the P4 cell of (101, 201) is (6, 12).
        assert owner[P4_START + (12 * 26 + 6) * 3 + 2] == order.index(rough)


def test_the_tenth_box_in_one_place_is_dropped_and_counted() -> None:
    same = np.array([box(100, 200, 60, 60)] * 11)
    targets = assign(same, detector_spec())
    assert len(targets.slots) == 9
    assert targets.dropped == 2
    assert len(set(targets.slots.tolist())) == 9


@pytest.mark.parametrize("seed", range(40))
def test_of_boxes_that_lost_their_slots_the_better_shape_gets_a_free_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = detector_spec()
    slot_of = [int(assign(np.array([box(212, 212, *anchor)]), spec).slots[0]) for anchor in spec.anchors_wh_px]
    sizes = np.exp(rng.uniform(np.log(8), np.log(380), (rng.integers(3, 13), 2)))
    iou = shape_iou(sizes, np.array(spec.anchors_wh_px))
    found = assign(np.array([box(212, 212, *size) for size in sizes]), spec)
    anchor_of = {b: slot_of.index(s) for s, b in zip(found.slots.tolist(), found.box_indices.tolist(), strict=True)}
    assert found.dropped == max(0, len(sizes) - 9) == len(sizes) - len(anchor_of)
    for loser in range(len(sizes)):
        own = anchor_of.get(loser)
        for holder, anchor in anchor_of.items():
            wanted = own is None or iou[loser, anchor] > iou[loser, own]
            if wanted and anchor != iou[holder].argmax():
                assert iou[holder, anchor] >= iou[loser, anchor]
    turned = assign(np.array([box(212, 212, *size) for size in sizes[::-1]]), spec)
    assert (len(sizes) - 1 - turned.box_indices).tolist() == found.box_indices.tolist()


def test_no_boxes_give_no_targets() -> None:
    targets = assign(np.zeros((0, 4)), detector_spec())
    assert len(targets.slots) == 0
    assert targets.dropped == 0


def test_several_hundred_boxes_all_find_a_slot() -> None:
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(10, 410, 20), np.arange(10, 410, 20)), -1).reshape(-1, 2)
    sizes = rng.uniform(10, 60, centres.shape)
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    targets = assign(boxes, detector_spec())
    assert targets.dropped == 0
    assert sorted(targets.box_indices.tolist()) == list(range(400))


@pytest.mark.parametrize("seed", range(5))
def test_shape_iou_adds_exactly_the_anchors_above_the_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = detector_spec()
    w, h = rng.uniform(10, 300, 2)
    targets = assign(np.array([box(200, 200, w, h)]), spec, "shape_iou", 0.4)
    expected = 0
    for aw, ah in spec.anchors_wh_px:
        overlap = min(w, aw) * min(h, ah)
        expected += overlap / (w * h + aw * ah - overlap) > 0.4
    assert len(targets.slots) == max(expected, 1)


def test_shape_iou_never_takes_a_slot_from_a_box_that_has_it_by_first_choice() -> None:
    boxes = np.array([box(100, 100, 62, 45), box(100, 100, 59, 119), box(100, 100, 30, 61)])
    best = assign(boxes, detector_spec(), "best")
    more = assign(boxes, detector_spec(), "shape_iou", 0.3)
    owner = dict(zip(more.slots.tolist(), more.box_indices.tolist(), strict=True))
    assert all(owner[slot] == index for slot, index in zip(best.slots, best.box_indices, strict=True))
    assert len(more.slots) > len(best.slots)


def test_masks_decide_the_level_as_the_anchor_file_is_written() -> None:
    # With the masks turned round, anchor 6 belongs to P3.
    spec = detector_spec(masks=((6, 7, 8), (3, 4, 5), (0, 1, 2)))
    targets = assign(np.array([box(100, 200, 116, 90)]), spec)
    assert targets.slots.tolist() == [(25 * 52 + 12) * 3]


@pytest.mark.parametrize(
    ("centre", "more"),
    [
        ((100, 200), [(2, 6), (3, 5)]),  # 3.125, 6.25 cells of 32 px: nearer to the left and the upper neighbour
        ((127, 223), [(4, 6), (3, 7)]),  # 3.97, 6.97: nearer to the right and the lower one
        ((3, 3), []),  # at the image's corner there is no neighbour on the near side
        ((413, 413), []),
    ],
)
def test_the_two_nearest_neighbour_cells_learn_the_box_too(
    centre: tuple[int, int], more: list[tuple[int, int]]
) -> None:
    # 373 x 326 overlaps no other anchor by more than 0.4.
    boxes = np.array([box(*centre, 373, 326)])
    own = assign(boxes, detector_spec(), "shape_iou", 0.4).slots.tolist()
    targets = assign(boxes, detector_spec(), "shape_iou", 0.4, neighbour_cells=True)
    expected = [P5_START + (y * 13 + x) * 3 + 2 for x, y in more]
    assert sorted(targets.slots.tolist()) == sorted(own + expected)
    assert set(targets.box_indices.tolist()) == {0}


def test_the_bounded_decode_can_reach_every_box_from_every_slot_it_is_given() -> None:
    spec = detector_spec()
    rng = np.random.default_rng(0)
    centres, sizes = rng.uniform(0, 416, (60, 2)), rng.uniform(10, 300, (60, 2))
    targets = assign(np.concatenate([centres - sizes / 2, centres + sizes / 2], 1), spec, "shape_iou", 0.4, True)
    starts = {8: 0, 16: P4_START, 32: P5_START}
    assert len(targets.slots) > 120
    for slot, index in zip(targets.slots.tolist(), targets.box_indices.tolist(), strict=True):
        stride = max(stride for stride, start in starts.items() if slot >= start)
        y, x = divmod((slot - starts[stride]) // 3, 416 // stride)
        offset = centres[index] / stride - (x, y)
        assert (offset >= -0.5 - 1e-9).all()
        assert (offset <= 1.5 + 1e-9).all()
