"""What happens before the first step: looking at the run directory, the config, the data and the devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import tensorflow as tf

from engine.batch_size import batch_size_remarks, with_batch_sizes
from engine.checkpoint import Checkpoint, Spec, kind_of, read_checkpoint
from engine.classification_setup import ClassificationSetup
from engine.detection_setup import DetectionSetup
from engine.plan import VOC_CLASSES, backbone_rate, class_file, freezes_batch_norm, frozen_until, phases
from engine.position import Position
from engine.precision import cpu_has_bfloat16, gpu_capabilities, gradient_remarks, precision_for
from engine.resume_check import as_it_was, changed_classes, changed_data, changed_fields, changed_versions
from engine.run_directory import RunDirectory
from engine.task import Config, Setup
from engine.training import Trainer
from engine.unused_fields import without_effect
from engine.workers import default_strategy, noticing_losses
from utils.classifier_config import ClassifierRunConfig
from utils.cluster import read_cluster
from utils.command_line import TrainingRequest
from utils.config import AUTO, RunConfig
from utils.errors import ConfigError, FileError
from utils.progress import Follower, Reporter

SETUPS: dict[type[Config], Callable[[Any], Setup]] = {
    RunConfig: DetectionSetup,
    ClassifierRunConfig: ClassificationSetup,
}

DECIDES_STEPS = (
    *("train.batch_size:", "train.freeze_batch_size:", "train.phases:", "train.accumulate:", "train.seed:"),
    *("data.balance_classes:", "data.train:", "training images:"),
)
"""How lines of ``changed_fields`` and ``changed_data`` begin that say why a step has other photos than it had."""

PLAN = ("train.epochs:", "train.freeze_epochs:", "train.phases:")
"""How lines of ``changed_fields`` begin that say that phases are others."""


def start_run(
    config: Config, run_dir: str | Path, reporter: Reporter, strategy: tf.distribute.Strategy | None = None
) -> Trainer:
    """A new run in ``run_dir``, ready to fit. Everything that can be wrong is found here, before the first step."""
    setup = _setup(config)
    trainer = _prepared(setup, run_dir, reporter, strategy)
    for line in what_was_decided(config, trainer.config):
        reporter.say(line)
    if bfloat16_may_pay(config):
        reporter.say("mixed_bfloat16 may be faster on this CPU: --dry-run compares them")
    if trainer.workers.chief:
        trainer.run.lock()
        trainer.run.start(trainer.config, trainer.task.spec.class_names, setup.inputs())
        setup.write_fitted(trainer.run.path)
    return trainer


def bfloat16_may_pay(asked: Config) -> bool:
    """Whether ``auto`` means float32 here, on a CPU that has instructions for bfloat16."""
    return asked.train.precision == "auto" and not gpu_capabilities() and cpu_has_bfloat16()


def what_was_decided(asked: Config, found: Config) -> list[str]:
    """Lines for the precision, for each batch size that was found, and for what ``train.phases`` overrules."""
    how = "train.precision" if asked.train.precision != "auto" else "train.precision auto, by the devices here"
    precision = found.train.precision
    lines = [f"computing in {precision} ({how})", *gradient_remarks(precision)]
    lines += batch_size_remarks(asked, found)
    lines += without_effect(asked)
    if isinstance(asked, RunConfig) and asked.data.classes is None and class_file(asked.data) == VOC_CLASSES:
        lines.append(f"data.classes: no classes.txt beside {asked.data.train}: those of {VOC_CLASSES} are taken")
    if found.train.backbone_rate not in (None, 1) and not all(phase.frozen_backbone for phase in phases(found)):
        kept = ", its batch normalization stays as it was" if found.train.freeze_batch_norm else ""
        lines.append(f"train.backbone_rate: the backbone learns at {found.train.backbone_rate:g} of the rate{kept}")
    if asked.model.weights == "none" and phases(asked)[0].frozen_backbone:
        field = "train.phases" if asked.train.phases else "train.freeze_epochs"
        lines.append(
            f"{field}: freezes a backbone that knows nothing, of which nothing can be learned: give model.weights, or "
            "freeze nothing"
        )
    return lines


def prepared_run(
    config: Config, run_dir: str | Path, reporter: Reporter, strategy: tf.distribute.Strategy | None = None
) -> Trainer:
    """What ``start_run`` gives, before anything is written or said of it."""
    return _prepared(_setup(config), run_dir, reporter, strategy)


def _setup(config: Config) -> Setup:
    """How the run begins: precision and what is frozen as devices and weights decide it where ``config`` does not."""
    train = dataclasses.replace(
        config.train,
        precision=precision_for(config.train.precision, gpu_capabilities()),
        freeze_epochs=config.train.freeze_epochs if config.train.phases else frozen_until(config),
        freeze_batch_norm=freezes_batch_norm(config),
        backbone_rate=backbone_rate(config),
    )
    return SETUPS[type(config)](dataclasses.replace(config, train=train))


def _prepared(
    setup: Setup, run_dir: str | Path, reporter: Reporter, strategy: tf.distribute.Strategy | None
) -> Trainer:
    spec = setup.spec(reporter.say)
    run = RunDirectory(run_dir)
    run.refuse_used()
    _refuse_inputs_as_output(setup, run)
    return _trainer(setup, setup.fit(spec, reporter), run, reporter, strategy, setup.config.model.weights)


def resume_run(
    config: Config,
    run_dir: str | Path,
    reporter: Reporter,
    strategy: tf.distribute.Strategy | None = None,
    anyway: bool = False,
) -> Trainer:
    """The run in ``run_dir``, ready to go on at the step where it stopped.

    ConfigError when config or data are not what they were, unless ``anyway``, which only says so; also when another
    process trains there.
    """
    run = RunDirectory(run_dir)
    if not run.last.exists() and not run.previous.exists():
        raise ConfigError(f"--resume: {run.path}: no run to go on with here; start one with --run-dir {run.path}")
    # Locked first: a checkpoint read while another process trains would be old by the time that process ends.
    if read_cluster().chief:
        run.lock()
    try:
        return _resumed(config, run, reporter, strategy, anyway)
    except BaseException:
        run.unlock()
        raise


def _resumed(
    config: Config, run: RunDirectory, reporter: Reporter, strategy: tf.distribute.Strategy | None, anyway: bool
) -> Trainer:
    checkpoint, source = _newest(run, reporter)
    setup = SETUPS[type(config)](as_it_was(config, checkpoint.info))
    saved, asked = checkpoint.spec, setup.spec()
    if not isinstance(saved, type(asked)):
        raise ConfigError(f"{run.path}: is the run of a {kind_of(saved)}, not of a {kind_of(asked)}")
    _refuse_other_network(run, saved, asked, setup.fitted)
    classes = changed_classes(setup.inputs()[setup.class_source], saved.class_names, asked.class_names)
    if len(saved.class_names) != len(asked.class_names):
        raise ConfigError(f"{run.path}: {classes[0]}: restore it or start a new run")
    changed = classes + changed_fields(checkpoint.info, setup.config, setup.inputs())
    _same_or_said(run, changed, anyway, reporter)
    for line in changed_versions(saved.versions, asked.versions):
        reporter.say(f"{line}: from here on numbers may differ in their last digits")
    spec = dataclasses.replace(saved, class_names=asked.class_names, versions=asked.versions)
    trainer = _trainer(setup, spec, run, reporter, strategy, "none")
    other_data = changed_data(checkpoint.info, trainer.task.fingerprints)
    _same_or_said(run, other_data, anyway, reporter)
    trainer.restore(checkpoint)
    position = trainer.position
    if position.epoch >= trainer.epochs:
        if any(line.startswith(PLAN) for line in changed):
            # Nothing would measure the weights of now.
            field = "train.phases" if trainer.config.train.phases else "train.epochs"
            raise ConfigError(f"{run.path}: {field}: {trainer.epochs} epochs: {position.epoch} are done: give more")
        reporter.say(f"{source}: all {trainer.epochs} epochs are done; docs/resume.md says how to go on for longer")
        return trainer
    if any(line.startswith(("data.val:", "validation images:")) for line in other_data):
        position.best_score, position.measured_since_best = -1.0, 0
        reporter.say("the best is looked for anew: it was measured on other validation data")
    if not position.epoch_step and any(line.startswith(PLAN) for line in changed):
        # Where the phases of now begin was not known when it was saved.
        position.in_phase = False
    if position.epoch_step and any(line.startswith(DECIDES_STEPS) for line in changed + other_data):
        position.begin_epoch()
        reporter.say(f"epoch {position.epoch + 1} begins anew: its steps have other photos now")
    where = f"epoch {position.epoch + 1}, step {position.epoch_step + 1}"
    precision = trainer.config.train.precision
    for line in (f"resuming {source}: {where}, computing in {precision}", *gradient_remarks(precision)):
        reporter.say(line)
    return trainer


def requested_run(request: TrainingRequest[Any], reporter: Reporter) -> Trainer:
    """The run that a command line asks for, new or resumed. Of several workers the chief tells of it."""
    # First of all: from here on the others notice when one of them ends.
    strategy = default_strategy(reporter.say)
    told = reporter if read_cluster().chief else Follower(reporter.stream)
    with noticing_losses():
        if request.resume:
            return resume_run(request.config, request.run_dir, told, strategy, request.anyway)
        return start_run(request.config, request.run_dir, told, strategy)


def _trainer(
    setup: Setup,
    spec: Spec,
    run: RunDirectory,
    reporter: Reporter,
    strategy: tf.distribute.Strategy | None,
    weights: str,
) -> Trainer:
    strategy = strategy or tf.distribute.get_strategy()
    _check_shards(setup.config, strategy.num_replicas_in_sync)
    task = setup.task(spec, weights, strategy, reporter)
    return Trainer(with_batch_sizes(setup.config, task, strategy), task, strategy, run, reporter)


def _refuse_other_network(run: RunDirectory, saved: Spec, asked: Spec, fitted: Collection[str]) -> None:
    before, now = saved.to_dict(), asked.to_dict()
    # In the spec's own order: a changed input_size scales the anchors, and is the cause to name.
    for name in before:
        if name not in ("versions", "class_names", *fitted) and before[name] != now[name]:
            raise ConfigError(f"{run.path}: {name}: was {before[name]}, is {now[name]}: restore it or start a new run")


def _same_or_said(run: RunDirectory, differences: list[str], anyway: bool, reporter: Reporter) -> None:
    if differences and not anyway:
        raise ConfigError(f"{run.path}: {'; '.join(differences)}: restore it, or go on with --resume-anyway")
    for difference in differences:
        reporter.say(f"going on anyway: {difference}")


def _refuse_inputs_as_output(setup: Setup, run: RunDirectory) -> None:
    """ConfigError when the files of the run would land in or beside its inputs, one of which may have the same name."""
    out = run.path.resolve()
    for field, path in setup.inputs().items():
        given = Path(path).resolve()
        if given.is_dir() and out.is_relative_to(given):
            raise ConfigError(
                f"--run-dir: {run.path}: lies in {field} ({path}): inputs are never changed, give another"
            )
        if given.parent == out:
            raise ConfigError(f"--run-dir: {run.path}: holds {field} ({path}): inputs are never changed, give another")


def _newest(run: RunDirectory, reporter: Reporter) -> tuple[Checkpoint, Path]:
    """The last checkpoint, or the one before where the last is damaged, which is set aside and said."""
    try:
        return _training_state(run.last), run.last
    except FileError as error:
        if not run.previous.exists():
            raise
        try:
            before = _training_state(run.previous)
        except FileError as other:
            raise FileError(f"{error}; {other}") from error
        reporter.say(f"{error}; going on from {run.previous}")
        if run.last.exists() and read_cluster().chief:
            run.last.replace(run.path / "last.damaged")
        return before, run.previous


def _training_state(path: Path) -> Checkpoint:
    checkpoint = read_checkpoint(path)
    known = {field.name for field in dataclasses.fields(Position)} - {"history"}
    position = checkpoint.info.get("position")
    if not {"config", "data"} <= checkpoint.info.keys() or position is None or not set(position) <= known:
        raise FileError(f"{path}: holds no training state of this version: start a new run with --model.weights {path}")
    return checkpoint


def _check_shards(config: Config, replicas: int) -> None:
    for phase in phases(config):
        if phase.batch_size != AUTO and phase.batch_size % replicas:
            raise ConfigError(f"batch size: {phase.batch_size}: must be a multiple of the {replicas} devices in use")
