"""Half-sets know nothing of each other during a pass: each may have a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxrelax.engine.execution import Execution
from jaxrelax.imaging import half_shape, volume_radius
from jaxrelax.imaging.chunks import on_cpu

# Half-sets are gone through side by side where the volume of one is not larger.
SIDE_BY_SIDE_BYTES = 2**30


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


def one_by_one(execution: Execution, score_shell: int, channels: int | None = None) -> bool:
    """Whether half-sets are gone through one after another.

    Side by side, maps of one are made while images of the other are scored. That takes two
    volumes at once, for which one core gains nothing; and devices and processes that wait for each
    other need one order of things.

    Args:
        execution: devices, processes and the number of channels.
        score_shell: last shell that scores.
        channels: of the volumes of a half-set; by default those of the execution.
    """
    workers = execution.workers
    voxels = np.prod(half_shape(volume_radius(execution.shells.rung(score_shell))))
    volume_bytes = 8 * int(voxels) * (execution.channels if channels is None else channels)
    together = workers.count > 1 or len(workers.devices) > 1
    return together or volume_bytes > SIDE_BY_SIDE_BYTES or (on_cpu() and _cores() == 1)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
