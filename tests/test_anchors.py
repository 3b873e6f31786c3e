"""Anchor files, and anchors fitted to boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from utils.anchors import kmeans_anchors, mean_best_iou, read_anchors, recall, write_anchors
from utils.errors import DataError, FileError

REFERENCE = [[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119], [116, 90], [156, 198], [373, 326]]
SHAPES = np.array([[10.0, 10.0], [20.0, 60.0], [60.0, 20.0], [100.0, 100.0], [300.0, 200.0], [30.0, 300.0]])


def _clouds(rng: np.random.Generator, each: int = 200) -> np.ndarray:
    return np.concatenate([shape * rng.uniform(0.95, 1.05, (each, 2)) for shape in SHAPES])


def test_the_shipped_file_holds_the_reference_anchors() -> None:
    np.testing.assert_array_equal(read_anchors(ROOT / "model_data" / "yolo_anchors.txt"), REFERENCE)


@given(st.lists(st.floats(1e-3, 1e6), min_size=6, max_size=6))
@settings(max_examples=30, deadline=None)
def test_what_is_written_is_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, sides: list[float]) -> None:
    path = tmp_path_factory.mktemp("anchors") / "anchors.txt"
    anchors = np.array(sides).reshape(3, 2)
    write_anchors(path, anchors)
    np.testing.assert_array_equal(read_anchors(path), anchors)


@pytest.mark.parametrize(
    "text",
    ["1,2,3,4,5,6", "1,2\n3,4\n5,6\n", "1, 2, 3, 4,\r\n5,6,\r\n", "\ufeff1,2,3,4,5,6", "\n1,2,  3,4,  5,6\n\n"],
    ids=["one line", "lines", "CRLF and trailing commas", "BOM", "blank lines"],
)
def test_layouts_that_are_accepted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "anchors.txt"
    path.write_bytes(text.encode())
    np.testing.assert_array_equal(read_anchors(path), [[1, 2], [3, 4], [5, 6]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 numbers"),
        (b"1,2,3", "3 numbers: must be pairs"),
        (b"1,2,3,4", "2 anchors: must be a multiple of 3"),
        (b"1,2,3,4,5,0", "0: every width and height"),
        (b"1,2,3,4,5,-6", "-6: every width and height"),
        (b"1,2,3,4,5,1e999", "'1e999': must be a plain number"),
        (b"1,2,3,4,5,nan", "number 6: 'nan'"),
        (b"1,2,3,4,5,1_0", "number 6: '1_0'"),
        ("1,2,3,4,5,６".encode(), "number 6"),
        (b"1,2,,3,4,5", "number 3: ''"),
        (b"1 2 3 4 5 6", "number 1: '1 2 3 4 5 6'"),
        (b"\xff\xfe\x00", "not text"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "anchors.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_anchors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nowhere\.txt: cannot be read"):
        read_anchors(tmp_path / "nowhere.txt")


def test_unusable_anchors_are_never_written(tmp_path: Path) -> None:
    path = tmp_path / "anchors.txt"
    for anchors in (np.ones((2, 2)), np.zeros((3, 2)), np.full((3, 2), np.nan)):
        with pytest.raises(DataError):
            write_anchors(path, anchors)
    assert list(tmp_path.iterdir()) == []


def test_scores_worked_by_hand() -> None:
    boxes = np.array([[10.0, 10.0], [20.0, 10.0], [40.0, 40.0]])
    anchors = np.array([[10.0, 10.0], [20.0, 20.0]])
    # Best: 1; 10x10 of 20x10 is 1/2, and so is 20x10 of 20x20; 20x20 of 40x40 is 1/4.
    assert mean_best_iou(boxes, anchors) == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert recall(boxes, anchors) == pytest.approx(2 / 3)
    assert recall(boxes, anchors, threshold=0.2) == 1
    assert recall(boxes, anchors, threshold=0.6) == pytest.approx(1 / 3)


def test_no_boxes_have_no_score() -> None:
    assert np.isnan(mean_best_iou(np.zeros((0, 2)), np.ones((3, 2))))
    assert np.isnan(recall(np.zeros((0, 2)), np.ones((3, 2))))


def test_scores_of_many_boxes_equal_those_of_their_parts() -> None:
    boxes = np.random.default_rng(0).uniform(5, 300, (150_000, 2))
    anchors = np.array(REFERENCE, float)
    halves = [mean_best_iou(boxes[:75_000], anchors), mean_best_iou(boxes[75_000:], anchors)]
    assert mean_best_iou(boxes, anchors) == pytest.approx(np.mean(halves), rel=1e-9)


def test_kmeans_finds_well_separated_shapes() -> None:
    anchors = kmeans_anchors(_clouds(np.random.default_rng(1)), 6, seed=0)
    expected = SHAPES[np.argsort(SHAPES.prod(axis=1), kind="stable")]
    np.testing.assert_allclose(anchors[[0, 3, 4, 5]], expected[[0, 3, 4, 5]], rtol=0.03)
    # 20x60 and 60x20 have one area, so either may come first.
    np.testing.assert_allclose(np.sort(anchors[1:3], axis=0), np.sort(expected[1:3], axis=0), rtol=0.03)


def test_kmeans_is_seeded_and_sorted_by_area() -> None:
    boxes = np.exp(np.random.default_rng(2).normal(3.5, 0.8, (2000, 2)))
    first = kmeans_anchors(boxes, 9, seed=3)
    np.testing.assert_array_equal(first, kmeans_anchors(boxes, 9, seed=3))
    assert (np.diff(first.prod(axis=1)) >= 0).all()
    assert first.shape == (9, 2)


def test_kmeans_does_not_depend_on_the_unit() -> None:
    boxes = np.exp(np.random.default_rng(4).normal(3.5, 0.8, (500, 2)))
    np.testing.assert_allclose(kmeans_anchors(boxes * 4, 6, seed=0), kmeans_anchors(boxes, 6, seed=0) * 4)


def test_fitted_anchors_beat_the_general_ones() -> None:
    boxes = _clouds(np.random.default_rng(5))
    assert mean_best_iou(boxes, kmeans_anchors(boxes, 9, seed=0)) > mean_best_iou(boxes, np.array(REFERENCE, float))


@pytest.mark.parametrize("repeats", [1, 50, 20_000])
def test_as_many_anchors_as_sizes_gives_every_size(repeats: int) -> None:
    boxes = np.concatenate([np.repeat(SHAPES[:1], repeats, axis=0), SHAPES[1:]])
    anchors = kmeans_anchors(boxes, len(SHAPES), seed=0)
    assert {tuple(a) for a in anchors} == {tuple(shape) for shape in SHAPES}


def test_no_cluster_stays_empty() -> None:
    # Many boxes of two sizes and few others: plain k-means loses the rare ones.
    rng = np.random.default_rng(6)
    boxes = np.concatenate([np.full((300, 2), 30.0), np.full((300, 2), 31.0), rng.uniform(5, 300, (20, 2))])
    for seed in range(5):
        anchors = kmeans_anchors(boxes, 9, seed)
        owners = np.unique(np.argmax(_plain_shape_iou(boxes, anchors), axis=1))
        assert np.isfinite(anchors).all()
        assert len(np.unique(anchors, axis=0)) == 9
        assert len(owners) == 9


def _plain_shape_iou(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    table = np.empty((len(boxes), len(anchors)))
    for i, (w, h) in enumerate(boxes):
        for j, (u, v) in enumerate(anchors):
            common = min(w, u) * min(h, v)
            table[i, j] = common / (w * h + u * v - common)
    return table


def test_fewer_sizes_than_anchors_is_said() -> None:
    with pytest.raises(DataError, match="2 different box sizes: fewer than the 9 anchors"):
        kmeans_anchors(np.array([[10.0, 20.0], [20.0, 10.0]] * 100), 9, seed=0)
    with pytest.raises(DataError, match="0 different"):
        kmeans_anchors(np.zeros((0, 2)), 9, seed=0)


@pytest.mark.parametrize("side", [0.0, -1.0, np.nan, np.inf])
def test_impossible_sizes_are_refused(side: float) -> None:
    with pytest.raises(DataError, match="finite number above 0"):
        kmeans_anchors(np.array([[10.0, side]] * 9), 3, seed=0)
