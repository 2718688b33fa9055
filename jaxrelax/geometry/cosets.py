"""Registers: the right cosets of the subgroup that is kept, and the mates of a pose.

With the volume invariant under H (``h V = V``), poses ``A`` and ``A h`` are the same view for
every h in H, and so the |G| symmetry-related poses ``A gᵀ`` show only |G|/|H| different views,
one for each coset ``H r``: for ``g = h r``, ``A gᵀ = (A rᵀ) hᵀ`` is the view ``A rᵀ``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from jaxrelax.arrays import AnyArray

from .groups import PointGroup
from .subgroups import subgroup_indices


class RightCosets(NamedTuple):
    """The registers of G over H.

    Attributes:
        representatives: (n_registers, 3, 3) operators r_j of G, the identity first, such that G
            is the disjoint union of the cosets ``H r_j``.
        coset_table: (order of G,) the register j of every element: ``g`` lies in ``H r_j``.
    """

    representatives: Float64[np.ndarray, "n_registers 3 3"]
    coset_table: Int[np.ndarray, "order"]


def right_cosets(group: PointGroup, subgroup: PointGroup) -> RightCosets:
    """Representatives r_j with ``G = ⊔ H r_j`` and the register of every element of G.

    For a volume V with ``H V = V`` the slices at the poses ``A r_jᵀ`` are the different views
    among all ``A gᵀ``; ``A`` and ``A h`` are the same view for h in H. Each coset is represented
    by its element of lowest index, and registers are numbered by that index, so register 0 is
    H itself, represented by the identity.

    Raises:
        ValueError: if H is not a subgroup of G.
    """
    members = subgroup_indices(group, subgroup)
    table = np.full(group.order, -1)
    representatives = []
    for element in range(group.order):
        if table[element] < 0:
            table[group.multiplication_table[members, element]] = len(representatives)
            representatives.append(element)
    return RightCosets(group.operators[representatives], table)


def register_mates(
    poses: Float[AnyArray, "*batch 3 3"], representatives: Float[AnyArray, "n_registers 3 3"]
) -> Float64[np.ndarray, "*batch n_registers 3 3"]:
    """The poses ``A r_jᵀ`` of every register, exactly (not snapped to a grid of directions)."""
    poses = np.asarray(poses, dtype=np.float64)
    return poses[..., None, :, :] @ np.asarray(representatives, dtype=np.float64).mT
