"""The training loop on a few small photos; only the head learns, which is quick to trace."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import read_checkpoint, save_checkpoint
from engine.detection_setup import read_lists
from engine.learner import Learner
from engine.plan import detector_spec
from engine.run_directory import RunDirectory
from engine.startup import resume_run, start_run
from tests.conftest import ROOT
from tests.drawn_data import draw_lists, draw_photo
from tests.runs_watched import Heard, StopAfter
from tests.timings import TIMINGS
from utils.augment import fit_sample
from utils.config import DataConfig, ModelConfig, PhaseConfig, RunConfig, TrainConfig
from utils.errors import ConfigError, DataError, DivergedError, FileError
from utils.progress import Quiet
from utils.records import write_annotation_list


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    lists = draw_lists(tmp_path_factory.mktemp("data"))
    data = DataConfig(train=str(lists["train"]), val=str(lists["val"]), classes=str(lists["classes"]), threads=2)
    model = ModelConfig(input_size=64, anchors=str(ROOT / "model_data" / "yolo_anchors.txt"))
    train = TrainConfig(freeze_epochs=3, epochs=3, freeze_batch_size=2, batch_size=4, eval_every=2, save_every=2)
    return RunConfig(data=data, model=model, train=train)


@pytest.fixture(scope="module")
def finished(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs of four steps, never interrupted."""
    folder = tmp_path_factory.mktemp("logs") / "run"
    start_run(config, folder, Quiet()).fit()
    return folder


def test_a_run_leaves_its_config_metrics_pictures_and_checkpoints(finished: Path) -> None:
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "classes.txt",
        "metrics.jsonl",
        "best",
        "last",
        "previous",
        "checkpoints/epoch-0002",
        "plots/curves.png",
        "plots/first_batch.jpg",
        "plots/validation.jpg",
        "plots/precision_recall.png",
    } <= names
    assert any(name.startswith("tensorboard/") for name in names)
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    for line in lines:
        parts = sum(line[f"train_{part}"] for part in ("box", "objectness", "class", "l2"))
        assert line["train_loss"] == pytest.approx(parts)
        assert line["learning_rate"] > 0
        assert line["images_per_second"] > 0
        assert np.isfinite(line["val_loss"])
    # Measured after epoch 2, because of eval_every, and after the last.
    assert [line.get("map_50") is not None for line in lines] == [False, True, True]


def test_the_learning_curve_of_a_run_can_be_made_again(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    start_run(config, tmp_path / "again", Quiet()).fit()
    first, second = read_checkpoint(finished / "last"), read_checkpoint(tmp_path / "again" / "last")
    for name, value in first.tensors.items():
        np.testing.assert_array_equal(value, second.tensors[name], err_msg=name)


@pytest.mark.slow
# tests/test_exact_resume.py stops a smaller network wherever chance has it.
def test_stopped_and_resumed_equals_never_stopped(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    start_run(config, tmp_path / "run", Quiet()).fit(StopAfter(7))
    stopped = read_checkpoint(tmp_path / "run" / "last").info["position"]
    assert 0 < stopped["step"] < 12
    resume_run(config, tmp_path / "run", Quiet()).fit()
    first, second = read_checkpoint(finished / "last"), read_checkpoint(tmp_path / "run" / "last")
    for name, value in first.tensors.items():
        np.testing.assert_array_equal(value, second.tensors[name], err_msg=name)
    theirs, ours = (RunDirectory(path).read_metrics() for path in (finished, tmp_path / "run"))
    for a, b in zip(theirs, ours, strict=True):
        assert {k: v for k, v in a.items() if k not in TIMINGS} == {k: v for k, v in b.items() if k not in TIMINGS}


def test_where_neither_checkpoint_is_of_use_both_are_named_and_left_alone(
    finished: Path, config: RunConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("last", "previous"):
        shutil.copy(finished / "best", run / name)
    with pytest.raises(FileError, match=r"run/last: holds no training state .*; .*run/previous: holds no training"):
        resume_run(config, run, Quiet())
    assert {path.name for path in run.iterdir()} == {"last", "previous", ".lock"}


def test_a_second_run_in_the_directory_is_refused(finished: Path, config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="--resume"):
        start_run(config, finished, Quiet())


@pytest.mark.parametrize("resuming", [True, False])
def test_two_runs_in_one_directory_are_refused(
    finished: Path, config: RunConfig, tmp_path: Path, resuming: bool
) -> None:
    run = RunDirectory(tmp_path / "run")
    if resuming:
        shutil.copytree(finished, run.path)
    run.lock()
    with pytest.raises(ConfigError, match="another process trains here"):
        (resume_run if resuming else start_run)(config, run.path, Quiet())
    run.unlock()
    trainer = (resume_run if resuming else start_run)(config, run.path, Quiet())
    with pytest.raises(ConfigError, match="another process trains here"):
        run.lock()
    trainer.run.unlock()


def test_a_run_goes_on_with_what_it_began_with(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    train_list = tmp_path / "train.txt"
    lines = Path(config.data.train).read_text().splitlines(keepends=True)
    train_list.write_text("".join(lines[1:] + lines[:1]))
    other_batch = replace(config, train=replace(config.train, batch_size=2))
    other_seed = replace(config, train=replace(config.train, seed=1))
    other_data = replace(config, data=replace(config.data, train=str(train_list)))
    classes = tmp_path / "classes.txt"
    classes.write_text("red\ngreen\n")
    other_classes = replace(config, data=replace(config.data, classes=str(classes)))
    changes = {
        f"class list: {classes}: was 'blue', is 'green'": other_classes,
        "train.batch_size: was 4, is 2": other_batch,
        "train.seed: was 0, is 1": other_seed,
        "data.train: is not the data it was": other_data,
    }
    for difference, changed in changes.items():
        with pytest.raises(ConfigError, match=f"{re.escape(difference)}: restore it, or go on with --resume-anyway"):
            resume_run(changed, run, Quiet())
    reporter = Quiet()
    said: list[str] = []
    reporter.say = said.append  # type: ignore[method-assign]
    changed = replace(other_batch, data=replace(other_data.data, classes=str(classes)))
    trainer = resume_run(changed, run, reporter, anyway=True)
    trainer.run.unlock()
    assert trainer.task.spec.class_names == ("red", "green")
    assert f"going on anyway: class list: {classes}: was 'blue', is 'green'" in said
    assert "going on anyway: train.batch_size: was 4, is 2" in said
    assert "going on anyway: data.train: is not the data it was" in said
    sgd = replace(config, train=replace(config.train, optimizer="sgd", epochs=4, freeze_epochs=4))
    with pytest.raises(ConfigError, match="optimizer: sgd: the saved state is another optimizer's"):
        resume_run(sgd, run, Quiet(), anyway=True).fit()
    larger = replace(config, model=replace(config.model, input_size=96))
    with pytest.raises(ConfigError, match="input_size: was 64, is 96: restore it or start a new run"):
        resume_run(larger, run, Quiet(), anyway=True)
    harmless = replace(config, train=replace(config.train, eval_every=1), data=replace(config.data, threads=1))
    resume_run(harmless, run, Quiet()).run.unlock()


def test_a_finished_run_is_said_to_be_and_does_not_get_shorter(
    finished: Path, config: RunConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    reporter = Heard()
    resume_run(config, run, reporter).run.unlock()
    assert reporter.lines == [f"{run}/last: all 3 epochs are done; docs/resume.md says how to go on for longer"]
    for epochs in (2, 3):
        shorter = replace(config, train=replace(config.train, phases=(PhaseConfig(epochs, 2, True),)))
        with pytest.raises(ConfigError, match=f"train.phases: {epochs} epochs: 3 are done: give more"):
            resume_run(shorter, run, Quiet(), anyway=True)


def test_a_phase_that_is_made_to_begin_now_begins(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    checkpoint = read_checkpoint(run / "last")
    # In the middle of a phase, as it was planned then.
    checkpoint.info["position"].update(epoch=2, in_phase=True)
    save_checkpoint(run / "last", checkpoint)
    phases = (PhaseConfig(2, 2, True), PhaseConfig(3, 4, False))
    for changed, in_phase in ((config, True), (replace(config, train=replace(config.train, phases=phases)), False)):
        trainer = resume_run(changed, run, Quiet(), anyway=True)
        trainer.run.unlock()
        assert trainer.position.in_phase == in_phase


def test_on_other_validation_data_the_best_is_looked_for_anew(
    finished: Path, config: RunConfig, tmp_path: Path
) -> None:
    run, val = tmp_path / "run", tmp_path / "val.txt"
    shutil.copytree(finished, run)
    checkpoint = read_checkpoint(run / "last")
    checkpoint.info["position"].update(epoch=2, best_score=0.9, measured_since_best=1)
    save_checkpoint(run / "last", checkpoint)
    lines = Path(config.data.val).read_text().splitlines(keepends=True)
    for kept, score in ((lines, 0.9), (lines[1:], -1.0)):
        val.write_text("".join(kept))
        changed, reporter = replace(config, data=replace(config.data, val=str(val))), Heard()
        trainer = resume_run(changed, run, reporter, anyway=True)
        trainer.run.unlock()
        assert (trainer.position.best_score, trainer.position.measured_since_best) == (score, int(score > 0))
        said = "the best is looked for anew: it was measured on other validation data" in reporter.lines
        assert said == (score < 0)


def test_a_checkpoint_without_training_state_is_named(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished / "best", run / "last")
    with pytest.raises(FileError, match=r"run/last: holds no training state of this version"):
        resume_run(config, run, Quiet())


def test_nothing_to_resume_is_said(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run to go on with"):
        resume_run(config, tmp_path / "nothing", Quiet())


def test_a_loss_that_is_not_a_number_ends_the_run_and_saves_nothing(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "trace", lambda self: None)
    monkeypatch.setattr(Learner, "train_step", lambda self, batch, rate: np.array([np.nan, 0, 0, 0]))
    with pytest.raises(DivergedError, match=r"epoch 1 step 1: .*\.png"):
        start_run(config, tmp_path / "run", Quiet()).fit()
    assert not (tmp_path / "run" / "last").exists()


def with_lists(config: RunConfig, folder: Path, train: list, val: list) -> RunConfig:
    write_annotation_list(folder / "t.txt", train)
    write_annotation_list(folder / "v.txt", val)
    return replace(config, data=replace(config.data, train=str(folder / "t.txt"), val=str(folder / "v.txt")))


def test_the_same_image_in_both_lists_is_refused(config: RunConfig, tmp_path: Path) -> None:
    photo = draw_photo(tmp_path / "a.png", 0)
    with pytest.raises(DataError, match=r"a\.png"):
        read_lists(with_lists(config, tmp_path, [photo], [photo]), 2, Quiet())


@pytest.mark.parametrize("name", ["photos/../photos/a.png", "link.png", "folder/a.png", "folder/../photos/a.png"])
def test_another_name_for_an_image_is_the_same_image(config: RunConfig, tmp_path: Path, name: str) -> None:
    photo = draw_photo(tmp_path / "photos" / "a.png", 0)
    (tmp_path / "link.png").symlink_to(photo.image_path)
    (tmp_path / "folder").symlink_to("photos")
    again = replace(photo, image_path=f"{tmp_path}/{name}")
    with pytest.raises(DataError, match=r"\.png: in the training and the validation list"):
        read_lists(with_lists(config, tmp_path, [photo], [again]), 2, Quiet())


def test_images_that_cannot_be_used_are_named_before_training(config: RunConfig, tmp_path: Path) -> None:
    photos = [draw_photo(tmp_path / f"{i}.png", i) for i in range(3)]
    Path(photos[1].image_path).unlink()
    Path(photos[2].image_path).write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.png.*and 1 more"):
        read_lists(with_lists(config, tmp_path, photos[:2], photos[2:]), 2, Quiet())


def test_images_of_one_pixel_are_left_out_and_counted(config: RunConfig, tmp_path: Path) -> None:
    photos = [draw_photo(tmp_path / f"{i}.png", i) for i in range(2)]
    dot = draw_photo(tmp_path / "dot.png", 5, objects=0, size_hw=(1, 1))
    said: list[str] = []
    reporter = Quiet()
    reporter.say = said.append  # type: ignore[method-assign]
    train, val = read_lists(with_lists(config, tmp_path, [photos[0], dot], photos[1:]), 2, reporter)
    assert (len(train), len(val)) == (1, 1)
    assert "1 images of a single pixel left out" in said[0]


@pytest.mark.parametrize("box", [(-1.5, 0, 9, 9), (90, 5, 97.5, 9), (5, 60, 9, 74), (500, 500, 600, 600)])
def test_boxes_that_are_not_in_the_photo_are_refused(config: RunConfig, tmp_path: Path, box: tuple) -> None:
    photo, val = draw_photo(tmp_path / "a.png", 0), draw_photo(tmp_path / "b.png", 1)
    edges = np.array([(-1.0, -1.0, 97.0, 73.0)])
    read_lists(
        with_lists(config, tmp_path, [replace(photo, boxes_xyxy=edges, class_ids=np.array([0]))], [val]), 2, Quiet()
    )
    photo = replace(photo, boxes_xyxy=np.array([box, box], np.float64), class_ids=np.array([0, 1]))
    said = re.escape(f"t.txt: {photo.image_path}: box {box[0]:g},")
    with pytest.raises(DataError, match=said + r".*: outside the photo of 96x72 \(and 1 more\): .*ignore_exif"):
        read_lists(with_lists(config, tmp_path, [photo], [val]), 2, Quiet())


def test_boxes_too_small_to_be_seen_are_said(config: RunConfig, tmp_path: Path) -> None:
    """As many as ``fit_sample`` leaves out; the measurement counts them, as they are in the photo."""
    photo, val = draw_photo(tmp_path / "a.png", 0, 0, size_hw=(480, 640)), draw_photo(tmp_path / "b.png", 1)
    scale = 640 / config.model.input_size
    boxes = np.array([(0, 0, scale, 9 * scale), (0, 0, 9 * scale, scale / 2), (0, 0, 1.5 * scale, 1.5 * scale)])
    photo = replace(photo, boxes_xyxy=boxes, class_ids=np.zeros(3, np.int64))
    heard = Heard()
    read_lists(with_lists(config, tmp_path, [photo], [val]), 2, heard)
    (line,) = heard.lines
    assert line.startswith(f"{tmp_path / 't.txt'}: boxes of at most 1 px in an input of")
    assert ", which nothing learns: 2: " in line
    blank = np.zeros((480, 640, 3), np.uint8)
    _, seen, _ = fit_sample(blank, boxes, photo.class_ids, config.model.input_size, config.model.resize)
    assert len(seen) == 1


def test_a_photo_too_thin_for_the_input_is_named_before_training(config: RunConfig, tmp_path: Path) -> None:
    photo, thin = draw_photo(tmp_path / "a.png", 0), draw_photo(tmp_path / "thin.png", 1, 0, size_hw=(1, 200))
    with pytest.raises(DataError, match=r"thin\.png: 200x1 px: too thin"):
        read_lists(with_lists(config, tmp_path, [photo], [thin]), 2, Quiet())


def test_a_list_of_single_pixels_alone_is_refused(config: RunConfig, tmp_path: Path) -> None:
    photo, dot = draw_photo(tmp_path / "a.png", 0), draw_photo(tmp_path / "dot.png", 5, 0, size_hw=(1, 1))
    with pytest.raises(DataError, match=r"v\.txt: no image is left"):
        read_lists(with_lists(config, tmp_path, [photo], [dot]), 2, Quiet())


def test_lists_without_objects_are_refused_to_learn_from_and_said_of_validation(
    config: RunConfig, tmp_path: Path
) -> None:
    photo, empty = draw_photo(tmp_path / "a.png", 0), draw_photo(tmp_path / "empty.png", 1, 0)
    with pytest.raises(DataError, match=r"t\.txt: no line has a box"):
        read_lists(with_lists(config, tmp_path, [empty], [photo]), 2, Quiet())
    heard = Heard()
    read_lists(with_lists(config, tmp_path, [photo], [empty]), 2, heard)
    assert heard.lines == [
        f"{tmp_path / 'v.txt'}: no object in it: there will be no mAP, `best` is the newest, nothing stops early"
    ]


def test_a_run_never_lies_among_its_inputs(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"--run-dir: .*holds data\.train"):
        start_run(config, Path(config.data.train).parent, Quiet())


def test_a_blank_line_in_the_class_list_is_said(config: RunConfig, tmp_path: Path) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("red\n\nblue\n")
    said: list[str] = []
    spec = detector_spec(replace(config, data=replace(config.data, classes=str(classes))), said.append)
    assert spec.class_names == ("red", "blue")
    assert said == [f"{classes}: line 2: blank line: ignored"]


def test_fewer_images_than_a_batch_is_refused_before_training(config: RunConfig, tmp_path: Path) -> None:
    train = replace(config.train, freeze_batch_size=16)
    with pytest.raises(ConfigError, match="largest batch that works is 8"):
        start_run(replace(config, train=train), tmp_path / "run", Quiet())
    assert not (tmp_path / "run").exists()


def test_weights_of_another_detector_are_never_half_loaded(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    best = str(finished / "best")
    model = replace(config.model, weights=best)
    trainer = start_run(replace(config, model=model), tmp_path / "same", Quiet())
    wanted = read_checkpoint(best).group("model")
    for variable in trainer.task.model.variables:
        np.testing.assert_array_equal(variable, wanted[variable.path])

    (tmp_path / "classes.txt").write_text("red\nblue\ngreen\n")
    other = replace(config, model=model, data=replace(config.data, classes=str(tmp_path / "classes.txt")))
    with pytest.raises(FileError, match="classes: 2: this run has 3"):
        start_run(other, tmp_path / "other", Quiet())
    with pytest.raises(FileError, match="backbone"):
        start_run(replace(config, model=replace(model, backbone="efficientnet_b1")), tmp_path / "other", Quiet())
    (tmp_path / "six.txt").write_text("4,4, 8,8, 12,12, 16,16, 24,24, 40,40")
    six = replace(config, model=replace(model, anchors=str(tmp_path / "six.txt")))
    with pytest.raises(FileError, match=r"anchors: 9: this run has 6; give as many \(--model\.anchors\)"):
        start_run(six, tmp_path / "other", Quiet())
    with pytest.raises(FileError, match="no: no such checkpoint"):
        start_run(replace(config, model=replace(model, weights=str(tmp_path / "no"))), tmp_path / "other", Quiet())
    with pytest.raises(FileError, match="did you mean 'imagenet'"):
        start_run(replace(config, model=replace(model, weights="imagnet")), tmp_path / "other", Quiet())
    (tmp_path / "last").touch()
    with pytest.raises(FileError, match="best: is not there yet"):
        start_run(replace(config, model=replace(model, weights=str(tmp_path / "best"))), tmp_path / "other", Quiet())
