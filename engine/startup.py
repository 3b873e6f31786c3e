"""What happens before the first step: reading and checking the data, building the detector, finding the devices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from engine.checkpoint import Checkpoint, is_checkpoint, read_checkpoint, restore_model
from engine.plan import detector_spec, phases
from engine.run_directory import RunDirectory
from engine.training import Trainer
from nets.detector import build_detector
from nets.layers import RANDOM_STATE
from utils.config import DetectorSpec, RunConfig
from utils.errors import ConfigError, DataError, FileError, UserError
from utils.image_headers import probe
from utils.letterbox import place
from utils.progress import Reporter
from utils.records import read_annotation_list, refuse_overlap
from utils.types import Record


def start_run(
    config: RunConfig, run_dir: str | Path, reporter: Reporter, strategy: tf.distribute.Strategy | None = None
) -> Trainer:
    """A new run in ``run_dir``, ready to fit. Everything that can be wrong is found here, before the first step."""
    spec = detector_spec(config, reporter.say)
    run = RunDirectory(run_dir)
    run.refuse_used()
    _refuse_inputs_as_output(config, run)
    trainer = _trainer(config, spec, run, reporter, strategy, config.model.weights)
    run.start(config, spec.class_names)
    return trainer


def resume_run(
    config: RunConfig, run_dir: str | Path, reporter: Reporter, strategy: tf.distribute.Strategy | None = None
) -> Trainer:
    """The run in ``run_dir``, ready to go on at the epoch where it stopped."""
    run = RunDirectory(run_dir)
    checkpoint, source = _newest(run, reporter)
    if checkpoint.spec.class_names != detector_spec(config).class_names:
        raise ConfigError(f"{run.path}: class list: differs from {config.data.classes}; restore the file or start anew")
    trainer = _trainer(config, checkpoint.spec, run, reporter, strategy, "none")
    trainer.restore(checkpoint)
    position = trainer.position
    reporter.say(f"resuming {source}: epoch {position.epoch + 1}, step {position.epoch_step + 1}")
    return trainer


def default_strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine where there are several; otherwise the one device there is."""
    return tf.distribute.MirroredStrategy() if len(tf.config.list_physical_devices("GPU")) > 1 else _single_device()


def _single_device() -> tf.distribute.Strategy:
    return tf.distribute.get_strategy()


def _trainer(
    config: RunConfig,
    spec: DetectorSpec,
    run: RunDirectory,
    reporter: Reporter,
    strategy: tf.distribute.Strategy | None,
    weights: str,
) -> Trainer:
    strategy = strategy or default_strategy()
    _check_shards(config, strategy.num_replicas_in_sync)
    train, val = read_lists(config, len(spec.class_names), reporter)
    with strategy.scope():
        model = initial_detector(spec, weights, config.train.seed)
    return Trainer(config, spec, model, strategy, train, val, run, reporter)


def read_lists(config: RunConfig, class_count: int, reporter: Reporter) -> tuple[list[Record], list[Record]]:
    """Both annotation lists, every image's header checked. DataError naming all files that cannot be used."""
    train = read_annotation_list(config.data.train, class_count)
    val = read_annotation_list(config.data.val, class_count)
    refuse_overlap(train, val)
    large_enough = _check_images(train + val, config, reporter)
    lists = []
    for path, records, kept in (
        (config.data.train, train, large_enough[: len(train)]),
        (config.data.val, val, large_enough[len(train) :]),
    ):
        if not all(kept):
            reporter.say(f"{path}: {kept.count(False)} images of a single pixel left out")
        lists.append([record for record, keep in zip(records, kept, strict=True) if keep])
        if not lists[-1]:
            raise DataError(f"{path}: no image is left: give photos of more than a single pixel")
    return lists[0], lists[1]


def _check_images(records: list[Record], config: RunConfig, reporter: Reporter) -> list[bool]:
    """Looks at every image's header; whether each is large enough to learn from. DataError naming one of no use."""
    problems: list[str] = []

    def look(record: Record) -> bool:
        try:
            size_hw = probe(record.image_path, ignore_exif=config.data.ignore_exif).size_hw
            place(size_hw, config.model.input_size, config.model.resize, record.image_path)
            return max(size_hw) > 1
        except UserError as error:
            problems.append(str(error))
            return False

    with ThreadPoolExecutor() as pool:
        large_enough = list(reporter.track(pool.map(look, records), "checking images", len(records)))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{min(problems)}{more}")
    return large_enough


def _refuse_inputs_as_output(config: RunConfig, run: RunDirectory) -> None:
    """ConfigError when the files of the run would land beside its inputs, one of which may have the same name."""
    inputs = {"data.train": config.data.train, "data.val": config.data.val, "data.classes": config.data.classes}
    for field, path in inputs.items():
        if Path(path).resolve().parent == run.path.resolve():
            raise ConfigError(f"--run-dir: {run.path}: holds {field} ({path}): inputs are never changed, give another")


def initial_detector(spec: DetectorSpec, weights: str, seed: int = 0) -> keras.Model:
    """A detector with its first weights: drawn from ``seed``, ImageNet's, a backbone's .h5 file, another detector's."""
    if weights == "none":
        return build_detector(spec, seed=seed)
    if not is_checkpoint(weights):
        return build_detector(spec, weights, seed)
    checkpoint = read_checkpoint(weights)
    for name in ("backbone", "separable_head", "decode", "masks"):
        theirs, ours = getattr(checkpoint.spec, name), getattr(spec, name)
        if theirs != ours:
            raise FileError(f"{weights}: {name}: {theirs!r}: this run's model has {ours!r}; make them the same")
    if len(checkpoint.spec.class_names) != len(spec.class_names):
        raise FileError(
            f"{weights}: classes: {len(checkpoint.spec.class_names)}: this run has {len(spec.class_names)}; "
            "start from weights with as many"
        )
    model = build_detector(spec, seed=seed)
    # Random state is the run's own, and which layers have any depends on model.stochastic_depth.
    tensors = {name: value for name, value in checkpoint.group("model").items() if RANDOM_STATE not in name}
    own = {v.path: np.asarray(v) for v in model.variables if RANDOM_STATE in v.path}
    restore_model(model, {**tensors, **own}, weights)
    return model


def _newest(run: RunDirectory, reporter: Reporter) -> tuple[Checkpoint, Path]:
    """The last checkpoint, or the one before where the last is damaged, which is set aside and said."""
    if not run.last.exists() and not run.previous.exists():
        raise ConfigError(f"--resume: {run.path}: no run to go on with here; start one with --run-dir {run.path}")
    try:
        return read_checkpoint(run.last), run.last
    except FileError as error:
        if not run.previous.exists():
            raise
        reporter.say(f"{error}; going on from {run.previous}")
        if run.last.exists():
            run.last.replace(run.path / "last.damaged")
    return read_checkpoint(run.previous), run.previous


def _check_shards(config: RunConfig, replicas: int) -> None:
    for phase in phases(config.train):
        if phase.batch_size % replicas:
            raise ConfigError(f"batch size: {phase.batch_size}: must be a multiple of the {replicas} devices in use")
