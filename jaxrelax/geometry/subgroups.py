"""Subgroups of a point group, in the orientation of the group.

Every finite rotation group is Cn, Dn, T, O or I as an abstract group, and its subgroups follow
from its multiplication table: the cyclic ones from single elements, the dihedral ones from a
cyclic one and a 2-fold that inverts it, T from a 2-fold and a 3-fold. Nothing here depends on how
the group is oriented, so it serves groups read from files too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int
from numpy.typing import ArrayLike

from .groups import PointGroup
from .point_groups import canonical_name, point_group
from .rotations import matrix_to_rotvec, rotation_angle

# Operators of a subgroup given as matrices are matched to those of the group to this (radians).
_MATCH = 1e-3

# How far the axis that a user names may be from the one meant.
_AXIS_TOLERANCE_DEG = 1.0

_ICOSAHEDRAL_SETTINGS = ("I1", "I2", "I3", "I4")


def subgroup(
    group: PointGroup, to: str | PointGroup, axis: ArrayLike | Sequence[float | int] | None = None
) -> PointGroup:
    """The subgroup H of G named by ``to``; its operators are elements of G.

    A name means its standard orientation (`point_group`) where G contains that. Otherwise it is
    searched among the subgroups of that type in G, in whatever orientation they have there, and
    chosen by: the main axis nearest z; then nearest +x, then +y; then the remaining axes nearest
    x. The main axis is that of highest order, but for T a 2-fold, which tells the five T of I
    apart where a 3-fold does not. So C2 of D4 is the 2-fold on z, C2 of D7 the 2-fold on x, and T
    of I the one with 2-folds on x, y and z.

    Args:
        group: G.
        to: a name (``"C1"``, ``"D2"``, ``"T"``) or a group whose operators are all in G.
        axis: picks among the subgroups of that type the one with its main axis along
            this vector, of either sign and any length, to 1°.

    Returns:
        H, with the operators of G in the order of G and the name asked for.

    Raises:
        UnknownGroupError: if the name is unknown.
        ValueError: if G has no such subgroup (lists those it has), none on that axis (lists the
            axes), or ``axis`` is given where it has no meaning.
    """
    if isinstance(to, PointGroup):
        if axis is not None:
            raise ValueError("axis= picks among subgroups of a name; leave it out with a group.")
        return _select(group, subgroup_indices(group, to), to.name)

    name = canonical_name(to)
    standard = point_group(name)
    if axis is None:
        try:
            return _select(group, subgroup_indices(group, standard), name)
        except ValueError:
            pass  # not in this orientation: search for another one
    kind = type_name(standard.element_orders)
    candidates = [] if name in _ICOSAHEDRAL_SETTINGS else _all_of_type(group, kind)
    if not candidates:
        names = ", ".join(dict.fromkeys(n for n, _ in subgroups(group)))
        raise ValueError(
            f"group {group.name!r} of order {group.order} has no subgroup {name}. "
            f"Its subgroups are: {names}."
        )
    axes = _rotation_axes(group)
    if axis is not None:
        candidates = _on_axis(group, candidates, axes, axis, name)
    best = min(candidates, key=lambda members: _preference(group, members, axes))
    return _select(group, np.array(best), name)


def subgroup_indices(group: PointGroup, subgroup: PointGroup) -> Int[np.ndarray, "h_order"]:
    """Index in G of each operator of H, in the order of H.

    Raises:
        ValueError: if an operator of H is not in G (to 1e-3 rad); says which.
    """
    indices = []
    for i, operator in enumerate(subgroup.operators):
        try:
            indices.append(group.index_of(operator, _MATCH))
        except ValueError as error:
            raise ValueError(
                f"{subgroup.name!r} is not a subgroup of {group.name!r}: operator {i}: {error}"
            ) from None
    return np.array(indices)


def common_subgroup(groups: Sequence[PointGroup]) -> PointGroup:
    """Operators that all groups have.

    Args:
        groups: of one orientation each; at least one.

    Returns:
        one of the groups where it is part of all others, else a group without a name of its own.
    """
    first, *others = groups
    shared = first
    for other in others:
        nearest = rotation_angle(shared.operators[:, None] @ other.operators[None].mT).min(axis=1)
        shared = _select(shared, np.flatnonzero(nearest < _MATCH), "common")
    return next((one for one in groups if one.order == shared.order), shared)


def subgroups(group: PointGroup) -> list[tuple[str, PointGroup]]:
    """All subgroups up to conjugacy in G, by rising order; C1 and G itself are among them.

    Returns:
        ``(name, H)`` with one H for each class of conjugate subgroups, chosen among them as in
        `subgroup`. A name can occur more than once: D4 has three classes of 2-folds. Names are
        types (C2 for D1, I for every icosahedral setting).
    """
    axes = _rotation_axes(group)
    found = []
    for name, conjugates in _classes(group):
        best = min(conjugates, key=lambda members: _preference(group, members, axes))
        found.append((len(best), name, _preference(group, best, axes), best))
    found.sort()
    return [(name, _select(group, np.array(best), name)) for _, name, _, best in found]


def conjugate_subgroups(group: PointGroup, subgroup: PointGroup) -> list[PointGroup]:
    """The distinct subgroups ``g H g⁻¹`` of G, H itself among them.

    Returns:
        One group for each, of the name of H, with the operators of G in the order of G.

    Raises:
        ValueError: if H is not a subgroup of G.
    """
    members = tuple(subgroup_indices(group, subgroup).tolist())
    return [
        _select(group, np.array(conjugate), subgroup.name)
        for conjugate in _conjugates(group, members)
    ]


def operator_classes(group: PointGroup) -> list[Int[np.ndarray, "n"]]:
    """The operators but the identity, sorted by the cyclic subgroup that they generate.

    Operators are in one class if their cyclic subgroups are conjugate in G: an object in which one
    of them holds exactly has, up to a turn within G, the symmetry of all of them. C5 has one class
    of four; D4 the quarter turns, the half turn and two classes of 2-folds.

    Returns:
        Indices in G, one array a class, in the order of their first operators.
    """
    found: dict[_Members, list[int]] = {}
    names: dict[_Members, _Members] = {}
    for element in range(1, group.order):
        cyclic = _generated(group, (element,))
        if cyclic not in names:
            conjugates = _conjugates(group, cyclic)
            names.update(dict.fromkeys(conjugates, cyclic))
        found.setdefault(names[cyclic], []).append(element)
    return [np.array(members) for members in found.values()]


_Members = tuple[int, ...]  # indices of a subgroup's elements, rising


def _select(group: PointGroup, members: Int[np.ndarray, "n"], name: str) -> PointGroup:
    return PointGroup(name, group.operators[np.sort(members)])


def type_name(element_orders: Int[np.ndarray, "n"]) -> str:
    """The type of a finite rotation group from the orders of its elements."""
    n, highest = len(element_orders), int(np.max(element_orders))
    if highest == n:
        return f"C{n}"
    if 2 * highest == n:
        return f"D{highest}"
    return {12: "T", 24: "O", 60: "I"}[n]


def _classes(group: PointGroup) -> list[tuple[str, list[_Members]]]:
    """(type, all conjugates) of every class of conjugate subgroups."""
    classes: list[tuple[str, list[_Members]]] = []
    seen: set[_Members] = set()

    def add(members: _Members) -> bool:
        if members in seen:
            return False
        conjugates = _conjugates(group, members)
        seen.update(conjugates)
        classes.append((type_name(group.element_orders[list(members)]), conjugates))
        return True

    table, orders = group.multiplication_table, group.element_orders
    two_folds = np.flatnonzero(orders == 2)
    for generator in range(group.order):
        cyclic = _generated(group, (generator,))
        if not add(cyclic) or len(cyclic) == 1:
            continue
        for flip in two_folds:
            inverts = table[flip, generator] == table[group.inverse[generator], flip]
            if flip not in cyclic and inverts:
                add(tuple(sorted((*cyclic, *table[flip, list(cyclic)].tolist()))))
    if type_name(orders) in ("T", "O", "I"):
        for two_fold in two_folds:
            for three_fold in np.flatnonzero(orders == 3):
                members = _generated(group, (int(two_fold), int(three_fold)))
                if type_name(orders[list(members)]) == "T":
                    add(members)
    add(tuple(range(group.order)))
    return classes


def _all_of_type(group: PointGroup, kind: str) -> list[_Members]:
    return [members for name, found in _classes(group) if name == kind for members in found]


def _generated(group: PointGroup, generators: tuple[int, ...]) -> _Members:
    members, fresh = {0}, [0]
    while fresh:
        element = fresh.pop()
        for generator in generators:
            product = int(group.multiplication_table[generator, element])
            if product not in members:
                members.add(product)
                fresh.append(product)
    return tuple(sorted(members))


def _conjugates(group: PointGroup, members: _Members) -> list[_Members]:
    """The distinct ``g H g⁻¹``."""
    table = group.multiplication_table
    conjugates = np.sort(table[table[:, list(members)], group.inverse[:, None]], axis=1)
    return [tuple(row) for row in np.unique(conjugates, axis=0).tolist()]


def _rotation_axes(group: PointGroup) -> Float64[np.ndarray, "order 3"]:
    """Unit axis of every operator, pointing to +z (else +x, else +y); zero for the identity."""
    rotvecs = matrix_to_rotvec(group.operators)
    rotvecs[0] = 0.0
    lengths = np.linalg.norm(rotvecs, axis=1, keepdims=True)
    axes = np.round(rotvecs / np.where(lengths == 0.0, 1.0, lengths), 9)
    for column in (1, 0, 2):  # the last one to flip has the last word
        axes = np.where(axes[:, [column]] < 0.0, -axes, axes)
    return axes + 0.0


def _main_axes(
    group: PointGroup, members: _Members, axes: Float64[np.ndarray, "order 3"]
) -> Float64[np.ndarray, "n 3"]:
    """The axes that orient a subgroup: those of highest order, but the 2-folds of T."""
    rows = np.array(members)
    orders = group.element_orders[rows]
    wanted = 2 if type_name(orders) == "T" else np.max(orders)
    return axes[rows[orders == wanted]]


def _preference(group: PointGroup, members: _Members, axes: Float64[np.ndarray, "order 3"]):
    """A key that sorts subgroups of one type as `subgroup` documents."""
    if members == (0,):
        return ((), (), members)

    def lines(directions: np.ndarray) -> set[tuple[float, ...]]:
        return {tuple(line) for line in (np.round(directions, 6) + 0.0).tolist()}

    x, y, z = min(lines(_main_axes(group, members, axes)), key=lambda a: (-a[2], -a[0], -a[1]))
    others = lines(axes[list(members)[1:]]) - {(x, y, z)}
    remaining = sorted((-abs(a[0]), -a[2], -a[1]) for a in others)
    return ((-z, -x, -y), tuple(remaining), members)


def _on_axis(
    group: PointGroup,
    candidates: list[_Members],
    axes: Float64[np.ndarray, "order 3"],
    axis: ArrayLike | Sequence[float | int],
    name: str,
) -> list[_Members]:
    direction = np.asarray(axis, dtype=np.float64)
    if direction.shape != (3,) or not np.linalg.norm(direction) > 0.0:
        raise ValueError(f"axis must be a vector (x, y, z) that is not zero; got {axis!r}.")
    if candidates[0] == (0,):
        raise ValueError("axis= has no meaning for C1; leave it out.")
    direction = direction / np.linalg.norm(direction)
    chosen, available = [], set()
    for members in candidates:
        main = _main_axes(group, members, axes)
        sines = np.linalg.norm(np.cross(main, direction), axis=1)
        if np.min(sines) <= np.sin(np.deg2rad(_AXIS_TOLERANCE_DEG)):
            chosen.append(members)
        available.update(tuple(np.round(line, 4).tolist()) for line in main)
    if not chosen:
        listed = sorted(available, key=lambda a: -abs(float(np.dot(a, direction))))
        shown = ", ".join(str(line) for line in listed[:12])
        more = "" if len(listed) <= 12 else f" and {len(listed) - 12} more"
        raise ValueError(
            f"group {group.name!r} has no {name} on the axis {direction.round(4).tolist()}; "
            f"its axes, nearest first: {shown}{more}."
        )
    return chosen
