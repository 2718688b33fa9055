"""Ctrl-C: one line and exit status 130, whenever it comes.

While modules are imported nothing has been begun, and what an exception does in the middle of
somebody's import cannot be known: the process ends there. A command that runs is told by
``KeyboardInterrupt``, to say how to go on; who presses the keys again while it ends means it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

INTERRUPTED = 130


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Let Ctrl-C end the process at once, unless `told` says otherwise.

    Where Ctrl-C means something else to the process already, or in a thread, it stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    with contextlib.suppress(ValueError):  # not in the main thread
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _end:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Let the first Ctrl-C raise ``KeyboardInterrupt`` meanwhile, within `handled`."""
    ours = signal.getsignal(signal.SIGINT) is _end
    if ours:
        signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _raise:
            signal.signal(signal.SIGINT, _end)


def _raise(number: int, frame: object) -> None:
    signal.signal(signal.SIGINT, _end_again)
    raise KeyboardInterrupt


def _end(number: int, frame: object) -> None:
    os.write(2, b"jaxrelax: interrupted.\n")
    os._exit(INTERRUPTED)


def _end_again(number: int, frame: object) -> None:
    os.write(2, b"jaxrelax: interrupted again; ended at once.\n")
    os._exit(INTERRUPTED)
