"""Fields of a config that are given and change nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from engine.checkpoint import PUBLISHED
from engine.pace import measurements
from engine.plan import phases
from engine.task import Config
from utils.config import RunConfig


def without_effect(asked: Config) -> list[str]:
    """Lines for fields that are given and change nothing."""
    train, usual = asked.train, type(asked)().train
    lines = [
        f"train.{name}: {getattr(train, name)}: is not used: {reason}"
        for name, reason in _overruled(asked)
        if getattr(train, name) != getattr(usual, name)
    ]
    plan = phases(asked)
    measured = measurements(plan[-2].until_epoch + 1 if len(plan) > 1 else 1, plan[-1].until_epoch, train.eval_every)
    if train.early_stopping >= measured:
        lines.append(
            f"train.early_stopping: {train.early_stopping}: never ends the run: measurements of its last phase: "
            f"{measured} (train.eval_every)"
        )
    if isinstance(asked, RunConfig) and asked.model.fresh_outputs and asked.model.weights in PUBLISHED:
        lines.append(f"model.fresh_outputs: is not used: model.weights {asked.model.weights} starts no outputs")
    return [*lines, *_augmentation(asked, plan[-1].until_epoch)]


def _overruled(asked: Config) -> Iterator[tuple[str, str]]:
    """Names of ``train``'s fields, and what keeps each from being used."""
    train, plan = asked.train, phases(asked)
    frozen = [phase.frozen_backbone for phase in plan]
    if train.phases:
        if train.epochs != plan[-1].until_epoch:
            yield "epochs", f"train.phases decides, and ends after epoch {plan[-1].until_epoch}"
        for name in ("batch_size", "freeze_batch_size", "freeze_epochs"):
            yield name, "train.phases decides"
    else:
        if all(frozen):
            yield "batch_size", "the backbone is frozen in every epoch (train.freeze_epochs)"
        if not any(frozen):
            yield "freeze_batch_size", "the backbone is never frozen (model.weights, train.epochs, train.freeze_epochs)"
    if all(frozen):
        for name in ("backbone_rate", "freeze_batch_norm"):
            yield name, "the backbone is frozen in every epoch"
    if train.schedule == "step":
        yield "warmup_epochs", "train.schedule step has no warm-up"
    if train.optimizer != "adamw":
        yield "weight_decay", f"train.optimizer {train.optimizer} has no decay"


def _augmentation(asked: Config, epochs: int) -> Iterator[str]:
    augment: Any = asked.augment
    if not augment.enabled:
        for field in dataclasses.fields(augment):
            if field.name != "enabled" and getattr(augment, field.name) != field.default:
                yield f"augment.{field.name}: {getattr(augment, field.name)}: is not used: augment.enabled is false"
    elif isinstance(asked, RunConfig) and augment.close_mosaic >= epochs:
        for name in ("mosaic", "mixup"):
            if getattr(augment, name):
                yield (
                    f"augment.{name}: is not used: augment.close_mosaic {augment.close_mosaic} leaves it out of all "
                    f"{epochs} epochs"
                )
