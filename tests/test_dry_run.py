"""A run tried before it is started: what is said, that nothing is kept, and how it fails."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import classify
from engine import dry_run, startup
from engine.classification_data import ClassificationDataset
from engine.dataset import Batch, Shard
from engine.learner import Learner
from tests.labelled_folders import CLASSES, draw_folders
from utils.classifier_config import ClassifierSpec
from utils.config import PhaseConfig, TrainConfig
from utils.door import run_door
from utils.image_folders import read_image_folders

SMALL = ["--backbone=mobilenet_v1_0.25_shallow", "--model.input_size=32", "--data.threads=1"]
SIZES = ["--train.freeze_batch_size=6", "--train.batch_size=4"]
PLAN = ["--train.freeze_epochs=2", "--train.epochs=12", "--train.eval_every=10", *SIZES]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folders(tmp_path_factory.mktemp("data"), train=4, val=3)


@pytest.fixture(autouse=True)
def no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU has no instructions for it, whatever this one has."""
    monkeypatch.setattr(startup, "cpu_has_bfloat16", lambda: False)


def dry(*words: str) -> int:
    return run_door(lambda: classify.main(["train", *SMALL, *PLAN, "--dry-run", *words]))


def test_every_phase_is_tried_and_nothing_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frozen: list[bool] = []
    begin = Learner.__init__

    def noting(self: Learner, task: Any, config: Any, strategy: Any, frozen_backbone: bool, average: Any) -> None:
        frozen.append(frozen_backbone)
        begin(self, task, config, strategy, frozen_backbone, average)

    monkeypatch.setattr(Learner, "__init__", noting)
    assert dry("--data", str(data), "--run-dir", "logs/run") == 0
    assert frozen == [True, False]
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().out
    assert re.search(r"epochs 1 to 2, batch 6, backbone frozen: [\d.]+ images/s .* 2 steps and ", said)
    assert re.search(r"epochs 3 to 12, batch 4, everything trains: [\d.]+ images/s .* 3 steps and ", said)
    # Every 10 epochs and after the last.
    assert re.search(r"measuring: .*, 2 times", said)
    assert re.search(r"^computing in float32 \(train.precision auto, by the devices here\)$", said, re.MULTILINE)
    assert "bfloat16" not in said
    for line in (r"memory: \d+ MiB", r"disk: \d+ MiB for checkpoints", r"the whole run: \d+", "problems"):
        assert re.search(f"^{line}", said, re.MULTILINE), line


@pytest.mark.parametrize(("half", "advice"), [(0.01, ": try --train.precision mixed_bfloat16"), (0.049, "")])
def test_where_the_cpu_has_bfloat16_steps_in_both_types_are_compared(
    half: float,
    advice: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = 0.0

    def step(self: Learner, batch: Batch, rate: float) -> np.ndarray:
        nonlocal clock
        del batch, rate
        in_half = self.precision == "mixed_bfloat16"
        clock += half if in_half else 0.05
        # What the run does not compute in is no reason to end.
        return np.full(2, np.nan if in_half else 1.0, np.float32)

    monkeypatch.setattr(startup, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(Learner, "train_step", step)
    monkeypatch.setattr(dry_run.time, "monotonic", lambda: clock)
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "run")) == 0
    line = f"in mixed_bfloat16 a step of the last phase takes {half:.3f} s, in float32 0.050 s{advice}\n"
    assert line in capsys.readouterr().out


def test_what_each_phase_takes_once_is_part_of_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = 0.0
    begun: set[int] = set()

    def step(self: Learner, batch: Batch, rate: float) -> np.ndarray:
        nonlocal clock
        del batch, rate
        clock += 0.05 if id(self) in begun else 30.05
        begun.add(id(self))
        return np.ones(2, np.float32)

    monkeypatch.setattr(Learner, "train_step", step)

    def draw(history: list[dict[str, Any]], path: Path, parts: Any, curves: dict[str, str]) -> None:
        nonlocal clock
        clock += 3.0
        # What no epoch has gets no panel, which would take less time.
        assert curves.keys() <= history[0].keys()

    monkeypatch.setattr(dry_run, "plot_curves", draw)
    monkeypatch.setattr(dry_run.time, "monotonic", lambda: clock)
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "run")) == 0
    said = capsys.readouterr().out
    assert "drawing curves: 3 s, 12 times\n" in said
    # Two epochs of 2 steps and ten of 3, and the curves after each.
    assert "reading the data and making graphs: 1 min 0 s\nthe whole run: 1 min 38 s\n" in said


def test_steps_in_bfloat16_are_really_taken(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(startup, "cpu_has_bfloat16", lambda: True)
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "run")) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"^in mixed_bfloat16 a step of the last phase takes 0\.\d+ s, in float32 0\.\d+ s", said, re.MULTILINE
    )


def test_with_inputs_of_many_sizes_the_largest_is_tried_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[Learner, int]] = []

    def idle(self: Learner, batch: Batch, rate: float) -> np.ndarray:
        del rate
        steps.append((self, batch.images.shape[1]))
        return np.ones(2, np.float32)

    monkeypatch.setattr(Learner, "train_step", idle)
    wide = ["--model.input_size=64", "--train.multi_scale=0.5"]
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "run"), *wide) == 0
    phases = [[side for _, side in taken] for _, taken in itertools.groupby(steps, key=lambda step: step[0])]
    assert len(phases) == 2
    for sides in phases:
        first, timed = sides[: -dry_run.STEPS], sides[-dry_run.STEPS :]
        assert first[0] == 96
        # Then every other size once, so that no time is that of a first time.
        assert len(set(first)) == len(first)
        assert set(timed) <= set(first) <= {32, 64, 96}
    assert len({side for _, side in steps}) > 1


def test_steps_are_of_the_first_and_of_the_highest_rate_of_their_phase(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    averaged: list[bool] = []

    def idle(self: Learner, batch: Batch, rate: float) -> np.ndarray:
        del batch
        rates.append(rate)
        averaged.append(self.average is not None)
        return np.ones(2, np.float32)

    monkeypatch.setattr(Learner, "train_step", idle)
    words = ["--train.optimizer=sgd", "--train.learning_rate=0.01", "--train.scale_learning_rate=true"]
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "run"), *words, "--train.ema_decay=0.9") == 0
    assert all(averaged)
    # Batches of 6: 6/64 of the rate, at first a tenth, after a warm-up of one epoch all; of 4: 4/64, a tenth along the
    # cosine, from where it falls.
    assert [rate for rate, _ in itertools.groupby(rates)] == pytest.approx([9.375e-5, 9.375e-4, 6.098e-4], rel=1e-3)


def test_a_rate_that_only_a_warm_up_may_survive_is_a_problem_but_no_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        Learner, "train_step", lambda self, batch, rate: np.array([np.nan if rate > 9.9e-4 else 1.0, 1.0])
    )
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "run"), "--train.learning_rate=0.001") == 0
    said = capsys.readouterr().out
    assert "train.learning_rate: 0.001: no number is left after a few steps at 0.001, the highest rate" in said


def test_averages_need_room_on_the_disk(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed = []
    for decay in ("0", "0.9"):
        assert dry("--data", str(data), "--run-dir", str(tmp_path / "run"), f"--train.ema_decay={decay}") == 0
        (line,) = re.findall(r"^disk: (\d+) MiB for checkpoints", capsys.readouterr().out, re.MULTILINE)
        needed.append(int(line))
    assert needed[1] > needed[0]


def test_a_folder_that_cannot_be_written_to_is_a_problem(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Permissions do not bind root, as whom tests may run.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "run")) == 0
    assert f"{tmp_path}: cannot be written to: give another --run-dir" in capsys.readouterr().out


def test_a_machine_that_is_too_small_is_a_problem_and_so_is_slow_data(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dry_run, "usable_memory_mib", lambda: 10.0)
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    monkeypatch.setattr(Learner, "train_step", lambda *_: np.ones(2, np.float32))
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "run")) == 0
    problems = capsys.readouterr().out.partition("problems:\n")[2]
    assert re.search(r"memory: \d+ MiB of the 10 MiB that may be used here are used", problems)
    assert re.search(rf"{tmp_path}: 0 MiB are free: the checkpoints need \d+ MiB", problems)
    assert re.search(r"batch 6: its data takes longer \(\S+ s\) than the step", problems)


def test_what_would_end_the_run_ends_the_trial_with_the_same_code(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "run"), "--train.batch_size=13") == 2
    assert "the largest batch that works is 12" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "run")) == 2
    assert "holds a run already" in capsys.readouterr().err
    monkeypatch.setattr(Learner, "train_step", lambda *_: np.array([np.nan, 0.0]))
    assert dry("--data", str(data), "--run-dir", str(tmp_path / "new")) == 5
    assert "train.learning_rate" in capsys.readouterr().err
    monkeypatch.undo()
    broken = draw_folders(tmp_path / "broken", train=4, val=3)
    next((broken / "train" / "bar").iterdir()).write_bytes(b"")
    assert dry("--data", str(broken), "--run-dir", str(tmp_path / "new")) == 3
    assert not (tmp_path / "new").exists()


def test_a_dry_run_is_of_a_new_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_door(lambda: classify.main(["train", "--resume", str(tmp_path), "--dry-run"])) == 2
    assert "--dry-run: tries a new run" in capsys.readouterr().err


def test_a_worker_is_timed_with_the_photos_that_it_will_learn_from(data: Path) -> None:
    images = read_image_folders(str(data)).train
    dataset = ClassificationDataset(images, ClassifierSpec(CLASSES, "none", 32), seed=1)
    half, phase = Shard(1, 2), PhaseConfig(1, 4, False)
    worker = SimpleNamespace(
        task=SimpleNamespace(train_data=dataset),
        workers=SimpleNamespace(shard=half),
        config=SimpleNamespace(train=TrainConfig(accumulate=2)),
    )
    trial = dry_run._trial(worker, phase, 0)  # type: ignore[arg-type]
    first = next(dataset.training_batches(0, 8, 0, half, 2))
    assert trial.timed[0].paths == first.paths != next(dataset.training_batches(0, 8, 0, half)).paths
