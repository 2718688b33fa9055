"""What this process holds of memory, and what it gives back before its end."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_ARENA_MAX = -8  # of glibc's malloc.h
# With two, threads wait for each other; with one each, all keep what they freed.
HEAPS = 4


def peak_memory_gib() -> float:
    """Peak resident memory of this process, in GiB."""
    import resource  # which Windows does not have

    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def give_back_freed() -> None:
    """Return memory that was freed to the system; does nothing where the C library is not glibc.

    glibc keeps what is freed in blocks of up to 32 MiB, in a heap for every few threads, for the
    next of that size. Sums, maps and temporaries of a growing band are of another size in every
    iteration and every thread, so that a run would come to hold far more than it uses. Having every
    large block mapped by itself (``M_MMAP_THRESHOLD``) costs time: temporaries of every call are
    then fetched anew, page by page. This is called where a fold or a test ends.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def few_heaps() -> None:
    """Let all threads of this process share a few heaps; does nothing where glibc is not used.

    By default every thread gets one of its own, up to eight for each core, and each keeps what was
    freed in it; runtime, readers and half-sets have many threads between them. For a
    program's beginning, before there are threads: a library leaves the allocator alone.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_ARENA_MAX, HEAPS)


@cache
def _trim():
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
