"""How much of a batch is worked on at once: temporaries that fit the memory that is near."""

from __future__ import annotations

import jax

# About a core's cache, or enough to fill an accelerator.
CHUNK_BYTES = {"cpu": 3 * 2**20, "accelerator": 2**29}


def fitting(bytes_each: int) -> int:
    """How many items with temporaries of so many bytes are worked on at once; at least 1."""
    budget = CHUNK_BYTES["cpu" if jax.default_backend() == "cpu" else "accelerator"]
    return max(budget // bytes_each, 1)


def equal_part(n: int, most: int) -> int:
    """The largest divisor of ``n`` that is at most ``most``."""
    return next(size for size in range(min(most, n), 0, -1) if n % size == 0)
