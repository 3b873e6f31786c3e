"""The files of a run: resolved config, one JSON line per epoch, TensorBoard events, checkpoints, plots."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml

from utils.classes import CLASS_LIST, write_classes
from utils.errors import ConfigError, FileError
from utils.files import is_text, remove_leftovers, write_atomically
from utils.folders import refuse_file_in_the_way
from utils.run_files import BEST, CONFIG, LAST

EpochMetrics = dict[str, Any]


class RunDirectory:
    """Where everything about one run lies."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / CONFIG
        self.metrics_file = self.path / "metrics.jsonl"
        self.last = self.path / LAST
        self.previous = self.path / "previous"
        self.best = self.path / BEST
        self.plots = self.path / "plots"
        self.curves = self.plots / "curves.png"
        self._events: Any = None
        self._lock: Any = None

    def start(self, config: Any, class_names: tuple[str, ...], inputs: Iterable[str] = ()) -> None:
        """Makes a new run of ``config``, whose fields ``inputs`` name files. ConfigError when one is already here."""
        self.refuse_used()
        text = yaml.safe_dump(_plain(config, inputs), sort_keys=False, allow_unicode=True)
        write_atomically(self.config_file, text)
        write_classes(self.path / CLASS_LIST, class_names)

    def refuse_used(self) -> None:
        """ConfigError when a run is here, or where there can be no folder."""
        refuse_file_in_the_way(self.path, "--run-dir")
        saved = self.last.exists() or self.previous.exists()
        if self.best.exists() and not saved:
            raise ConfigError(f"--run-dir: {self.path}: holds weights ({BEST}) that a run would replace: give another")
        if saved or self.metrics_file.exists():
            raise ConfigError(
                f"--run-dir: {self.path}: holds a run already: go on with --resume {self.path}, or give another"
            )

    def lock(self) -> None:
        """Keeps other processes out as long as this one lives, and clears up after killed ones.

        ConfigError when one is here already, FileError on a disk without locks.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = (self.path / ".lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise ConfigError(f"{self.path}: another process trains here: wait for it, or give another run") from error
        except OSError as error:
            file.close()
            raise FileError(f"{self.path}: {error.strerror}: give a folder on a disk that can lock files") from error
        self._lock = file
        for folder in (self.path, self.plots, self.periodic(0).parent):
            remove_leftovers(folder)

    def unlock(self) -> None:
        """Lets other processes in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def periodic(self, epoch: int) -> Path:
        """The kept checkpoint of the state after ``epoch`` epochs."""
        return self.path / "checkpoints" / f"epoch-{epoch:04d}"

    def read_metrics(self) -> list[EpochMetrics]:
        """One entry per finished epoch."""
        if not self.metrics_file.exists():
            return []
        try:
            return [json.loads(line) for line in self.metrics_file.read_text("utf-8").splitlines() if line.strip()]
        except ValueError as error:
            raise FileError(f"{self.metrics_file}: {error}: mend or remove the line") from error

    def write_metrics(self, history: list[EpochMetrics]) -> None:
        """All epochs so far; a resumed run thereby drops what came after its checkpoint."""
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in history)
        write_atomically(self.metrics_file, lines)

    def log_scalars(self, entry: EpochMetrics) -> None:
        """The numbers of an epoch as TensorBoard events, at the epochs done: where its pictures are too."""
        with self._logging(entry["epoch"] + 1):
            for name, value in entry.items():
                if isinstance(value, float | int) and name != "epoch":
                    tf.summary.scalar(name, value)

    def log_picture(self, name: str, image: Any, epoch: int) -> None:
        """An RGB picture [H, W, 3] uint8 as a TensorBoard event."""
        with self._logging(epoch):
            tf.summary.image(name, image[None])

    @contextmanager
    def _logging(self, epoch: int) -> Iterator[None]:
        try:
            if self._events is None:
                self._events = tf.summary.create_file_writer(str(self.path / "tensorboard"))
            with self._events.as_default(step=epoch):
                yield
            self._events.flush()
        except tf.errors.OpError as error:
            # Before the brace stand the names of TensorFlow's own nodes.
            reason = error.message.rpartition("} ")[2]
            raise FileError(f"{self.path / 'tensorboard'}: cannot be written: {reason}") from error


def _plain(config: Any, inputs: Iterable[str]) -> dict[str, Any]:
    """The config as YAML can hold it: tuples become lists. Its files are named so that they are found from anywhere.

    ConfigError for a value that is no text, and so can neither be written nor read again.
    """
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    for section, name in (field.split(".") for field in inputs):
        path = os.path.abspath(plain[section][name])
        # Below a folder whose name is no text, names as they were given can be gone on with from the same folder.
        if os.path.exists(path) and is_text(path):
            plain[section][name] = path
    for section, fields in plain.items():
        for name, value in fields.items():
            if isinstance(value, str) and not is_text(value):
                raise ConfigError(f"{section}.{name}: {value!r}: is not UTF-8, which config.yaml needs: rename it")
    return plain
