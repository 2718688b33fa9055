"""Which symmetries there are between H and G, and how a map breaks each of them."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import (
    PointGroup,
    conjugate_subgroups,
    matrix_to_rotvec,
    subgroup_indices,
    subgroups,
)
from jaxrelax.reconstruction import IsotypicParts, rotated_maps, symmetrise


class SubgroupClass(NamedTuple):
    """A class of conjugate subgroups of G, those that contain H."""

    name: str  # type, with its axis where G has several classes of that type
    conjugates: list[PointGroup]

    @property
    def order(self) -> int:
        """Number of operators."""
        return self.conjugates[0].order


class Split(NamedTuple):
    """A judging map as a test of one subgroup sees it."""

    symmetric: Float32[AnyArray, "b b b"]  # invariant under G, the same array in every register
    preserved: Float32[AnyArray, "b b b"] | None  # invariant under the tested subgroup only
    tested: Float32[AnyArray, "b b b"]


def candidate_subgroups(group: PointGroup, kept: PointGroup) -> list[SubgroupClass]:
    """What a particle may be invariant under: classes of subgroups of G above H, G first.

    H itself is not among them: nothing that the map can show contradicts it.
    """
    inside = set(subgroup_indices(group, kept).tolist())
    classes = subgroups(group)
    counts = Counter(name for name, _ in classes)
    found = []
    for name, representative in reversed(classes):
        conjugates = [
            candidate
            for candidate in conjugate_subgroups(group, representative)
            if inside < set(subgroup_indices(group, candidate).tolist())
        ]
        if conjugates:
            label = f"{name} {_axes(representative)}" if counts[name] > 1 else name
            found.append(SubgroupClass(group.name if name == classes[-1][0] else label, conjugates))
    return found


def _axes(subgroup: PointGroup) -> str:
    """Axes of a subgroup in words: enough to tell classes of one type apart."""
    vectors = matrix_to_rotvec(subgroup.operators[1:])
    lines = np.round(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 2) + 0.0
    lines = {tuple(v if tuple(v[::-1]) > (0.0, 0.0, 0.0) else -v + 0.0) for v in lines}
    shown = sorted(lines, key=lambda v: (-abs(v[2]), -abs(v[0]), -abs(v[1]), v))[:2]
    return "on " + ", ".join("(" + " ".join(f"{x:g}" for x in line) + ")" for line in shown)


def group_correlation(
    asymmetric: Float32[AnyArray, "b b b"], group: PointGroup
) -> Float64[np.ndarray, " order"]:
    """⟨D, g D⟩ for every g of G. Their mean over a subgroup is the power of its average of D."""
    flat = np.asarray(asymmetric, np.float64).reshape(-1)
    turned = rotated_maps(asymmetric, group.operators)
    return np.array([flat @ np.asarray(one, np.float64).reshape(-1) for one in turned])


def most_preserved(
    candidates: SubgroupClass, correlation: Float64[np.ndarray, " order"], group: PointGroup
) -> PointGroup:
    """The conjugate whose average keeps most of the map's asymmetric part."""
    powers = [correlation[subgroup_indices(group, c)].mean() for c in candidates.conjugates]
    return candidates.conjugates[int(np.argmax(powers))]


def split(parts: IsotypicParts, subgroup: PointGroup, group: PointGroup) -> Split:
    """A judging map as what is invariant under a subgroup of G, and what is not."""
    if subgroup.order == group.order:
        return Split(parts.symmetric, None, parts.asymmetric)
    preserved = symmetrise(parts.asymmetric, subgroup)
    return Split(parts.symmetric, preserved, parts.asymmetric - preserved)
