"""Publishing a folder of output files so that it appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import ConfigError
from utils.files import writing


def refuse_file_in_the_way(path: Path, option: str) -> None:
    """ConfigError when ``path``, which ``option`` gives, can be no folder: it is a file, or lies below one."""
    if blocking := next((one for one in (path, *path.parents) if one.exists() and not one.is_dir()), None):
        raise ConfigError(f"{option}: {path}: {blocking} is a file; give a folder")


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder beside ``path`` that takes its place, old content gone, when the block ends without error.

    Missing parent directories are created. FileError when the place cannot be written.
    """
    target = Path(path)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:40]}."))
        fresh, old = staging / "fresh", staging / "old"
        try:
            fresh.mkdir()
            yield fresh
            if target.exists() or target.is_symlink():
                os.replace(target, old)
            os.replace(fresh, target)
        finally:
            if old.exists() and not target.exists():
                os.replace(old, target)
            shutil.rmtree(staging, ignore_errors=True)
