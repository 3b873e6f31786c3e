from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.checkpoint import Checkpoint, model_tensors, read_checkpoint, restore_model, save_checkpoint
from engine.dataset import DetectionDataset
from engine.detection_task import DetectionTask
from engine.learner import Learner
from nets.backbones import BACKBONES, backbone_spec, build_backbone, build_classifier, trunk_layers
from nets.backbones.efficientnet import STAGES
from nets.detector import build_detector
from nets.weights import save_h5
from tests.drawn_data import draw_photo
from tests.official_weights import (
    official_input,
    official_model,
    save_official,
    with_older_names,
)
from tests.specs import detector_spec
from utils.config import STRIDES, RunConfig, TrainConfig
from utils.errors import ConfigError
from utils.recipe_config import LossConfig

# Size, channels of P3, P4, P5, and the parameters with a top of 1000 classes, which the papers round.
# Shallow: without five blocks of 17 c + c * c each, c their channels.
# Odd sizes among the inputs, because stride 2 pads them differently.
CASES = {
    "efficientnet_b0": (75, (40, 112, 320), 5_330_564),
    "efficientnet_b1": (64, (40, 112, 320), 7_856_232),
    "efficientnet_b2": (69, (48, 120, 352), 9_177_562),
    "efficientnet_b3": (64, (48, 136, 384), 12_320_528),
    "efficientnet_b4": (71, (56, 160, 448), 19_466_816),
    "efficientnet_b5": (64, (64, 176, 512), 30_562_520),
    "efficientnet_b6": (64, (72, 200, 576), 43_265_136),
    "efficientnet_b7": (64, (80, 224, 640), 66_658_680),
    "mobilenet_v1_0.25": (75, (64, 128, 256), 475_544),
    "mobilenet_v1_0.5": (69, (128, 256, 512), 1_342_536),
    "mobilenet_v1_0.75": (71, (192, 384, 768), 2_601_976),
    "mobilenet_v1_1.0": (75, (256, 512, 1024), 4_253_864),
    "mobilenet_v1_0.25_shallow": (75, (64, 128, 256), 382_744),
    "mobilenet_v1_0.5_shallow": (69, (128, 256, 512), 993_096),
    "mobilenet_v1_0.75_shallow": (71, (192, 384, 768), 1_832_056),
    "mobilenet_v1_1.0_shallow": (75, (256, 512, 1024), 2_899_624),
    "mobilenet_v2_0.35": (75, (16, 32, 112), 1_691_208),
    "mobilenet_v2_0.5": (69, (16, 48, 160), 1_987_224),
    "mobilenet_v2_0.75": (71, (24, 72, 240), 2_663_064),
    "mobilenet_v2_1.0": (75, (32, 96, 320), 3_538_984),
    "mobilenet_v2_1.3": (77, (40, 128, 416), 5_431_048),
    "mobilenet_v2_1.4": (79, (48, 136, 448), 6_156_712),
    "densenet121": (75, (256, 512, 1024), 8_062_504),
    "densenet169": (69, (256, 640, 1664), 14_307_880),
    "densenet201": (71, (256, 896, 1920), 20_242_984),
}
# What is held to Keras in the default run; the others are in the slow one, and all are built by test_head.py.
QUICK = {
    "efficientnet_b0",
    "efficientnet_b2",
    "mobilenet_v1_0.25",
    "mobilenet_v1_1.0_shallow",
    "mobilenet_v2_0.35",
    "mobilenet_v2_1.3",
    "densenet121",
}
# A small member of each, for what the members share.
FAMILIES = ("efficientnet_b0", "mobilenet_v1_0.25", "mobilenet_v1_0.3_shallow", "mobilenet_v2_0.35", "densenet_2-3-1-2")


@dataclass
class Built:
    """One backbone in all its shapes, with the random weights of the official network."""

    name: str
    size: int
    official: keras.Model
    classifier: keras.Model
    detector: keras.Model

    @property
    def backbone(self) -> keras.Model:
        return self.detector.get_layer("backbone")


def before_top(official: keras.Model) -> keras.Model:
    """What ``include_top=False`` of keras.applications leaves."""
    pooled = [isinstance(layer, keras.layers.GlobalAveragePooling2D) for layer in official.layers]
    last = len(pooled) - 1 - pooled[::-1].index(True)
    return keras.Model(official.inputs, official.layers[last - 1].output)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in CASES]
)
def built(request, tmp_path_factory) -> Iterator[Built]:
    name, folder = request.param, tmp_path_factory.mktemp("weights")
    size = CASES[name][0]
    official = official_model(name, size, classes=1000)
    whole = save_official(official, folder / "top.h5")
    without_top = save_official(before_top(official), folder / "notop.h5")
    classifier = build_classifier(name, weights=whole)
    spec = detector_spec(backbone=name, separable_head=backbone_spec(name).separable_head)
    detector = build_detector(spec, without_top)
    whole.unlink()  # up to 270 MB each
    without_top.unlink()
    yield Built(name, size, official, classifier, detector)
    keras.backend.clear_session()


def photo(size: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def assert_agree(ours: tf.Tensor, theirs: tf.Tensor, atol: float = 1e-5) -> None:
    assert 0.05 < np.abs(theirs).max() < 100
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def test_every_backbone_has_a_case() -> None:
    # Keras has no EfficientNet-Lite0; tests/test_lite0.py holds it to its author's code.
    assert set(BACKBONES) == {*CASES, "efficientnet_lite0"}


def test_classifier_agrees_with_keras_at_an_odd_size(built: Built) -> None:
    image = photo(built.size)
    assert_agree(built.classifier(image), built.official(official_input(built.name, image)))


def test_taps_agree_with_keras_at_an_odd_size_from_a_file_without_top(built: Built) -> None:
    image = photo(built.size)
    tensors = [built.official.get_layer(tap).output for tap in BACKBONES[built.name].taps]
    theirs = keras.Model(built.official.inputs, tensors)(official_input(built.name, image))
    for ours, expected, width in zip(built.backbone(image).values(), theirs, CASES[built.name][1], strict=True):
        assert ours.shape[-1] == width
        assert_agree(ours, expected, atol=1e-4)


def test_keras_loads_what_we_save(built: Built, tmp_path: Path) -> None:
    path, before = tmp_path / "ours.h5", built.official.get_weights()
    holds_rule = built.name.startswith("efficientnet")
    save_h5(built.classifier, path, BACKBONES[built.name].normalisation if holds_rule else None)
    for weight in built.official.weights:
        weight.assign(np.zeros(weight.shape))
    built.official.load_weights(path)
    for ours, theirs in zip(built.official.get_weights(), before, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_parameters(built: Built) -> None:
    assert built.classifier.count_params() == CASES[built.name][2] == published_form(built.official)
    trunk = trunk_layers(built.classifier, built.name)
    assert sum(layer.count_params() for layer in trunk) == built.backbone.count_params()
    assert {w.path for layer in trunk for w in layer.weights} == {w.path for w in built.backbone.weights}
    spec = BACKBONES[built.name]
    channels = CASES[built.name][1]
    head = head_parameters(spec.head_widths or channels, channels, 3 * (5 + 3), spec.separable_head)
    assert built.detector.count_params() == built.backbone.count_params() + head


def published_form(official: keras.Model) -> int:
    """Without what states the input, which our normalisation holds as constants."""
    rules = [layer for layer in official.layers if isinstance(layer, keras.layers.Normalization)]
    return official.count_params() - sum(rule.count_params() for rule in rules)


def head_parameters(widths: tuple, channels: tuple, outputs: int, separable: bool) -> int:
    """Parameters of the YOLOv3 head, unit by unit: a kernel and four values of batch normalization a channel."""

    def unit(inputs: int, filters: int, size: int) -> int:
        if size == 3 and separable:
            return 9 * inputs + 4 * inputs + inputs * filters + 4 * filters
        return size * size * inputs * filters + 4 * filters

    total, above = 0, None
    for width, tap in reversed(list(zip(widths, channels, strict=True))):
        if above is not None:
            total += unit(above, width, 1)
            tap += width
        total += unit(tap, width, 1) + 2 * unit(2 * width, width, 1) + 3 * unit(width, 2 * width, 3)
        total += 2 * width * outputs + outputs
        above = width
    return total


@pytest.mark.parametrize("size_hw", [(32, 32), (64, 96)])
def test_levels_have_their_strides(built: Built, size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    levels = built.backbone(np.zeros((2, height, width, 3), np.uint8))
    assert {k: tuple(v.shape[:3]) for k, v in levels.items()} == {
        level: (2, height // stride, width // stride) for level, stride in STRIDES.items()
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_agrees_with_keras_at_the_default_size(name: str, tmp_path: Path) -> None:
    official = official_model(name, backbone_spec(name).default_size)
    path = save_official(official, tmp_path / "weights.h5")
    image = photo(backbone_spec(name).default_size)
    assert_agree(build_classifier(name, 10, weights=path)(image), official(official_input(name, image)))


@pytest.mark.parametrize(
    "name", ["mobilenet_v1_0.3", "mobilenet_v1_1.7_shallow", "mobilenet_v2_0.6", "densenet_2-3-1-2"]
)
def test_unlisted_members_agree_too_and_are_rebuilt_from_their_name(name: str, tmp_path: Path) -> None:
    official = official_model(name, 75)
    path = save_official(official, tmp_path / "weights.h5")
    classifier = build_classifier(name, 10, weights=path)
    theirs = official(official_input(name, photo(75)))
    assert_agree(classifier(photo(75)), theirs)
    assert backbone_spec(backbone_spec(name).name) == backbone_spec(name)


@pytest.mark.parametrize("name", ["mobilenet_v2_0.35", "densenet_2-3-1-2"])
@pytest.mark.parametrize("include_top", [True, False])
def test_files_with_the_layer_names_of_an_older_keras_load(name: str, include_top: bool, tmp_path: Path) -> None:
    official = official_model(name, 64, include_top)
    path = with_older_names(save_official(official, tmp_path / "weights.h5"))
    backbone = build_backbone(name, weights=path)
    classifier = build_classifier(name, 10, weights=path, fresh_top=not include_top)
    for model in (backbone, classifier):
        for layer in model.layers:
            if layer.weights and (include_top or layer.name != "predictions"):
                for ours, theirs in zip(layer.weights, official.get_layer(layer.name).weights, strict=True):
                    np.testing.assert_array_equal(ours, theirs)


def test_older_names_are_no_way_in_for_another_network(tmp_path: Path) -> None:
    path = with_older_names(save_official(official_model("mobilenet_v2_0.5", 64), tmp_path / "weights.h5"))
    with pytest.raises(ConfigError, match="shape"):
        build_backbone("mobilenet_v2_0.35", weights=path)
    with pytest.raises(ConfigError, match="another network than densenet_2-3-1-2"):
        build_backbone("densenet_2-3-1-2", weights=path)


@pytest.mark.parametrize("name", ["densenet_2-3-1-2", "mobilenet_v1_0.25"])
def test_fresh_top_takes_a_file_without_top_or_of_other_classes(name: str, tmp_path: Path) -> None:
    for include_top in (False, True):
        path = save_official(official_model(name, 64, include_top), tmp_path / f"{include_top}.h5")
        with pytest.raises(
            ConfigError, match="10 classes in the file, 3" if include_top else "no classification layer"
        ):
            build_classifier(name, classes=3, weights=path)
        model = build_classifier(name, classes=3, weights=path, fresh_top=True)
        assert model(photo(64)).shape == (1, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_become_the_probabilities(name: str) -> None:
    model, logits = (build_classifier(name, 7, probabilities=flag) for flag in (True, False))
    assert [w.path for w in model.weights] == [w.path for w in logits.weights]
    images = photo(32, batch=3)
    np.testing.assert_allclose(tf.nn.softmax(logits(images)), model(images), rtol=1e-4)
    assert logits(images).dtype == tf.float32
    np.testing.assert_allclose(model(images).numpy().sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_reaches_every_weight_of_a_classifier(name: str) -> None:
    model = build_classifier(name, 5, probabilities=False)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(photo(64, batch=4), training=True)[:, 0])
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert sum(bool(np.any(gradient)) for gradient in gradients) > 0.9 * len(gradients)


@pytest.mark.parametrize("name", FAMILIES)
def test_freezing_the_trunk_leaves_the_top_to_learn(name: str) -> None:
    model = build_classifier(name, 5)
    for layer in trunk_layers(model, name):
        layer.trainable = False
    found = {weight.path.split("/")[0] for weight in model.trainable_weights}
    assert found == set(backbone_spec(name).top_layers)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v1_0.25", "mobilenet_v2_0.35", "densenet_2-3-1-2"])
def test_kernels_are_drawn_as_keras_draws_them(name: str) -> None:
    def starts(model: keras.Model) -> dict[str, dict]:
        found = {}
        for layer in model.layers:
            for field in ("kernel_initializer", "depthwise_initializer"):
                if isinstance(drawn := getattr(layer, field, None), keras.initializers.Initializer):
                    config = drawn.get_config()
                    found[layer.name] = {"class": type(drawn).__name__, **{k: config[k] for k in config if k != "seed"}}
        # The official EfficientNet tops are drawn for exactly 1000 classes.
        return {layer: start for layer, start in found.items() if layer not in backbone_spec(name).top_layers}

    assert starts(build_classifier(name)) == starts(official_model(name, 224, True))


@pytest.mark.parametrize("name", FAMILIES)
def test_start_follows_from_the_seed_alone(name: str) -> None:
    first, again, other = (build_backbone(name, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_given_tensor_is_the_input(name: str) -> None:
    tensor = keras.Input((32, 32, 3), dtype="uint8", name="picture")
    given, own = build_backbone(name, input_tensor=tensor), build_backbone(name)
    assert given.inputs[0] is tensor
    assert [layer.name for layer in given.layers[1:]] == [layer.name for layer in own.layers[1:]]
    own.set_weights(given.get_weights())
    for level, tap in own(photo(32)).items():
        np.testing.assert_array_equal(given(photo(32))[level], tap)


def test_a_given_tensor_is_the_input_of_a_classifier_and_of_what_it_is_built_into() -> None:
    tensor = keras.Input((32, 32, 3))
    classifier = build_classifier("mobilenet_v1_0.25", 5, input_tensor=tensor)
    best = keras.Model(tensor, keras.ops.argmax(classifier.output, axis=-1))
    own = build_classifier("mobilenet_v1_0.25", 5)
    own.set_weights(classifier.get_weights())
    np.testing.assert_array_equal(best(photo(32, 4)), np.argmax(own(photo(32, 4)), axis=-1))


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (keras.layers.Rescaling(2.0)(keras.Input((32, 32, 3))), "what keras.Input returned"),
        (np.zeros((1, 32, 32, 3), np.uint8), "what keras.Input returned"),
        (keras.Input((32, 32, 1)), "must be .B, H, W, 3."),
        (keras.Input((3,)), "must be .B, H, W, 3."),
    ],
)
def test_other_tensors_are_no_input(tensor: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_backbone("mobilenet_v1_0.25", input_tensor=tensor)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_equals_its_images_and_uint8_equals_float(name: str) -> None:
    backbone = build_backbone(name)
    images = photo(64, batch=3)
    together, floats = backbone(images), backbone(images.astype(np.float32))
    apart = [backbone(images[i : i + 1]) for i in range(3)]
    for level in STRIDES:
        np.testing.assert_array_equal(together[level], floats[level])
        np.testing.assert_allclose(together[level], np.concatenate([part[level] for part in apart]), atol=1e-4)


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Without tracing the step, which takes half a minute a network."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_detector_learns_a_step_and_comes_back_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    spec = detector_spec(
        backbone=name, input_size=64, class_names=("red", "blue"), separable_head=backbone_spec(name).separable_head
    )
    records = [draw_photo(tmp_path / f"{i}.png", i) for i in range(2)]
    batch = next(DetectionDataset(records, spec, LossConfig()).validation_batches(2))
    model = build_detector(spec)
    before = model_tensors(model)
    task = DetectionTask(RunConfig(), spec, model, records, [])
    learner = Learner(task, TrainConfig(), tf.distribute.get_strategy(), frozen_backbone=False)
    assert np.isfinite(learner.train_step(batch, 1e-3)).all()
    moved = {name for name, value in model_tensors(model).items() if not np.array_equal(value, before[name])}
    assert len(moved) > 0.9 * len(before)

    save_checkpoint(tmp_path / "last", Checkpoint(spec, model_tensors(model), {}))
    back = read_checkpoint(tmp_path / "last")
    other = build_detector(back.spec, seed=1)
    restore_model(other, back.group("model"), tmp_path / "last")
    for level, logits in model(batch.images).items():
        np.testing.assert_array_equal(logits, other(batch.images)[level])


def test_taps_of_efficientnet_are_the_last_blocks_of_stages_3_5_7() -> None:
    for name, spec in BACKBONES.items():
        if not name.startswith("efficientnet"):
            continue
        for tap, stage in zip(spec.taps, (3, 5, 7), strict=True):
            repeats = spec.architecture.repeats(STAGES[stage - 1].repeats)
            ending = "project_bn" if repeats == 1 else "add"
            assert tap == f"block{stage}{chr(ord('a') + repeats - 1)}_{ending}"


def test_head_widths_follow_alpha_in_eights() -> None:
    # 128 * 0.35 = 44.8, 256 * 0.35 = 89.6, 512 * 0.35 = 179.2; none below 8.
    assert backbone_spec("mobilenet_v2_0.35").head_widths == (48, 88, 176)
    assert backbone_spec("mobilenet_v1_1.0").head_widths == (128, 256, 512)
    assert backbone_spec("mobilenet_v1_0.01").head_widths == (8, 8, 8)
    assert backbone_spec("densenet_1-1-1-1").head_widths == (128, 256, 512)
    assert {name for name, spec in BACKBONES.items() if spec.separable_head} == {n for n in CASES if "mobile" in n}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("eficientnet_b0", "did you mean 'efficientnet_b0'"),
        ("mobilenet_v2_1.0_shallow", "did you mean 'mobilenet_v1_1.0_shallow'"),
        ("mobilenet_v1_wide", "unknown"),
        ("mobilenet_v1_0", "alpha 0.0: must be above 0"),
        ("mobilenet_v1_-1_shallow", "alpha -1.0: must be above 0"),
        ("mobilenet_v2_nan", "alpha nan: must be above 0"),
        ("mobilenet_v2_inf", "alpha inf: must be above 0"),
        ("densenet_6-12-24", "blocks: must be four counts of at least 1"),
        ("densenet_6-12-0-16", "blocks: must be four counts of at least 1"),
    ],
)
def test_nonsense_names(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        build_backbone(name)


@pytest.mark.parametrize("name", ["mobilenet_v1_0.3", "mobilenet_v1_1.0_shallow", "densenet_6-12-24-16"])
def test_imagenet_weights_that_nobody_published(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"no official file for {name}; there is one for .*densenet201"):
        build_backbone(name, weights="imagenet")


def test_names_may_be_written_otherwise() -> None:
    assert backbone_spec("mobilenet_v1_1") is BACKBONES["mobilenet_v1_1.0"]
    assert backbone_spec("mobilenet_v2_0.50") is BACKBONES["mobilenet_v2_0.5"]
