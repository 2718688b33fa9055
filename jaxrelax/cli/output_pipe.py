"""Standard output that nobody reads to its end: ``jaxrelax inspect … | head``."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def unread_output() -> Iterator[None]:
    """Let a command end in silence when the reader of its output has gone.

    Text with bytes that are no UTF-8 (names in tables) is written with escapes meanwhile, instead
    of failing.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # else the interpreter does, and complains
    except BrokenPipeError:
        to_nowhere()


def to_nowhere() -> None:
    """Send what follows on standard output to nobody."""
    with contextlib.suppress(OSError, ValueError):  # where it is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
