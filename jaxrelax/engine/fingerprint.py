"""What tells two components apart where a program made for one must not serve the other.

Comparing them does not do: modules that hold arrays compare element by element or not at all, and
their representation shows of an array the shape and of a class the name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
from collections.abc import Hashable
from functools import partial
from typing import Any

import jax
import numpy as np


def fingerprint(value: Any) -> Hashable:
    """A key that two values share if and only if a program may take one for the other.

    It is made of the class objects of all parts (a class that is defined again under its name is
    another one), their plain values, the bits of all arrays, and functions as the objects that they
    are: it means something within one process. :func:`jaxrelax.refinement.described.described`
    says the same for people and other processes.

    Args:
        value: modules, dataclasses, containers, arrays and plain values, nested as may be. What is
            none of these counts as equal if it can be hashed and says so, and else only to itself.
    """
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _of_array(value)
    if isinstance(value, float | complex):
        # −0.0 equals 0.0, and a NaN nothing; neither is so for a program.
        return type(value), repr(value)
    if value is None or isinstance(value, bool | int | str | bytes | type):
        return type(value), value
    if isinstance(value, partial):
        made_of = (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        made_of = (value.__func__, value.__self__)
    elif dataclasses.is_dataclass(value):
        made_of = [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
    elif isinstance(value, dict):
        made_of = value.items()
    elif isinstance(value, tuple | list):
        made_of = value
    elif isinstance(value, set | frozenset):
        return type(value), frozenset(fingerprint(part) for part in value)
    else:
        # Nodes that are registered with JAX; None for everything else.
        made_of = jax.tree_util.default_registry.flatten_one_level(value)
    if made_of is None:
        return type(value), _Itself(value) if type(value).__hash__ is None else value
    return type(value), *(fingerprint(part) for part in made_of)


def _of_array(value) -> Hashable:
    """Kind, type, shape and a digest of the bits, so that a key holds nothing large."""
    name = str(value.dtype)
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    weak = bool(getattr(value, "weak_type", False))
    kind = jax.Array if isinstance(value, jax.Array) else type(value)
    host = np.asarray(value)
    if host.dtype.hasobject:
        return kind, name, host.shape, *(fingerprint(part) for part in host.ravel())
    return kind, name, weak, host.shape, hashlib.sha256(host.tobytes()).digest()


class _Itself:
    """Equal to nothing but the same object, which it keeps alive so that none takes its place."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)
