"""Opening the files a dataset names: regular files only, so that nothing hangs on a pipe or reads a device."""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path

from utils.errors import DataError

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: str | Path, what: str, follow_links: bool = True) -> tuple[FileIO, int]:
    """An open file and its size in bytes. ``what`` is the word for it in messages, such as "image".

    DataError when it is missing, unreadable, anything but a regular file, or a link that must not be followed.
    """
    name = os.fspath(path)
    try:
        status = os.stat(name, follow_symlinks=follow_links)
        if stat.S_ISLNK(status.st_mode):
            raise DataError(f"{name}: is a link: links are not followed here, put the {what} itself in its place")
        if not stat.S_ISREG(status.st_mode):
            kind = next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "no regular file")
            raise DataError(f"{name}: is {kind}: give the {what} file itself")
        return FileIO(name, "rb"), status.st_size
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such {what}: check the path") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: {what} cannot be read: {getattr(error, 'strerror', None) or error}") from error
