"""Keeps the chatter of big libraries off the user's screen, and nothing that matters."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from utils.errors import UserError


def quieten_libraries() -> None:
    """Sets how much TensorFlow, OpenCV and FFmpeg log, where the user has not. To be called before they load."""
    levels = {"TF_CPP_MIN_LOG_LEVEL": "3", "OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
    for variable, level in levels.items():
        os.environ.setdefault(variable, level)


def allow_any_name() -> None:
    """Lets stdout and stderr carry file names that are not text in the terminal's encoding, by escaping them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def native_stderr_held_back() -> Iterator[None]:
    """Holds back what native code writes to stderr within the block; it comes after all if the block fails.

    A UserError is no such failure: it says in one line all that there is to say.
    For ``import tensorflow``: some lines of it obey no log level.
    """
    try:
        sys.stderr.flush()
        original = os.dup(2)
    except (OSError, AttributeError):  # there is no stderr to keep quiet
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except UserError:
            raise
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
