"""Published weights files: fetched once, checked against their checksum, kept where Keras keeps them."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from utils.errors import FileError
from utils.files import replacing
from utils.machine import MIB
from utils.progress import Quiet, Reporter

TIMEOUT_SECONDS = 20
HDF5_START = b"\x89HDF\r\n\x1a\n"


def cache_directory() -> Path:
    """Where Keras' own applications keep their files too, so that nothing is fetched twice."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def fetch_official(url: str, md5: str | None, reporter: Reporter | None = None) -> Path:
    """Local path of the file at ``url``, downloaded if it is not here or its MD5 is not ``md5``.

    Without ``md5`` (no checksum is published for some) it must be a whole HDF5 file; what it holds, the loader checks.
    ``reporter`` tells of the download. FileError, saying what to do instead, when it cannot be had or is not the
    published file.
    """
    target = cache_directory() / url.rpartition("/")[2]
    if target.is_file() and (md5 is None or _md5(target) == md5):
        return target
    with replacing(target) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
                received, total = _receive(response, temporary, target.name, reporter or Quiet())
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise FileError(f"{target.name}: cannot be downloaded from {url} ({reason}){_else(target)}") from error
        if md5 is None:
            _check_whole(url, temporary, received, total, target)
        elif (found := _md5(temporary)) != md5:
            raise FileError(f"{url}: MD5 {found}: is not the published {md5}{_else(target)}")
    return target


def _check_whole(url: str, path: Path, received: int, total: int, target: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(HDF5_START))
    if start != HDF5_START or (total and received != total):
        what = f"{received} of {total or 'unknown'} bytes, starting {start!r}"
        raise FileError(f"{url}: {what}: is no whole weights file (no checksum is published for it){_else(target)}")


def _else(target: Path) -> str:
    return (
        f"; download it on another machine and put it at {target}, or give other weights: a file of your own, those"
        " that come as a package ('package', for the backbone efficientnet_lite0), or 'none' to learn from random ones"
    )


def _receive(response: http.client.HTTPResponse, path: Path, name: str, reporter: Reporter) -> tuple[int, int]:
    """Bytes received and promised, 0 where no number was."""
    total = int(response.headers.get("Content-Length") or 0)
    pieces: Iterator[bytes] = iter(lambda: response.read(MIB), b"")
    with path.open("wb") as file:
        for piece in reporter.track(pieces, f"fetching {name}", -(-total // MIB) or None, " MiB"):
            file.write(piece)
    return path.stat().st_size, total


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
