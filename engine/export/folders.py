"""Writing a folder so that it appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.files import writing


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder beside ``path`` that takes its place when the block ends without error.

    FileError when the place cannot be written. Between removing an older folder and renaming the new one there is a
    moment without either, as no file system replaces a full folder at once.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.parent / f".{path.name[:40]}.{secrets.token_hex(6)}"
        unfinished.mkdir()
        try:
            yield unfinished
            if path.exists():
                older = path.parent / f"{unfinished.name}.older"
                os.replace(path, older)
                os.replace(unfinished, path)
                shutil.rmtree(older)
            else:
                os.replace(unfinished, path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
