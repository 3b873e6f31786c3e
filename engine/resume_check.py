"""Whether a run may go on with the config and the data it finds: what decides a run must be what it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from utils.config import AUTO

HARMLESS = {"data.threads", "data.cache_mb"} | {
    f"train.{name}" for name in ("eval_every", "save_every", "save_minutes", "save_steps")
}
"""Fields that change nothing of what a run learns."""
_UNTIL_THEN = {"train.precision": "float32", "train.freeze_batch_norm": False, "train.backbone_rate": 1.0}
"""What runs did that are older than a field, where its default is not that."""
LEFT_OPEN = ("precision", "freeze_epochs", "freeze_batch_norm", "backbone_rate")
"""Fields of ``train`` that a config may leave to devices and weights."""
ConfigT = TypeVar("ConfigT")


def fingerprint(samples: Iterable[Any]) -> str:
    """A digest of what a run learns from: equal only for equal samples (JSON values) in the same order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(json.dumps(sample, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def changed_fields(saved: Mapping[str, Any], config: Any, places: Collection[str]) -> list[str]:
    """Where ``config`` is not the config in ``saved``, the ``info`` of a training checkpoint: ``field: was x, is y``.

    ``places`` are fields that only say where files lie; what is in them counts. A field that is younger than the run
    was what its default is.
    """
    before = {**_fields(dataclasses.asdict(type(config)())), **_UNTIL_THEN, **_fields(saved["config"])}
    before["train.phases"] = [{"input_size": 0, **phase} for phase in before["train.phases"]]
    now = _fields(dataclasses.asdict(config))
    # What is not measured does not stop a run either.
    harmless = HARMLESS - ({"train.eval_every"} if config.train.early_stopping else set())
    compared = now.keys() - harmless - set(places)
    return [f"{name}: was {before[name]}, is {now[name]}" for name in sorted(compared) if before[name] != now[name]]


def as_it_was(config: ConfigT, saved: Mapping[str, Any]) -> ConfigT:
    """``config`` with what it leaves open, precision, what is frozen and batch sizes, as the run in ``saved`` had it.

    ``saved`` is the ``info`` of a training checkpoint; ``config`` that of any training run.
    """
    train, before = config.train, saved["config"]["train"]  # type: ignore[attr-defined]
    then = {name: before.get(name, _UNTIL_THEN.get(f"train.{name}")) for name in LEFT_OPEN}
    open_sizes = [name for name in ("freeze_batch_size", "batch_size") if getattr(train, name) == AUTO]
    sizes = {name: before[name] for name in open_sizes}
    phases = tuple(
        dataclasses.replace(phase, batch_size=old["batch_size"]) if phase.batch_size == AUTO else phase
        for phase, old in zip(train.phases, before["phases"], strict=False)
    )
    known = dataclasses.replace(
        train,
        **{name: was for name, was in then.items() if getattr(train, name) in ("auto", None)},
        phases=(*phases, *train.phases[len(phases) :]),
        **sizes,
    )
    return dataclasses.replace(config, train=known)  # type: ignore[type-var]


def common_start(
    spec: Any, fingerprints: Mapping[str, str], config: Any, step: int, weights: Mapping[str, np.ndarray]
) -> bytes:
    """What several workers must have alike before ``step``: what is built, data, config and weights.

    Files may lie elsewhere on each machine, and a machine may have threads of its own.
    """
    sections = dataclasses.asdict(config)
    data = {name: value for name, value in sections.pop("data").items() if not isinstance(value, str)}
    own = {name: value for name, value in data.items() if f"data.{name}" not in HARMLESS}
    # Of the model's section ``spec`` and the weights have what counts.
    del sections["model"]
    text = json.dumps([spec.to_dict(), dict(fingerprints), sections, own, step], sort_keys=True)
    return text.encode() + b"".join(weights[name].tobytes() for name in sorted(weights))


def changed_classes(source: str, before: Sequence[str], now: Sequence[str]) -> list[str]:
    """How the class list in ``source`` is not what it was: the counts, or the classes that differ."""
    if len(before) != len(now):
        return [f"class list: {source}: had {len(before)} classes, has {len(now)}"]
    return [f"class list: {source}: was {a!r}, is {b!r}" for a, b in zip(before, now, strict=True) if a != b]


def changed_versions(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The packages that compute and are not of the version they were; empty where that is not known."""
    changed = [name for name in before if before[name] != now.get(name)]
    return [f"{name}: was {before[name]}, is {now.get(name, 'not known')}" for name in changed]


def changed_data(saved: Mapping[str, Any], fingerprints: Mapping[str, str]) -> list[str]:
    """The parts of the data that are not what ``saved`` has."""
    known: Mapping[str, str] = saved["data"]
    return [f"{part}: is not the data it was" for part in known if known[part] != fingerprints.get(part)]


def _fields(config: Any) -> dict[str, Any]:
    """Values by field name, as they are after a trip through JSON, where tuples became lists."""
    sections = json.loads(json.dumps(config)).items()
    return {f"{section}.{name}": value for section, fields in sections for name, value in fields.items()}
