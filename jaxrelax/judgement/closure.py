"""Verdicts on several symmetries that do not contradict each other.

A particle with a symmetry has every subgroup of it. So a symmetry is rejected only if its own test
rejects it and every larger one that contains it is rejected as well: one goes down from G, and
where a symmetry stands, all within it stand. No correction for their number is needed: rejecting
anything that is true takes rejecting the true symmetry, whose test errs with its own probability
(closed testing: Marcus, Peritz & Gabriel, Biometrika 63 (1976) 655).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from jaxrelax.geometry import PointGroup, subgroup_indices
from jaxrelax.judgement.subgroup_classes import SubgroupClass
from jaxrelax.judgement.verdict import SubgroupTest


def containment(
    candidates: Sequence[SubgroupClass], group: PointGroup
) -> Bool[np.ndarray, "classes classes"]:
    """Whether class i is contained in class j: one of its groups in one of the other's.

    Args:
        candidates: classes of conjugate subgroups of G.
        group: G.
    """
    members = [
        [frozenset(subgroup_indices(group, one).tolist()) for one in candidate.conjugates]
        for candidate in candidates
    ]
    return np.array(
        [
            [any(small < large for small in mine for large in larger) for larger in members]
            for mine in members
        ]
    )


def closed(
    rows: Sequence[SubgroupTest], contained: Bool[np.ndarray, "classes classes"]
) -> list[SubgroupTest]:
    """The tests, with ``implied_by`` where a larger symmetry that stands contains the tested one.

    Args:
        rows: one test for each of the first classes, larger ones first.
        contained: from :func:`containment`.
    """
    judged: list[SubgroupTest] = []
    for number, row in enumerate(rows):
        row = row._replace(implied_by=None)
        standing = [
            other for place, other in enumerate(judged)
            if contained[number, place] and not other.rejected
        ]  # fmt: skip
        if row.rejected and standing:
            largest = max(standing, key=lambda other: (other.order, other.log10_p))
            row = row._replace(implied_by=largest.name)
        judged.append(row)
    return judged
