"""Which group a map has, and whether it can be the one that is said.

The correlation of a map with its symmetrised self does not tell: a ring of four protomers has C4
(1.000), but also C5 (0.902) and C8 (0.924), by being round. Of what is left without that
(:class:`SelfRotation`) copies under an operator of the map correlate 1, and those under another one
0 or less. A body that conforms and a partner that does not lie between: lower where the partner is
heavier and the map coarser. But there is hardly a partner near the centre, so smaller spheres are
asked, too. ``experiments/group_fit.py`` measures both kinds (docs/theory.md has the figures).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from jaxrelax.geometry import (
    PointGroup,
    matrix_to_rotvec,
    operator_classes,
    point_group,
    subgroups,
)
from jaxrelax.reconstruction.masks import soft_sphere
from jaxrelax.reconstruction.rotate import symmetrise
from jaxrelax.reconstruction.self_rotation import EDGE, SPHERE, SelfRotation, coarse_copy

# Spheres that are asked, as shares of the largest, and the radius (voxels) that one must have: in
# fewer voxels anything agrees with its copies by chance.
RADII = (0.35, 0.5, 0.65, 0.8, 1.0)
LEAST_RADIUS_PX = 3.75
# A map of which less than this share of the power is left fits every group.
NOTHING_LEFT = 1e-3
# Of another group's correlation what copies under the group in question must have.
LEAST_TURNS, LEAST_FLIPS = 0.15, 0.25
# The same of turns where a subgroup is what fits: the group may have been broken to it. Turns that
# mean nothing lie below 0 (those by all angles have the mean 0, of which the map itself is one).
LEAST_TURNS_BROKEN = 0.0
# The same of a map that was aligned: with the place of its axes free, wrong ones reach 0.55.
LEAST_ALIGNED = 0.65
# The same where no other group fits.
LEAST_ALONE = -0.05
# What another group must have to be believed; and how near the best, to be preferred for its order.
# Noise tells more on groups without a main axis, of which no smaller spheres are asked.
FITS, NEARLY_BEST, NEARLY_BEST_WITHOUT_AXIS = 0.25, 0.9, 0.7
# Groups on the axes of the box that are tried.
FOLDS = range(2, 13)
POLYHEDRAL = ("T", "O", "I1", "I2", "I3", "I4")


class Fit(NamedTuple):
    """How well a map has a group.

    Attributes:
        group: the group.
        correlation: of the map with its symmetrised self.
        turns: mean correlation of the map with its copies under the operators of that class that
            fits worst, what is alike at every angle left out.
        flips: the same for the 2-folds across the main axis of a dihedral group; 1 for others.
    """

    group: PointGroup
    correlation: float
    turns: float
    flips: float

    @property
    def copies(self) -> float:
        """The lower of the two."""
        return min(self.turns, self.flips)


class Verdict(NamedTuple):
    """What a map says of a group.

    Attributes:
        asked: fit of the group in question.
        better: fit of another group, where the one in question fits badly and there is another.
        refused: the map does not have the group, nor had it before something broke it.
    """

    asked: Fit
    better: Fit | None
    refused: bool


class GroupFits:
    """Fits of one map to any groups, on a coarse copy that is turned as often as is needed."""

    def __init__(self, map_: Float[np.ndarray, "n n n"]):
        self.map, _ = coarse_copy(np.asarray(map_, np.float32))
        n = len(self.map)
        self._radii = [r for r in RADII if r == RADII[-1] or r * SPHERE * n >= LEAST_RADIUS_PX]
        self._inner = np.asarray(self.map * soft_sphere(n, SPHERE * n, EDGE * n), np.float32)
        self._rotations: dict[tuple, SelfRotation] = {}

    def fit(self, group: PointGroup) -> Fit:
        """How well the map has a group, on the axes that the group has.

        Raises:
            ValueError: the group is C1.
        """
        if group.order == 1:
            raise ValueError("every map has C1")
        classes = [group.operators[members] for members in operator_classes(group)]
        axis = main_axis(group)
        across = [c for c in classes if axis is not None and np.allclose(c @ axis, -axis)]
        along = [c for c in classes if not any(c is other for other in across)]
        # Without a main axis sites are many and a partner is little; and shells are hollow.
        radii = self._radii if axis is not None else RADII[-1:]
        turns = max(self._copies(along, axis, radius) for radius in radii)
        # What a small sphere holds of a coarse map is turned over with little change; and so is a
        # ring, if all that is round about its axis is left out. So the whole is asked, and only
        # its spherical part left out.
        flips = self._copies(across, None, RADII[-1]) if across else 1.0
        average = np.asarray(symmetrise(self._inner, group))
        power = max(float(np.vdot(self._inner, self._inner)), 1e-30)
        correlation = np.sqrt(max(float(np.vdot(average, self._inner)) / power, 0.0))
        return Fit(group, float(correlation), turns, flips)

    def judge(self, group: PointGroup, *, aligned: bool = False) -> Verdict:
        """Whether the map can have a group, and which it has if not.

        Others are the cyclic and dihedral groups up to 12-fold and the polyhedral ones, as they
        stand in the box, and the subgroups of the group in question.

        Args:
            group: of more than the identity.
            aligned: the map was moved to suit the group, or is said to have it exactly.
        """
        asked = self.fit(group)
        if asked.copies >= LEAST_ALIGNED:
            return Verdict(asked, None, False)
        others = [fit for fit in map(self.fit, _others(group)) if fit.copies >= FITS]
        if not others:
            return Verdict(asked, None, asked.copies < LEAST_ALONE)
        highest = max(fit.copies for fit in others)
        better = max(
            (fit for fit in others if fit.copies >= _near(fit.group) * highest),
            key=lambda fit: (fit.group.order, fit.copies),
        )
        if asked.copies >= NEARLY_BEST * better.copies:
            return Verdict(asked, None, False)
        broken = any(
            fit.copies >= NEARLY_BEST * better.copies and _within(fit.group, group)
            for fit in others
        )
        fits = fits_beside(asked, better, aligned=aligned, broken=broken)
        return Verdict(asked, better, not fits)

    def _copies(self, classes, axis, radius: float) -> float:
        """Lowest mean correlation with copies over classes of operators."""
        about = (None if axis is None else tuple(np.round(axis, 6)), radius)
        if about not in self._rotations:
            self._rotations[about] = SelfRotation(self.map, axis, radius)
        rotation = self._rotations[about]
        if rotation.share < NOTHING_LEFT:
            return 1.0 if radius == RADII[-1] else -1.0
        return min(float(rotation.correlations(operators).mean()) for operators in classes)


def fits_beside(asked: Fit, better: Fit, *, aligned: bool = False, broken: bool = False) -> bool:
    """Whether a map can have one group although another one fits it better.

    Args:
        asked, better: fits of the two.
        aligned: the map was moved to suit the group, or is said to have it exactly.
        broken: a subgroup of the one fits as well as the other: the map may have had the group
            before something broke it.
    """
    turns, flips = LEAST_TURNS_BROKEN if broken else LEAST_TURNS, LEAST_FLIPS
    if aligned:
        turns = flips = LEAST_ALIGNED
    return asked.turns >= turns * better.copies and asked.flips >= flips * better.copies


def main_axis(group: PointGroup) -> Float64[np.ndarray, "3"] | None:
    """The axis that every operator keeps or reverses; of several (D2) that nearest z, if any."""
    rotvecs = matrix_to_rotvec(group.operators[1:])
    axes = rotvecs / np.linalg.norm(rotvecs, axis=1, keepdims=True)
    kept = [
        axis
        for axis in axes
        if np.allclose(np.abs(np.einsum("i,gij,j->g", axis, group.operators, axis)), 1.0)
    ]
    if not kept:
        return None
    return max(kept, key=lambda axis: (round(abs(axis[2]), 6), round(abs(axis[0]), 6)))


def _others(group: PointGroup) -> list[PointGroup]:
    """Groups that a map may have instead of one."""
    within = [found for _, found in subgroups(group) if 1 < found.order < group.order]
    return [*(other for other in _family() if not _same(other, group)), *within]


@lru_cache(maxsize=1)
def _family() -> list[PointGroup]:
    names = [f"{kind}{fold}" for fold in FOLDS for kind in "CD"]
    return [point_group(name) for name in (*names, *POLYHEDRAL)]


def _near(group: PointGroup) -> float:
    """Share of the best correlation with which a group is as good as the best."""
    return NEARLY_BEST if main_axis(group) is not None else NEARLY_BEST_WITHOUT_AXIS


def _within(subgroup: PointGroup, group: PointGroup) -> bool:
    """Whether all operators of one group are operators of the other."""
    traces = np.einsum("aij,bij->ab", subgroup.operators, group.operators)
    return bool(np.all(traces.max(axis=1) > 3.0 - 1e-5))


def _same(first: PointGroup, second: PointGroup) -> bool:
    return first.order == second.order and np.allclose(
        _sorted(first.operators), _sorted(second.operators), atol=1e-3
    )


def _sorted(operators):
    flat = np.round(operators.reshape(len(operators), 9), 3) + 0.0
    return flat[np.lexsort(flat.T)]
