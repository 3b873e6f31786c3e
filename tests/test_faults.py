"""What may happen to a training run while it goes on, each done to a real one in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoint import Checkpoint, read_checkpoint
from tests import fault_runs
from tests.fault_runs import STEPS, AfterStep, Fault, FillDisk, stop_after
from utils.config import PhaseConfig, RunConfig
from utils.errors import FileError

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.fault_runs"])
LONGEST_S = 120
NOTICED_S = 30
"""What a signal and a dead thread may take to end a run: 10 s, and what a busy machine adds."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return fault_runs.tiny_config(tmp_path_factory.mktemp("data"))


def often_saved(config: RunConfig, epochs: int = 4) -> RunConfig:
    phases = (PhaseConfig(1, 2, True), PhaseConfig(epochs, 2, False))
    return replace(config, train=replace(config.train, phases=phases, save_steps=1))


def log_of(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


def steps_logged(run: Path) -> int:
    return log_of(run).stat().st_size if log_of(run).exists() else 0


def said(run: Path) -> str:
    """What the runs there said on stderr so far; never a traceback."""
    text = Path(f"{log_of(run)}.err").read_text()
    assert "Traceback" not in text, text
    return text


def start(config: RunConfig, run: Path, *faults: Fault, anyway: bool = False) -> Any:
    arguments = config, run, log_of(run), faults, anyway
    # As a daemon it ends with the tests, whatever becomes of them.
    process = PROCESSES.Process(target=fault_runs.door, args=arguments, daemon=True)
    process.start()
    return process


def exit_code_of(process: Any) -> int:
    """Waits for the end of ``process``; fails where it does not come."""
    process.join(LONGEST_S)
    if process.is_alive():
        process.kill()
        pytest.fail(f"a run did not end within {LONGEST_S} s")
    return process.exitcode


def ended(config: RunConfig, run: Path, *faults: Fault, anyway: bool = False) -> int:
    """The exit code of a run that nobody disturbs from outside."""
    return exit_code_of(start(config, run, *faults, anyway=anyway))


def wait_for_steps(process: Any, run: Path, steps: int) -> None:
    limit = time.monotonic() + LONGEST_S
    while process.is_alive() and steps_logged(run) < steps:
        assert time.monotonic() < limit
        time.sleep(0.001)


def step_of(checkpoint: Checkpoint) -> int:
    return checkpoint.info["position"]["step"]


def last_digest(run: Path) -> str:
    return read_checkpoint(run / "last").digest()


@dataclass
class Toll:
    """What a series of kills came to."""

    kills: int = 0
    loaded: int = 0
    unloadable: int = 0
    lost: list[int] = field(default_factory=list)


def newest_step(run: Path, toll: Toll) -> int:
    """The step that the run would go on from."""
    names = [name for name in ("last", "previous") if (run / name).exists()]
    for name in names:
        with contextlib.suppress(FileError):
            step = step_of(read_checkpoint(run / name))
            toll.loaded += 1
            return step
    toll.unloadable += bool(names)
    return 0


def kill_often(config: RunConfig, run: Path, kills: int, *faults: Fault, seed: int = 0) -> Toll:
    """Kills a run, and what goes on from it, at random moments; stops at the first state that cannot be loaded."""
    rng, toll = random.Random(seed), Toll()
    saved = 0
    while toll.kills < kills and not toll.unloadable:
        process, before = start(config, run, *faults), steps_logged(run)
        if rng.random() < 0.9:
            wait_for_steps(process, run, before + rng.randint(1, 3))
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, said(run)
        toll.kills += 1
        done, saved = saved + steps_logged(run) - before, newest_step(run, toll)
        toll.lost.append(done - saved)
    return toll


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_loses_at_most_one_save_interval_and_learns_the_same(
    config: RunConfig, tmp_path: Path, kills: int
) -> None:
    saves, run, other = often_saved(config, epochs=200), tmp_path / "run", tmp_path / "other"
    toll = kill_often(saves, run, kills)
    assert (toll.kills, toll.unloadable) == (kills, 0)
    assert toll.loaded >= kills / 2
    # The step that was done but not yet saved.
    assert set(toll.lost) <= {0, 1}

    behind = step_of(read_checkpoint(run / "last"))
    more = STEPS - behind % STEPS + 1
    assert ended(saves, run, stop_after(more)) == 143
    assert ended(saves, other, stop_after(behind + more)) == 143
    assert last_digest(run) == last_digest(other)
    # What the killed ones were writing is gone.
    assert {path.name for path in run.iterdir()} == {path.name for path in other.iterdir()}


def test_checkpoints_written_in_place_would_be_found_out(config: RunConfig, tmp_path: Path) -> None:
    toll = kill_often(often_saved(config, epochs=200), tmp_path / "run", 20, fault_runs.write_in_place)
    assert toll.unloadable == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_the_step_under_way_with_its_state_saved(
    config: RunConfig, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    process = start(often_saved(config, epochs=200), run)
    wait_for_steps(process, run, 2)
    os.kill(process.pid, number)
    sent, at_signal = time.monotonic(), steps_logged(run)
    assert exit_code_of(process) == 128 + number
    assert time.monotonic() - sent < NOTICED_S
    assert "go on with: python train.py --resume" in said(run)
    assert steps_logged(run) <= at_signal + 2
    assert step_of(read_checkpoint(run / "last")) == steps_logged(run)


def test_the_order_of_checkpoints_goes_by_step_and_damage_by_the_checksum(config: RunConfig, tmp_path: Path) -> None:
    saves = replace(config, train=replace(config.train, save_steps=2))
    run, other = tmp_path / "run", tmp_path / "other"
    assert ended(saves, run, stop_after(5)) == 143
    assert ended(saves, other, stop_after(8)) == 143
    # The clock was set back after `previous` was written.
    os.utime(run / "last", (0, 0))
    os.utime(run / "previous", (4e9, 4e9))
    shutil.copytree(run, tmp_path / "damaged")
    assert ended(saves, run, stop_after(3)) == 143
    assert f"resuming {run / 'last'}: epoch 2, step 3" in said(run)
    assert last_digest(run) == last_digest(other)

    run = tmp_path / "damaged"
    content = bytearray((run / "last").read_bytes())
    content[random.Random(1).randrange(len(content))] ^= 1
    (run / "last").write_bytes(content)
    assert ended(saves, run, stop_after(4)) == 143
    assert f"the file is damaged; use another checkpoint of the run; going on from {run / 'previous'}" in said(run)
    assert f"resuming {run / 'previous'}: epoch 2, step 2" in said(run)
    assert (run / "last.damaged").read_bytes() == content
    assert last_digest(run) == last_digest(other)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(("save_steps", "room"), [(1, 0), (0, 350_000)])
def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(
    config: RunConfig, small_disk: Path, save_steps: int, room: int
) -> None:
    # The room is enough for `best`, not for `last`.
    config = replace(config, train=replace(config.train, save_steps=save_steps))
    run = small_disk / "run"
    assert ended(config, run, AfterStep(STEPS + 1, FillDisk(small_disk, room))) == 4
    assert "cannot be written: No space left on device" in said(run).splitlines()[-1]
    assert step_of(read_checkpoint(run / "last")) == STEPS
    (small_disk / "ballast").unlink()
    assert ended(config, run, stop_after(1)) == 143
    assert step_of(read_checkpoint(run / "last")) == STEPS + 1


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_leaves_the_one_before(
    config: RunConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert ended(often_saved(config), run, AfterStep(STEPS + 2, fault_runs.limit_file_size)) == 4
    assert f"{run / 'last'}: cannot be written: File too large" in said(run).splitlines()[-1]
    assert step_of(read_checkpoint(run / "last")) == STEPS + 1
    assert not [path for path in run.iterdir() if path.name.startswith(".last")]


def test_an_exploding_loss_ends_the_run_before_its_weights_are_saved(config: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ended(config, run, AfterStep(STEPS, fault_runs.explode)) == 5
    line = said(run).splitlines()[-1]
    assert f"{run}: epoch 2 step 2: the loss is not a number any more" in line
    assert line.count(".png") == 2
    assert step_of(read_checkpoint(run / "last")) == STEPS


def test_a_batch_that_does_not_fit_into_memory_is_named(config: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ended(config, run, AfterStep(STEPS + 1, fault_runs.need_too_much_memory)) == 4
    assert f"{run}: batch size: 2: does not fit into memory" in said(run).splitlines()[-1]
    assert step_of(read_checkpoint(run / "last")) == STEPS


def test_a_data_thread_that_dies_is_named_and_the_state_saved(config: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(config, run, AfterStep(1, fault_runs.end_the_reading_thread))
    wait_for_steps(process, run, 1)
    died = time.monotonic()
    assert exit_code_of(process) == 3
    assert time.monotonic() - died < NOTICED_S
    assert ".png: RuntimeError: the decoder died" in said(run).splitlines()[-1]
    # Batches were made ahead.
    assert 1 <= step_of(read_checkpoint(run / "last")) == steps_logged(run)


@pytest.mark.parametrize(("photos", "steps"), [(2 * STEPS - 2, STEPS - 1), (2 * STEPS + 1, STEPS)])
def test_a_disk_that_does_not_answer_is_told_of_and_a_signal_saves_the_state(
    config: RunConfig, tmp_path: Path, photos: int, steps: int
) -> None:
    # While it learns, and while it validates.
    run = tmp_path / "run"
    process = start(config, run, fault_runs.HangReading(photos))
    wait_for_steps(process, run, steps)
    limit = time.monotonic() + LONGEST_S
    while "no data for" not in said(run):
        assert time.monotonic() < limit
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert exit_code_of(process) == 143
    assert re.search(r"still waiting for \S+\.png: does its disk or its network answer\?", said(run))
    assert re.search(r"ends without waiting for \S+\.png$", said(run))
    assert step_of(read_checkpoint(run / "last")) == steps_logged(run) == steps


@pytest.mark.parametrize("steps", [0, STEPS])
def test_a_first_step_of_a_phase_that_takes_long_is_left(config: RunConfig, tmp_path: Path, steps: int) -> None:
    run = tmp_path / "run"
    process = start(config, run, fault_runs.HangInStep(steps + 1))
    # It has changed the weights by then.
    wait_for_steps(process, run, steps + 1)
    os.kill(process.pid, signal.SIGTERM)
    sent = time.monotonic()
    assert exit_code_of(process) == 143
    assert time.monotonic() - sent < NOTICED_S
    assert said(run).splitlines()[-1] == "ends without waiting for the first step of a phase"
    assert step_of(read_checkpoint(run / "last")) == steps

    assert ended(config, run) == ended(config, tmp_path / "whole") == 0
    assert last_digest(run) == last_digest(tmp_path / "whole")


def test_an_image_that_vanishes_is_named_and_the_state_saved(tmp_path: Path) -> None:
    own, run = fault_runs.tiny_config(tmp_path / "data"), tmp_path / "run"
    assert ended(own, run, AfterStep(1, partial(shutil.rmtree, tmp_path / "data" / "train"))) == 3
    assert ".png: no such image" in said(run).splitlines()[-1]
    assert 1 <= step_of(read_checkpoint(run / "last")) == steps_logged(run)


def test_another_seed_is_refused_and_taken_when_that_is_asked_for(config: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ended(config, run, stop_after(1)) == 143
    changed = replace(config, train=replace(config.train, seed=config.train.seed + 1))
    assert ended(changed, run) == 2
    assert said(run).splitlines()[-1].endswith("restore it, or go on with --resume-anyway")
    first = read_checkpoint(run / "last").info["position"]
    assert first["epoch_step"] > 0
    assert ended(changed, run, stop_after(1), anyway=True) == 143
    assert "going on anyway: train.seed: was" in said(run)
    # What is left of an epoch in another order is not what was left of this one.
    assert f"epoch {first['epoch'] + 1} begins anew: its steps have other photos now" in said(run)
    then = read_checkpoint(run / "last").info["position"]
    assert then["epoch_step"] == then["step"] - first["step"]
    # The optimizer goes on with what it knows.
    (updates,) = (
        v for name, v in read_checkpoint(run / "last").group("optimizer").items() if name.endswith("/iteration")
    )
    assert updates == then["step"]


def test_a_second_process_is_refused_and_the_first_goes_on(config: RunConfig, tmp_path: Path) -> None:
    run, saves = tmp_path / "run", often_saved(config, epochs=200)
    first = start(saves, run)
    wait_for_steps(first, run, 2)
    assert ended(saves, run) == 2
    assert f"{run}: another process trains here" in said(run).splitlines()[-1]
    wait_for_steps(first, run, steps_logged(run) + 1)
    assert first.is_alive()
    first.kill()
    first.join()
