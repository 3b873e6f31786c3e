"""Writing so that a file appears whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import ConfigError, FileError

STDOUT = Path("-")
"""What stands for standard output where a file for results is asked for."""
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}(\.[^.]*)?")


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Makes an OSError of the block a FileError that names ``target``."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{target}: cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` (same suffix) that takes its place when the block ends without error.

    Missing parent directories are created, and of a link what it leads to is replaced. FileError when the place cannot
    be written, or holds what is no file, such as a device.
    """
    target = Path(os.path.realpath(path))
    with writing(Path(path)):
        if target.exists() and not target.is_file():
            raise FileError(f"{path}: cannot be written: is no regular file: give another name")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.stem[:40]}.{secrets.token_hex(6)}{target.suffix}"
        # Unlike those of tempfile, the file has the mode of any new file.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def refuse_replacing(outputs: Mapping[str, str | Path | None], inputs: Mapping[str, str | Path | None]) -> None:
    """ConfigError when one of ``outputs`` (by option) is one of ``inputs`` (by what it is), under whatever name."""
    for option, target in outputs.items():
        for what, given in inputs.items():
            if target and given and os.path.realpath(target) == os.path.realpath(given):
                raise ConfigError(f"{option}: {target}: is the {what} file; choose another name for the results")


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed process left of its ``replacing`` in ``folder``, where no other may be writing now."""
    for path in folder.glob(".*"):
        if _LEFTOVER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def is_text(name: str) -> bool:
    """Whether ``name`` can be written as UTF-8; names of files that are not hold lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON as people read it, but for names that are no text, which it can only carry escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if is_text(text) else json.dumps(value, indent=indent)


def results_out() -> BinaryIO:
    """Standard output for results, the very bytes that a file would hold. FileError where a service closed it."""
    buffer: BinaryIO | None = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        raise FileError(f"{STDOUT}: cannot be written: there is no standard output")
    sys.stdout.flush()
    return buffer


def write_results(path: Path, text: str) -> None:
    """``write_atomically``, or for ``STDOUT`` the same bytes there, whatever the terminal's encoding."""
    if path == STDOUT:
        out = results_out()
        out.write(text.encode("utf-8", "surrogateescape"))
        out.flush()
    else:
        write_atomically(path, text)


def write_atomically(path: str | Path, content: bytes | str, sync: bool = True) -> None:
    """Writes ``content`` (text as UTF-8) and flushes it to disk before it takes the name ``path``.

    Without ``sync`` it is left to the system when it reaches the disk: for many small results that can be had again,
    where every flush would take milliseconds. Only a power failure may then leave an empty file.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with replacing(path) as temporary:
        if sync:
            write_synced(temporary, data)
        else:
            temporary.write_bytes(data)


def write_synced(path: Path, data: bytes) -> None:
    """Writes ``data``, as far as the disk. OSError where that fails."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
