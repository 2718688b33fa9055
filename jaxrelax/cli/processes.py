"""How one of several processes ends, without waiting for others that wait for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import jax

# For others to find the same fault, or the loss, and say so before process 0 takes them along.
GRACE_SECONDS = 2.0


class Guard:
    """Says why this process ended if it can no longer say so itself.

    When process 0 is lost, JAX aborts the others wherever they are. A shell waits for a line that
    comes at every orderly end, and speaks if the end comes first.
    """

    def __init__(self):
        self._shell: subprocess.Popen | None = None

    def watch(self, text: str) -> None:
        """Begin; ``text`` is what to say."""
        self.release()
        command = ["sh", "-c", 'read line || echo "$0" >&2', text]
        with contextlib.suppress(OSError):
            self._shell = subprocess.Popen(
                command, stdin=subprocess.PIPE, start_new_session=True, text=True
            )

    def release(self) -> None:
        """The end is orderly."""
        if self._shell is not None:
            with contextlib.suppress(OSError):
                self._shell.communicate("\n")
            self._shell = None


guard = Guard()


def together() -> bool:
    """Whether this process works with others."""
    return jax.distributed.is_initialized()


def leave(status: int) -> int:
    """End this process after an error if there are others, and hand on its status if not.

    An orderly end would wait for the others, who wait for this one.
    """
    guard.release()
    if not together():
        return status
    if jax.process_index() == 0:
        time.sleep(GRACE_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
