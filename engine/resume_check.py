"""Whether a run may go on with the config and the data it finds: what decides a run must be what it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

HARMLESS = {"data.threads", "data.cache_mb", "train.eval_every", "train.save_every", "train.save_minutes"}
"""Fields that change nothing of what a run learns."""


def fingerprint(samples: Iterable[Any]) -> str:
    """A digest of what a run learns from: equal only for equal samples (JSON values) in the same order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(json.dumps(sample, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def changed_fields(saved: Mapping[str, Any], config: Any, places: Collection[str]) -> list[str]:
    """Where ``config`` is not the config in ``saved``, the ``info`` of a training checkpoint: ``field: was x, is y``.

    ``places`` are fields that only say where files lie; what is in them counts.
    """
    before, now = _fields(saved["config"]), _fields(dataclasses.asdict(config))
    compared = (before.keys() & now.keys()) - HARMLESS - set(places)
    return [f"{name}: was {before[name]}, is {now[name]}" for name in sorted(compared) if before[name] != now[name]]


def changed_data(saved: Mapping[str, Any], fingerprints: Mapping[str, str]) -> list[str]:
    """The parts of the data that are not what ``saved`` has."""
    known: Mapping[str, str] = saved["data"]
    return [f"{part}: is not the data it was" for part in known if known[part] != fingerprints.get(part)]


def _fields(config: Any) -> dict[str, Any]:
    """Values by field name, as they are after a trip through JSON, where tuples became lists."""
    sections = json.loads(json.dumps(config)).items()
    return {f"{section}.{name}": value for section, fields in sections for name, value in fields.items()}
