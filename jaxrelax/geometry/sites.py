"""Sites of a symmetric body: where a position has its mates, and where images show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from jaxrelax.arrays import AnyArray

from .aberrations import Aberrations
from .cosets import register_mates
from .groups import PointGroup, generate, nearest_operator
from .recentring import heights_angstrom, recentred_origins

# Mates that are nearer are one: positions are given with one decimal or read off a map.
SAME_SITE_ANGSTROM = 0.5
_NONE = Aberrations()


class Sites(NamedTuple):
    """The distinct mates of a position under G.

    Attributes:
        position: (x, y, z) of the first site in Å from the centre of the box. One that is on an
            axis to within ``SAME_SITE_ANGSTROM`` lies on it exactly.
        operators: index in G of one operator for each site, the lowest; the site of g is at ``gᵀ``
            times the position. The first is the identity.
        stabiliser: indices in G of the operators that leave the position where it is.
    """

    position: Float64[np.ndarray, "3"]
    operators: Int[np.ndarray, " sites"]
    stabiliser: Int[np.ndarray, " kept"]


def equivalent_sites(
    group: PointGroup, position_angstrom: Float[AnyArray, "3"] | Sequence[float]
) -> Sites:
    """The |G| / |stabiliser| different places among ``gᵀ p``.

    Raises:
        ValueError: the position is not finite, or so near to an axis that its mates are neither
            one nor distinct.
    """
    position = np.asarray(position_angstrom, np.float64)
    if not np.all(np.isfinite(position)):
        raise ValueError(f"a position is three finite numbers, not {position.tolist()}")
    moved = np.linalg.norm(group.operators @ position - position, axis=1)
    kept = generate(group.operators[moved <= SAME_SITE_ANGSTROM])
    stabiliser = np.unique(nearest_operator(kept, group.operators)[0])
    on_axis = group.operators[stabiliser].mean(axis=0) @ position
    if np.linalg.norm(on_axis - position) > SAME_SITE_ANGSTROM:
        apart = moved[(moved > 0) & (moved <= SAME_SITE_ANGSTROM)].max()
        place = " ".join(f"{x:.2f}" for x in np.round(on_axis, 2) + 0.0)
        raise ValueError(
            f"mates of the position under {group.name} are only {apart:.2f} Å apart, and are "
            f"neither one site nor several. Give a position on the axis ({place}), or one that is "
            "farther from it."
        )
    # The operators h g, h of the stabiliser, share a site: (h g)ᵀ p = gᵀ p.
    first = group.multiplication_table[stabiliser].min(axis=0)
    return Sites(on_axis, np.unique(first), stabiliser)


class SiteViews(NamedTuple):
    """Where images show the sites, and how they are seen there.

    Attributes:
        rotations: ``A gᵀ``: seen so, every site has the orientation of the first.
        places_angstrom: (x, y) in Å from the centre of the image.
        heights_angstrom: along the third axis of the image, over the centre of the particle.
    """

    rotations: Float64[np.ndarray, "particles sites 3 3"]
    places_angstrom: Float64[np.ndarray, "particles sites 2"]
    heights_angstrom: Float64[np.ndarray, "particles sites"]


def view_sites(
    poses: Float[AnyArray, "particles 3 3"],
    origins_angstrom: Float[AnyArray, "particles 2"],
    group: PointGroup,
    sites: Sites,
    aberrations: Aberrations = _NONE,
) -> SiteViews:
    """Views of all sites of particles at the poses A.

    The site of g is seen at ``A gᵀ p``: where :func:`recentred_origins` brings the centre to.
    """
    rotations = register_mates(poses, group.operators[sites.operators])
    before = np.asarray(origins_angstrom)[:, None]
    origins = recentred_origins(before, rotations, sites.position, aberrations.matrix)
    return SiteViews(rotations, -origins, heights_angstrom(rotations, sites.position))
