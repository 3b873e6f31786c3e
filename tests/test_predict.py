from __future__ import annotations

import csv
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import engine.video_prediction
import predict
from engine.live import LiveVideo
from engine.outputs import folder_name
from engine.predict_all import predict_all
from engine.prediction import PredictOptions
from engine.sources import find_sources
from engine.timing import measure_speed
from engine.video import VideoFile, writing_video
from engine.viewer import Viewer, open_viewer
from tests.conftest import ROOT
from tests.fake_predictor import FakePredictor, install, picture, write_picture
from tests.test_video import Capture, opener
from utils.door import run_door
from utils.draw import overlay_heat
from utils.errors import FileError, MemoryRanOutError
from utils.palette import class_colour
from utils.problems import FailFast
from utils.progress import Quiet
from utils.voc import load_ground_truth

BOX = [10.0, 20.0, 40.0, 50.0]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "best").touch()
    return tmp_path


@pytest.fixture
def fake(monkeypatch):
    predictor = FakePredictor()
    install(monkeypatch, predictor)
    return predictor


def run(*arguments: str) -> int:
    return run_door(lambda: predict.main([*arguments, "--weights", "best", "--out", "out"]))


def document(path: str = "all.json") -> dict:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def make_video(path: str, frames: int = 11, fps: float = 12.5) -> None:
    with writing_video(Path(path), fps, (60, 80)) as sink:
        for number in range(frames):
            sink.write(picture(box=(10 + number, 20, 40 + number, 50)))


def frames_of(path: str) -> int:
    with closing(VideoFile(Path(path))) as video:
        return len(video.read(10_000))


def test_a_photo_is_drawn_under_its_name(place, fake, capsys):
    write_picture("in/a photo 红.png", picture())
    assert run("in/a photo 红.png", "--json", "all.json", "--score", "0.25", "--iou", "0.75") == 0
    drawn = np.asarray(Image.open("out/a photo 红.png"))
    assert (drawn[35, 10] == class_colour(0)).all()
    found = document()
    assert (found["score"], found["iou"], found["failed"], found["complete"]) == (0.25, 0.75, [], True)
    assert found["images"] == [
        {
            "image": "in/a photo 红.png",
            "output": "out/a photo 红.png",
            "width": 80,
            "height": 60,
            "detections": [{"name": "red thing", "class_id": 0, "score": 0.875, "box_xyxy": BOX}],
        }
    ]
    assert fake.thresholds == [(0.25, 0.75)]
    assert "1 image: 1 red thing; results in out" in capsys.readouterr().out


def test_a_directory_goes_through_in_batches(place, fake, capsys):
    for number in range(7):
        write_picture(f"in/{number}.png", picture((40 + number, 90), (5, 5, 20 + number, 30)))
    Path("in/IMG_1.HEIC").touch()
    assert run("in", "--batch", "3", "--json", "all.json") == 0
    assert "in: .heic: 1 file left out: convert photos to JPEG" in capsys.readouterr().err
    assert fake.batch_sizes == [3, 3, 1]
    entries = document()["images"]
    assert [(e["image"], e["height"], e["detections"][0]["box_xyxy"][2]) for e in entries] == [
        (f"in/{n}.png", 40 + n, 20.0 + n) for n in range(7)
    ]


def test_text_table_crops_heat_and_counts(place, fake, capsys):
    write_picture("in/a.png", picture())
    write_picture("in/none.png", picture(box=None))
    assert run("in", "--txt", "--csv", "new/all.csv", "--crops", "--heatmap", "--count") == 0
    assert (place / "out/txt/a.txt").read_text() == "red thing 0.875 10.0 20.0 40.0 50.0\n"
    assert (place / "out/txt/none.txt").read_text() == ""
    with open("new/all.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"image": "in/a.png", "frame": "", "class_id": "0", "name": "red thing", "score": "0.875"}
            | dict(zip(("left", "top", "right", "bottom"), map(str, BOX), strict=True))
        ]
    crop = np.asarray(Image.open("out/crops/red thing/a_1.jpg"))
    assert crop.shape == (30, 30, 3)
    assert np.abs(crop.astype(int) - (220, 20, 20)).mean() < 8
    heat = np.asarray(Image.open("out/heatmaps/a.png")).astype(int)
    assert heat.shape == (60, 80, 3)
    assert heat[35, 25].sum() > 2 * heat[5, 5].sum()
    assert (heat == overlay_heat(picture(), fake.objectness_map(picture()))).all()  # the photo, without drawn boxes
    told = capsys.readouterr().out
    assert "in/a.png: 1 red thing" in told
    assert "in/none.png: nothing found" in told


def test_labels_go_back_into_training(place, fake, capsys):
    """Predict, correct, train: what comes out lies in a VOC folder and is annotated without a complaint."""
    voc = place / "VOCdevkit/VOC2007"
    (voc / "JPEGImages").mkdir(parents=True)
    for name in ("a.b", "two words", "none"):
        write_picture(voc / f"JPEGImages/{name}.png", picture(box=None if name == "none" else (10, 20, 40, 50)))
    assert run(str(voc / "JPEGImages"), "--voc-xml", "--yolo-txt", "--coco", "coco.json") == 0
    os.rename("out/voc", voc / "Annotations")
    (voc / "ImageSets/Main").mkdir(parents=True)
    (voc / "ImageSets/Main/all.txt").write_text("a.b\ntwo words\nnone\n")
    remarks = FailFast()
    samples = load_ground_truth(place / "VOCdevkit", "2007", "all", ("red thing",), remarks=remarks)
    assert not list(remarks.warning_lines())
    assert [truth.boxes_xyxy.tolist() for _, truth in samples] == [[BOX], [BOX], []]
    assert sorted(os.listdir("out/yolo/labels")) == ["a.b.txt", "none.txt", "two words.txt"]
    assert (place / "out/yolo/classes.txt").read_text() == "red thing\n红细胞\n"
    assert np.loadtxt("out/yolo/labels/a.b.txt") == pytest.approx([0, 25 / 80, 35 / 60, 30 / 80, 30 / 60, 0.875])
    assert [one["bbox"] for one in document("coco.json")["annotations"]] == [[10, 20, 30, 30]] * 2


def test_json_lines_on_stdout_are_alone_there(place, fake, capsys):
    for name in "abc":
        write_picture(f"in/{name}.png", picture())
    (place / "in/b.png").write_text("<html>")
    assert run("in", "--jsonl", "-", "--count") == 3
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["image"], "error" in line) for line in lines] == [
        ("in/a.png", False),
        ("in/b.png", True),
        ("in/c.png", False),
    ]
    assert "2 images: 2 red thing" in err


@pytest.mark.parametrize("form", ["--json", "--csv", "--coco"])
def test_a_document_on_stdout_is_alone_there(place, fake, capfdbinary, form):
    write_picture("in/a.png", picture())
    assert run("in", form, "-", "--count", "--fps") == 0
    out, err = capfdbinary.readouterr()
    assert run("in", form, "file") == 0
    assert out == (place / "file").read_bytes()
    assert b"1 image: 1 red thing" in err
    assert b"median ms" in err
    assert not os.path.exists("-")


def test_an_image_or_a_list_comes_through_stdin(place, fake, monkeypatch, capsys):
    write_picture("in/a.png", picture())
    write_picture("in/b.bmp", picture())
    stdin = lambda data: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))  # noqa: E731
    stdin((place / "in/a.png").read_bytes())
    assert run("-", "--json", "all.json") == 0
    assert [(one["image"], one["detections"][0]["box_xyxy"]) for one in document()["images"]] == [("stdin.png", BOX)]
    assert os.path.exists("out/stdin.png")
    stdin(b"in/b.bmp\r\nin/a.png\n")
    assert run("-", "--json", "all.json") == 0
    assert [one["image"] for one in document()["images"]] == ["in/b.bmp", "in/a.png"]
    stdin((place / "in/a.png").read_bytes()[:-30])
    assert run("-") == 3
    assert "stdin.png: " in capsys.readouterr().err


def test_a_bad_image_does_not_stop_the_others(place, fake, capsys):
    for name in "abc":
        write_picture(f"in/{name}.png", picture())
    (place / "in/b.png").write_text("<html>")
    write_picture("in/thin.png", np.zeros((1, 300, 3), np.uint8))
    assert run("in", "--json", "all.json") == 3
    assert sorted(os.listdir("out")) == ["a.png", "c.png"]
    assert [entry["image"] for entry in document()["failed"]] == ["in/b.png", "in/thin.png"]
    err = capsys.readouterr().err
    assert "in/b.png: " in err
    assert "in/thin.png: 300x1 px: too thin" in err
    assert "Traceback" not in err


def test_a_missing_source_does_not_stop_the_others(place, fake, capsys):
    write_picture("in/a.png", picture())
    (place / "empty").mkdir()
    (place / "list.txt").write_text("in/b.png\n")
    missing = ("gone.mp4", "empty", "*.gif")
    assert run(*missing, "in/a.png", "--source-list", "list.txt", "--json", "all.json", "--jsonl", "all.jsonl") == 3
    assert os.listdir("out") == ["a.png"]
    found = document()
    assert [entry["image"] for entry in found["images"]] == ["in/a.png"]
    assert [entry["image"] for entry in found["failed"]] == [*missing, "in/b.png"]
    assert found["failed"][3]["error"].startswith("list.txt: line 1: in/b.png: no such file")
    assert len((place / "all.jsonl").read_text().splitlines()) == 5
    out, err = capsys.readouterr()
    assert "4 inputs could not be used" in out
    # Said before the work, which may take long, and again at its end.
    first, *_, last = err.splitlines()
    assert first == "gone.mp4: no such file or directory: going on without it"
    assert last == found["failed"][3]["error"]


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "I;16"])
def test_any_kind_of_picture_gets_a_drawn_result(place, fake, mode):
    suffix = ".jpg" if mode == "CMYK" else ".png"
    Image.new(mode, (80, 60)).save(f"in/a{suffix}")
    assert run(f"in/a{suffix}") == 0
    assert np.asarray(Image.open(f"out/a{suffix}")).shape == (60, 80, 3)


def test_exif_is_applied_once_and_can_be_left_alone(place, fake):
    image = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter for viewing
    image.save("in/a.jpg", exif=exif, quality=95)
    assert run("in/a.jpg", "--json", "all.json") == 0
    entry = document()["images"][0]
    assert (entry["width"], entry["height"]) == (60, 80)
    # (x, y) goes to (60 - y, x): 10..40 by 20..50 becomes 10..40 by 10..40.
    assert entry["detections"][0]["box_xyxy"] == pytest.approx([10, 10, 40, 40], abs=1.5)
    assert run("in/a.jpg", "--json", "all.json", "--ignore-exif") == 0
    assert document()["images"][0]["detections"][0]["box_xyxy"] == pytest.approx(BOX, abs=1.5)


def test_inputs_of_one_name_are_both_kept(place, fake):
    for name in ("in/a.png", "in/a.bmp", "in/x/a.png"):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        write_picture(name, picture())
    assert run("in/a.png", "in/a.bmp", "in/x/a.png", "--txt") == 0
    assert sorted(os.listdir("out")) == ["a.bmp", "a.png", "a_2.png", "txt"]
    assert len(os.listdir("out/txt")) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["in", "--score", "1.5"], 2, "--score: 1.5"),
        (["in", "--iou", "nan"], 2, "--iou: nan"),
        (["in", "--batch", "0"], 2, "--batch: 0"),
        (["inn"], 2, "did you mean 'in'"),
        (["in", "--out", "in"], 2, "directory of the input"),
        (["in", "--json", "in/a.png"], 2, "one of the inputs"),
        (["in", "--json", "best"], 2, "--json: best: is the weights file"),
        (["in", "--csv", "in/../best"], 2, "--csv: in/../best: is the weights file"),
        (["in", "--weights", "bets"], 4, "did you mean 'best'"),
        (["in", "--weights", "in"], 4, "no checkpoint named best or last"),
        (["in", "--no-such"], 2, "--no-such"),
        ([], 2, "SOURCE: missing"),
        (["--source-list", "gone.txt"], 2, "gone.txt: no such list of sources"),
        (["--source-list", "best"], 2, "best: is empty"),
        (["in", "--coco", "in/a.png"], 2, "one of the inputs"),
        (["in", "--jsonl", "best"], 2, "--jsonl: best: is the weights file"),
        (["in", "--json", "-", "--jsonl", "-"], 2, "--json, --jsonl: -: only one of them can go to stdout"),
        (["gone.mp4", "inn", "*.gif"], 2, "gone.mp4: no such file or directory (and 2 more like it)"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(place, monkeypatch, capsys, arguments, code, says):
    write_picture("in/a.png", picture())
    asked = install(monkeypatch, FakePredictor())
    defaults = ["--weights", "best", "--out", "out"]
    assert run_door(lambda: predict.main([*defaults, *arguments])) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert asked == []
    assert not os.path.exists("out")


def test_a_full_disk_stops_with_4(place, fake, monkeypatch, capsys):
    write_picture("in/a.png", picture())

    def full(*unused, **also_unused):
        raise FileError("out/a.png: cannot be written: No space left on device")

    monkeypatch.setattr("engine.outputs.write_atomically", full)
    assert run("in", "--json", "all.json") == 4
    assert "No space left" in capsys.readouterr().err
    assert not os.path.exists("all.json")


def test_a_video_keeps_count_size_and_rate(place, fake):
    make_video("in/clip.mp4")
    assert run("in/clip.mp4", "--batch", "4", "--json", "all.json", "--csv", "all.csv", "--count") == 0
    assert fake.batch_sizes == [4, 4, 3]
    with closing(VideoFile(Path("out/clip.mp4"))) as video:
        assert (video.frame_count, video.size_hw, video.fps) == (11, (60, 80), 12.5)
    entries = document()["images"]
    assert [(e["frame"], e["time_s"]) for e in entries] == [(n, n / 12.5) for n in range(11)]
    lefts = [e["detections"][0]["box_xyxy"][0] for e in entries]
    assert np.allclose(lefts, 10 + np.arange(11), atol=3)


def test_a_video_that_states_no_rate_gets_25(place, fake, monkeypatch, capsys):
    make_video("in/clip.mp4")
    monkeypatch.setattr("engine.video.plausible_fps", lambda stated: None)
    assert run("in/clip.mp4") == 0
    assert "25 frames/s assumed" in capsys.readouterr().err
    capture = cv2.VideoCapture("out/clip.mp4")
    assert capture.get(cv2.CAP_PROP_FPS) == 25


def test_a_broken_video_does_not_stop_the_next(place, fake, capsys):
    (place / "in/bad.mp4").write_bytes(b"garbage" * 100)
    make_video("in/good.mp4")
    assert run("in") == 3
    assert sorted(os.listdir("out")) == ["good.mp4"]
    assert "bad.mp4: not a video" in capsys.readouterr().err


def test_a_batch_too_large_for_memory_ends_it_all_as_the_next_video_would_need_as_much(place, monkeypatch, capsys):
    make_video("in/a.mp4")
    make_video("in/b.mp4")

    def run_out(batch: int) -> None:
        raise MemoryRanOutError(f"finding objects: batch {batch}: too large")

    fake = FakePredictor(run_out)
    install(monkeypatch, fake)
    assert run("in") == 4
    assert "finding objects: batch 1: too large" in capsys.readouterr().err
    assert len(fake.batch_sizes) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_video_plays_up_to_there(place, monkeypatch, capsys, number, code):
    make_video("in/clip.mp4", frames=30)
    make_video("in/next.mp4")
    on_batch = lambda batch: signal.raise_signal(number) if batch == 3 else None  # noqa: E731
    install(monkeypatch, FakePredictor(on_batch))
    before = signal.getsignal(number)
    assert run("in/clip.mp4", "in/next.mp4", "--batch", "4", "--json", "all.json") == code
    assert signal.getsignal(number) == before
    assert frames_of("out/clip.mp4") == 12
    assert os.listdir("out") == ["clip.mp4"]
    assert "12 of 30 frames" in capsys.readouterr().err
    assert document()["complete"] is False


def test_interrupted_photos_keep_what_is_done(place, monkeypatch):
    for index in range(9):
        write_picture(f"in/{index}.png", picture())
    on_batch = lambda batch: signal.raise_signal(signal.SIGINT) if batch == 2 else None  # noqa: E731
    install(monkeypatch, FakePredictor(on_batch))
    assert run("in", "--batch", "2", "--json", "all.json") == 130
    assert sorted(os.listdir("out")) == ["0.png", "1.png", "2.png", "3.png"]
    assert len(document()["images"]) == 4


def test_the_second_interrupt_insists_and_leaves_no_half_file(place, monkeypatch):
    make_video("in/clip.mp4", frames=30)

    def twice(batch: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    install(monkeypatch, FakePredictor(twice))
    assert run("in/clip.mp4", "--json", "all.json") == 130
    assert os.listdir("out") == []
    assert not os.path.exists("all.json")


def test_a_camera_is_recorded_in_real_time_until_stopped(place, monkeypatch, capsys):
    script: list = []
    for _ in range(200):
        script += [picture()[..., ::-1], 0.01]
    capture = Capture(script, fps=50)
    monkeypatch.setattr(engine.video_prediction, "LiveVideo", partial(LiveVideo, capture=opener(capture)))

    def slow(batch: int) -> None:
        time.sleep(0.1)
        if batch == 4:
            signal.raise_signal(signal.SIGINT)

    install(monkeypatch, FakePredictor(slow))
    assert run("0", "--json", "all.json") == 130
    entries = document()["images"]
    assert len(entries) == 4
    assert entries[0]["detections"][0]["box_xyxy"] == BOX
    # Four pictures a tenth of a second apart, at 50 frames/s: at least 20 frames in the file.
    assert frames_of("out/webcam0.mp4") >= 20
    assert entries[3]["frame"] >= 15
    assert "Ctrl-C" in capsys.readouterr().err


def test_a_video_too_thin_for_the_network_is_named(place, fake, capsys):
    with writing_video(Path("in/thin.mp4"), 10, (2, 1000)) as sink:
        sink.write(np.zeros((2, 1000, 3), np.uint8))
    assert run("in/thin.mp4") == 3
    assert "in/thin.mp4: 1000x2 px: too thin" in capsys.readouterr().err


def test_of_a_camera_that_is_faster_than_its_file_each_frame_is_told_of_once(place, fake, monkeypatch):
    script: list = [picture()[..., ::-1]]
    for _ in range(60):
        script += [0.03, picture()[..., ::-1]]
    capture = partial(LiveVideo, capture=opener(Capture(script, fps=8)), reconnects=0)
    monkeypatch.setattr(engine.video_prediction, "LiveVideo", capture)
    assert run("rtsp://host/live", "--json", "all.json") == 4
    numbers = [entry["frame"] for entry in document()["images"]]
    assert len(set(numbers)) == len(numbers) > 2
    assert frames_of("out/stream_live.mp4") > numbers[-1]


@pytest.mark.parametrize("seconds", [0.0, 0.05], ids=["faster than the video", "slower"])
def test_of_a_video_on_a_server_every_frame_is_written_once(place, fake, monkeypatch, seconds):
    make_video("in/clip.mp4", frames=40)
    quick = fake.detect
    monkeypatch.setattr(fake, "detect", lambda *given: (time.sleep(seconds), quick(*given))[1])
    with serving(place / "in") as address:
        assert run(f"{address}/clip.mp4", "--json", "all.json") == 0
    found = document()["images"]
    (written,) = Path("out").glob("*.mp4")
    assert frames_of(str(written)) == 40
    assert run("in/clip.mp4", "--json", "all.json") == 0
    on_disk = document()["images"]
    assert [(one["frame"], one["detections"]) for one in found] == [
        (one["frame"], one["detections"]) for one in on_disk
    ]


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_stream_that_is_lost_keeps_what_came(place, fake, monkeypatch, capsys):
    lost = partial(LiveVideo, capture=opener(Capture([picture()[..., ::-1]] * 3)), reconnects=1, stall_timeout_s=0.05)
    monkeypatch.setattr(engine.video_prediction, "LiveVideo", lost)
    assert run("rtsp://host/live") == 4
    assert frames_of("out/stream_live.mp4") >= 1
    assert "did not help" in capsys.readouterr().err


def test_no_webcam_is_said(place, fake, monkeypatch, capsys):
    monkeypatch.setattr(engine.video_prediction, "LiveVideo", partial(LiveVideo, capture=opener()))
    assert run("0") == 4
    assert "webcam 0: no such webcam" in capsys.readouterr().err


def test_show_without_a_display_is_said_and_the_work_goes_on(place, fake, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    write_picture("in/a.png", picture())
    assert run("in", "--show") == 0
    assert "--show: there is no display here: going on" in capsys.readouterr().err
    assert os.path.exists("out/a.png")


def test_no_window_toolkit_is_no_viewer_either(monkeypatch):
    import matplotlib

    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "agg")
    assert "toolkit" in str(open_viewer())


def test_the_viewer_shows_pictures_of_changing_size():
    from matplotlib import pyplot

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyplot, "pause", lambda seconds: None)
        viewer = Viewer(pyplot)
        assert viewer.show(picture(), "a", wait=False)
        assert viewer.show(picture((30, 30), (0, 0, 5, 5)), "b", wait=False)
        viewer.close()
        assert not viewer.show(picture(), "c", wait=False)


def test_speed_is_measured_after_a_warm_up(place, fake, capsys):
    write_picture("in/a.png", picture())
    assert run("in", "--fps", "--batch", "2") == 0
    assert "median ms" in capsys.readouterr().out
    speed = measure_speed(FakePredictor(), [picture()], batch_size=2, batches=5)
    assert (speed.batch_size, speed.batches) == (2, 5)
    assert 0 < speed.median_ms <= speed.p95_ms
    assert measure_speed(FakePredictor(), [picture()], 1, limit_s=0.0).batches == 3


def test_what_is_kept_for_timing_is_what_was_read(place, fake):
    write_picture("in/a.png", picture())
    make_video("in/b.mp4", frames=3)
    options = PredictOptions(place / "out", batch_size=3)
    summary = predict_all(fake, find_sources(["in"]), options, Quiet())
    assert len(summary.samples) == 3
    assert (summary.samples[0] == picture()).all()
    with closing(VideoFile(Path("in/b.mp4"))) as video:
        assert np.array_equal(summary.samples[1:], video.read(2))


def test_names_that_are_not_text_survive(place, fake):
    name = os.fsdecode(b"in/caf\xe9.png")
    write_picture("in/a.png", picture())
    try:
        os.rename("in/a.png", name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert run("in", "--json", "all.json", "--csv", "all.csv", "--txt", "--count") == 0
    assert os.path.exists(os.fsdecode(b"out/caf\xe9.png"))
    assert document()["images"][0]["image"] == name


@pytest.mark.parametrize(
    ("name", "folder"), [("a/b", "a_b"), ("..", "_"), ("红 细", "红 细"), ("x\n", "x_"), ("", "_")]
)
def test_class_names_become_folders(name, folder):
    assert folder_name(name) == folder


def test_help_teaches_without_loading_tensorflow():
    code = "import predict, sys; sys.argv[1:] = ['--help']; predict.main()"
    check = "; assert not {'tensorflow', 'keras', 'cv2'} & set(sys.modules), 'loaded too early'"
    program = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nimport sys{check}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "python predict.py photo.jpg --weights" in done.stdout
