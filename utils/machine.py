"""The machine that numbers were measured on, in words."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

MIB = 1 << 20


def machine_in_words(gpus: Path = Path("/proc/driver/nvidia/gpus")) -> str:
    """Such as ``2 cores of AMD EPYC``: the cores of this process, then the GPUs that NVIDIA's driver lists."""
    cores = usable_cores()
    return ", ".join([f"{cores} core{'' if cores == 1 else 's'} of {_processor()}", *_models(gpus)])


def package_versions() -> dict[str, str]:
    """Versions that decide a run's numbers, for the record."""
    names = ("tensorflow", "keras", "numpy", "opencv-python-headless", "grain")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def usable_cores() -> int:
    """Cores that this process may use, which on a shared machine may be fewer than there are."""
    return len(os.sched_getaffinity(0))


def memory_mib() -> float:
    """Memory that this process holds now (resident set)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def peak_memory_mib() -> float:
    """The most memory that this process ever held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    # Where the kernel does not tell, the other count may be that of the process which this one was started from.
    other = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), other) / 1024


def usable_memory_mib(root: Path = Path("/")) -> float:
    """What this machine has, or less where this process may use less: in a container, in a job of SLURM."""
    lines = (root / "proc/meminfo").read_text("utf-8").splitlines()
    most = [int(line.split()[1]) / 1024 for line in lines if line.startswith("MemTotal")]
    for limit in _limits(root):
        try:
            most.append(int(limit.read_text("utf-8")) / MIB)
        except (OSError, ValueError):
            # The group is not seen from here, or has no limit ("max").
            continue
    return min(most)


def _limits(root: Path) -> Iterator[Path]:
    """Files with the limits of this process's control group and of those around it, in both versions of the system."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        # A system without control groups.
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        folder, name = ("memory", "memory.limit_in_bytes") if kinds else ("", "memory.max")
        if not kinds or "memory" in kinds.split(","):
            own = PurePosixPath(group.lstrip("/"))
            yield from (root / "sys/fs/cgroup" / folder / one / name for one in (own, *own.parents))


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
