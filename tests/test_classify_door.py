"""classify.py from its command line: what it prints, writes, refuses, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import classify
from tests.conftest import ROOT
from tests.labelled_folders import CLASSES, draw_folders
from utils.door import run_door

IMAGENET = ["predict", "DATA/test/disc", "--weights", "imagenet", "--backbone"]
SMALL = ["--model.input_size", "32", "--train.epochs", "1", "--train.batch_size", "6", "--data.threads", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folders(tmp_path_factory.mktemp("data"), train=4, val=2, parts=("train", "test"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "--data", str(data), "--backbone=mobilenet_v1_0.25_shallow", "--val-fraction", "0.25"]
    assert door(*words, "--run-dir", str(folder), *SMALL) == 0
    return folder


def door(*words: str) -> int:
    return run_door(lambda: classify.main(words))


def test_short_options_stand_for_fields(run: Path) -> None:
    from utils.classifier_config import ClassifierRunConfig
    from utils.command_line import read_run_config

    config = read_run_config(run / "config.yaml", ClassifierRunConfig)
    assert (config.model.backbone, config.data.val_fraction) == ("mobilenet_v1_0.25_shallow", 0.25)
    assert os.path.isabs(config.data.dir)


def test_prediction_names_the_likeliest_classes_as_table_and_json(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = sorted((data / "test" / "disc").iterdir())
    words = ["predict", *map(str, photos), "--weights", str(run), "--top", "2", "--json", str(tmp_path / "found.json")]
    assert door(*words) == 0
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert [one["image"] for one in found["images"]] == [str(photo) for photo in photos]
    assert found["failed"] == []
    for one in found["images"]:
        shares = [answer["probability"] for answer in one["classes"]]
        assert len(shares) == 2
        assert shares == sorted(shares, reverse=True)
        assert all(CLASSES[answer["class_id"]] == answer["name"] for answer in one["classes"])
    shown = capsys.readouterr().out
    best = found["images"][0]["classes"][0]
    assert f"{100 * best['probability']:.1f}%" in shown
    assert best["name"] in shown


def test_other_names_for_the_classes(run: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Stab\nScheibe\n四角\n", "utf-8")
    photo = next((data / "test" / "bar").iterdir())
    words = ["predict", str(photo), "--weights", str(run), "--classes", str(tmp_path / "names.txt"), "--top", "9"]
    assert door(*words, "--json", str(tmp_path / "found.json")) == 0
    (one,) = json.loads((tmp_path / "found.json").read_text("utf-8"))["images"]
    assert {answer["name"] for answer in one["classes"]} == {"Stab", "Scheibe", "四角"}


def test_a_bad_photo_is_reported_and_the_others_are_done(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.jpg").write_text("<html></html>")
    (folder / "c.HEIC").touch()
    (folder / "b.png").write_bytes(next((data / "test" / "bar").iterdir()).read_bytes())
    assert door("predict", str(folder), "--weights", str(run), "--json", str(tmp_path / "found.json")) == 3
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert [Path(one["image"]).name for one in found["images"]] == ["b.png"]
    assert [Path(one["image"]).name for one in found["failed"]] == ["a.jpg"]
    said = capsys.readouterr().err
    assert "a.jpg: is an HTML page" in said
    assert ".heic: 1 file left out" in said


def test_a_video_or_what_is_missing_is_reported_and_the_photos_are_done(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, film, answers = next((data / "test" / "bar").iterdir()), tmp_path / "film.mp4", tmp_path / "found.json"
    film.write_bytes(b"")
    assert door("predict", str(film), str(photo), "--weights", str(run), "--json", str(answers)) == 3
    found = json.loads(answers.read_text("utf-8"))
    assert [one["image"] for one in found["images"]] == [str(photo)]
    assert [one["image"] for one in found["failed"]] == [str(film)]
    assert f"{film}: is a video" in capsys.readouterr().err
    assert door("predict", str(film), "gone.jpg", str(photo), "--weights", str(run), "--json", "-") == 3
    out, err = capsys.readouterr()
    assert [one["image"] for one in json.loads(out)["failed"]] == [str(film), "gone.jpg"]
    assert "gone.jpg: no such file" in err
    assert "probability" in err
    assert door("predict", str(film), "--weights", str(run)) == 2


def test_answers_do_not_overwrite_weights_or_classes(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes, link = tmp_path / "names.txt", tmp_path / "link"
    classes.write_text("a\nb\nc\n")
    link.symlink_to(run)
    words = ["predict", str(data / "test" / "bar"), "--weights", str(run), "--classes", str(classes)]
    for target, what in ((link / "best", "weights"), (classes, "classes")):
        before = target.read_bytes()
        assert door(*words, "--json", str(target)) == 2
        assert f"--json: {target}: is the {what} file" in capsys.readouterr().err
        assert target.read_bytes() == before


def test_measuring_takes_other_names_for_the_classes_and_says_when_all_is_measured(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("stick\nplate\nbox\n")
    for old, new in zip(CLASSES, ("stick", "plate", "box"), strict=True):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / new).symlink_to(data / "test" / old)
    words = ["measure", "--data", str(tmp_path / "data"), "--classes", str(tmp_path / "names.txt")]
    assert door(*words, "--weights", str(run), "--backbone", "mobilenet_v1_0.25_shallow") == 0
    shown = capsys.readouterr()
    assert "stick" in shown.out
    assert f"{tmp_path / 'data'}: measured whole" in shown.err
    assert door("measure", "--data", str(data), "--weights", "imagenet") == 2
    shown = capsys.readouterr()
    assert "--backbone: missing" in shown.err
    assert "measured whole" not in shown.err


def test_measuring_counts_every_labelled_photo(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "measured"
    assert door("measure", "--weights", str(run), "--data", str(data), "--out", str(out)) == 0
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert metrics["images"] == 6
    assert sum(map(sum, metrics["confusion"]["counts"])) == 6
    assert {path.name for path in out.iterdir()} == {"metrics.json", "confusion.png", "mistakes.jpg"}
    assert door("measure", "--weights", str(run), "--data", str(data), "--split", "train", "--out", str(out)) == 0
    assert json.loads((out / "metrics.json").read_text("utf-8"))["images"] == 12


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pradict"], 2, "pradict: unknown command; did you mean 'predict'?"),
        (["train"], 2, "--data: missing"),
        (["train", "--data", "nowhere"], 2, "nowhere: no such directory"),
        (["train", "--data", "DATA", "--backbone", "mobilnet_v1_1.0"], 2, "did you mean 'mobilenet_v1_1.0'?"),
        (["train", "--data", "DATA", "--model.sise", "32"], 2, "model.sise: unknown key; did you mean 'model.resize'?"),
        (["train", "--data", "DATA", "--run-dir", "RUN"], 2, "holds a run already"),
        (["train", "--data", "DATA", "--run-dir", "DATA/run"], 2, "lies in data.dir"),
        (["train", "--data", "DATA", "--weights", "nowhere.h5", "--run-dir", "NEW"], 4, "nowhere.h5: no such weights"),
        (["train", "--resume", "nowhere"], 2, "nowhere"),
        (["predict", "DATA/test/disc", "--weights", "RUN", "--backbone", "densenet121"], 2, "leave the option out"),
        (["predict", "DATA/test/disc", "--weights", "nowhere"], 4, "nowhere: no such checkpoint"),
        (["predict", "DATA/test/disc"], 2, "--backbone: missing"),
        (["predict", "film.mp4"], 2, "film.mp4"),
        (
            [*IMAGENET, "mobilenet_v1_0.25", "--classes", "RUN/classes.txt"],
            2,
            "1000; --classes: give a file with a name",
        ),
        ([*IMAGENET, "mobilenet_v1_0.02"], 2, "no official file for mobilenet_v1_0.02; there is one for"),
        ([*IMAGENET, "efficientnet_l0"], 2, "backbone: efficientnet_l0: unknown"),
        (["predict", "DATA/test/disc", "--weights", "RUN", "--top", "0"], 2, "--top"),
        (["measure", "--weights", "RUN", "--data", "DATA", "--split", "tset"], 2, "tset: no such directory"),
        (["measure", "--weights", "RUN", "--data", "DATA", "--out", "DATA/out"], 2, "--out"),
    ],
)
def test_what_cannot_be_is_one_line_and_an_exit_code(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words, code: int, said: str
) -> None:
    places = {"DATA": str(data), "RUN": str(run), "NEW": str(tmp_path / "new")}
    filled = []
    for word in words:
        for name, place in places.items():
            word = word.replace(name, place)
        filled.append(word)
    capsys.readouterr()
    assert door(*filled) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert not any("Traceback" in line for line in lines)
    # Only training has fields of a config.
    assert words[0] == "train" or "model." not in lines[-1]


def test_help_comes_at_once_and_without_tensorflow() -> None:
    code = "import sys, classify; classify.main(['--help']); sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "classify.py train" in done.stdout


@pytest.mark.parametrize("command", ["predict", "measure"])
def test_each_command_shows_how_it_is_used(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        classify.main([command, "--help"])
    shown = capsys.readouterr().out
    assert not stopped.value.code
    assert shown.startswith(f"usage: classify.py {command} ")
    assert f"  python classify.py {command} " in shown
