"""Compiled programs, kept for the whole process by what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from jaxrelax.engine.fingerprint import fingerprint

# Far more than one refinement makes; the oldest go first, with what they hold.
MOST_PROGRAMS = 128
_PROGRAMS: dict[Hashable, Callable] = {}


def cached_program(build: Callable[[], Callable], *made_of: Any) -> Callable:
    """The program that was built of the same things before, or a new one.

    Args:
        build: makes it.
        made_of: everything that ``build`` uses and that programs of this kind may differ in, the
            kind's name among it: components, geometries, devices, numbers (see
            :func:`jaxrelax.engine.fingerprint.fingerprint`).
    """
    key = fingerprint(made_of)
    if key not in _PROGRAMS:
        while len(_PROGRAMS) >= MOST_PROGRAMS:
            _PROGRAMS.pop(next(iter(_PROGRAMS)))
        _PROGRAMS[key] = build()
    return _PROGRAMS[key]
