"""Point groups by name, in RELION's orientations.

The orientations were read from RELION's symmetry definitions (``src/symmetries.cpp``,
``SymList::fill_symmetry_class``) and checked against ``relion_refine --sym X
--print_symmetry_ops`` for every name accepted here:

=========  =====================================================================================
Cn         n-fold on z
Dn         n-fold on z, a 2-fold on x
T          a 3-fold on z, a 2-fold on (0, √2, 1)/√3
O          4-folds on x, y and z
I, I2      2-folds on x, y and z, a 5-fold on (1, 0, φ)
I1         I2 turned by 90° about y: 2-folds on x, y and z, a 5-fold on (φ, 0, -1)
I3         a 5-fold on z, a 2-fold on (-1, 0, φ)
I4         a 2-fold on (1, 0, φ), a 5-fold on (2, 0, 1): I3 turned by 180° about z
=========  =====================================================================================

with φ the golden ratio. In RELION plain ``I`` is ``I2``, not ``I1``.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from jaxtyping import Float64

from .groups import PointGroup, generate, group_from_operators
from .rotations import rotvec_to_matrix

MAX_FOLD = 360

_PHI = (1.0 + np.sqrt(5.0)) / 2.0

# (fold, axis) pairs that generate each polyhedral group, with exact axes.
_GENERATORS: dict[str, tuple[tuple[int, tuple[float, float, float]], ...]] = {
    "T": ((3, (0.0, 0.0, 1.0)), (2, (0.0, np.sqrt(2.0), 1.0))),
    "O": ((3, (1.0, 1.0, 1.0)), (4, (0.0, 0.0, 1.0))),
    "I1": ((2, (1.0, 0.0, 0.0)), (5, (_PHI, 0.0, -1.0))),
    "I2": ((2, (0.0, 0.0, 1.0)), (5, (1.0, 0.0, _PHI))),
    "I3": ((2, (-1.0, 0.0, _PHI)), (5, (0.0, 0.0, 1.0))),
    "I4": ((2, (1.0, 0.0, _PHI)), (5, (2.0, 0.0, 1.0))),
}
_ORDERS = {"T": 12, "O": 24, "I1": 60, "I2": 60, "I3": 60, "I4": 60}

ACCEPTED_NAMES = f"Cn or Dn (n from 1 to {MAX_FOLD}), T, O, I (= I2), I1, I2, I3, I4"


class UnknownGroupError(ValueError):
    """The name is not that of a point group."""


def canonical_name(name: str) -> str:
    """The name in upper case without leading zeros, e.g. ``"c04"`` becomes ``"C4"``.

    Raises:
        UnknownGroupError: if `point_group` does not know the name; names what is accepted.
    """
    upper = name.strip().upper()
    if upper == "I" or upper in _GENERATORS:
        return upper
    match = re.fullmatch(r"([CD])(\d+)", upper, flags=re.ASCII)
    if match is None:
        hint = ""
        if re.fullmatch(r"(C[SI]|[CD]\d+[HV]|S\d+|T[DH]|OH|I\d?H)", upper, flags=re.ASCII):
            hint = " Groups with mirrors or inversion do not apply to chiral molecules."
        raise UnknownGroupError(
            f"{name!r} is not a point group. Accepted, in any case: {ACCEPTED_NAMES}.{hint}"
        )
    # A numeral of many digits is absurd whatever it says; int() on it might even be refused.
    fold = int(match[2]) if len(match[2]) <= 9 else 0
    if not 1 <= fold <= MAX_FOLD:
        raise UnknownGroupError(
            f"{name!r}: the fold must lie between 1 and {MAX_FOLD}. Accepted: {ACCEPTED_NAMES}."
        )
    return f"{match[1]}{fold}"


def point_group(name: str) -> PointGroup:
    """The point group of a name, in RELION's orientation (see the module's table).

    Cn lists its operators by angle: operator k is the rotation by ``2πk/n`` about +z; Dn lists
    Cn first, then Cn times the 2-fold on x. The polyhedral groups have a fixed order of
    generation. Calls with the same name return the same object.

    Args:
        name: ``Cn``, ``Dn``, ``T``, ``O``, ``I``, ``I1`` to ``I4``; upper or lower case.

    Raises:
        UnknownGroupError: if the name is anything else; the message names what is accepted.
    """
    return _point_group(canonical_name(name))


@lru_cache(maxsize=64)
def _point_group(name: str) -> PointGroup:
    if name[0] in "CD":
        return PointGroup(name, _cyclic_or_dihedral(name[0], int(name[1:])))
    setting = "I2" if name == "I" else name
    rotvecs = [
        2.0 * np.pi / fold * np.asarray(axis) / np.linalg.norm(axis)
        for fold, axis in _GENERATORS[setting]
    ]
    operators = generate(rotvec_to_matrix(np.stack(rotvecs)))
    group = group_from_operators(operators, name=name, tolerance=1e-9)
    if group.order != _ORDERS[setting]:
        raise AssertionError(f"{name} came out with {group.order} operators")
    return group


def _cyclic_or_dihedral(kind: str, fold: int) -> Float64[np.ndarray, "order 3 3"]:
    operators = np.zeros((fold, 3, 3))
    for k in range(fold):
        cosine, sine = _cos_sin_of_turn(k, fold)
        operators[k] = [[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]
    if kind == "D":
        operators = np.concatenate([operators, operators @ np.diag([1.0, -1.0, -1.0])])
    return operators + 0.0  # no negative zeros


def _cos_sin_of_turn(k: int, n: int) -> tuple[float, float]:
    """Cosine and sine of k/n of a full turn, exact where they are 0, ±½ or ±1."""
    angle = 2.0 * np.pi * k / n
    values = []
    for value in (np.cos(angle), np.sin(angle)):
        half = np.rint(2.0 * value) / 2.0
        values.append(float(half if abs(value - half) < 1e-12 else value))
    return values[0], values[1]
