from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import train
from engine.plan import detector_spec as resolve
from engine.plan import phases, smallest_input
from engine.run_directory import RunDirectory
from tests.conftest import ROOT
from tests.specs import config_from, detector_spec
from utils.classifier_config import ClassifierModelConfig, ClassifierRunConfig
from utils.command_line import read_run_config, run_config_parser, training_request
from utils.config import DetectorSpec, ModelConfig, PhaseConfig, RunConfig, TrainConfig, multi_scale_sides
from utils.errors import ConfigError
from utils.recipe_config import AugmentConfig, LossConfig


def test_command_line_overrides_the_recipe_which_overrides_the_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("train:\n  epochs: 7\n  freeze_epochs: 2\nmodel:\n  input_size: 320\n")
    config = config_from("--config", str(recipe), "--train.epochs", "9")
    assert (config.train.epochs, config.train.freeze_epochs, config.model.input_size) == (9, 2, 320)
    assert config.train.seed == TrainConfig().seed


def test_any_list_of_phases(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "train:\n  phases:\n"
        "  - {until_epoch: 2, batch_size: 4, frozen_backbone: true, input_size: 96}\n"
        "  - {until_epoch: 3, batch_size: 2, frozen_backbone: false}\n"
    )
    assert config_from("--config", str(recipe)).train.phases == (
        PhaseConfig(2, 4, True, 96),
        PhaseConfig(3, 2, False),
    )


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_recipe_that_comes_along_is_valid(recipe: Path) -> None:
    # Each says the command that runs it.
    if "classify.py train" in recipe.read_text("utf-8"):
        training_request("", ClassifierRunConfig, ["--config", str(recipe)])
    else:
        config_from("--config", str(recipe))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train.epoch", "3"], "train.epoch: unknown key; did you mean 'train.epochs'?"),
        (["--trian.epochs", "3"], "did you mean 'train.epochs'?"),
        (["--train.epochs", "many"], "train.epochs: many: must be a whole number"),
        (["--train.learning_rate", "fast"], "train.learning_rate: fast: must be a number"),
        (["--data.ignore_exif", "maybe"], "data.ignore_exif: maybe: must be true or false"),
        (["--model.separable_head", "maybe"], "model.separable_head: maybe: must be true or false or null"),
        (["--model.decode", "log"], "model.decode: log: must be one of 'exp', 'bounded'"),
        (["--loss.balance", "[1, 2]"], "loss.balance: [1, 2]: must be a list of 3"),
        (["--train.phases", "[{until_epoch: 3}]"], "train.phases: the following arguments are required: batch_size"),
        (
            ["--train.phases", "[{until_epoch: x, batch_size: 1, frozen_backbone: true}]"],
            "train.phases: until_epoch: x: must be a whole number",
        ),
        (["--config", "requirements.txt"], "--config: requirements.txt: is no recipe: write sections"),
        (["--config=requirements.txt"], "--config: requirements.txt: is no recipe: write sections"),
        (["--config", "nowhere.yaml"], f"nowhere.yaml: no such file; recipes lie in {ROOT / 'configs'}"),
        (["--data", "requirements.txt"], "--data: is a section: give its fields, such as --data.train; see --help"),
        (["--model.input_size", "400"], "model.input_size: 400: must be a multiple of 32"),
        (["--model.input_size", "0"], "must be a multiple of 32"),
        (["--train.batch_size", "0"], "train.batch_size: 0: must be at least 1, or -1 for what fits"),
        (["--train.freeze_batch_size", "-2"], "train.freeze_batch_size: -2: must be at least 1, or -1 for what fits"),
        (
            ["--train.phases", "[{until_epoch: 3, batch_size: 0, frozen_backbone: true}]"],
            "batch_size be at least 1, or -1",
        ),
        (["--train.freeze_epochs", "301"], "train.freeze_epochs: 301"),
        (["--loss.ignore_iou", "1.5"], "loss.ignore_iou: 1.5: must lie in 0..1"),
        (["--augment.flip", "-0.1"], "augment.flip: -0.1: must lie in 0..1"),
        (["--augment.scale_min", "3"], "augment.scale_min"),
        (["--augment.mosaic", "1.1"], "augment.mosaic: 1.1: must lie in 0..1"),
        (["--augment.mosaic_scale", "0"], "augment.mosaic_scale: 0.0: must be above 0"),
        (["--augment.degrees", "181"], "augment.degrees: 181.0: must lie in 0..180"),
        (["--augment.shear", "45"], "augment.shear: 45.0: must lie in 0..45, 45 excluded"),
        (["--augment.translate", "1.5"], "augment.translate: 1.5: must lie in 0..1"),
        (["--augment.perspective", "1"], "augment.perspective: 1.0: must lie in 0..1, 1 excluded"),
        (["--augment.degrees", ".nan"], "augment.degrees: nan"),
        (["--data.balance_classes", "1.5"], "data.balance_classes: 1.5: must lie in 0..1"),
        (["--model.auto_anchors", "98"], "model.auto_anchors: 98.0: must lie in 0..1"),
        (["--train.multi_scale", "1"], "train.multi_scale: 1.0: must lie in 0..1, 1 excluded"),
        (["--train.multi_scale", "0.05"], "train.multi_scale: 0.05: leaves one multiple of 32 at most around 416"),
        (["--train.ema_decay", "1"], "train.ema_decay: 1.0: must lie in 0..1, 1 excluded"),
        (["--train.learning_rate", "0"], "train.learning_rate: 0.0: must be above 0"),
        (["--train.learning_rate", ".nan"], "train.learning_rate: nan"),
        (["--model.anchor_size", "0"], "model.anchor_size: 0: must be at least 1"),
        (["--train.warmup_epochs", "-1"], "train.warmup_epochs: -1.0: must be 0 or more"),
        (["--train.warmup_epochs", "300"], "train.warmup_epochs: 300: must be less than all epochs (300)"),
        (["--train.early_stopping", "3", "--train.eval_every", "0"], "train.early_stopping: 3: needs measurements"),
        (["--train.momentum", "1"], "train.momentum: 1.0: must lie in 0..1, 1 excluded"),
        (["--data.threads", "-1"], "data.threads: -1: must be 0 or more"),
        (["--train.clip_norm", ".inf"], "train.clip_norm: inf"),
        (["--loss.balance", "[1, -1, .nan]"], "loss.balance: [1.0, -1.0, nan]: each must be a number, 0 or more"),
        (
            ["--train.schedule", "step", "--train.min_learning_rate_ratio", "0"],
            "train.min_learning_rate_ratio: 0: must be above 0 with train.schedule step",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from(*words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rates_in_steps_may_end_at_none_where_their_scale_has_a_lower_bound() -> None:
    words = ("--train.schedule", "step", "--train.min_learning_rate_ratio", "0", "--train.scale_learning_rate", "true")
    assert config_from(*words).train.min_learning_rate_ratio == 0


@pytest.mark.parametrize("kind", [RunConfig, ClassifierRunConfig])
def test_help_explains_every_field(kind: type) -> None:
    parser = run_config_parser("", kind)
    for section in dataclasses.fields(kind):
        for field in dataclasses.fields(getattr(kind(), section.name)):
            action = next(one for one in parser._actions if one.dest == f"{section.name}.{field.name}")
            assert action.help, action.dest


@pytest.mark.parametrize(
    "text", ["train:\n  epoch: 3\n", "nonsense:\n  a: 1\n", "train: [\n", "a: &a [*a]\n", "? [a]\n: 1\n"]
)
def test_a_recipe_with_an_unknown_key_or_broken_yaml_is_refused(tmp_path: Path, text: str) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config_from("--config", str(recipe))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train:\n  epochs: 3\n  epochs: 4\n", "line 3: epochs: given twice"),
        ("train:\n  epochs: 3\nmodel:\n  input_size: 96\ntrain:\n  batch_size: 4\n", "line 5: train: given twice"),
        (
            "train:\n  phases:\n  - {until_epoch: 3, batch_size: 4, frozen_backbone: true, batch_size: 8}\n",
            "line 3: batch_size: given twice",
        ),
    ],
)
def test_a_recipe_that_gives_a_key_twice_is_refused(tmp_path: Path, text: str, said: str) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config_from("--config", str(recipe))
    assert f"{recipe}: {said}" in str(caught.value)


def test_every_recipe_is_looked_at_and_values_are_left_to_their_fields(tmp_path: Path) -> None:
    good, twice = tmp_path / "good.yaml", tmp_path / "twice.yaml"
    good.write_text("data: {train: 2007-02-30}\n")
    twice.write_text("train: {seed: 1, seed: 2}\n")
    assert config_from("--config", str(good)).data.train == "2007-02-30"
    with pytest.raises(ConfigError, match=r"twice\.yaml: line 1: seed: given twice"):
        config_from("--config", str(good), "--config", str(twice))


def test_help_shows_its_examples_as_they_are_written() -> None:
    shown = run_config_parser(train.DESCRIPTION).format_help()
    assert train.DESCRIPTION in shown
    assert "  --train.epochs EPOCHS" in shown


@pytest.mark.parametrize("ends", [(3, 3), (5, 3), (0, 3)])
def test_phases_must_rise(ends: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="until_epoch must rise"):
        RunConfig(train=TrainConfig(phases=(PhaseConfig(ends[0], 4, True), PhaseConfig(ends[1], 4, False))))


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [(RunConfig, 100, "multiple of 32"), (RunConfig, -32, "at least 32"), (ClassifierRunConfig, 16, "at least 32")],
)
def test_a_phase_has_a_size_that_the_network_takes(kind: type, size: int, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.phases: input_size must be (a )?{said}"):
        kind(train=TrainConfig(phases=(PhaseConfig(3, 4, True, size),)))


def test_the_smallest_input_of_a_run_is_found() -> None:
    phases = (PhaseConfig(3, 4, True, 96), PhaseConfig(5, 4, False))
    assert smallest_input(RunConfig(train=TrainConfig(phases=phases))) == 96
    assert smallest_input(RunConfig(train=TrainConfig(phases=(PhaseConfig(3, 4, True, 640),)))) == 416


def test_with_multi_scale_the_smallest_input_is_the_smallest_that_can_be_drawn() -> None:
    assert smallest_input(RunConfig(train=TrainConfig(multi_scale=0.5))) == 224
    phases = (PhaseConfig(3, 4, True, 96), PhaseConfig(5, 4, False))
    assert smallest_input(RunConfig(train=TrainConfig(phases=phases, multi_scale=0.5))) == 64
    with pytest.raises(ConfigError, match=r"train\.multi_scale: 0\.1: .* around 96"):
        RunConfig(train=TrainConfig(phases=phases, multi_scale=0.1))
    # A classifier of 100 px may have no side of its own to draw.
    config = ClassifierRunConfig(model=ClassifierModelConfig(input_size=100), train=TrainConfig(multi_scale=0.4))
    assert smallest_input(config) == 64


@pytest.mark.parametrize(
    ("size", "share", "sides"),
    [
        (416, 0.0, (416,)),
        (100, 0.0, (100,)),
        (320, 0.1, (288, 320, 352)),
        # Both ends belong to it, whatever 1 - 0.7 is as a float.
        (320, 0.7, tuple(range(96, 545, 32))),
        (32, 0.99, (32,)),
        (64, 0.5, (32, 64, 96)),
    ],
)
def test_the_sides_of_multi_scale(size: int, share: float, sides: tuple[int, ...]) -> None:
    assert multi_scale_sides(size, share) == sides


def test_the_reference_recipe_is_the_documented_one() -> None:
    config = config_from("--config", str(ROOT / "configs" / "reference.yaml"))
    assert config.loss == LossConfig(
        assignment="best",
        ignore_iou=0.5,
        label_smoothing=0.0,
        focal_gamma=0.0,
        objectness_target="one",
        normalisation="level",
        box_weight=0.05,
        objectness_weight=5.0,
        class_weight=1.0,
        balance=(4.0, 1.0, 0.4),
    )
    assert (config.model.decode, config.model.prior_probability, config.model.batch_norm_momentum) == ("exp", 0, 0.99)
    scaled = {"scale_min": 0.25, "scale_max": 2.0, "aspect_jitter": 0.3, "flip": 0.5}
    coloured = {"hue": 0.1, "saturation": 0.7, "value": 0.4}
    off = dict.fromkeys(("flip_vertical", "degrees", "shear", "translate", "perspective", "mosaic", "mixup"), 0)
    assert config.augment == AugmentConfig(**scaled, **coloured, **off)
    assert phases(config) == (PhaseConfig(50, 16, True), PhaseConfig(300, 8, False))
    train = config.train
    assert (train.schedule, train.min_learning_rate_ratio, train.warmup_epochs) == ("cosine", 0.01, None)
    assert (train.optimizer, train.learning_rate, train.momentum, train.head_l2) == ("sgd", 0.01, 0.937, 5e-4)
    assert (train.scale_learning_rate, train.schedule_by, train.clip_norm) == (True, "epoch", 0)


def test_a_spec_survives_json() -> None:
    spec = detector_spec(class_names=("ä", "細胞"), versions={"keras": "3"})
    assert DetectorSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_anchors_are_scaled_from_the_size_they_were_made_for(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    config = RunConfig(model=ModelConfig(input_size=832, anchors=str(ROOT / "model_data" / "yolo_anchors.txt")))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, classes=str(tmp_path / "classes.txt")))
    spec = resolve(config)
    assert spec.anchors_wh_px[0] == (20.0, 26.0)
    assert spec.masks == ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    assert spec.class_names == ("a", "b")


@pytest.mark.parametrize(
    ("backbone", "said", "separable"),
    [
        ("mobilenet_v2_0.35", (), True),
        ("efficientnet_b0", (), False),
        ("mobilenet_v1_1", ("--model.separable_head", "false"), False),
        ("densenet121", ("--model.separable_head", "true"), True),
        ("densenet121", ("--model.separable_head", "null"), False),
    ],
)
def test_the_backbone_decides_on_a_separable_head_unless_told(
    backbone: str, said: tuple[str, ...], separable: bool
) -> None:
    spec = resolve(config_from("--model.backbone", backbone, *said))
    assert spec.separable_head is separable
    assert spec.backbone == {"mobilenet_v1_1": "mobilenet_v1_1.0"}.get(backbone, backbone)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"train:\nmodel:\n  input_size: 64\n", "train: None: is a section"), (b"\xff\xfe\x00", "not UTF-8")],
)
def test_a_recipe_with_an_empty_section_or_of_bytes_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        config_from("--config", str(recipe))


def test_the_run_of_a_classifier_is_named_at_the_detectors_door_and_the_other_way_round(tmp_path: Path) -> None:
    for config, other, door in (
        (ClassifierRunConfig(), RunConfig, "classify.py train"),
        (RunConfig(), ClassifierRunConfig, "train.py"),
    ):
        run = RunDirectory(tmp_path / type(config).__name__)
        run.start(config, ("a", "b"))
        with pytest.raises(ConfigError, match=f"go on with python {door} --resume"):
            read_run_config(run.config_file, other)


@pytest.mark.parametrize("words", [["--resume", ""], ["--resume="], ["--run-dir", ""], ["--run-dir="]])
def test_an_empty_run_directory_is_not_taken_for_none(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=rf"{words[0].strip('=')}: is empty: name a run directory"):
        training_request("", RunConfig, words)


@pytest.mark.parametrize("option", ["--config {}", "--config={}"])
def test_a_recipe_that_the_run_would_replace_is_refused(tmp_path: Path, option: str) -> None:
    recipe = tmp_path / "config.yaml"
    recipe.write_text("# mine\ntrain:\n  epochs: 5\n")
    words = [*option.format(recipe).split(" "), "--run-dir"]
    with pytest.raises(ConfigError, match=r"--run-dir: .*: its config would replace the recipe"):
        training_request("", RunConfig, [*words, f"{tmp_path}/x/.."])
    assert training_request("", RunConfig, [*words, str(tmp_path / "run")]).config.train.epochs == 5


def test_flags_override_the_recipe_wherever_they_stand(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train:\n  epochs: 5\n  freeze_epochs: 0\n")
    for words in (["--config", str(recipe), "--train.epochs", "7"], ["--train.epochs", "7", "--config", str(recipe)]):
        assert training_request("", RunConfig, words).config.train.epochs == 7
