"""The frame every door stands in: errors become one line on stderr and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO, cast

from utils.at_work import leave_hanging_files
from utils.errors import UserError
from utils.progress import Reporter, Unheard
from utils.quiet import allow_any_name

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_door(main: Callable[[], int | None]) -> int:
    """The exit code of ``main``: its own (None is 0), a UserError's, 4 for OSError and MemoryError, 130 for Ctrl-C.

    Whether somebody reads what it prints is no matter, nor whether stdout and stderr are there. What is written to
    ``utils.files.results_out`` are results: who reads no further ends the work.
    """
    # File and class names may hold characters that the terminal's encoding lacks.
    allow_any_name()
    stdout, stderr = sys.stdout, sys.stderr
    # That a disk is full is an error of what is printed, though not of what is told.
    sys.stdout = cast(TextIO, Unheard(stdout or io.StringIO(), NO_ROOM))
    sys.stderr = cast(TextIO, Unheard(stderr or io.StringIO()))
    try:
        try:
            exit_code, insisted = _code_of(main), False
        except KeyboardInterrupt as interrupt:
            Reporter().say("interrupted")
            exit_code, insisted = interrupt.args[0] if interrupt.args else 130, True
        for stream in (stdout, stderr):
            _let_go_of_broken(stream)
        leave_hanging_files(exit_code, insisted)
        return exit_code
    finally:
        sys.stdout, sys.stderr = stdout, stderr


def _code_of(main: Callable[[], int | None]) -> int:
    told = Reporter()
    try:
        exit_code = main() or 0
        # What is printed may still have to find room on a disk.
        sys.stdout.flush()
        return exit_code
    except UserError as error:
        told.say(_one_line(error))
        return error.exit_code
    except BrokenPipeError:
        return 0
    except MemoryError as error:
        told.say(_one_line(error) or "memory ran out")
        return 4
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        told.say(f"{where}{error.strerror or _one_line(error)}")
        return 4


def _let_go_of_broken(stream: TextIO | None) -> None:
    """Python would flush ``stream`` once more as it ends, complain, and end with a code of its own."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
