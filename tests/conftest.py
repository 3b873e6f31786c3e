"""What many tests share: where the real data lies, if it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def _shared(name: str) -> Path:
    path = SHARED_DATA / name
    if not path.is_dir():
        pytest.skip(f"real data not here: {path}")
    return path


@pytest.fixture(scope="session")
def bccd_root() -> Path:
    """VOCdevkit folder of the blood-cell photos."""
    return _shared("bccd/VOCdevkit")


@pytest.fixture(scope="session")
def oddities_dir() -> Path:
    """Real annotation files that surprise parsers."""
    return _shared("voc_oddities")
