"""Which operator of the group takes the first site of a partner to each of the others."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from jaxrelax.geometry import PointGroup
from jaxrelax.simulate.atoms import Atoms

# A site is where an operator takes the first one if it is off by less than this part of the
# distance between sites.
SITE_TOLERANCE = 0.25


def operators_of_sites(
    atoms: Atoms, n_sites: int, group: PointGroup
) -> Int[np.ndarray, " sites"] | None:
    """Of every site the operator that takes the first one there; None unless each has its own."""
    if n_sites != group.order:
        return None
    centres = np.stack(
        [atoms.positions_angstrom[atoms.sites == k].mean(axis=0) for k in range(n_sites)]
    )
    apart = np.linalg.norm(group.operators @ centres[0] - centres[:, None], axis=2)
    nearest = apart.argmin(axis=1)
    between = np.linalg.norm(centres - centres[:, None], axis=2)[np.triu_indices(n_sites, 1)]
    limit = SITE_TOLERANCE * between.min(initial=np.inf)
    if len(set(nearest.tolist())) < n_sites or apart.min(axis=1).max() > limit:
        return None
    return nearest
