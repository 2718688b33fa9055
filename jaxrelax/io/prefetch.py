"""Batches of images read ahead by a thread while the device works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float32

from jaxrelax.io.images import ImageReader


class _Failure:
    """An exception on its way from the reader thread to the consumer."""

    def __init__(self, error: BaseException):
        self.error = error


def prefetch(
    reader: ImageReader, batches: Iterable[np.ndarray], depth: int = 2
) -> Iterator[tuple[np.ndarray, Float32[np.ndarray, "rows y x"]]]:
    """Yield (rows, images) for each batch of rows, read ahead by a thread.

    Args:
        reader: used by the thread alone while this runs.
        batches: arrays of rows.
        depth: how many batches may wait, read, in memory.

    Raises:
        InputError: whatever `ImageReader.read` raises, at the batch it belongs to.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def offer(item) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for rows in batches:
                if not offer((rows, reader.read(rows))):
                    return
            offer(None)
        except BaseException as error:
            offer(_Failure(error))

    thread = threading.Thread(target=work, name="jaxrelax-reader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stop.set()
        thread.join()
