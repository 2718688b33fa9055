"""Freed memory goes back to the system."""

import subprocess
import sys

import numpy as np
import pytest

from jaxrelax.engine.memory import HEAPS as SHARED
from jaxrelax.engine.memory import give_back_freed, peak_memory_gib


def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_is_kept_between_live_blocks_is_given_back():
    # Small enough that the C library does not map each by itself; what stays alive in between and
    # at the end keeps the heap from shrinking.
    blocks = [np.ones(2**14) for _ in range(2000)]  # 128 KiB each
    kept = blocks[::20]
    held = resident_mib()
    del blocks
    give_back_freed()
    assert resident_mib() < held - 150.0
    assert all(block.sum() == 2**14 for block in kept)


def test_the_peak_is_that_of_the_process():
    before = peak_memory_gib()
    filled = np.ones(2**25)  # a quarter of a GiB
    assert peak_memory_gib() >= max(before, filled.nbytes / 2**30)
    assert peak_memory_gib() < 1024.0


HEAPS = """
import ctypes, sys, threading
from jaxrelax.engine.memory import few_heaps
if sys.argv[1] == "few":
    few_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
places, together = [], threading.Barrier(8)
def take():
    together.wait()
    places.append(libc.malloc(1000) >> 26)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(set(places)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_threads_share_few_heaps():
    """A heap of glibc's is 64 MiB at a multiple of 64 MiB."""
    many, few = (
        int(subprocess.run([sys.executable, "-c", HEAPS, how], stdout=-1, check=True).stdout)
        for how in ("many", "few")
    )
    assert few <= SHARED < many
