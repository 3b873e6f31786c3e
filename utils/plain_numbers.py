"""Numbers as people write them in files; float() also takes 1_000, full-width digits, nan and inf."""

from __future__ import annotations

import math
import re

PATTERN = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_NUMBER = re.compile(rf"\s*{PATTERN}\s*")


def plain_number(text: str) -> float | None:
    """The finite decimal number that ``text`` is, blanks around it allowed; None where it is none."""
    value = float(text) if text.isascii() and _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None
