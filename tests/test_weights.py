from __future__ import annotations

import hashlib
import io
import os
import pickle
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from nets import fetch
from nets.backbones import BACKBONES, build_backbone, build_classifier
from nets.backbones.registry import IMAGENET
from nets.weights import load_h5
from tests.official_weights import IMAGENET_MEAN, IMAGENET_STD, official_model, save_official, set_input_rule
from utils.errors import ClassCountError, ConfigError, FileError
from utils.progress import Reporter

NAME = "efficientnet_b0"
TOP = BACKBONES[NAME].top_layers


@pytest.fixture(scope="module")
def official() -> keras.Model:
    return official_model(NAME, 64)


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    return build_backbone(NAME)


@pytest.fixture
def weights_file(official: keras.Model, tmp_path: Path) -> Path:
    return save_official(official, tmp_path / "weights.h5")


def load(backbone: keras.Model, path: Path, **options):
    return load_h5(backbone, path, IMAGENET, skip_layers=TOP, **options)


def unchanged(model: keras.Model, before: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))


def test_every_tensor_is_taken_or_left_out_on_purpose(official, backbone, weights_file) -> None:
    report = load(backbone, weights_file)
    assert len(report.taken) == len(backbone.weights)
    top = {"top_conv/kernel", "predictions/kernel", "predictions/bias"}
    top |= {f"top_bn/{leaf}" for leaf in ("gamma", "beta", "moving_mean", "moving_variance")}
    assert {name for name in report.skipped if not name.startswith("normalization")} == top
    assert len(report.taken) + len(report.skipped) == len(official.weights)


def test_keras_2_names_load_too(official, backbone, weights_file, tmp_path) -> None:
    """The published files say ``stem_conv/kernel:0`` and ``block1a_dwconv/depthwise_kernel:0``."""
    renamed = tmp_path / "keras2.h5"
    with h5py.File(weights_file) as old, h5py.File(renamed, "w") as new:
        layers = list(old.attrs["layer_names"])
        new.attrs["layer_names0"], new.attrs["layer_names1"] = layers[:100], layers[100:]
        for layer in layers:
            group = new.create_group(layer)
            names = []
            for name in old[layer].attrs["weight_names"]:
                text = name.decode() if isinstance(name, bytes) else name
                known = f"{text}:0".replace("dwconv/kernel", "dwconv/depthwise_kernel")
                names.append(known.encode())
                group[known] = old[layer][text][()]
            group.attrs["weight_names"] = names
    load(backbone, renamed)
    for layer in ("stem_conv", "block1a_dwconv", "block7a_project_bn"):
        for ours, theirs in zip(backbone.get_layer(layer).weights, official.get_layer(layer).weights, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"\n <html>", "web page"),
        (pickle.dumps({"a": 1}), "pickle"),
        (b"PK\x03\x04archive", "ZIP"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (b"just text", "not HDF5"),
    ],
)
def test_what_is_not_hdf5_is_named(backbone, tmp_path, content: bytes, word: str) -> None:
    path = tmp_path / "w.h5"
    path.write_bytes(content)
    with pytest.raises(FileError, match=word):
        load(backbone, path)


def test_missing_directory_and_pipe(backbone, tmp_path) -> None:
    with pytest.raises(FileError, match="no such"):
        load(backbone, tmp_path / "absent.h5")
    with pytest.raises(FileError, match="directory"):
        load(backbone, tmp_path)
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(FileError, match="regular"):
        load(backbone, tmp_path / "pipe.h5")


@pytest.mark.parametrize("kept", [0.3, 0.98])
def test_truncated_file(backbone, weights_file, kept: float) -> None:
    content = weights_file.read_bytes()
    weights_file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(FileError, match="damaged"):
        load(backbone, weights_file)


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/x"), h5py.SoftLink("/stem_bn")])
def test_links_are_refused(backbone, weights_file, link) -> None:
    with h5py.File(weights_file, "a") as file:
        del file["stem_conv"]
        file["stem_conv"] = link
    with pytest.raises(FileError, match=r"stem_conv.*links"):
        load(backbone, weights_file)


def test_data_kept_in_another_file_is_refused(backbone, weights_file, tmp_path) -> None:
    (tmp_path / "secret").write_bytes(bytes(32 * 4))
    with h5py.File(weights_file, "a") as file:
        del file["stem_bn/stem_bn/gamma"]
        file["stem_bn"].create_dataset("stem_bn/gamma", (32,), "f4", external=[(str(tmp_path / "secret"), 0, 128)])
    with pytest.raises(FileError, match="another file"):
        load(backbone, weights_file)


def test_a_model_with_lambda_layers_is_refused(backbone, weights_file) -> None:
    with h5py.File(weights_file, "a") as file:
        file.attrs["model_config"] = '{"config": {"layers": [{"class_name": "Lambda"}]}}'
    with pytest.raises(FileError, match="Lambda"):
        load(backbone, weights_file)


def test_keras_3_weights_file_is_named(backbone, tmp_path) -> None:
    path = tmp_path / "model.weights.h5"
    backbone.save_weights(path)
    with pytest.raises(FileError, match=r"Keras 3 \.weights\.h5"):
        load(backbone, path)


def test_weights_of_another_network(weights_file) -> None:
    other = build_backbone("efficientnet_b1")
    before = other.get_weights()
    with pytest.raises(ConfigError, match=r"another network than efficientnet_b1.*lacks.*'block1b"):
        load_h5(other, weights_file, IMAGENET, skip_layers=TOP, network="efficientnet_b1")
    assert unchanged(other, before)


def test_layer_the_network_does_not_know(backbone, weights_file) -> None:
    with pytest.raises(ConfigError, match="it alone has 3 layers \\(first 'top_conv'\\)"):
        load_h5(backbone, weights_file, IMAGENET)


def test_shapes_are_both_named_and_nothing_changes(backbone, weights_file) -> None:
    with h5py.File(weights_file, "a") as file:
        del file["block7a_project_conv/block7a_project_conv/kernel"]
        file["block7a_project_conv/block7a_project_conv/kernel"] = np.zeros((1, 1, 1152, 300), np.float32)
    before = backbone.get_weights()
    with pytest.raises(ConfigError, match=r"\(1, 1, 1152, 300\) in the file, \(1, 1, 1152, 320\)"):
        load(backbone, weights_file)
    assert unchanged(backbone, before)


def test_other_class_count_names_both(weights_file) -> None:
    with pytest.raises(ClassCountError, match="10 classes in the file, 3 in the network"):
        build_classifier(NAME, classes=3, weights=weights_file)


def test_classifier_from_a_file_without_top(tmp_path) -> None:
    path = save_official(official_model(NAME, 64, include_top=False), tmp_path / "notop.h5")
    with pytest.raises(ConfigError, match="predictions"):
        build_classifier(NAME, classes=3, weights=path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(backbone, weights_file, value: float) -> None:
    with h5py.File(weights_file, "a") as file:
        file["stem_bn/stem_bn/beta"][3] = value
    with pytest.raises(FileError, match="stem_bn/beta"):
        load(backbone, weights_file)


def input_rule_file(official: keras.Model, path: Path, mean: np.ndarray, variance: np.ndarray) -> Path:
    layer = next(layer for layer in official.layers if isinstance(layer, keras.layers.Normalization))
    set_input_rule(layer, mean, variance)
    try:
        return save_official(official, path)
    finally:
        set_input_rule(layer, IMAGENET_MEAN, IMAGENET_STD**2)


def test_input_rule_of_the_published_files(official, backbone, tmp_path) -> None:
    """They hold the standard deviation as variance."""
    load(backbone, input_rule_file(official, tmp_path / "w.h5", IMAGENET_MEAN, IMAGENET_STD))


def test_other_input_rule_is_refused(official, backbone, tmp_path) -> None:
    path = input_rule_file(official, tmp_path / "w.h5", np.full(3, 0.5), np.full(3, 0.25))
    with pytest.raises(ConfigError, match="another input"):
        load(backbone, path)


def test_missing_input_rule_is_said(official, backbone, tmp_path) -> None:
    path = input_rule_file(official, tmp_path / "w.h5", np.zeros(3), np.ones(3))
    with pytest.warns(UserWarning, match="says nothing"):
        load(backbone, path)


class Served(io.BytesIO):
    headers = {"Content-Length": "3"}  # noqa: RUF012


@pytest.fixture
def cache(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path / "models"


def test_without_internet_the_way_out_is_said(monkeypatch, cache: Path) -> None:
    def unreachable(url: str, timeout: float):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(FileError) as caught:
        build_backbone(NAME, weights="imagenet")
    message = str(caught.value)
    for part in (
        BACKBONES[NAME].without_top.url,
        str(cache / "efficientnetb0_notop.h5"),
        "a file of your own",
        "'package', for the backbone efficientnet_lite0",
    ):
        assert part in message
    assert list(cache.iterdir()) == []


def test_a_download_that_is_not_the_published_file_is_not_kept(monkeypatch, cache: Path) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Served(b"bad"))
    with pytest.raises(FileError, match="MD5"):
        fetch.fetch_official("https://example.org/w.h5", "0" * 32)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("content", [b"<html>sign in</html>", fetch.HDF5_START + b"cut"])
def test_without_a_checksum_it_must_be_a_whole_hdf5_file(monkeypatch, cache: Path, content: bytes) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Served(content))
    with pytest.raises(FileError, match="no checksum is published"):
        fetch.fetch_official("https://example.org/w.h5", None)
    assert list(cache.iterdir()) == []
    whole = fetch.HDF5_START + b"all"
    monkeypatch.setattr(Served, "headers", {"Content-Length": str(len(whole))})
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Served(whole))
    assert fetch.fetch_official("https://example.org/w.h5", None).read_bytes() == whole


def test_a_good_download_is_fetched_once(monkeypatch, cache: Path) -> None:
    md5, heard = hashlib.md5(b"abc").hexdigest(), io.StringIO()
    monkeypatch.setattr("utils.progress.PLAIN_EVERY_S", 0)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Served(b"abc"))
    path = fetch.fetch_official("https://example.org/w.h5", md5, Reporter(heard))
    assert path == cache / "w.h5"
    assert path.read_bytes() == b"abc"
    assert heard.getvalue() == "fetching w.h5: 1/1 MiB\n"
    monkeypatch.delattr(urllib.request, "urlopen")
    assert fetch.fetch_official("https://example.org/w.h5", md5) == path


def test_imagenet_weights_load_from_the_cache(monkeypatch, cache: Path, weights_file: Path, official) -> None:
    """The published file is stood in for by one of ours under its name, and its checksum."""
    cache.mkdir()
    name = BACKBONES[NAME].without_top.url.rpartition("/")[2]
    (cache / name).write_bytes(weights_file.read_bytes())
    monkeypatch.setattr(fetch, "_md5", lambda path: BACKBONES[NAME].without_top.md5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = build_backbone(NAME, weights="imagenet")
    expected = official.get_layer("stem_conv").kernel.numpy()
    np.testing.assert_array_equal(model.get_layer("stem_conv").kernel.numpy(), expected)


def test_imagenet_has_1000_classes() -> None:
    with pytest.raises(ClassCountError, match="1000"):
        build_classifier(NAME, classes=3, weights="imagenet")
