"""Workers on a Ray cluster. Ray finds the machines; the workers are the same processes that TF_CONFIG starts by hand.

Plain actors, not Ray Train: Train runs the loop in a thread, where no signal can ask it to stop, and brings a
checkpoint store and a data layer (pandas, pyarrow) beside those that are here already.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from engine.interrupts import SIGNALLED, StopRequest, stop_on_signals
from utils.cluster import VARIABLE, Cluster
from utils.errors import ConfigError, LostWorkerError
from utils.progress import Reporter

ROOT = Path(__file__).resolve().parent.parent
PLACING_S = 60
LOOK_EVERY_S = 0.5
NOTICED_S = 60
"""Seconds that the others have to notice that one has failed: twice SILENT_S of engine.workers, not imported here since
that would load TensorFlow."""


class Host:
    """A place on the cluster that runs one worker process and tells what it says."""

    def address(self) -> str:
        """host:port where a worker can listen."""
        import ray

        with socket.create_server(("", 0)) as free:
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def start(self, command: Sequence[str], folder: str, variables: Mapping[str, str]) -> None:
        """Opens the door that ``command`` names, in ``folder``, with ``variables`` added to the environment."""
        script, *arguments = command
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / script), *arguments],
            cwd=folder,
            env={**os.environ, **variables, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
        )
        self.lines: SimpleQueue[str] = SimpleQueue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def look(self) -> tuple[list[str], int | None]:
        """What was said since, and the exit code once the worker has ended and all is told."""
        over = not self.reader.is_alive()
        lines = []
        try:
            while True:
                lines.append(self.lines.get_nowait())
        except Empty:
            return lines, self.process.wait() if over else None

    def send(self, number: int) -> None:
        """Sends the worker a signal, if it still runs."""
        self.process.send_signal(number)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.put(line.rstrip("\n"))


def run_on_ray(command: Sequence[str], workers: int | None, reporter: Reporter) -> int:
    """Runs ``command`` once per worker, on the cluster of RAY_ADDRESS or one of this machine. The exit code of all.

    The first of the workers tells; what others say is marked. ConfigError when Ray is not installed, cannot be reached
    or has no place; LostWorkerError when a machine is gone.
    """
    ray = _connected()
    count = workers or 0
    try:
        machines = _machines(ray)
        if not machines:
            raise ConfigError("--cluster ray: no machine of the cluster offers a CPU core: start one that does")
        # A worker per GPU, or per machine where there is none.
        offers = [machine["Resources"] for machine in machines]
        count = count or sum(int(offer.get("GPU", 0)) for offer in offers) or len(machines)
        share = shares(offers, count)
        unused = f"; GPUs that stay unused: {share.left}" if share.left else ""
        reporter.say(f"workers on Ray: {count}, each with CPU cores: {share.cpus}, GPUs: {share.gpus}{unused}")
        placed = ray.remote(Host).options(scheduling_strategy="SPREAD", num_cpus=share.cpus, num_gpus=share.gpus)
        hosts = [placed.remote() for _ in range(count)]
        # Ray hides the GPUs of who has some from who has others, but none from who has none.
        variables = {} if share.gpus else {"CUDA_VISIBLE_DEVICES": "-1"}
        with stop_on_signals() as stop:
            return _attended(ray, hosts, command, variables, reporter, stop)
    except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnschedulableError) as error:
        raise ConfigError(f"--workers: {count}: Ray has no room for so many within {PLACING_S} s") from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise LostWorkerError(f"Ray: {reason}: start again with --resume") from error
    finally:
        ray.shutdown()


def _connected() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--cluster ray: Ray is not installed: pip install -r requirements-ray.txt") from error
    try:
        # Ray finds RAY_ADDRESS itself, and starts a cluster of this machine where there is none.
        ray.init(logging_level="ERROR", log_to_driver=False)
    except Exception as error:  # Ray raises plain Exception where its own processes do not come up in time
        address = os.environ.get("RAY_ADDRESS", "not set")
        raise ConfigError(f"RAY_ADDRESS: {address}: {str(error).splitlines()[0]}") from error
    return ray


def _machines(ray: Any) -> list[Any]:
    # A head often offers no core.
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


@dataclass(frozen=True)
class Share:
    """What each worker gets."""

    cpus: int
    gpus: int
    left: int
    """GPUs that nobody gets."""


def shares(machines: Sequence[Mapping[str, float]], workers: int) -> Share:
    """The most GPUs that ``workers`` can have alike, and the cores of the machines that have them.

    ``machines`` are what Ray calls their resources. Where GPUs do not go round nobody has one.
    """
    gpus = [int(machine.get("GPU", 0)) for machine in machines]
    sizes = range(max(gpus, default=0), 0, -1)
    each = next((size for size in sizes if sum(count // size for count in gpus) >= workers), 0)
    # So many workers a machine may have to take.
    places = [count // each if each else -(-workers // len(machines)) for count in gpus]
    cores = [machine["CPU"] // place for machine, place in zip(machines, places, strict=True) if place]
    return Share(max(1, int(min(cores))), each, sum(gpus) - each * workers)


def _attended(
    ray: Any,
    hosts: list[Any],
    command: Sequence[str],
    variables: Mapping[str, str],
    reporter: Reporter,
    stop: StopRequest,
) -> int:
    cluster = Cluster(tuple(ray.get([host.address.remote() for host in hosts], timeout=PLACING_S)))
    folder = os.getcwd()
    of_each = [{**variables, VARIABLE: cluster.tf_config(index)} for index in range(len(hosts))]
    ray.get([host.start.remote(command, folder, own) for host, own in zip(hosts, of_each, strict=True)])
    codes: list[int | None] = [None]
    told = False
    failed_at: float | None = None
    while None in codes:
        time.sleep(LOOK_EVERY_S)
        if failed_at is None and any(codes):
            failed_at = time.monotonic()
        # Who has not met the others yet would wait for one that failed before that.
        missed = failed_at is not None and time.monotonic() - failed_at > NOTICED_S
        if (stop.made or missed) and not told:
            told = True
            ray.get([host.send.remote(signal.SIGTERM) for host in hosts])
        looks = ray.get([host.look.remote() for host in hosts])
        for index, (lines, _) in enumerate(looks):
            for line in lines:
                reporter.say(line if index == 0 else f"{cluster.name(index)}: {line}")
        codes = [code for _, code in looks]
    ended = [code for code in codes if code is not None]
    return _code_of_all(ended, stop.exit_code, missed=told and not stop.made)


def _code_of_all(codes: list[int], stopped: int, missed: bool) -> int:
    """0 where all is done, and the code of a failure even where all were ``stopped``, an exit code or 0.

    Of failures it is that of a worker that does not miss another, which is a LostWorkerError. ``missed``: some had to
    be ended, which is no stop that anybody asked for.
    """
    lost, failed = LostWorkerError.exit_code, [code for code in codes if code]
    causes = [code for code in failed if 0 < code < SIGNALLED and code != lost]
    if causes or not failed:
        return causes[0] if causes else 0
    if stopped:
        # Who is killed while it starts is missed by the others; otherwise it is a disk that is full, or the like.
        return lost if lost in failed and min(failed) > 0 else stopped
    return lost if missed else next((code for code in failed if code > SIGNALLED), lost)
