from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from rich.console import Console

import benchmark
import engine.benchmark
from engine.benchmark import BenchmarkRequest, WorkerError, run_benchmark
from tests.conftest import ROOT
from tests.echo_task import echo
from utils.benchmark_report import Row, benchmark_figure, benchmark_table, draw_benchmark, write_benchmark
from utils.door import run_door
from utils.progress import Quiet

ROWS = [
    Row("checkpoint", Path("best"), "tensorflow", "float32", 80.0, 95.5, 10.0, 150.0, 900.0, 0.8),
    Row("onnx-int8", Path("best_int8.onnx"), "onnxruntime", "int8", 20.0, 21.0, 45.0, 40.0, 170.0, 0.795),
    Row("litert", Path("best.tflite"), problem="litert: is not installed"),
]


def test_the_table_holds_every_row_in_eighty_columns_and_says_why_one_is_empty():
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(benchmark_table(ROWS, "best", 8))
    text = console.export_text()
    assert "…" not in text
    assert "litert: is not installed" in text
    for number in ("80.0", "95.5", "45.0", "150.0", "170", "0.7950"):
        assert number in text


def test_json_holds_the_numbers(tmp_path):
    write_benchmark(ROWS, {"batch": 8}, tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["batch"] == 8
    assert [row["images_per_s"] for row in document["rows"]] == [10.0, 45.0, None]
    assert document["rows"][2]["problem"] == "litert: is not installed"


def test_the_chart_has_a_bar_a_measured_row_the_fastest_on_top(tmp_path):
    (axes,) = benchmark_figure(ROWS, "best", "here").axes
    assert [bar.get_width() for bar in axes.patches] == [45.0, 10.0]
    assert "45.0  (4.5x)\nint8, mAP 0.795" in [text.get_text() for text in axes.texts]
    draw_benchmark(ROWS, "best", "here", tmp_path / "a.png")
    assert cv2.imread(str(tmp_path / "a.png")).shape[1] > 600
    draw_benchmark(ROWS[2:], "best", "here", tmp_path / "none.png")


class Detectors:
    """Stands in for the processes: what each answers, and in what order they are asked."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.asked: list[str] = []
        self.exported: list[str] = []

    def process(self, task, first, *given):
        import contextlib

        @contextlib.contextmanager
        def run():
            yield self.ask_export(given[0], given[1]) if task.__name__ == "export" else self.ask(Path(first).name)

        return run()

    def ask_export(self, name, folder):
        def ask():
            self.exported.append(name)
            if name in self.broken:
                raise WorkerError(f"{name} is not installed")
            return []

        return ask

    def ask(self, name):
        def ask(*question):
            if question and question[0] == "time":
                self.asked.append(name)
                if name in self.broken:
                    raise WorkerError("its process ended with -9: out of memory?")
                return [(0.1 * question[1], 0.05 * question[1])] * question[2]
            return {(): ("some runtime", "float32"), ("memory",): 100.0, ("map",): 0.5}[question]

        return ask


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "best").touch()
    return tmp_path / "best"


def run(monkeypatch, checkpoint, detectors, **changes):
    monkeypatch.setattr(engine.benchmark, "_process", detectors.process)
    formats = ("onnx", "saved_model", "onnx-int8")
    request = BenchmarkRequest(checkpoint, checkpoint.parent / "export", formats, rounds=3, **changes)
    return run_benchmark(request, Quiet())


def test_detectors_take_turns_and_what_cannot_run_says_why(monkeypatch, checkpoint):
    detectors = Detectors("saved_model")
    rows = run(monkeypatch, checkpoint, detectors, list_file="list.txt")
    assert [row.name for row in rows] == ["checkpoint", "onnx", "saved_model", "onnx-int8"]
    assert [row.problem.partition(":")[0] for row in rows] == [
        "",
        "",
        "saved_model is not installed",
        "--calibrate LIST",
    ]
    assert detectors.asked == ["best", "best", "best.onnx", "best.onnx"] * 3
    first = rows[0]
    assert (first.median_ms, first.p95_ms, first.images_per_s, first.cpu_ms) == pytest.approx((100, 100, 10, 50))
    assert first.cpu_alone_ms == pytest.approx(50)
    assert (first.peak_mb, first.map_50, first.runtime) == (100.0, 0.5, "some runtime")
    assert rows[2].images_per_s is None


def test_further_files_are_measured_as_they_are(monkeypatch, checkpoint):
    detectors = Detectors()
    files = [Path("a/best_half.onnx"), Path("b/best_half.onnx")]
    rows = run(monkeypatch, checkpoint, detectors, calibrate="list.txt", files=files)
    assert [(row.name, row.path) for row in rows[4:]] == [("best_half.onnx", file) for file in files]
    assert all(row.cpu_ms for row in rows)
    assert detectors.asked[-2:] == ["best_half.onnx"] * 2
    assert detectors.exported == ["onnx", "saved_model", "onnx-int8"]


def test_a_long_name_is_folded_and_no_number_is_lost():
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(benchmark_table([*ROWS, replace(ROWS[1], name="best_nms_dynamic_half_openvino")], "best", 8))
    assert "…" not in console.export_text()


def test_a_detector_that_dies_does_not_end_the_others(monkeypatch, checkpoint):
    rows = run(monkeypatch, checkpoint, Detectors("best.onnx"), calibrate="list.txt")
    assert "out of memory" in rows[1].problem
    assert [row.images_per_s is None for row in rows] == [False, True, False, False]


def test_files_that_are_there_are_used_unless_they_are_older_than_the_checkpoint(monkeypatch, checkpoint):
    folder = checkpoint.parent / "export"
    folder.mkdir()
    for name in ("best.onnx", "best_saved_model"):
        (folder / name).touch()
    os.utime(folder / "best_saved_model", (1, 1))
    detectors = Detectors()
    run(monkeypatch, checkpoint, detectors, calibrate="list.txt")
    assert detectors.exported == ["saved_model", "onnx-int8"]


def test_a_process_answers_fails_and_dies_in_words():
    with engine.benchmark._process(echo, "first") as ask:
        assert ask() == "first"
        assert ask("second") == "second"
        with pytest.raises(WorkerError, match="this cannot be"):
            ask("wrong")
    with engine.benchmark._process(echo, "first") as ask:
        ask()
        with pytest.raises(WorkerError, match="ended with 7"):
            ask("die")


def test_the_door_refuses_what_it_does_not_know(tmp_path, capsys):
    assert run_door(lambda: benchmark.main([str(tmp_path)])) == 4
    assert run_door(lambda: benchmark.main([str(tmp_path), "--format", "onyx"])) == 2
    (tmp_path / "best").touch()
    assert run_door(lambda: benchmark.main([str(tmp_path), "--files", str(tmp_path / "best_half.onnx")])) == 4
    assert "best_half.onnx" in capsys.readouterr().err
    assert run_door(lambda: benchmark.main([str(tmp_path), "--format", "onyx"])) == 2
    assert "onyx" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_benchmark_of_a_small_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    from tests.small_run import write_run

    write_run(tmp_path / "run")
    monkeypatch.chdir(ROOT)
    words = [str(tmp_path / "run"), "--format", "onnx", "--rounds", "2"]
    assert benchmark.main(words) is None
    shutil.move(tmp_path / "run" / "export" / "best.onnx", tmp_path / "moved.onnx")
    assert benchmark.main([*words, "--files", str(tmp_path / "moved.onnx")]) is None
    document = json.loads((tmp_path / "run" / "benchmark" / "benchmark.json").read_text())
    assert [(row["name"], row["problem"]) for row in document["rows"]] == [
        ("checkpoint", ""),
        ("onnx", ""),
        ("moved.onnx", ""),
    ]
    assert all(row["images_per_s"] > 0 and row["peak_mb"] > 50 for row in document["rows"])
    assert all(row["cpu_ms"] > 0 and row["cpu_alone_ms"] > 0 for row in document["rows"])
    assert (tmp_path / "run" / "benchmark" / "benchmark.png").stat().st_size > 5000
