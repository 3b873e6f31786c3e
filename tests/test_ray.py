"""Workers started by Ray, on a cluster of this machine."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import classify
from engine import ray_workers
from engine.checkpoint import read_checkpoint
from engine.interrupts import StopRequest
from engine.launch import carry_out
from engine.ray_workers import Share, shares
from tests.conftest import ROOT
from tests.labelled_folders import draw_folders
from utils.cluster import read_cluster
from utils.command_line import training_request
from utils.config import RunConfig
from utils.door import run_door
from utils.errors import ConfigError
from utils.progress import Quiet, Reporter

LONGEST_S = 600


def test_without_ray_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_door(lambda: classify.main(["train", "--data", "pets", "--cluster", "ray"])) == 2
    said = capsys.readouterr().err
    assert said == "--cluster ray: Ray is not installed: pip install -r requirements-ray.txt\n"


def test_workers_run_the_command_without_what_is_said_to_the_launcher() -> None:
    words = [
        "--run-dir",
        "logs/a b",
        "--cluster",
        "ray",
        "--train.epochs=3",
        "--workers=2",
        "--train.freeze_epochs",
        "1",
    ]
    request = training_request("", RunConfig, words)
    assert (request.cluster, request.workers) == ("ray", 2)
    expected = ("train.py", "--run-dir", "logs/a b", "--train.epochs=3", "--train.freeze_epochs", "1")
    assert request.command == expected


@pytest.mark.parametrize(
    ("code", "saved", "words", "said"),
    [
        (143, True, [], "stopped; go on with: python train.py --resume {run} --cluster ray\n"),
        (130, True, ["--workers=3"], "stopped; go on with: python train.py --resume {run} --cluster ray --workers 3\n"),
        # There is nothing to go on with, or nothing was to be.
        (143, False, [], ""),
        (143, True, ["--dry-run"], ""),
        (0, True, [], ""),
        (4, True, [], ""),
    ],
)
def test_who_stops_a_run_on_ray_is_told_how_it_goes_on(
    code: int, saved: bool, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "run_on_ray", lambda *_: code)
    if saved:
        (tmp_path / "last").touch()
    request = training_request("", RunConfig, ["--cluster", "ray", "--run-dir", str(tmp_path), *words])
    told = io.StringIO()
    assert carry_out(request, Reporter(told)).exit_code == code
    assert told.getvalue() == said.format(run=tmp_path)


@pytest.mark.parametrize("words", [["--workers", "2"], ["--cluster", "ray", "--workers", "0"]])
def test_a_number_of_workers_needs_a_cluster_and_is_positive(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="--workers"):
        training_request("", RunConfig, words)


class FakeRay:
    """Gives what it is asked for at once."""

    get = staticmethod(lambda asked, timeout=None: asked)


class FakeHost:
    """A place whose worker ends with ``code`` after ``looks``, or by a signal where that is None."""

    def __init__(self, code: int | None, looks: int = 0) -> None:
        self.code, self.looks = code, looks
        self.signals: list[int] = []
        self.address, self.start, self.look, self.send = (
            SimpleNamespace(remote=act) for act in (self._address, self._start, self._look, self._send)
        )

    def _address(self) -> str:
        return f"host:{id(self)}"

    def _start(self, command: list[str], folder: str, variables: dict[str, str]) -> None:
        self.variables = variables

    def _look(self) -> tuple[list[str], int | None]:
        self.looks -= 1
        return ["no such file"] if self.code == 2 else [], self.code if self.looks < 0 else None

    def _send(self, number: int) -> None:
        self.signals.append(number)
        self.code = -number if self.code is None else self.code


def attended(hosts: list[FakeHost], reporter: Reporter | None = None, stopped: int = 0) -> int:
    stop = StopRequest()
    stop.exit_code = stopped
    return ray_workers._attended(FakeRay, hosts, ["train.py"], {}, reporter or Quiet(), stop)


@pytest.mark.parametrize(
    ("gpus", "workers", "share"),
    [
        ([8], 2, Share(8, 4, 0)),
        ([8], 3, Share(4, 2, 2)),
        ([4, 4], 8, Share(4, 1, 0)),
        ([2, 2, 2], 2, Share(16, 2, 2)),
        ([4, 1], 2, Share(8, 2, 1)),
        ([0, 4], 4, Share(4, 1, 0)),
        ([1, 1], 4, Share(8, 0, 2)),
        ([0, 0], 2, Share(16, 0, 0)),
        ([0], 40, Share(1, 0, 0)),
    ],
)
def test_workers_share_gpus_and_the_cores_beside_them(gpus: list[int], workers: int, share: Share) -> None:
    found = shares([{"CPU": 16.0, **({"GPU": float(count)} if count else {})} for count in gpus], workers)
    assert found == share
    # All find a place, whichever machines Ray takes first.
    room = [min(16 // found.cpus, count // found.gpus if found.gpus else 99) for count in gpus]
    assert sum(room) >= min(workers, 16 * len(gpus))


def test_the_smallest_of_the_machines_that_are_needed_decides_on_the_cores() -> None:
    assert shares([{"CPU": 32.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 2.0}], 2) == Share(8, 1, 0)
    assert shares([{"CPU": 32.0}, {"CPU": 8.0}], 2) == Share(8, 0, 0)


def test_a_machine_without_cores_is_no_place() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": cpus}} for cpus in (4.0, 0.0)]
    nodes += [{"Alive": False, "Resources": {"CPU": 4.0}}, {"Alive": True, "Resources": {}}]
    assert ray_workers._machines(SimpleNamespace(nodes=lambda: nodes)) == nodes[:1]


def test_every_worker_knows_its_place_and_what_it_may_see() -> None:
    hosts = [FakeHost(0), FakeHost(0)]
    code = ray_workers._attended(FakeRay, hosts, ["train.py"], {"CUDA_VISIBLE_DEVICES": "-1"}, Quiet(), StopRequest())
    assert code == 0
    for index, host in enumerate(hosts):
        assert host.variables["CUDA_VISIBLE_DEVICES"] == "-1"
        assert read_cluster(host.variables).index == index


@pytest.mark.parametrize(
    ("gpus", "workers", "hidden", "placed"),
    [
        (1.0, 2, True, {"num_cpus": 4, "num_gpus": 0}),
        (2.0, 2, False, {"num_cpus": 4, "num_gpus": 1}),
        # As many as there are GPUs beside cores.
        (2.0, None, False, {"num_cpus": 4, "num_gpus": 1}),
    ],
)
def test_gpus_that_do_not_go_round_are_hidden_from_all(
    monkeypatch: pytest.MonkeyPatch, gpus: float, workers: int | None, hidden: bool, placed: dict[str, int]
) -> None:
    asked: dict[str, Any] = {}
    hosts = [FakeHost(0), FakeHost(0)]
    places = iter(hosts)

    class Cluster(FakeRay):
        exceptions = SimpleNamespace(GetTimeoutError=KeyError, ActorUnschedulableError=KeyError, RayError=KeyError)
        nodes = staticmethod(
            lambda: [
                {"Alive": True, "Resources": {"CPU": 8.0, "GPU": gpus}},
                {"Alive": True, "Resources": {"CPU": 0.0, "GPU": 4.0}},
            ]
        )
        shutdown = staticmethod(lambda: None)

        @staticmethod
        def remote(host: type) -> Any:
            assert host is ray_workers.Host
            actor = SimpleNamespace(remote=lambda: next(places))
            return SimpleNamespace(options=lambda **words: asked.update(words) or actor)

    monkeypatch.setattr(ray_workers, "_connected", lambda: Cluster)
    assert ray_workers.run_on_ray(["train.py"], workers, Quiet()) == 0
    assert {name: asked[name] for name in placed} == placed
    assert [host.variables.get("CUDA_VISIBLE_DEVICES") for host in hosts] == ["-1" if hidden else None] * 2


@pytest.mark.parametrize("workers", [None, 2])
def test_a_cluster_without_a_core_is_said(monkeypatch: pytest.MonkeyPatch, workers: int | None) -> None:
    class Cluster(FakeRay):
        exceptions = SimpleNamespace(GetTimeoutError=KeyError, ActorUnschedulableError=KeyError, RayError=KeyError)
        nodes = staticmethod(lambda: [{"Alive": True, "Resources": {"CPU": 0.0}}])
        shutdown = staticmethod(lambda: None)

    monkeypatch.setattr(ray_workers, "_connected", lambda: Cluster)
    with pytest.raises(ConfigError, match="no machine of the cluster offers a CPU core"):
        ray_workers.run_on_ray(["train.py"], workers, Quiet())


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([143, 143], 130),
        # Killed while it starts, which the other misses.
        ([4, -15], 130),
        # At its very end there is nothing to go on with.
        ([0, 0], 0),
        # The disk was full, or else, when the state was saved.
        ([4, 143], 4),
        ([4, 4], 4),
        ([5, 4], 5),
        ([143, 3], 3),
    ],
)
def test_a_stop_hides_no_failure(codes: list[int], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "LOOK_EVERY_S", 0.01)
    assert attended([FakeHost(code) for code in codes], stopped=130) == expected


@pytest.mark.parametrize(("codes", "expected"), [([143, 143], 143), ([143, 4], 143), ([4, -9], 4)])
def test_workers_that_are_ended_one_by_one_say_how(
    codes: list[int], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "LOOK_EVERY_S", 0.01)
    assert attended([FakeHost(code) for code in codes]) == expected


def test_who_notices_a_failure_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "LOOK_EVERY_S", 0.01)
    noticing, failing = FakeHost(4, looks=3), FakeHost(2)
    assert attended([noticing, failing]) == 2
    assert noticing.signals == []


def test_a_worker_that_never_meets_the_others_does_not_keep_them_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "NOTICED_S", 0.1)
    monkeypatch.setattr(ray_workers, "LOOK_EVERY_S", 0.05)
    said: list[str] = []
    reporter = Quiet()
    monkeypatch.setattr(reporter, "say", said.append)
    waiting, failing = FakeHost(None), FakeHost(2)
    assert attended([waiting, failing], reporter) == 2
    assert waiting.signals == [signal.SIGTERM]
    # Nobody asked them to stop.
    assert attended([FakeHost(-9), FakeHost(143, looks=5)]) == 4
    assert set(said) == {f"worker 1 (host:{id(failing)}): no such file"}


@pytest.mark.slow
def test_ray_starts_workers_passes_on_what_the_first_says_and_stops_them(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")
    data, run = draw_folders(tmp_path / "data", train=4, val=3), tmp_path / "run"
    words = [
        *(f"--data={data}", "--backbone=mobilenet_v1_0.25_shallow", "--data.threads=1", "--model.input_size=32"),
        *("--train.freeze_epochs=0", "--train.batch_size=4", "--run-dir", str(run)),
    ]
    ray = ["--cluster", "ray", "--workers", "2"]
    door = [sys.executable, str(ROOT / "classify.py"), "train"]
    # Outside the checkout: relative paths and the program are found all the same.
    with (tmp_path / "said").open("w") as said:
        started = subprocess.Popen(
            [*door, *words, "--train.epochs=100000", *ray], cwd=tmp_path, stdout=said, stderr=said, env={**os.environ}
        )
    limit = time.monotonic() + LONGEST_S
    # `last` is there before the first epoch is validated and told of.
    while "epoch 1/100000: loss" not in (tmp_path / "said").read_text():
        assert started.poll() is None, (tmp_path / "said").read_text()
        assert time.monotonic() < limit
        time.sleep(0.2)
    started.send_signal(signal.SIGTERM)
    assert started.wait(LONGEST_S) == 143
    lines = (tmp_path / "said").read_text().splitlines()
    assert any(line.startswith("epoch 1/100000: loss") for line in lines)
    each = f"stopped; go on with: --resume {run}, on every worker"
    assert each in lines
    assert any(line.startswith("worker 1 (") and line.endswith(each) for line in lines)
    assert lines[-1] == f"stopped; go on with: python classify.py train --resume {run} --cluster ray --workers 2"
    assert read_checkpoint(run / "last").info["position"]["step"] > 0
