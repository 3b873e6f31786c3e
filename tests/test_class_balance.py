"""Repeat-factor sampling: factors worked out by hand, frequencies, and that seed and epoch decide all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dataset import DetectionDataset, Shard
from tests.drawn_data import draw_photo
from tests.specs import detector_spec
from utils.class_balance import repeat_factors, repeated
from utils.recipe_config import AugmentConfig, LossConfig
from utils.types import Record

SPEC = detector_spec(input_size=32, class_names=("common", "rare"))


def ids(*classes: int) -> np.ndarray:
    return np.array(classes, np.int64)


def test_factors_are_those_of_lvis() -> None:
    # Of 16 photos 12 have class 0, 1 has class 1, 4 have class 2: shares 0.75, 0.0625, 0.25.
    photos = [ids(0)] * 9 + [ids(0, 2, 2), ids(2), ids(0, 2), ids(1, 0), ids(2), ids(), ids()]
    # sqrt(0.25 / 0.0625) = 2; class 2 is not rarer than 0.25.
    assert repeat_factors(photos, 0.25).tolist() == [1] * 12 + [2, 1, 1, 1]
    # sqrt(0.5625 / 0.25) = 1.5, sqrt(0.5625 / 0.0625) = 3, the largest of a photo's classes counts.
    assert repeat_factors(photos, 0.5625).tolist() == [1] * 9 + [1.5, 1.5, 1.5, 3, 1.5, 1, 1]
    assert repeat_factors(photos, 0.0).tolist() == [1] * 16
    assert repeat_factors([ids(), ids()], 1.0).tolist() == [1, 1]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=30), st.floats(0, 1))
def test_no_photo_comes_less_often_and_of_two_classes_never_the_rarer_one(
    photos: list[list[int]], threshold: float
) -> None:
    factors = repeat_factors([ids(*one) for one in photos], threshold)
    assert (factors >= 1).all()
    assert (factors <= np.sqrt(len(photos)) + 1e-9).all()
    counts = {c: sum(c in one for one in photos) for c in range(6)}
    for one, factor in zip(photos, factors, strict=True):
        assert factor == 1 or min(counts[c] for c in one) < threshold * len(photos)
        for other, theirs in zip(photos, factors, strict=True):
            if one and other and min(counts[c] for c in one) <= min(counts[c] for c in other):
                assert factor >= theirs


def test_the_mean_of_many_epochs_is_the_factor_and_each_lies_beside_it() -> None:
    factors = np.array([1.0, 1.25, 2.0, 3.5])
    counts = np.array(
        [np.bincount(repeated(factors, np.random.default_rng(seed)) % 4, minlength=4) for seed in range(2000)]
    )
    np.testing.assert_allclose(counts.mean(axis=0), factors, atol=0.05)
    assert (counts >= np.floor(factors)).all()
    assert (counts <= np.ceil(factors)).all()
    shown = repeated(factors, np.random.default_rng(0))
    assert len(set(shown.tolist())) == len(shown)
    assert shown[:4].tolist() == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """16 photos: the first has the rare class, the last no object."""
    folder = tmp_path_factory.mktemp("photos")
    photos = [draw_photo(folder / f"{i}.png", i, int(i < 15), (48, 48)) for i in range(16)]
    return [Record(one.image_path, one.boxes_xyxy, one.class_ids * 0 + (i == 0)) for i, one in enumerate(photos)]


def dataset(records: list[Record], threshold: float = 0.5625, **changes) -> DetectionDataset:
    options = {"augment": AugmentConfig(), "seed": 3, "threads": 2, "balance_classes": threshold, **changes}
    return DetectionDataset(records, SPEC, LossConfig(), **options)


def contents(batches) -> list[tuple]:
    return [(b.paths, b.images.tobytes(), *(b.targets[k].tobytes() for k in sorted(b.targets))) for b in batches]


def test_an_epoch_has_as_many_photos_as_ever_and_more_of_the_rare_ones(records: list[Record]) -> None:
    data = dataset(records)
    assert len(data) == 16
    assert data.steps_per_epoch(4) == 4
    epochs = np.array([np.bincount(data.order(epoch) % 16, minlength=16) for epoch in range(600)])
    assert (epochs.sum(axis=1) == 16).all()
    # The rare class is in 1 of 16: 3 times of 18, of which an epoch has 16.
    assert epochs[:, 0].mean() == pytest.approx(3 * 16 / 18, abs=0.1)
    np.testing.assert_allclose(epochs[:, 1:].mean(axis=0), 16 / 18, atol=0.06)


def test_seed_and_epoch_decide_the_order_and_any_step_can_be_made_again(records: list[Record]) -> None:
    data = dataset(records)
    whole = contents(data.training_batches(1, 4))
    assert contents(dataset(records, threads=1).training_batches(1, 4)) == whole
    assert contents(data.training_batches(1, 4, first_step=2)) == whole[2:]
    assert (data.order(1) != data.order(2)).any()
    assert (data.order(1) != dataset(records, seed=4).order(1)).any()
    parts = [list(data.training_batches(1, 4, 0, Shard(i, 2))) for i in range(2)]
    for (paths, *_), one, other in zip(whole, *parts, strict=True):
        assert one.paths + other.paths == paths


def test_a_photo_that_comes_again_is_varied_anew(records: list[Record]) -> None:
    data = dataset(records)
    samples = [data.sample(0, index) for index in (0, 16, 32)]
    assert {sample.record.image_path for sample in samples} == {data.path(32)} == {records[0].image_path}
    assert len({sample.image.tobytes() for sample in samples}) == 3


@pytest.mark.parametrize("threshold", [0.0, 1 / 16])
def test_off_or_with_nothing_rare_it_is_the_plain_order(records: list[Record], threshold: float) -> None:
    data = dataset(records, threshold)
    for epoch in range(3):
        plain = np.random.default_rng((3, 0, epoch)).permutation(16)
        np.testing.assert_array_equal(data.order(epoch), plain)


def test_photos_to_mix_in_are_drawn_alike(records: list[Record]) -> None:
    mixed = {0.0: [], 0.5625: []}
    for threshold, seen in mixed.items():
        data = dataset(records, threshold, augment=AugmentConfig(mosaic=1.0))
        for epoch in range(12):
            for batch in data.training_batches(epoch, 16):
                seen.extend(Path(path).name for path in batch.mixed_in)
    rare = {threshold: seen.count("0.png") / len(seen) for threshold, seen in mixed.items()}
    # 576 of each: shares 1/16 and 3/18.
    assert rare[0.0] == pytest.approx(1 / 16, abs=0.04)
    assert rare[0.5625] == pytest.approx(3 / 18, abs=0.05)
    assert len(set(mixed[0.5625])) == 16
