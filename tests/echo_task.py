"""A task for a process of its own, in a module that is quick to load there."""

from __future__ import annotations

import os
from collections.abc import Generator

from utils.errors import ConfigError


def echo(first: str) -> Generator[str, tuple[str], None]:
    answer = first
    while True:
        (answer,) = yield answer
        if answer == "die":
            os._exit(7)
        if answer == "wrong":
            raise ConfigError("this cannot be")
