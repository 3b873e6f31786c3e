from __future__ import annotations

TIMINGS = (
    *("images_per_second", "data_wait", "memory_mib", "gpu_memory_mib"),
    *("seconds", "preparing_seconds", "validating_seconds", "measuring_seconds", "keeping_seconds"),
    "seconds_left",
)
"""Entries of an epoch that say how it went here and now: they differ from run to run."""
