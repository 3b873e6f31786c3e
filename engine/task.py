"""What a run learns. The trainer knows no more of detection or classification than is said here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from engine.checkpoint import Spec
from engine.dataset import Batch, Dataset
from engine.run_directory import RunDirectory
from engine.workers import Workers
from utils.classifier_config import ClassifierRunConfig
from utils.config import RunConfig
from utils.progress import Reporter

Tensor = Any
Config = RunConfig | ClassifierRunConfig


class Measurement(NamedTuple):
    """Numbers for the line of an epoch, and the one that decides which weights are best: more is better.

    ``score`` is None when the validation data has nothing to measure by.
    """

    entries: dict[str, float | None]
    score: float | None


class Task(Protocol):
    """A model with its data, its loss and its measure."""

    model: keras.Model
    train_data: Dataset[Any]
    val_data: Dataset[Any]
    parts: tuple[str, ...]
    """Names of the loss parts."""
    target_signature: Mapping[str, tf.TensorSpec]
    """Of ``Batch.targets``."""
    fingerprints: Mapping[str, str]
    """Digest of each part of the data: the data of a run must stay what it is."""
    curves: Mapping[str, str]
    """Title of each number that ``measure`` enters, the deciding one first."""

    @property
    def spec(self) -> Spec:
        """What was built; saved in every checkpoint."""

    def freeze(self, frozen: bool, batch_norm: bool = False) -> None:
        """Freezes (or unfreezes) the backbone: weights, batch normalization statistics and stochastic depth.

        With ``batch_norm`` its batch normalization stays frozen.
        """

    def head_kernels(self) -> Sequence[keras.Variable]:
        """The kernels that the L2 term is taken over."""

    def loss(
        self,
        outputs: Any,
        targets: Mapping[str, Tensor],
        sum_over_replicas: Callable[[Tensor], Tensor] = tf.identity,
        training: bool = True,
    ) -> Sequence[Tensor]:
        """Scalars named by ``parts``. Those of N replicas add up to those of one device with the whole batch.

        What only helps to learn, such as label smoothing, counts while ``training``.
        """

    def weight(self, targets: Mapping[str, np.ndarray]) -> float:
        """What the loss of a batch with ``targets`` is divided by, or by its images where these are more."""

    def measure(
        self,
        batch_size: int,
        run: RunDirectory,
        epoch: int,
        reporter: Reporter,
        workers: Workers,
        limit: int | None = None,
    ) -> Measurement:
        """Measures the model on the validation data, of which each worker takes a part; the chief draws what is found.

        The measurement is the same on all. ``limit``: on so many samples only.
        """

    def draw_batch(self, run: RunDirectory, batch: Batch) -> None:
        """Draws a training batch as the network sees it."""


class Setup(Protocol):
    """What comes before the first step: from a config to a task."""

    class_source: str

    @property
    def fitted(self) -> Collection[str]:
        """Fields of the spec that ``fit`` may change. A run that goes on has them in its checkpoint."""

    @property
    def config(self) -> Config:
        """What the user asked for."""

    def spec(self, warn: Callable[[str], None] | None = None) -> Spec:
        """What the run builds. ``warn`` hears of what is odd and ignored."""

    def fit(self, spec: Any, reporter: Reporter) -> Spec:
        """What a new run builds once its data had their say; ``spec`` where they have none."""

    def write_fitted(self, folder: Path) -> None:
        """Writes what ``fit`` found, for people to read."""

    def inputs(self) -> Mapping[str, str]:
        """The files and folders that the run reads, by config field; the class list's field is ``class_source``."""

    def task(self, spec: Any, weights: str, strategy: tf.distribute.Strategy, reporter: Reporter) -> Task:
        """Reads and checks the data, builds the model. Errors name every file that cannot be used."""
