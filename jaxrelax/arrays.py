"""Arrays of NumPy and of JAX: public functions of the numerical core take both."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

T = TypeVar("T")

AnyArray = jax.Array | np.ndarray


def on_host(*trees: Any) -> bool:
    """Whether NumPy and its like work on these arrays: on a processor, outside of any program.

    On a processor they are faster than what XLA makes; what is traced, or lies on an accelerator,
    they would have to pull away.
    """
    return jax.default_backend() == "cpu" and not traced(*trees)


def traced(*trees: Any) -> bool:
    """Whether any array is one that a program is being made of."""
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(trees))


def on_device(tree: T) -> T:
    """A tree whose arrays are all JAX's, for what traced programs index or close over.

    NumPy cannot be indexed by a traced number, which is what they are in a loop even outside
    ``jit``. Arrays of JAX are left alone.
    """
    return jax.tree.map(jnp.asarray, tree)
