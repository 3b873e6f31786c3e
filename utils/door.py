"""The frame every door stands in: errors become one line on stderr and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from utils.at_work import leave_hanging_files
from utils.errors import UserError


def run_door(main: Callable[[], int | None]) -> int:
    """The exit code of ``main``: its own (None is 0), a UserError's, 4 for OSError and MemoryError, 130 for Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File and class names may hold characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        exit_code, insisted = _code_of(main), False
    except KeyboardInterrupt as interrupt:
        print("interrupted", file=sys.stderr)
        exit_code, insisted = interrupt.args[0] if interrupt.args else 130, True
    leave_hanging_files(exit_code, insisted)
    return exit_code


def _code_of(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except UserError as error:
        print(_one_line(error), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Python would flush stdout once more as it ends, and complain that nobody reads it.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError as error:
        print(_one_line(error) or "memory ran out", file=sys.stderr)
        return 4
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{where}{error.strerror or _one_line(error)}", file=sys.stderr)
        return 4


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
