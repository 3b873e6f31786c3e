"""What the plain command lines share: one-line errors, and numbers that are checked as they are read."""

from __future__ import annotations

import argparse
import math
from typing import NoReturn

from utils.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Shows its description as it is written, and raises ConfigError where argparse would print its usage and exit."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, formatter_class=layout, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """One line that points to --help."""
        raise ConfigError(f"{message.removeprefix('argument ')}; see --help")


def share(text: str) -> float:
    """A number in 0..1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a number in 0..1")
    return value


def count(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, 1 or more")
    return value
