from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine import classification_data
from engine.classification_data import ClassificationDataset
from engine.dataset import Shard
from tests.labelled_folders import CLASSES, draw_folders
from utils.classifier_config import ClassifierAugmentConfig, ClassifierSpec
from utils.errors import ConfigError, DataError
from utils.image_folders import LabelledImage, read_image_folders
from utils.images import read_image
from utils.views import fixed_view

SPEC = ClassifierSpec(CLASSES, "efficientnet_b0", 32)
MIXED = ClassifierAugmentConfig(mixup=0.3)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory):
    return read_image_folders(draw_folders(tmp_path_factory.mktemp("data"), train=3, val=1)).train


def dataset(images, **changes) -> ClassificationDataset:
    return ClassificationDataset(images, **{"spec": SPEC, "augment": MIXED, "seed": 3, "threads": 2, **changes})


def contents(batches) -> list[tuple]:
    return [(b.paths, b.images.tobytes(), b.targets["labels"].tobytes()) for b in batches]


def test_seed_epoch_and_step_decide_a_batch_whatever_the_threads_and_the_memory(images) -> None:
    expected = contents(dataset(images).training_batches(2, 3))
    assert contents(dataset(images, threads=1).training_batches(2, 3)) == expected
    assert contents(dataset(images, threads=4, keep_decoded=True).training_batches(2, 3)) == expected
    assert contents(dataset(images).training_batches(1, 3)) != expected
    assert contents(dataset(images, seed=4).training_batches(2, 3)) != expected


@pytest.mark.parametrize("keep", [False, True])
def test_any_step_can_be_made_again(images, keep: bool) -> None:
    data = dataset(images, keep_decoded=keep)
    whole = contents(data.training_batches(1, 2))
    assert len(whole) == 4
    assert contents(data.training_batches(1, 2, first_step=2)) == whole[2:]
    assert contents(data.training_batches(1, 2)) == whole


def test_an_epoch_visits_every_image_at_most_once_and_the_next_sees_it_anew(images) -> None:
    data = dataset(images, augment=ClassifierAugmentConfig())
    first, second = (
        {p: b.images[i] for b in data.training_batches(e, 4) for i, p in enumerate(b.paths)} for e in (0, 1)
    )
    assert len(first) == len(second) == 8
    both = set(first) & set(second)
    assert both
    assert all(not np.array_equal(first[path], second[path]) for path in both)


def test_validation_sees_the_fixed_view_in_order_with_its_label(images) -> None:
    batches = list(dataset(images, augment=None).validation_batches(4))
    assert [len(batch.images) for batch in batches] == [4, 4, 1]
    shown = [view for batch in batches for view in batch.images]
    labels = np.concatenate([batch.targets["labels"] for batch in batches])
    for image, view in zip(images, shown, strict=True):
        np.testing.assert_array_equal(view, fixed_view(read_image(image.path), 32, "crop", 0.875))
    np.testing.assert_array_equal(labels, np.eye(3, dtype=np.float32)[[image.class_id for image in images]])


def test_labels_stay_shares_and_keep_to_their_image(images) -> None:
    for batch in dataset(images).training_batches(0, 9):
        labels = batch.targets["labels"]
        assert labels.dtype == np.float32
        np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
        assert ((labels > 0) & (labels < 1)).any(), "nothing was mixed"
        own = [CLASSES.index(Path(path).parent.name) for path in batch.paths]
        assert (labels[np.arange(9), own] >= 0.5).all()


def test_workers_mix_by_chances_of_their_own(images, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    def watched(images, labels, alpha, rng):
        drawn.append(rng.random())
        return images, labels

    monkeypatch.setattr(classification_data, "mix", watched)
    data = dataset(images, threads=1)
    for index in range(2):
        list(data.training_batches(0, 4, shard=Shard(index, 2)))
    assert len(set(drawn)) == len(drawn) == 2 * (len(images) // 4)


def test_a_batch_larger_than_the_data_is_refused(images) -> None:
    with pytest.raises(ConfigError, match="the largest batch that works is 9"):
        dataset(images).training_batches(0, 10)


def test_an_image_that_vanishes_is_named(images, tmp_path: Path) -> None:
    gone = LabelledImage(str(tmp_path / "gone.jpg"), 0)
    with pytest.raises(DataError, match=r"gone\.jpg: no such image"):
        list(dataset([*images, gone], augment=None).validation_batches(4))


def test_at_another_size_an_image_is_seen_as_a_classifier_of_that_size_would(images) -> None:
    data = dataset(images, keep_decoded=True)
    other = ClassificationDataset(images, SPEC.at_size(48), MIXED, seed=3, threads=1)
    assert contents(data.at_size(48).training_batches(1, 3)) == contents(other.training_batches(1, 3))
    assert {batch.images.shape for batch in data.at_size(48).training_batches(1, 3)} == {(3, 48, 48, 3)}
    assert data.at_size(0) is data


def test_with_multi_scale_a_batch_is_that_of_a_classifier_of_its_side(images) -> None:
    data = dataset(images, spec=SPEC.at_size(64), keep_decoded=True, multi_scale=0.5)
    batches = list(data.training_batches(1, 2))
    assert [batch.images.shape[1] for batch in batches] == [data.side(1, step) for step in range(4)]
    for step, batch in enumerate(batches):
        plain = ClassificationDataset(images, SPEC.at_size(data.side(1, step)), MIXED, seed=3, threads=1)
        assert contents([batch]) == contents(plain.training_batches(1, 2))[step : step + 1]
