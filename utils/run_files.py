"""Where a run keeps its checkpoints and its config."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from utils.errors import FileError, did_you_mean

BEST, LAST, CONFIG = "best", "last", "config.yaml"


def list_of_run(checkpoint: Path, part: str) -> str:
    """The annotation list, ``part`` train or val, of the run that ``checkpoint`` lies in.

    FileError where there is no config beside it that says so.
    """
    config = checkpoint.parent / CONFIG
    try:
        return str(yaml.safe_load(config.read_text("utf-8"))["data"][part])
    except (OSError, TypeError, KeyError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FileError(f"{config}: names no data.{part}: {' '.join(str(error).split())}") from error


def find_checkpoint(weights: str | Path) -> Path:
    """The checkpoint file: ``weights`` itself, or the best, else the last, of a run directory.

    FileError when there is none.
    """
    path = Path(weights)
    if path.is_dir():
        found = next((path / name for name in (BEST, LAST) if (path / name).is_file()), None)
        if found is None:
            raise FileError(
                f"{path}: no checkpoint named best or last in this directory; give a run directory or a file"
            )
        return found
    if not path.exists():
        if path.name == BEST and (path.parent / LAST).is_file():
            raise FileError(
                f"{path}: is not there yet: it comes with the first measurement (train.eval_every); for the last "
                f"checkpoint give {path.parent}"
            )
        nearby = os.listdir(path.parent) if path.parent.is_dir() else []
        raise FileError(f"{path}: no such checkpoint{did_you_mean(path.name, nearby) or '; training writes RUN/best'}")
    return path
