"""What the numbers of a config must be. NaN keeps no rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

RULES: dict[str, Callable[[Any], bool]] = {
    "must lie in 0..1": lambda value: 0 <= value <= 1,
    "must lie in 0..1, 1 excluded": lambda value: 0 <= value < 1,
    "must lie in 0..1, 0 excluded": lambda value: 0 < value <= 1,
    "must lie in 0..180": lambda value: 0 <= value <= 180,
    "must lie in 0..45, 45 excluded": lambda value: 0 <= value < 45,
    "must be 0 or more": lambda value: 0 <= value < math.inf,
    "must be above 0": lambda value: 0 < value < math.inf,
    "must be at least 1": lambda value: 1 <= value < math.inf,
    "must be at least 1, or -1 for what fits": lambda value: value >= 1 or value == -1,
    "must be at least 32": lambda value: 32 <= value < math.inf,
    "must be a multiple of 32": lambda value: value >= 32 and value % 32 == 0,
}


def broken_rules(config: Any, fields: Mapping[str, str]) -> list[str]:
    """A message for every field whose value breaks its rule.

    ``fields`` names, for a key of RULES, the fields it is said of: ``section.name`` with blanks between. None, which
    leaves a field to the program, breaks none.
    """
    found = []
    for rule, names in fields.items():
        for section, name in (full.split(".") for full in names.split()):
            value = getattr(getattr(config, section), name)
            if value is not None and not RULES[rule](value):
                found.append(f"{section}.{name}: {value}: {rule}")
    return found
