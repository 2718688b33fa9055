"""Two pieces of work in two threads, which stop together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Side:
    """How the work in a thread gets along with the other one."""

    def __init__(self, ready: threading.Event, stop: threading.Event, lock: threading.Lock):
        self._ready, self._stop, self._lock = ready, stop, lock

    def go_on(self) -> None:
        """Let the other begin, if it has not: what both need has been made."""
        self._ready.set()

    @property
    def stopped(self) -> bool:
        """Whether the other has failed, so that this one is in vain."""
        return self._stop.is_set()

    def call(self, function: Callable, *arguments: Any) -> None:
        """Call what knows of one thread only."""
        with self._lock:
            function(*arguments)


def both(
    first: Callable[[Side], None], second: Callable[[Side], None], *, alone: bool = False
) -> None:
    """Do the first in this thread and the second in another; or one after the other.

    The second begins when the first says so (:meth:`Side.go_on`), so that programs are compiled
    once. Where one raises the other is stopped, and the exception goes on.

    Args:
        first, second: each looks at :attr:`Side.stopped` now and then, and returns.
        alone: one after the other, in this thread.
    """
    ready, stop = threading.Event(), threading.Event()
    side = Side(ready, stop, threading.Lock())

    def guarded(work: Callable[[Side], None]) -> None:
        try:
            work(side)
        except BaseException:
            stop.set()
            raise
        finally:
            ready.set()

    if alone:
        guarded(first)
        guarded(second)
        return

    def waiting() -> None:
        ready.wait()
        if not stop.is_set():
            guarded(second)

    with ThreadPoolExecutor(1, "jaxrelax-half") as pool:
        other = pool.submit(waiting)
        guarded(first)
        other.result()
