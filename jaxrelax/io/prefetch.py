"""Batches of images read ahead by a thread while the device works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Num

from jaxrelax.io.images import ImageReader


class _Failure:
    """An exception on its way from the reader thread to the consumer."""

    def __init__(self, error: BaseException):
        self.error = error


def prefetch(
    reader: ImageReader, batches: Iterable[np.ndarray], depth: int = 1
) -> Iterator[tuple[np.ndarray, Num[np.ndarray, "rows y x"]]]:
    """Yield (rows, images as they are stored) for each batch of rows, read ahead by a thread.

    Args:
        reader: used by the thread alone while this runs.
        batches: arrays of rows.
        depth: how many batches besides the one that was yielded last are in memory at most, the
            one being read included.

    Raises:
        InputError: whatever `ImageReader.read` raises, at the batch it belongs to.
    """
    ready: queue.SimpleQueue = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    stop = threading.Event()

    def work() -> None:
        try:
            for rows in batches:
                room.acquire()
                if stop.is_set():
                    return
                ready.put((rows, reader.read(rows, as_stored=True)))
            ready.put(None)
        except BaseException as error:
            ready.put(_Failure(error))

    thread = threading.Thread(target=work, name="jaxrelax-reader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, _Failure):
                raise item.error
            room.release()
            # Handed over without keeping it: what is yielded lives as long as the consumer wants.
            handed = [item]
            del item
            yield handed.pop()
    finally:
        stop.set()
        room.release()
        thread.join()
