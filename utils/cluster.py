"""The worker processes that train together, as TF_CONFIG names them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utils.errors import ConfigError

VARIABLE = "TF_CONFIG"
FORM = '{"cluster": {"worker": ["host-a:12345", "host-b:12345"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """Addresses (host:port) of all workers in their order, and which of them this process is."""

    addresses: tuple[str, ...] = ("localhost",)
    index: int = 0
    chiefs: int = 0
    """How many of the first addresses TF_CONFIG calls chief instead of worker: 0 or 1."""

    @property
    def count(self) -> int:
        """How many workers there are."""
        return len(self.addresses)

    @property
    def chief(self) -> bool:
        """Whether this is the worker that writes and tells."""
        return self.index == 0

    def name(self, index: int) -> str:
        """How messages call a worker."""
        return f"worker {index} ({self.addresses[index]})"

    def tf_config(self, index: int) -> str:
        """What TF_CONFIG must say for worker ``index``: the inverse of ``read_cluster``."""
        return json.dumps(
            {"cluster": {"worker": list(self.addresses)}, "task": {"type": "worker", "index": index}},
        )


def read_cluster(environment: Mapping[str, str] | None = None) -> Cluster:
    """The cluster that TF_CONFIG describes; this process alone where it is not set. ConfigError when it is wrong."""
    text = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    if not text:
        return Cluster()
    try:
        found: Any = json.loads(text)
        jobs, task = found["cluster"], found["task"]
        kind, index = str(task["type"]), int(task["index"])
        addresses = {job: [str(address) for address in jobs[job]] for job in jobs}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{VARIABLE}: {text[:80]}: cannot be understood; write it like {FORM}") from error
    strange = addresses.keys() - {"chief", "worker"}
    if strange:
        raise ConfigError(f"{VARIABLE}: job {min(strange)!r}: is not known; name workers only, like {FORM}")
    chiefs = addresses.get("chief", [])
    everyone = [*chiefs, *addresses.get("worker", [])]
    if not 0 <= index < len(addresses.get(kind, [])):
        raise ConfigError(f"{VARIABLE}: task {kind!r} {index}: is not in its cluster of {len(everyone)} workers")
    if len(set(everyone)) < len(everyone):
        raise ConfigError(f"{VARIABLE}: {', '.join(everyone)}: an address is there twice; each worker needs its own")
    return Cluster(tuple(everyone), index if kind == "chief" else len(chiefs) + index, len(chiefs))
