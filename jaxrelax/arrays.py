"""Arrays of NumPy and of JAX: public functions of the numerical core take both."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")

AnyArray = jax.Array | np.ndarray


def on_device(tree: T) -> T:
    """A tree whose arrays are all JAX's, for what traced programs index or close over.

    NumPy cannot be indexed by a traced number, which is what they are in a loop even outside
    ``jit``. Arrays of JAX are left alone.
    """
    return jax.tree.map(jnp.asarray, tree)
