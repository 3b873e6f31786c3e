"""What a run starts from, with a detector that is not built."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from engine import detection_setup, startup, unused_fields
from engine.checkpoint import Checkpoint, model_tensors, read_checkpoint, save_checkpoint
from engine.detection_setup import initial_detector
from engine.inference import Predictor
from engine.resume_check import as_it_was
from engine.workers import default_strategy
from nets.backbones import build_classifier
from nets.detector import build_detector
from nets.layers import RANDOM_STATE, SeededDropout
from tests import fault_runs
from tests.runs_watched import Heard
from tests.small_run import small_spec, write_run
from tests.specs import detector_spec
from utils.classifier_config import ClassifierRunConfig, ClassifierSpec
from utils.config import DataConfig, ModelConfig, PhaseConfig, RunConfig, TrainConfig
from utils.errors import ConfigError, FileError
from utils.progress import Quiet, Reporter
from utils.recipe_config import AugmentConfig


@pytest.mark.parametrize("weights", ["none", "package", "imagenet"])
def test_the_seed_of_the_run_decides_the_first_weights(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    calls: list[dict[str, Any]] = []

    def build_detector(spec: Any, backbone_weights: Any = None, seed: int = 0) -> None:
        calls.append({"spec": spec, "weights": backbone_weights, "seed": seed})

    heard = Heard()

    def official_file(name: str, reporter: Reporter) -> Path:
        assert (name, reporter) == ("efficientnet_b0", heard)  # who waits for a download sees how far it is
        return Path("fetched.h5")

    monkeypatch.setattr(detection_setup, "build_detector", build_detector)
    monkeypatch.setattr(detection_setup, "official_file", official_file)
    initial_detector(detector_spec(), weights, heard, seed=5)
    assert calls == [
        {"spec": detector_spec(), "weights": Path("fetched.h5") if weights == "imagenet" else weights, "seed": 5}
    ]


@pytest.mark.parametrize(("theirs", "ours"), [(True, True), (True, False), (False, True)])
def test_weights_of_a_detector_with_another_stochastic_depth_are_a_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, theirs: bool, ours: bool
) -> None:
    def small(dropout: bool) -> keras.Model:
        x = inputs = keras.Input([2])
        if dropout:
            x = SeededDropout(0.5, seed=int(ours), name="block_drop")(x)
        return keras.Model(inputs, keras.layers.Dense(2, name="head", kernel_initializer="random_normal")(x))

    before = small(theirs)
    save_checkpoint(tmp_path / "best", Checkpoint(detector_spec(), model_tensors(before)))
    monkeypatch.setattr(detection_setup, "build_detector", lambda spec, seed: small(ours))
    after = initial_detector(detector_spec(), str(tmp_path / "best"), Quiet())
    for wanted, got in zip(before.weights, after.weights, strict=True):
        np.testing.assert_array_equal(got, wanted)
    fresh = {v.path: np.asarray(v) for v in small(ours).variables if "seed" in v.path}
    assert len(fresh) == ours
    for variable in after.variables:
        if variable.path in fresh:
            np.testing.assert_array_equal(variable, fresh[variable.path])


def test_a_head_that_learned_other_anchors_starts_with_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def small(*_: Any, **__: Any) -> keras.Model:
        inputs = keras.Input([2])
        return keras.Model(inputs, keras.layers.Dense(2, name="head")(inputs))

    monkeypatch.setattr(detection_setup, "build_detector", small)
    learned = detector_spec()
    save_checkpoint(tmp_path / "best", Checkpoint(learned, model_tensors(small())))
    heard = Heard()
    larger = learned.at_size(2 * learned.input_size)
    for same in (learned, larger):
        initial_detector(same, str(tmp_path / "best"), heard)
    assert not heard.lines
    # The same pixels in an input twice as large are other anchors.
    other = replace(larger, anchors_wh_px=learned.anchors_wh_px)
    initial_detector(other, str(tmp_path / "best"), heard)
    (line,) = heard.lines
    assert line.startswith(f"{tmp_path / 'best'}: its head learned other anchors")


def test_a_detector_of_other_classes_starts_from_all_but_the_outputs(tmp_path: Path) -> None:
    run, learned = write_run(tmp_path), small_spec()
    before, heard = read_checkpoint(run / "best").weights(), Heard()
    other = replace(learned, class_names=("green", "red"), decode="exp")
    with pytest.raises(FileError, match=r"decode: .*make them the same"):
        initial_detector(other, str(run), heard)
    with pytest.raises(FileError, match=r"classes: 3: this run has 2; .*--model.fresh_outputs true"):
        initial_detector(replace(other, decode=learned.decode), str(run), heard)
    after, drawn = (
        {variable.path: np.asarray(variable) for variable in model.variables}
        for model in (
            initial_detector(other, str(run), heard, seed=5, fresh_outputs=True),
            build_detector(other, seed=5),
        )
    )
    outputs = {name for name in after if "_logits/" in name}
    assert len(outputs) == 6
    for name, value in after.items():
        np.testing.assert_array_equal(value, drawn[name] if name in outputs or RANDOM_STATE in name else before[name])
    assert [line.split(": ", 1)[1] for line in heard.lines] == [
        "all but its output layers is taken, which learn anew (model.fresh_outputs)"
    ]
    with pytest.raises(FileError, match="separable_head"):
        initial_detector(replace(other, separable_head=False), str(run), heard, fresh_outputs=True)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_tells_whether_its_outputs_learn_anew(
    fresh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool] = []

    def begin(spec: Any, weights: str, reporter: Reporter, seed: int, fresh_outputs: bool) -> keras.Model:
        given.append(fresh_outputs)
        return fault_runs.tiny_detector(spec)

    monkeypatch.setattr(detection_setup, "initial_detector", begin)
    tiny = fault_runs.tiny_config(tmp_path / "data")
    config = replace(tiny, model=replace(tiny.model, fresh_outputs=fresh))
    startup.start_run(config, tmp_path / "run", Quiet()).run.unlock()
    assert given == [fresh]


def test_a_head_that_learned_other_classes_starts_with_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def small(*_: Any, **__: Any) -> keras.Model:
        inputs = keras.Input([2])
        return keras.Model(inputs, keras.layers.Dense(2, name="head")(inputs))

    monkeypatch.setattr(detection_setup, "build_detector", small)
    learned = replace(detector_spec(), class_names=("cat", "dog", "cow"))
    save_checkpoint(tmp_path / "best", Checkpoint(learned, model_tensors(small())))
    heard = Heard()
    initial_detector(replace(learned, class_names=("dog", "cat", "cow")), str(tmp_path / "best"), heard)
    (line,) = heard.lines
    assert f"{tmp_path / 'best'}: its head learned other classes, of which 'cat' is 'dog', 'dog' is 'cat' now" in line


def test_a_folder_that_holds_a_run_is_refused_before_any_image_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(detection_setup, "read_lists", lambda *_: pytest.fail("read the lists"))
    (tmp_path / "classes.txt").write_text("a\n")
    (tmp_path / "metrics.jsonl").touch()
    config = RunConfig(data=DataConfig(classes=str(tmp_path / "classes.txt")))
    with pytest.raises(ConfigError, match=r"holds a run already: go on with --resume .*, or give another"):
        startup.start_run(config, tmp_path, Quiet())


def test_a_class_list_that_is_not_named_is_the_one_beside_the_training_list(tmp_path: Path) -> None:
    config = RunConfig(data=DataConfig(train=str(tmp_path / "2007_train.txt")), train=TrainConfig(precision="float32"))
    setup = detection_setup.DetectionSetup(config)
    assert setup.spec().class_names[:2] == ("aeroplane", "bicycle")
    (line,) = [line for line in startup.what_was_decided(config, setup.config) if "data.classes" in line]
    assert line.endswith("2007_train.txt: those of model_data/voc_classes.txt are taken")
    (tmp_path / "classes.txt").write_text("cell\n")
    setup = detection_setup.DetectionSetup(config)
    assert setup.spec().class_names == ("cell",)
    told = startup.what_was_decided(config, setup.config)
    assert not any("data.classes" in line for line in told)
    # The run's config.yaml names it.
    assert setup.config.data.classes == setup.inputs()["data.classes"] == str(tmp_path / "classes.txt")
    (tmp_path / "other.txt").write_text("thing\n")
    named = replace(config, data=replace(config.data, classes=str(tmp_path / "other.txt")))
    assert detection_setup.DetectionSetup(named).spec().class_names == ("thing",)


@pytest.mark.parametrize("kind", [RunConfig, ClassifierRunConfig])
def test_epochs_that_phases_overrule_are_said(kind: Any) -> None:
    phase = PhaseConfig(until_epoch=60, batch_size=4, frozen_backbone=False)
    usual = kind().train
    for epochs, said in ((40, True), (60, False), (usual.epochs, False)):
        config = kind(train=replace(usual, epochs=epochs, freeze_epochs=0, phases=(phase,)))
        lines = startup.what_was_decided(config, replace(config, train=replace(config.train, precision="float32")))
        wanted = f"train.epochs: {epochs}: is not used: train.phases decides, and ends after epoch 60"
        assert (wanted in lines) == said


def test_fields_that_change_nothing_are_said() -> None:
    phase = PhaseConfig(until_epoch=20, batch_size=4, frozen_backbone=False)
    train = TrainConfig(batch_size=16, freeze_epochs=2, early_stopping=3, eval_every=10, precision="float32")
    augment = AugmentConfig(mosaic=0.5, mixup=0.5, close_mosaic=20)
    config = RunConfig(train=replace(train, phases=(phase,)), augment=augment)
    lines = startup.what_was_decided(config, config)
    wanted = [
        "train.batch_size: 16",
        "train.freeze_epochs: 2",
        "train.early_stopping: 3",
        "augment.mosaic",
        "augment.mixup",
    ]
    assert [line.split(": is not")[0].split(": never")[0] for line in lines[1:6]] == wanted
    assert "measurements of its last phase: 2 (" in lines[3]
    config = RunConfig(train=replace(train, epochs=20, eval_every=5), augment=replace(augment, close_mosaic=19))
    assert not any("is not used" in line or "never ends" in line for line in startup.what_was_decided(config, config))


def test_fresh_outputs_of_what_has_none_are_said() -> None:
    for weights, said in (("imagenet", 1), ("logs/first", 0)):
        config = RunConfig(model=ModelConfig(weights=weights, fresh_outputs=True))
        assert len(unused_fields.without_effect(config)) == said


@pytest.mark.parametrize(
    ("train", "augment", "said"),
    [
        # Nothing is frozen without weights.
        ({"freeze_batch_size": 4}, {}, ["train.freeze_batch_size: 4"]),
        ({"freeze_epochs": 5, "freeze_batch_size": 4}, {}, []),
        (
            {"freeze_epochs": 20, "batch_size": 4, "backbone_rate": 0.5},
            {},
            ["train.batch_size: 4", "train.backbone_rate: 0.5"],
        ),
        ({"schedule": "step", "warmup_epochs": 2.0}, {}, ["train.warmup_epochs: 2.0"]),
        ({"optimizer": "sgd", "weight_decay": 0.05}, {}, ["train.weight_decay: 0.05"]),
        ({"optimizer": "adamw", "weight_decay": 0.05, "warmup_epochs": 2.0}, {}, []),
        ({}, {"enabled": False, "mosaic": 0.5, "flip": 0.0}, ["augment.flip: 0.0", "augment.mosaic: 0.5"]),
        ({}, {"enabled": False}, []),
    ],
)
def test_fields_that_others_overrule_are_said(train: Any, augment: Any, said: list[str]) -> None:
    config = RunConfig(train=TrainConfig(epochs=20, **train), augment=AugmentConfig(**augment))
    assert [line.split(": is not used: ")[0] for line in unused_fields.without_effect(config)] == said


@pytest.mark.parametrize(
    ("weights", "frozen", "said"), [("none", 2, True), ("none", None, False), ("imagenet", 2, False)]
)
def test_freezing_a_backbone_that_knows_nothing_is_said(weights: str, frozen: int | None, said: bool) -> None:
    train = TrainConfig(freeze_epochs=frozen, precision="float32")
    config = RunConfig(model=ModelConfig(weights=weights), train=train)
    lines = startup.what_was_decided(config, config)
    assert any("freezes a backbone that knows nothing" in line for line in lines) == said
    later = (PhaseConfig(3, 8, False), PhaseConfig(4, 8, True))
    config = replace(config, train=replace(train, phases=later))
    assert not any("knows nothing" in line for line in startup.what_was_decided(config, config))


def test_what_is_frozen_is_decided_when_a_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault_runs.quicken(monkeypatch.setattr)
    config = fault_runs.tiny_config(tmp_path / "data", phases=(), epochs=12, batch_size=2)
    startup.start_run(config, tmp_path / "run", Quiet()).run.unlock()
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["freeze_epochs"] == 0
    # Longer than it was meant to be, a run freezes no more than it did.
    longer = replace(config, model=ModelConfig(weights="imagenet"), train=replace(config.train, epochs=24))
    before = {"config": {"train": {**asdict(config.train), "freeze_epochs": 2}}}
    assert as_it_was(longer, before).train.freeze_epochs == 2


def test_a_backbone_that_knows_imagenet_learns_slowly_and_keeps_its_batch_norm_unless_told_otherwise() -> None:
    for kind, weights, own, expected in (
        (RunConfig, "none", {}, (False, 1.0)),
        (RunConfig, "package", {}, (True, 0.1)),
        (RunConfig, "b0_notop.h5", {}, (True, 0.1)),
        (RunConfig, "logs/first/best", {}, (False, 1.0)),
        (RunConfig, "package", {"freeze_batch_norm": False, "backbone_rate": 0.5}, (False, 0.5)),
        (ClassifierRunConfig, "imagenet", {}, (False, 1.0)),
    ):
        config = kind()
        config = replace(config, model=replace(config.model, weights=weights), train=replace(config.train, **own))
        train = startup._setup(config).config.train
        assert (train.freeze_batch_norm, train.backbone_rate) == expected
        lines = startup.what_was_decided(config, replace(config, train=train))
        assert any(line.startswith("train.backbone_rate: the backbone learns at") for line in lines) == (
            expected[1] < 1
        )
        # Runs that are older than the fields had neither.
        saved = {"config": {"train": {**asdict(config.train), "precision": "float32", "freeze_epochs": 2}}}
        for name in ("freeze_batch_norm", "backbone_rate"):
            del saved["config"]["train"][name]
        old = as_it_was(config, saved).train
        given = own or {"freeze_batch_norm": False, "backbone_rate": 1.0}
        assert (old.freeze_batch_norm, old.backbone_rate) == tuple(given.values())


@pytest.mark.parametrize(("chief", "told"), [(True, "x\ny\n"), (False, "y\n")])
def test_of_several_workers_the_first_tells_of_the_run_and_each_of_its_own_trouble(
    chief: bool, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(config: Any, folder: Path, reporter: Reporter, *_: object) -> None:
        reporter.say("x")
        reporter.warn("y")

    log = io.StringIO()
    monkeypatch.setattr(startup, "read_cluster", lambda: SimpleNamespace(chief=chief))
    monkeypatch.setattr(startup, "start_run", start)
    request: Any = SimpleNamespace(config=None, run_dir="", resume=False)
    startup.requested_run(request, Reporter(log))
    assert log.getvalue() == told


def test_one_device_needs_no_mirrors() -> None:
    assert default_strategy(pytest.fail) is tf.distribute.get_strategy()


def test_a_classifier_starts_the_backbone_of_a_detector(tmp_path: Path) -> None:
    spec = ClassifierSpec(("cat", "dog", "emu"), "efficientnet_b0", 64)
    classifier = build_classifier(spec.backbone, classes=3, seed=1)
    run = tmp_path / "run"
    save_checkpoint(run / "best", Checkpoint(spec, model_tensors(classifier)))
    heard = Heard()
    detector = initial_detector(detector_spec(), str(run), heard, seed=2)

    wanted = {v.path: np.asarray(v) for v in classifier.variables}
    backbone = detector.get_layer("backbone")
    for variable in backbone.weights:
        np.testing.assert_array_equal(variable, wanted[variable.path])
    top = ("top_conv/kernel", "top_bn/gamma", "top_bn/beta", "top_bn/moving_mean", "top_bn/moving_variance")
    left_out = len((*top, "predictions/kernel", "predictions/bias"))
    assert heard.lines == [
        f"{run / 'best'}: the backbone starts from {len(backbone.weights)} tensors of this classifier; "
        f"{left_out} of its top are left out"
    ]
    fresh = initial_detector(detector_spec(), "none", Quiet(), seed=2)
    head = "head_P5_logits"
    np.testing.assert_array_equal(detector.get_layer(head).kernel, fresh.get_layer(head).kernel)
    with pytest.raises(FileError, match="backbone: 'efficientnet_b0': this run's model has 'efficientnet_b1'"):
        initial_detector(detector_spec(backbone="efficientnet_b1"), str(run), Quiet())
    with pytest.raises(FileError, match="holds a classifier: a detector is needed here"):
        Predictor.load(run / "best")
