"""Finite rotation groups: the class, its multiplication table, and building one from matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from jaxrelax.arrays import AnyArray

from .rotations import project_to_so3, rotation_angle

# Larger closures are refused: D360, the largest named group, has 720 elements.
MAX_ORDER = 720

# What a PointGroup holds is exact to rounding; group_from_operators makes it so.
_EXACT = 1e-10

# Entries this close to 0, ±½, ±1 are those numbers: grid rotations stay exact permutations.
_SNAP = 1e-12


class NotAGroupError(ValueError):
    """The matrices given are not the operators of a finite rotation group."""


@final
@dataclass(frozen=True, eq=False)
class PointGroup:
    """A finite group G of rotations about the centre of the box. Immutable; host-side NumPy.

    An operator g acts on the volume: ``(g V)(r) = V(g⁻¹ r)``. It follows that the projection of
    ``g V`` at pose ``A gᵀ`` is the projection of ``V`` at pose ``A``.

    Build one with `point_group`, `read_operators`, `parse_group` or `group_from_operators`; the
    constructor takes only operators that are a group to rounding (1e-10).

    Attributes:
        name: e.g. ``"D7"``.
        operators: (order, 3, 3) rotation matrices on (x, y, z) vectors, the identity first.
        centre_angstrom: where its axes meet, (x, y, z) from the centre of the box, in a file that
            says so; `prepare` reads it, and refines about that point. Operators are about the
            centre of the box none the less, and neither equality nor subgroups know of it.
        multiplication_table: (order, order); ``operators[i] @ operators[j]`` is
            ``operators[table[i, j]]``.
        inverse: (order,); ``operators[inverse[i]]`` is ``operators[i].T``.

    Raises:
        NotAGroupError: if the operators are not rotations, do not begin with the identity, repeat
            or are not closed under multiplication.
    """

    name: str
    operators: Float64[np.ndarray, "order 3 3"]
    multiplication_table: Int[np.ndarray, "order order"] = field(init=False, repr=False)
    inverse: Int[np.ndarray, "order"] = field(init=False, repr=False)
    centre_angstrom: tuple[float, float, float] = field(default=(0.0, 0.0, 0.0), repr=False)

    def __post_init__(self):
        operators = np.array(self.operators, dtype=np.float64)
        labels = default_labels(len(operators))
        check_rotations(operators, labels, _EXACT)
        if len(operators) == 0 or not np.array_equal(operators[0], np.eye(3)):
            raise NotAGroupError(
                f"group {self.name!r}: the first operator must be exactly the identity; "
                "build groups from plain matrices with group_from_operators()."
            )
        table = checked_table(operators, labels, _EXACT)
        inverse = np.argmin(table, axis=1)  # the column of the identity, index 0
        for name, array in (
            ("operators", operators),
            ("multiplication_table", table),
            ("inverse", inverse),
        ):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def order(self) -> int:
        """The number of operators, |G|."""
        return len(self.operators)

    @cached_property
    def element_orders(self) -> Int[np.ndarray, "order"]:
        """(order,) smallest k ≥ 1 with ``operators[i]`` to the power k equal to the identity."""
        elements = np.arange(self.order)
        power, orders = elements.copy(), np.zeros(self.order, dtype=int)
        for k in range(1, self.order + 1):
            orders[(power == 0) & (orders == 0)] = k
            power = self.multiplication_table[power, elements]
        orders.setflags(write=False)
        return orders

    def index_of(self, rotation: Float[np.ndarray, "3 3"], tolerance: float = 1e-3) -> int:
        """Index of the operator equal to a rotation.

        Args:
            rotation: a rotation matrix.
            tolerance: largest angle between the two, in radians.

        Raises:
            ValueError: if no operator is that close; says how far the nearest one is.
        """
        index, angle = nearest_operator(rotation, self.operators)
        if angle > tolerance:
            raise ValueError(
                f"the rotation is not in group {self.name!r}: the nearest operator (index "
                f"{int(index)}) is {np.rad2deg(float(angle)):.4g}° away, more than the tolerance "
                f"of {np.rad2deg(tolerance):.4g}°. Check the axes, or raise the tolerance."
            )
        return int(index)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PointGroup):
            return NotImplemented
        return self.name == other.name and np.array_equal(self.operators, other.operators)

    def __hash__(self) -> int:
        return hash((self.name, self.operators.tobytes()))


def nearest_operator(
    rotations: Float[AnyArray, "*batch 3 3"], operators: Float[AnyArray, "n 3 3"]
) -> tuple[Int[np.ndarray, "*batch"], Float64[np.ndarray, "*batch"]]:
    """For each rotation the nearest of a list of operators.

    Returns:
        Its index and the geodesic angle to it in radians.
    """
    rotations = np.asarray(rotations, dtype=np.float64)
    operators = np.asarray(operators, dtype=np.float64)
    flat = rotations.reshape(-1, 9)
    index = np.empty(len(flat), dtype=int)
    block = max(1, 2**22 // len(operators))  # bounds the trace matrix to 32 MiB
    for start in range(0, len(flat), block):
        # trace(R gᵀ) = 1 + 2 cos(angle) is largest for the nearest g.
        traces = flat[start : start + block] @ operators.reshape(-1, 9).T
        index[start : start + block] = np.argmax(traces, axis=1)
    index = index.reshape(rotations.shape[:-2])
    return index, rotation_angle(rotations @ operators[index].mT)


def default_labels(n: int) -> list[str]:
    """How error messages call the operators where no file says better."""
    return [f"row {i} (counted from 0)" for i in range(n)]


def check_rotations(
    matrices: Float64[np.ndarray, "n 3 3"], labels: Sequence[str], tolerance: float
) -> None:
    """Raise NotAGroupError unless every matrix is a proper rotation to ``tolerance``."""
    for matrix, label in zip(matrices, labels, strict=True):
        if not np.all(np.isfinite(matrix)):
            raise NotAGroupError(f"{label}: the matrix holds values that are not finite.")
        error = np.max(np.abs(matrix @ matrix.T - np.eye(3)))
        if error > tolerance:
            raise NotAGroupError(
                f"{label}: not a rotation, M Mᵀ differs from the identity by {error:.2g} "
                f"(tolerance {tolerance:.2g}). Give 3×3 matrices with orthonormal rows."
            )
        if np.linalg.det(matrix) < 0:
            raise NotAGroupError(
                f"{label}: the determinant is -1, a mirror or inversion. Only proper rotations "
                "are allowed: a mirror would change the hand of the molecule."
            )


def _match(
    products: Float64[np.ndarray, "n 3 3"], operators: Float64[np.ndarray, "m 3 3"], tol: float
) -> tuple[Int[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    index, angle = nearest_operator(products, operators)
    return index, angle <= tol


def checked_table(
    operators: Float64[np.ndarray, "n 3 3"], labels: Sequence[str], tolerance: float
) -> Int[np.ndarray, "n n"]:
    """Multiplication table of rotations that form a group (angles matched to ``tolerance``).

    Raises:
        NotAGroupError: on repeated operators, or on a product that is not in the list; names both
            factors and the order of the group that the operators generate.
    """
    n = len(operators)
    table = np.empty((n, n), dtype=int)
    for i in range(n):
        if i:
            first, same = _match(operators[i : i + 1], operators[:i], tolerance)
            if same[0]:
                raise NotAGroupError(f"{labels[i]} repeats {labels[first[0]]}; remove one of them.")
        table[i], found = _match(operators[i] @ operators, operators, tolerance)
        if not np.all(found):
            j = int(np.argmin(found))
            generated = len(generate(operators, tolerance))
            size = (
                f"a group of order {generated}: list all {generated} operators"
                if generated <= MAX_ORDER
                else f"more than {MAX_ORDER} operators: they do not belong to one finite group, "
                "or are given with too few digits"
            )
            raise NotAGroupError(
                f"not a group: the product of {labels[i]} and {labels[j]} is not in the list of "
                f"{n}. The operators generate {size}."
            )
    return table


def generate(
    generators: Float64[np.ndarray, "n 3 3"], tolerance: float = 1e-6
) -> Float64[np.ndarray, "order 3 3"]:
    """All products of the generators, the identity first.

    Stops, with more than ``MAX_ORDER`` elements, if the generated group is larger than that.
    """
    elements = np.eye(3)[None]
    fresh = elements
    while len(fresh) and len(elements) <= MAX_ORDER:
        candidates = (generators[:, None] @ fresh[None]).reshape(-1, 3, 3)
        fresh = np.empty((0, 3, 3))
        for candidate in project_to_so3(candidates):
            _, known = _match(candidate[None], np.concatenate([elements, fresh]), tolerance)
            if not known[0]:
                fresh = np.concatenate([fresh, candidate[None]])
            if len(elements) + len(fresh) > MAX_ORDER:
                break
        elements = np.concatenate([elements, fresh])
    return elements


def _polish(
    operators: Float64[np.ndarray, "n 3 3"], table: Int[np.ndarray, "n n"]
) -> Float64[np.ndarray, "n 3 3"]:
    """Turn operators that are nearly a group into an exact one.

    Replaces ``g`` by the mean of ``(g h) h⁻¹`` over h, projected on SO(3); the error squares
    with each pass (Grove, Karcher & Ruh, Math. Ann. 211 (1974) 7).
    """
    for _ in range(4):
        total = np.zeros_like(operators)
        for j in range(len(operators)):
            total += operators[table[:, j]] @ operators[j].T
        operators = project_to_so3(total / len(operators))
    halves = np.rint(2.0 * operators) / 2.0
    return np.where(np.abs(operators - halves) < _SNAP, halves, operators) + 0.0


def group_from_operators(
    operators: Float[AnyArray, "n 3 3"],
    name: str = "custom",
    tolerance: float = 1e-3,
    labels: Sequence[str] | None = None,
) -> PointGroup:
    """A `PointGroup` from all of its operators, verified and then made exact.

    Args:
        operators: every operator of the group in any order, the identity included. Rounded
            numbers (four digits or more) are taken to the exact group nearest to them.
        name: the name of the group.
        tolerance: how far matrices may be from orthogonal, and products (in radians) from the
            operator that they should equal.
        labels: what error messages call the operators; the row numbers by default.

    Raises:
        NotAGroupError: if they are not rotations, not distinct, lack the identity or a product.
            Nothing is completed silently: the message says what is missing and the order of the
            group that the operators generate.
    """
    matrices = np.asarray(operators, dtype=np.float64)
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3) or len(matrices) == 0:
        raise NotAGroupError(
            f"group {name!r}: operators must have shape (n, 3, 3) with n ≥ 1; got {matrices.shape}."
        )
    labels = default_labels(len(matrices)) if labels is None else list(labels)
    check_rotations(matrices, labels, tolerance)
    matrices = project_to_so3(matrices)
    first, angle = nearest_operator(np.eye(3), matrices)
    if angle > tolerance:
        raise NotAGroupError(f"group {name!r}: the identity is missing; add it to the list.")
    # A product can be off by the errors of both factors and of the operator that it should equal.
    table = checked_table(matrices, labels, 3.0 * tolerance)
    exact = _polish(matrices, table)
    exact[int(first)] = np.eye(3)
    order = [int(first), *(i for i in range(len(exact)) if i != int(first))]
    return PointGroup(name, exact[order])
