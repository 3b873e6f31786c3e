"""Exported files: what they say, what they find, and how export.py judges them."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml

import export
import get_map
from engine.export import jobs, parity
from engine.export.calibration import Calibration, climb
from engine.inference import Predictor
from engine.runtimes.choice import load_detector, load_exported
from engine.runtimes.onnxruntime_session import OnnxRuntimeSession
from engine.runtimes.openvino_session import openvino_core
from engine.timing import Speed
from tests.conftest import ROOT
from tests.drawn_data import draw_lists
from tests.fake_predictor import write_picture
from tests.small_run import lively_detector, noise, small_spec, write_run
from utils.artifact import Artifact, Precision
from utils.box_matching import Agreement, agreement
from utils.door import run_door
from utils.errors import ConfigError, FileError, ParityError
from utils.export_formats import FORMATS
from utils.postprocess import find_boxes
from utils.records import write_annotation_list
from utils.types import Detections, ImageArray, Record

for package in ("onnx", "tf2onnx", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install -r requirements-export.txt")

SCORE, IOU = 0.4, 0.45
SMALLER = 0.9
"""Of so small a network much is not weights."""


def can_be_written(name: str) -> bool:
    """Whether all that the format ``name`` needs is installed."""
    return all(importlib.util.find_spec(package) for package in FORMATS[name].packages)


def need(name: str) -> None:
    if not can_be_written(name):
        pytest.skip(f"{name}: {', '.join(FORMATS[name].packages)}: not installed: see requirements-export.txt")


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "TIMED_BATCHES", 1)
        patch.setattr(parity, "TIMED_S", 0.0)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run"))
    lists = draw_lists(folder / "data", train=3, val=4)
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"val": str(lists["val"])}}))
    return folder


@pytest.fixture(scope="module")
def checkpoint(run: Path) -> Predictor:
    return Predictor.load(run / "best")


@pytest.fixture(scope="module")
def raw_folder(run: Path, quick: None) -> Path:
    formats = [name for name in ("onnx", "saved_model", "litert") if can_be_written(name)]
    words = [str(run), "--images", "3", "--format", *formats, "--measure", str(run / "data" / "val.txt")]
    assert run_door(lambda: export.main([*words, "--license", "CC0"])) == 0
    return run / "export"


@pytest.fixture(scope="module")
def calibration_list(run: Path) -> Path:
    """Photos that the statistics of the batch normalization fit."""
    records = []
    for number, photo in enumerate(noise(8, 1)):
        write_picture(run / f"{number}.png", photo)
        records.append(Record(str(run / f"{number}.png"), np.zeros((0, 4)), np.zeros(0, np.int64)))
    write_annotation_list(run / "calibrate.txt", records)
    return run / "calibrate.txt"


@pytest.fixture(scope="module")
def int8_folder(run: Path, calibration_list: Path, quick: None) -> Path:
    formats = [name for name, form in FORMATS.items() if form.int8 and can_be_written(name)]
    words = [str(run), "--images", "2", "--format", *formats, "--calibrate", str(calibration_list)]
    assert run_door(lambda: export.main(words)) == 0
    return run / "export"


@pytest.fixture(scope="module")
def raw_file(raw_folder: Path) -> Path:
    return raw_folder / "best.onnx"


@pytest.fixture(scope="module")
def nms_folder(run: Path, quick: None) -> Path:
    formats = ("onnx", "openvino") if importlib.util.find_spec("openvino") else ("onnx",)
    words = ("--format", *formats, "--nms", "--score", str(SCORE), "--iou", str(IOU))
    assert run_door(lambda: export.main([str(run), "--images", "3", *words])) == 0
    return run / "export"


@pytest.fixture(scope="module")
def nms_file(nms_folder: Path) -> Path:
    return nms_folder / "best_nms.onnx"


def same(one: list[Detections], other: list[Detections], score: float) -> bool:
    found = agreement(zip(one, other, strict=True), score, 0.05, 2e-3)
    assert found.matched > 20
    return found.unmatched == 0


def test_files_are_compared_with_what_float32_gives_on_any_device(raw_folder: Path) -> None:
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_the_file_says_what_it_is(raw_file: Path, checkpoint: Predictor) -> None:
    artifact = load_exported(raw_file).artifact
    assert artifact.spec == checkpoint.spec == small_spec()
    assert (artifact.precision, artifact.nms, artifact.license) == ("float32", False, "CC0")
    assert {"tensorflow", "keras", "onnx", "tf2onnx"} <= artifact.versions.keys()


def test_the_report_tells_differences_boxes_speed_size_and_map(raw_file: Path) -> None:
    report = json.loads((raw_file.parent / "best.onnx.parity.json").read_text())
    assert report["size_bytes"] == raw_file.stat().st_size
    assert report["raw_max_abs"] < 0.01
    assert report["raw_max_rel"] < 0.002
    assert report["boxes"]["matched"] == report["boxes"]["first"] == report["boxes"]["second"] > 20
    assert report["images"] == 3
    assert report["problems"] == []
    for side in ("this", "checkpoint"):
        assert report[side]["batch_1"]["median_ms"] > 0
    assert report["this"]["voc_map_50"] == pytest.approx(report["checkpoint"]["voc_map_50"], abs=0.001)


def test_raw_outputs_boxes_and_heat_are_the_checkpoints_at_any_batch(raw_file: Path, checkpoint: Predictor) -> None:
    detector = load_exported(raw_file)
    for images in (noise(1, 3), noise(5, 4)):
        _, inputs = checkpoint.prepare(images)
        expected = checkpoint.raw_graph(inputs)
        for level, output in detector.raw(inputs).items():
            np.testing.assert_allclose(output, expected[level], atol=0.01)
        expected_boxes = checkpoint.predict_batch(images, SCORE, IOU)
        assert same(detector.predict_batch(images, SCORE, IOU), expected_boxes, SCORE)
    (image,) = noise(1, 5)
    np.testing.assert_allclose(detector.objectness_map(image), checkpoint.objectness_map(image), atol=0.01)


PLAIN = """
import sys
import numpy as np, onnxruntime
inputs = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
given = {"images": inputs}
if sys.argv[4:]:
    given |= {name: np.array(value, np.float32) for name, value in zip(("score", "iou"), sys.argv[4:])}
np.savez(sys.argv[3], **dict(zip(names, session.run(names, given))))
assert not {"engine", "utils", "nets", "tensorflow", "keras"} & set(sys.modules)
"""


def in_a_fresh_process(
    file: Path, inputs: ImageArray, folder: Path, *thresholds: str, program: str = PLAIN
) -> dict[str, np.ndarray]:
    np.save(folder / "in.npy", inputs)
    words = [
        sys.executable,
        "-I",
        "-c",
        program,
        str(file),
        str(folder / "in.npy"),
        str(folder / "out.npz"),
        *thresholds,
    ]
    subprocess.run(words, check=True, cwd=folder, timeout=120)
    return dict(np.load(folder / "out.npz"))


@pytest.mark.parametrize("thresholds", [(), ("0.6", "0.2")], ids=["its own thresholds", "given thresholds"])
def test_a_fresh_process_without_our_code_finds_our_boxes(
    nms_file: Path, checkpoint: Predictor, tmp_path: Path, thresholds: tuple[str, ...]
) -> None:
    _, inputs = checkpoint.prepare(noise(3, 6))
    found = in_a_fresh_process(nms_file, inputs, tmp_path, *thresholds)
    score, iou = map(float, thresholds or (SCORE, IOU))
    expected = checkpoint.find(inputs, score, iou)
    assert found["counts"].tolist() == [len(one.scores) for one in expected]
    for image, one in enumerate(expected):
        count = len(one.scores)
        assert count > 5
        np.testing.assert_allclose(found["scores"][image, :count], one.scores, atol=1e-3)
        ours = {(c, *np.round(b, 2)) for c, b in zip(one.class_ids.tolist(), one.boxes_xyxy, strict=True)}
        theirs = zip(found["class_ids"][image, :count].astype(int), found["boxes_xyxy"][image, :count], strict=True)
        assert len(ours & {(c, *np.round(b, 2)) for c, b in theirs}) > 0.9 * len(ours)


def test_with_suppression_inside_the_detector_finds_the_same(nms_file: Path, checkpoint: Predictor) -> None:
    detector = load_exported(nms_file)
    images = noise(4, 7)
    for score, iou in ((0.5, 0.3), (0.3, 0.5)):
        found = detector.predict_batch(images, score, iou)
        assert same(found, checkpoint.predict_batch(images, score, iou), score)
    with pytest.raises(ConfigError, match="export it without --nms"):
        detector.objectness_map(images[0])


WITHOUT_TENSORFLOW = """
import sys
import get_map
import predict
photo, weights, runtime, folder, score = sys.argv[1:]
how = ["--weights", weights, "--runtime", runtime]
found = ["--out", f"{folder}/out", "--json", f"{folder}/found.json", "--score", score, "--heatmap"]
code = predict.main([photo, *how, *found])
get_map.main(["--list", f"{folder}/list.txt", *how, "--out", f"{folder}/map", "--no-plots"])
loaded = {"tensorflow", "keras", "jax", "torch"} & set(sys.modules)
assert not loaded, loaded
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("runtime", "name", "file"),
    [
        ("onnxruntime", "onnx", "best.onnx"),
        ("openvino", "openvino", "best.onnx"),
        ("litert", "litert", "best.tflite"),
    ],
)
def test_predicting_and_measuring_run_without_tensorflow(
    raw_folder: Path, checkpoint: Predictor, tmp_path: Path, runtime: str, name: str, file: str
) -> None:
    need(name)
    (photo,) = noise(1, 8)
    write_picture(tmp_path / "a.png", photo)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'a.png'} 1,1,20,20,0\n", "utf-8")
    words = [str(tmp_path / "a.png"), str(raw_folder / file), runtime, str(tmp_path), str(SCORE)]
    subprocess.run([sys.executable, "-c", WITHOUT_TENSORFLOW, *words], check=True, cwd=ROOT, timeout=120)
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))["images"][0]["detections"]
    (expected,) = checkpoint.predict_batch([photo], SCORE, 0.3)
    assert len(found) == len(expected) > 5
    assert sorted(one["score"] for one in found) == pytest.approx(sorted(expected.scores.tolist()), abs=1e-3)


def test_openvino_models_find_the_same(nms_folder: Path, checkpoint: Predictor) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install -r requirements-export.txt")
    place = nms_folder / "best_nms_openvino"
    images = noise(4, 9)
    for path in (place, place / "model.xml"):
        detector = load_detector(path)
        assert detector.spec == small_spec()
        assert same(detector.predict_batch(images, SCORE, IOU), checkpoint.predict_batch(images, SCORE, IOU), SCORE)
    with pytest.raises(ConfigError, match="--format openvino"):
        load_detector(nms_folder / "best_nms.onnx", "openvino")


def test_a_damaged_openvino_model_is_named(nms_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install -r requirements-export.txt")
    shutil.copytree(nms_folder / "best_nms_openvino", tmp_path / "model")
    text = (tmp_path / "model" / "model.xml").read_text("utf-8")
    (tmp_path / "model" / "model.xml").write_text(re.sub(r'(<efficientnet_yolo3 value=")', r"\1]", text), "utf-8")
    with pytest.raises(FileError, match=r"efficientnet_yolo3: .*: give a file that export.py wrote"):
        load_detector(tmp_path / "model")


def test_a_litert_file_without_its_weights_is_named(raw_folder: Path, tmp_path: Path) -> None:
    need("litert")
    whole = (raw_folder / "best.tflite").read_bytes()
    # Behind the network's buffers lies an archive with what it is; both ends stay.
    quarter = len(whole) // 4
    (tmp_path / "best.tflite").write_bytes(whole[:quarter] + bytes(2 * quarter) + whole[3 * quarter :])
    detector = load_detector(tmp_path / "best.tflite")
    with pytest.raises(FileError, match=r"best\.tflite: cannot be computed"):
        detector.predict_batch(noise(1, 9), SCORE, IOU)


SIGNAL_AFTER_OPENVINO = """
import gc, signal, sys
from engine.runtimes.choice import load_exported
from pathlib import Path
first, second = (load_exported(Path(sys.argv[1])) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
seen = []
signal.signal(signal.SIGINT, lambda *given: seen.append(given))
signal.raise_signal(signal.SIGINT)
assert seen
"""


def test_ctrl_c_is_survived_after_openvino(nms_folder: Path) -> None:
    need("openvino")
    words = [sys.executable, "-c", SIGNAL_AFTER_OPENVINO, str(nms_folder / "best_nms_openvino")]
    assert subprocess.run(words, cwd=ROOT, timeout=120, check=False).returncode == 0


def test_saved_models_find_the_same(raw_folder: Path, checkpoint: Predictor) -> None:
    place = raw_folder / "best_saved_model"
    detector = load_detector(place, "tensorflow")
    images = noise(4, 10)
    assert same(detector.predict_batch(images, SCORE, IOU), checkpoint.predict_batch(images, SCORE, IOU), SCORE)
    (place / "assets" / "metadata.json").unlink()
    with pytest.raises(FileError, match=r"metadata\.json"):
        load_detector(place)


INT8_FILES = {"onnx-int8": "best_int8.onnx", "openvino-int8": "best_int8_openvino", "litert-int8": "best_int8.tflite"}


def test_every_int8_format_is_tried() -> None:
    assert set(INT8_FILES) == {name for name, form in FORMATS.items() if form.int8}


@pytest.mark.parametrize("name", INT8_FILES)
def test_int8_is_smaller_and_leans_the_same_way(
    name: str, int8_folder: Path, raw_file: Path, checkpoint: Predictor
) -> None:
    need(name)
    path = int8_folder / INT8_FILES[name]
    assert json.loads((int8_folder / f"{path.name}.parity.json").read_text())["size_bytes"] < SMALLER * size_of(
        raw_file
    )
    detector = load_exported(path)
    assert (detector.artifact.precision, detector.spec) == ("int8", small_spec())
    assert detector.artifact.in_float == ("logits",)
    _, inputs = checkpoint.prepare(noise(8, 1))
    expected = checkpoint.raw_graph(inputs)
    for level, output in detector.raw(inputs).items():
        # Random weights amplify what eight bits leave out; outputs that had nothing in common would give 0.
        assert np.corrcoef(output.ravel(), expected[level].numpy().ravel())[0, 1] > 0.4
        # Logits that were int8 themselves would take few values.
        assert len(np.unique(output)) > 256


def test_onnx_runtime_is_asked_for_products_of_bytes_that_do_not_overflow(raw_file: Path) -> None:
    # On CPUs with VNNI none do, so the numbers would not show it.
    options = OnnxRuntimeSession(raw_file)._session.get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_openvino_rounds_maps_as_a_whole_also_in_front_of_depthwise_convolutions(int8_folder: Path) -> None:
    need("openvino-int8")
    model = openvino_core().read_model(int8_folder / INT8_FILES["openvino-int8"] / "model.xml")
    depthwise = [one for one in model.get_ops() if one.get_type_name() == "GroupConvolution"]
    assert depthwise
    for convolution in depthwise:
        rounded = convolution.input_value(0).get_node()
        assert rounded.get_type_name() == "FakeQuantize"
        # By channel the convolution before it gets a kernel that crashes on CPUs with AMX.
        assert {int(np.prod(value.get_shape())) for value in rounded.input_values()[1:]} == {1}


def size_of(path: Path) -> int:
    return path.stat().st_size


def test_int8_needs_photos(run: Path) -> None:
    with pytest.raises(ConfigError, match="--calibrate LIST: missing"):
        export.main([str(run), "--format", "onnx-int8"])


def parity_of(
    artifact: Artifact, path: Path, map_50: float, max_abs: float = 0.1, max_rel: float = 0.1
) -> parity.Parity:
    """A report with this mAP; the checkpoint's is 0.9."""
    speed = Speed(1, 1, 1.0, 1.0, 1.0)
    sides = [parity.Measured([], speed, speed, value) for value in (0.9, map_50)]
    return parity.Parity(path, artifact, 1, 0.5, Agreement(0, 0, 0, 0.0, 0.0), max_abs, max_rel, 10, *sides)


@pytest.mark.parametrize(
    ("precision", "max_rel", "right"),
    [("float32", 1e-8, True), ("float32", 0.0, True), ("float32", 1e-3, False), ("float16", 1e-3, False)],
)
def test_where_outputs_are_the_same_another_map_is_the_order_of_scores(
    precision: Precision, max_rel: float, right: bool
) -> None:
    made = Artifact(small_spec(), precision)
    assert (parity_of(made, Path("best.onnx"), 0.89, max_rel=max_rel).problems() == []) == right
    for far in (0.87, float("nan")):
        assert parity_of(made, Path("best.onnx"), far, max_rel=max_rel).problems()


class Quantised:
    """Stands in for quantising and comparing: the files hold what is in float, ``maps`` are their mAP in turn."""

    def __init__(self, checkpoint: Predictor, maps: Sequence[float]) -> None:
        self.reference, self.maps = checkpoint, iter(maps)
        self.told: list[str] = []
        self.reporter = SimpleNamespace(say=self.told.append)

    def write(self, predictor: Predictor, artifact: Artifact, path: Path, calibration: Calibration) -> None:
        assert artifact.in_float == calibration.in_float
        path.parent.mkdir()
        place = path / "model.xml" if path.suffix == "" else path
        place.parent.mkdir(exist_ok=True)
        place.write_text(", ".join(artifact.in_float))

    def compare(self, exported: Artifact, path: Path) -> parity.Parity:
        value = next(self.maps)
        return parity_of(exported, path, abs(value), max_abs=np.inf if value < 0 else 0.1)

    def climb(self, tried: Sequence[Calibration], path: Path) -> parity.Parity:
        def load(trial: Path) -> Artifact:
            words = (trial / "model.xml" if trial.is_dir() else trial).read_text()
            return Artifact(self.reference.spec, "int8", tuple(words.split(", ")))

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(jobs.WRITERS, "onnx-int8", (self.write, "{}"))
            patch.setattr(jobs, "load_exported", load)
            return jobs._quantised("onnx-int8", path, Artifact(self.reference.spec), tried, self)


LAYERS = ["logits", "first convolution and output branches", "head"]
"""MobileNets have no squeeze-and-excitation."""


@pytest.mark.parametrize(
    ("maps", "kept"),
    [
        ([0.895], 1),
        ([0.5, 0.893], 2),  # the first that is near enough
        ([0.5, 0.8, 0.6], 2),  # none is: the nearest
        ([0.5, 1.0, 0.8], 2),  # too good is as far off
        ([0.85, 0.85, 0.85], 1),
        ([-0.9, 0.5, 0.6], 3),  # a minus stands for outputs that are not finite
    ],
)
@pytest.mark.parametrize("name", ["best_int8.onnx", "best_int8_openvino"])
def test_more_layers_stay_in_float_until_the_map_holds_and_the_nearest_file_is_kept(
    maps: list[float], kept: int, name: str, checkpoint: Predictor, tmp_path: Path
) -> None:
    tried = climb([], checkpoint.model)
    assert [one.in_float for one in tried] == [tuple(LAYERS[:count]) for count in (1, 2, 3)]
    check, path = Quantised(checkpoint, maps), tmp_path / "new" / name
    found = check.climb(tried, path)
    assert next(check.maps, None) is None  # no more were made than asked for
    assert (found.path, found.artifact.in_float) == (path, tuple(LAYERS[:kept]))
    assert (path / "model.xml" if path.is_dir() else path).read_text() == ", ".join(LAYERS[:kept])
    assert [one.name for one in path.parent.iterdir()] == [name]
    assert bool(check.told) == (len(maps) > 1)
    assert any("kept is the nearest" in line for line in check.told) == (kept < len(maps))


def test_an_int8_file_that_was_there_stays_until_another_is_chosen(checkpoint: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "best_int8.onnx"
    path.write_text("older")
    with pytest.raises(StopIteration):
        Quantised(checkpoint, [0.5]).climb(climb([], checkpoint.model), path)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(path.name, "older")]


def test_int8_too_far_off_ends_with_3(
    run: Path, calibration_list: Path, quick: None, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(jobs, "climb", lambda *given: climb(*given)[:1])
    # Of a network that was not trained the mAP is next to nothing, before as after.
    monkeypatch.setitem(parity.TOLERANCES, "int8", replace(parity.TOLERANCES["int8"], map_50=0.0))
    lists = ("--calibrate", str(calibration_list), "--measure", str(run / "data" / "val.txt"))
    with pytest.raises(ParityError, match=r"^\S*best_int8\.onnx: mAP@0\.5 is") as caught:
        export.main([str(run), "--images", "1", "--format", "onnx-int8", *lists, "--out", str(tmp_path)])
    assert caught.value.exit_code == 3


PLAIN_LITERT = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
run = Interpreter(sys.argv[1]).get_signature_runner()
np.savez(sys.argv[3], **run(images=np.load(sys.argv[2])))
assert not {"engine", "utils", "nets", "tensorflow", "keras"} & set(sys.modules)
"""
PLAIN_OPENVINO = """
import sys
import numpy as np, openvino
model = openvino.Core().compile_model(sys.argv[1] + "/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
found = model({"images": np.load(sys.argv[2]), **dict(zip(("score", "iou"), map(np.float32, sys.argv[4:])))})
np.savez(sys.argv[3], **{output.get_any_name(): value for output, value in found.items()})
assert not {"engine", "utils", "nets", "tensorflow", "keras"} & set(sys.modules)
"""
PLAIN_SAVED_MODEL = """
import sys
import numpy as np, tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
np.savez(sys.argv[3], **{name: value.numpy() for name, value in serve(images=np.load(sys.argv[2])).items()})
assert not {"engine", "utils", "nets"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    ("name", "file", "program"),
    [("litert", "best.tflite", PLAIN_LITERT), ("saved_model", "best_saved_model", PLAIN_SAVED_MODEL)],
)
def test_raw_outputs_in_a_fresh_process_without_our_code(
    name: str, file: str, program: str, raw_folder: Path, checkpoint: Predictor, tmp_path: Path
) -> None:
    need(name)
    _, inputs = checkpoint.prepare(noise(3, 6))
    found = in_a_fresh_process(raw_folder / file, inputs, tmp_path, program=program)
    for level, output in checkpoint.raw_graph(inputs).items():
        np.testing.assert_allclose(found[level], output, atol=0.01)


@pytest.mark.parametrize(
    ("name", "program"), [("onnx-int8", PLAIN), ("openvino-int8", PLAIN_OPENVINO), ("litert-int8", PLAIN_LITERT)]
)
def test_int8_files_give_our_boxes_in_a_fresh_process_without_our_code(
    name: str, program: str, int8_folder: Path, tmp_path: Path
) -> None:
    need(name)
    path = int8_folder / INT8_FILES[name]
    detector = load_exported(path)
    _, inputs = detector.prepare(noise(3, 6))
    found = in_a_fresh_process(path, inputs, tmp_path, program=program)
    boxes = find_boxes(found, detector.spec, SCORE, IOU)
    for theirs, ours in zip(boxes, detector.find(inputs, SCORE, IOU), strict=True):
        assert len(ours.scores) > 5
        assert theirs.class_ids.tolist() == ours.class_ids.tolist()
        np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
        np.testing.assert_allclose(theirs.boxes_xyxy, ours.boxes_xyxy, atol=1e-4)


def test_openvino_finds_our_boxes_in_a_fresh_process(nms_folder: Path, checkpoint: Predictor, tmp_path: Path) -> None:
    need("openvino")
    _, inputs = checkpoint.prepare(noise(2, 6))
    place = nms_folder / "best_nms_openvino"
    found = in_a_fresh_process(place, inputs, tmp_path, str(SCORE), str(IOU), program=PLAIN_OPENVINO)
    expected = checkpoint.find(inputs, SCORE, IOU)
    assert found["counts"].tolist() == [len(one.scores) for one in expected]
    for image, one in enumerate(expected):
        np.testing.assert_allclose(found["scores"][image, : len(one.scores)], one.scores, atol=1e-3)


def test_litert_finds_the_same_at_any_batch(raw_folder: Path, checkpoint: Predictor, tmp_path: Path) -> None:
    need("litert")
    file = raw_folder / "best.tflite"
    detector = load_detector(file)
    assert detector.spec == small_spec()
    for images in (noise(4, 9), noise(1, 3), noise(6, 2)):
        assert same(detector.predict_batch(images, SCORE, IOU), checkpoint.predict_batch(images, SCORE, IOU), SCORE)
    plain = tmp_path / "plain.tflite"
    with zipfile.ZipFile(file) as archive:
        # Readers of either kind see their own: a model, and an archive behind it.
        plain.write_bytes(file.read_bytes()[: min(one.header_offset for one in archive.infolist())])
    with pytest.raises(FileError, match=r"metadata\.json"):
        load_detector(plain)


@pytest.mark.slow
def test_litert_takes_networks_with_gradients_of_their_own(tmp_path: Path) -> None:
    need("litert")
    spec = small_spec(backbone="efficientnet_b0")  # swish
    checkpoint = Predictor(lively_detector(spec), spec)
    jobs.WRITERS["litert"][0](checkpoint, Artifact(spec), tmp_path / "b0.tflite")
    _, inputs = checkpoint.prepare(noise(2, 1))
    expected = checkpoint.raw_graph(inputs)
    for level, output in load_exported(tmp_path / "b0.tflite").raw(inputs).items():
        assert np.corrcoef(output.ravel(), expected[level].numpy().ravel())[0, 1] > 0.999


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if not (form.int8 or form.no_half)])
def test_half_of_the_bytes_finds_nearly_the_same(
    name: str, run: Path, raw_file: Path, checkpoint: Predictor, quick: None, tmp_path: Path
) -> None:
    need(name)
    words = [str(run), "--images", "1", "--format", name, "--half", "--out", str(tmp_path)]
    # Random weights amplify what sixteen bits leave out.
    assert run_door(lambda: export.main(words)) in (0, 3)
    (report,) = tmp_path.glob("*.parity.json")
    path = report.with_name(report.name.removesuffix(".parity.json"))
    assert path.stem.startswith("best_half")
    assert json.loads(report.read_text())["size_bytes"] < SMALLER * size_of(raw_file)
    detector = load_exported(path)
    assert detector.artifact.precision == "float16"
    _, inputs = checkpoint.prepare(noise(4, 1))
    expected = checkpoint.raw_graph(inputs)
    for level, output in detector.raw(inputs).items():
        assert np.corrcoef(output.ravel(), expected[level].numpy().ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("name", "nms"), [("onnx", False), ("onnx", True), ("openvino", False)])
def test_with_an_open_side_other_sizes_find_what_the_checkpoint_finds(
    name: str, nms: bool, run: Path, raw_file: Path, quick: None, tmp_path: Path
) -> None:
    need(name)
    words = [str(run), "--images", "1", "--format", name, "--dynamic-size", "--out", str(tmp_path)]
    assert run_door(lambda: export.main([*words, *(["--nms"] if nms else [])])) == 0
    (report,) = tmp_path.glob("*.parity.json")
    path = report.with_name(report.name.removesuffix(".parity.json"))
    images = noise(3, 11)
    for size in (64, 96):
        own, exported = load_detector(run / "best", input_size=size), load_detector(path, input_size=size)
        assert exported.spec == own.spec
        assert exported.spec.input_size == size
        assert same(exported.predict_batch(images, SCORE, IOU), own.predict_batch(images, SCORE, IOU), SCORE)
    with pytest.raises(ConfigError, match="100: must be a multiple of 32"):
        load_detector(path, input_size=100)
    with pytest.raises(ConfigError, match="this file takes 64: export it with --dynamic-size"):
        load_detector(raw_file, input_size=96)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "litert", "--nms"], "litert: --nms: LiteRT has no suppression"),
        (["--format", "litert", "--dynamic-size"], "litert: --dynamic-size: LiteRT needs to know the side"),
        (["--format", "saved_model", "--half"], "saved_model: --half: "),
        (["--format", "onnx-int8", "--half"], "onnx-int8: --half: its weights take 8 bits already"),
    ],
)
def test_what_a_format_cannot_do_is_said(words: list[str], said: str, run: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        export.main([str(run), *words, "--calibrate", "x"])


class Shifted:
    """A session whose every output is a little off."""

    def __init__(self, session: Any, by: float) -> None:
        self.session, self.by, self.artifact = session, by, session.artifact

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        return {name: value + np.float32(self.by) for name, value in self.session.run(inputs).items()}


@pytest.mark.parametrize(("by", "exit_code"), [(1e-4, 0), (0.05, 3)])
def test_a_file_that_finds_something_else_ends_with_3(
    run: Path, raw_file: Path, quick: None, monkeypatch: Any, capsys: Any, tmp_path: Path, by: float, exit_code: int
) -> None:
    def loaded(path: Path) -> Any:
        detector = load_exported(path)
        detector.session = Shifted(detector.session, by)
        return detector

    monkeypatch.setattr(jobs, "load_exported", loaded)
    monkeypatch.setitem(jobs.WRITERS, "onnx", (lambda _, __, path: path.write_bytes(raw_file.read_bytes()), "{}.onnx"))
    words = [str(run), "--format", "onnx", "--images", "2", "--out", str(tmp_path)]
    assert run_door(lambda: export.main(words)) == exit_code
    said = capsys.readouterr().err
    assert ("boxes differ by over 0.5 px" in said) == bool(exit_code)
    assert "compared on 2 photos of" in said


def test_without_a_validation_list_photos_are_drawn_and_that_is_said(tmp_path: Path) -> None:
    from engine.export.images import photos_to_compare

    photos, where = photos_to_compare(tmp_path / "best", small_spec(), 2)
    assert len(photos) == 2
    assert "2 drawn photos" in where
    assert "config.yaml" in where
    again, _ = photos_to_compare(tmp_path / "best", small_spec(), 2)
    assert all(np.array_equal(one, other) for one, other in zip(photos, again, strict=True))


def test_damaged_and_foreign_files_are_refused(raw_file: Path, tmp_path: Path) -> None:
    damaged, foreign = tmp_path / "damaged.onnx", tmp_path / "foreign.onnx"
    damaged.write_bytes(raw_file.read_bytes()[:1000])
    with pytest.raises(FileError, match="not an ONNX file"):
        load_detector(damaged)
    import onnx

    model = onnx.load(raw_file)
    del model.metadata_props[:]
    onnx.save(model, foreign)
    with pytest.raises(FileError, match="says nothing of a detector"):
        load_detector(foreign)


def test_get_map_measures_exported_files(raw_file: Path, run: Path, tmp_path: Path) -> None:
    words = ["--weights", str(raw_file), "--list", str(run / "data" / "val.txt"), "--out", str(tmp_path), "--no-plots"]
    assert run_door(lambda: get_map.main([*words, "--runtime", "onnxruntime"])) == 0
    measured = json.loads((tmp_path / "metrics.json").read_text("utf-8"))["voc_map_50"]
    report = json.loads((raw_file.parent / "best.onnx.parity.json").read_text("utf-8"))
    assert measured == pytest.approx(report["this"]["voc_map_50"])


def test_a_missing_package_is_named_before_anything_starts(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"onnx is not installed: pip install -r requirements-export\.txt"):
        export.main([str(tmp_path / "nowhere"), "--format", "onnx"])
