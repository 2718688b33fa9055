"""Verdicts on several symmetries that do not contradict each other.

A particle with a symmetry has every subgroup of it. So a symmetry is rejected only if its own test
rejects it and every larger one that contains it is rejected as well: one goes down from G, and
where a symmetry stands, all within it stand. No correction for their number is needed: rejecting
anything that is true takes rejecting the true symmetry, whose test errs with its own probability
(closed testing: Marcus, Peritz & Gabriel, Biometrika 63 (1976) 655).
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxrelax.geometry import PointGroup, subgroup_indices
from jaxrelax.refinement.result import SubgroupTest
from jaxrelax.refinement.symmetry_test import Candidates


def closed(
    rows: Sequence[SubgroupTest], candidates: Sequence[Candidates], group: PointGroup
) -> list[SubgroupTest]:
    """The tests, with ``implied_by`` where a larger symmetry that stands contains the tested one.

    Args:
        rows: one test per candidate.
        candidates: classes of conjugate subgroups, larger ones first, as from
            :func:`jaxrelax.refinement.symmetry_test.candidate_subgroups`. A class is contained in
            another if one of its groups is in one of the other's.
        group: G.
    """
    members = [
        [frozenset(subgroup_indices(group, one).tolist()) for one in candidate.conjugates]
        for candidate in candidates[: len(rows)]
    ]
    judged: list[SubgroupTest] = []
    for row, mine in zip(rows, members, strict=True):
        row = row._replace(implied_by=None)
        standing = [
            other
            for other, larger in zip(judged, members, strict=False)
            if not other.rejected and any(small < large for small in mine for large in larger)
        ]
        if row.rejected and standing:
            largest = max(standing, key=lambda other: (other.order, other.log10_p))
            row = row._replace(implied_by=largest.name)
        judged.append(row)
    return judged
