"""The register mask as it is used: over all sites at which the asymmetry may come up."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Float32

from jaxrelax.geometry import PointGroup
from jaxrelax.reconstruction import symmetry_correlation
from jaxrelax.reconstruction.site_masks import hides_sites, over_all_sites
from jaxrelax.refinement.relax import Relax

LOG = logging.getLogger("jaxrelax")

# Share of a map's power that symmetrising takes away: less is rounding and interpolation.
NO_ASYMMETRY = 1e-3


def completed_mask(
    mask: Float32[np.ndarray, "n n n"],
    reference: Float32[np.ndarray, "m m m"],
    relax: Relax,
    group: PointGroup,
    kept: PointGroup,
) -> Float32[np.ndarray, "n n n"]:
    """A register mask over all sites that its start makes equal; unchanged where it has them.

    From a symmetric start the asymmetry comes up at any of the sites that G makes equal, and a
    mask over one would hide it at the others. A reference or registers that are trusted say at
    which site it is: of these only those that H makes equal are equal. A reference that is
    symmetric itself says nothing.

    Args:
        mask: 0 … 1, on any box.
        reference: the map that the run starts from, on any box.
        relax: says where the mask is from and what the run starts from.
        group: G.
        kept: H.
    """
    free = relax.start == "symmetric"
    if not free and not hides_sites(mask, over_all_sites(mask, group)):
        return mask
    symmetric = relax.start == "reference" and _is_symmetric(reference, group)
    equal = group if free or symmetric else kept
    everywhere = over_all_sites(mask, equal)
    if not hides_sites(mask, everywhere):
        return mask
    if free:
        why = (
            "from a symmetric start the asymmetry may come up at any of them (--start reference or "
            "poses takes the mask as it is)"
        )
    elif symmetric:
        why = "the reference is symmetric, and from it the asymmetry may come up at any of them"
    else:
        why = "that symmetry is kept"
    LOG.warning(
        "%s: the register mask covers some of the sites that %s makes equal, and not all: it was "
        "turned onto all of them, because %s",
        relax.mask, equal.name, why,
    )  # fmt: skip
    return everywhere


def _is_symmetric(map_, group: PointGroup) -> bool:
    return 1.0 - symmetry_correlation(map_, group) ** 2 < NO_ASYMMETRY
