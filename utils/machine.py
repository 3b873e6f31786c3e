"""The machine that numbers were measured on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine_in_words(gpus: Path = Path("/proc/driver/nvidia/gpus")) -> str:
    """Such as ``2 cores of AMD EPYC``: the cores of this process, then the GPUs that NVIDIA's driver lists."""
    cores = len(os.sched_getaffinity(0))
    return ", ".join([f"{cores} core{'' if cores == 1 else 's'} of {_processor()}", *_models(gpus)])


def usable_memory_mib(root: Path = Path("/")) -> float:
    """What this machine has, or less where a container may use less (the limit of its control group)."""
    lines = (root / "proc/meminfo").read_text("utf-8").splitlines()
    most = [int(line.split()[1]) / 1024 for line in lines if line.startswith("MemTotal")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            most.append(int((root / "sys/fs/cgroup" / name).read_text("utf-8")) / (1 << 20))
        except (OSError, ValueError):
            # The group is of the other version, or has no limit ("max").
            continue
    return min(most)


def _models(gpus: Path) -> list[str]:
    try:
        described = [path.read_text("utf-8") for path in sorted(gpus.glob("*/information"))]
    except OSError:
        return []
    return [line.partition(":")[2].strip() for text in described for line in text.splitlines() if "Model:" in line]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
