from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import numpy as np
import pytest
import yaml
from tensorflow.python.summary.summary_iterator import summary_iterator

from engine import run_pictures
from engine.dataset import DetectionDataset
from engine.run_directory import RunDirectory
from engine.run_pictures import draw_batch, draw_precision_recall, draw_predictions
from tests.drawn_data import draw_photo
from tests.specs import detector_spec
from utils import classification_report
from utils.classification_report import mistakes_sheet
from utils.config import RunConfig
from utils.errors import ConfigError, DataError, FileError
from utils.images import read_image
from utils.metrics import evaluate
from utils.recipe_config import LossConfig
from utils.types import Detections, GroundTruth


def events(run: RunDirectory) -> bytes:
    return b"".join(path.read_bytes() for path in (run.path / "tensorboard").iterdir())


def test_a_new_run_holds_its_config_and_classes_and_is_not_started_twice(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "logs" / "first")
    run.start(RunConfig(), ("a", "細胞"))
    assert yaml.safe_load(run.config_file.read_text("utf-8"))["train"]["epochs"] == RunConfig().train.epochs
    assert (run.path / "classes.txt").read_text("utf-8") == "a\n細胞\n"
    assert run.read_metrics() == []
    run.write_metrics([{"epoch": 0}])
    with pytest.raises(ConfigError, match="holds a run already"):
        run.start(RunConfig(), ("a",))


def test_a_run_in_or_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"^--run-dir: .*: \S*/file is a file; give a folder"):
            RunDirectory(folder).refuse_used()


def test_a_folder_with_nothing_but_weights_is_not_trained_over(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.best.write_bytes(b"learned elsewhere")
    with pytest.raises(ConfigError, match=r"holds weights \(best\) that a run would replace"):
        run.start(RunConfig(), ("a",))
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_run_whose_last_was_set_aside_is_gone_on_with(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for path in (run.best, run.previous, run.metrics_file):
        path.touch()
    with pytest.raises(ConfigError, match="holds a run already: go on with --resume"):
        run.start(RunConfig(), ("a",))


def test_what_runs_below_a_run_are_writing_is_left_alone(tmp_path: Path) -> None:
    own = [
        tmp_path / name for name in (".last.0123456789ab", "plots/.a.0123456789ab.png", "checkpoints/.e.0123456789ab")
    ]
    other = tmp_path / "first" / ".last.0123456789ab"
    for path in (*own, other):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    RunDirectory(tmp_path).lock()
    assert [path.exists() for path in (*own, other)] == [False, False, False, True]


def test_a_disk_that_cannot_lock_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(FileError, match="No locks available: give a folder on a disk that can lock files"):
        RunDirectory(tmp_path).lock()


def test_metrics_come_back_and_a_later_write_replaces_them(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_metrics([{"epoch": 0, "map_50": None}, {"epoch": 1, "map_50": 0.5}])
    assert run.read_metrics() == [{"epoch": 0, "map_50": None}, {"epoch": 1, "map_50": 0.5}]
    run.write_metrics([{"epoch": 0}])
    assert run.read_metrics() == [{"epoch": 0}]
    run.metrics_file.write_text('{"epoch": 0}\n{"epo')
    with pytest.raises(FileError, match=r"metrics\.jsonl"):
        run.read_metrics()


def test_periodic_checkpoints_sort_by_epoch(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    names = [run.periodic(epoch).name for epoch in (5, 50, 300)]
    assert names == sorted(names) == ["epoch-0005", "epoch-0050", "epoch-0300"]


def test_scalars_and_pictures_become_events(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.log_picture("sheet", np.zeros((4, 4, 3), np.uint8), 0)
    run.log_scalars({"epoch": 0, "val_loss": 1.5, "map_50": None})
    written = events(run)
    assert b"val_loss" in written
    assert b"sheet" in written
    assert b"map_50" not in written


def test_pictures_and_scalars_of_a_measurement_stand_at_the_same_step(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    # As the trainer does: pictures at the count of epochs that are done, scalars by the entry of the epoch.
    run.log_picture("sheet", np.zeros((4, 4, 3), np.uint8), 3)
    run.log_scalars({"epoch": 2, "map_50": 0.5})
    (written,) = (tmp_path / "tensorboard").iterdir()
    steps = {value.tag: event.step for event in summary_iterator(str(written)) for value in event.summary.value}
    assert steps == {"sheet": 3, "map_50": 3}


def test_events_that_cannot_be_written_are_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(FileError, match="tensorboard: cannot be written: "):
        RunDirectory(tmp_path).log_scalars({"epoch": 0, "val_loss": 1.5})


def test_a_photo_that_a_picture_is_made_of_and_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: object, **_: object) -> None:
        raise RuntimeError("the decoder died")

    for module in (run_pictures, classification_report):
        monkeypatch.setattr(module, "read_image", broken)
    photo, nothing = tmp_path / "a.png", np.zeros((0, 4))
    truth = GroundTruth("a", nothing, np.zeros(0, np.int64), np.zeros(0, np.bool_))
    with pytest.raises(DataError, match=r"a\.png: RuntimeError: the decoder died"):
        draw_predictions(RunDirectory(tmp_path / "run"), [(photo, truth)], {"a": Detections.empty()}, 0)
    with pytest.raises(DataError, match=r"a\.png: RuntimeError: the decoder died"):
        mistakes_sheet([str(photo)], np.array([[0.1, 0.9]]), np.array([0]), ("x", "y"))


@pytest.mark.parametrize("objects", [0, 2])
def test_the_first_batch_and_the_validation_are_drawn(tmp_path: Path, objects: int) -> None:
    spec = detector_spec(input_size=64, class_names=("red", "blue"))
    run = RunDirectory(tmp_path / "run")
    records = [draw_photo(tmp_path / f"{i}.png", i, objects) for i in range(3)]
    (batch,) = DetectionDataset(records, spec, LossConfig()).validation_batches(3)
    draw_batch(run, batch, spec)
    difficult = np.zeros(objects, np.bool_)
    truths = [
        (Path(r.image_path), GroundTruth(str(i), r.boxes_xyxy, r.class_ids, difficult)) for i, r in enumerate(records)
    ]
    found = {
        truth.image_id: Detections(
            truth.boxes_xyxy.astype(np.float32), np.full(objects, 0.9, np.float32), truth.class_ids, ("x",) * objects
        )
        for _, truth in truths
    }
    draw_predictions(run, truths, found, epoch=0)
    draw_precision_recall(run, evaluate([truth for _, truth in truths], found, spec.class_names, 0.5), epoch=0)
    for name in ("first_batch.jpg", "validation.jpg", "precision_recall.png"):
        assert read_image(run.plots / name).std() > 0
        assert name.rpartition(".")[0].encode() in events(run)
