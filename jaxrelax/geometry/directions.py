"""Grids of viewing directions: HEALPix, its neighbours, and the asymmetric unit of a group."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.spatial import KDTree

from jaxrelax.arrays import AnyArray

from .groups import PointGroup
from .rotations import euler_to_matrix

# A direction on no axis and no mirror plane of any point group in a standard setting.
_GENERIC = np.array([0.2672, 0.1543, 0.9512])
# Pixels of one face's corner touch seven others, all the rest eight.
N_NEIGHBOURS = 8


def healpix_directions(order: int) -> Float64[np.ndarray, "directions 3"]:
    """Centres of the HEALPix pixels in the ring scheme, as unit vectors.

    Equal areas, rings of constant latitude (Górski et al., Astrophys. J. 622 (2005) 759,
    eqs. 4 to 9). The spacing is that of RELION's ``--healpix_order``: about 58.6° / 2^order.

    Args:
        order: 0, 1, 2, …; ``12 · 4^order`` directions.

    Raises:
        ValueError: a negative order.
    """
    if order < 0:
        raise ValueError(f"the HEALPix order starts at 0, got {order}")
    side = 2**order
    found = []
    for ring in range(1, 4 * side):
        from_pole = min(ring, 4 * side - ring)
        if from_pole < side:  # polar caps
            count, start = 4 * from_pole, 0.5
            height = 1.0 - from_pole**2 / (3.0 * side**2)
            height = height if ring < 2 * side else -height
        else:
            count, start = 4 * side, 0.5 * (1.0 - (ring - side) % 2)
            height = 4.0 / 3.0 - 2.0 * ring / (3.0 * side)
        phi = 2.0 * np.pi / count * (np.arange(count) + start)
        radius = np.sqrt(1.0 - height**2)
        found.append(
            np.stack([radius * np.cos(phi), radius * np.sin(phi), np.full(count, height)], axis=1)
        )
    return np.concatenate(found)


def healpix_spacing_deg(order: int) -> float:
    """Mean distance of neighbouring directions: the root of a pixel's area, in degrees."""
    return float(np.rad2deg(np.sqrt(4.0 * np.pi / (12 * 4**order))))


def direction_neighbours(
    directions: Float[AnyArray, "directions 3"], spacing_deg: float
) -> Int[np.ndarray, "directions neighbours"]:
    """The nearest other directions of each, eight where there are so many.

    At the border of an asymmetric unit there are fewer: what lies farther than two steps of the
    grid is no neighbour, and the direction itself stands in its place.

    Args:
        directions: unit vectors of a HEALPix grid, or of a part of one.
        spacing_deg: of the grid.
    """
    directions = np.asarray(directions, np.float64)
    count = min(N_NEIGHBOURS + 1, len(directions))
    distance, nearest = KDTree(directions).query(directions, k=count)
    nearest = np.asarray(nearest).reshape(len(directions), count)
    far = np.asarray(distance).reshape(len(directions), count) > np.deg2rad(2.0 * spacing_deg)
    return np.where(far, np.arange(len(directions))[:, None], nearest)[:, 1:]


def asymmetric_unit(
    directions: Float[AnyArray, "directions 3"], group: PointGroup
) -> Bool[np.ndarray, " directions"]:
    """Which directions lie nearer to one generic direction than to its mates under a group.

    Every direction has a mate in this unit, up to the spacing at its border. A pose A is the same
    view of a symmetric map as A gᵀ, whose direction is that of A turned by g.
    """
    directions = np.asarray(directions, np.float64)
    cosines = directions @ (group.operators @ _GENERIC).T
    own = _GENERIC @ directions.T
    # A hair of tolerance: a direction on the border belongs to all units that meet there.
    return np.asarray(own >= cosines.max(axis=1) - 1e-9)


def directions_in_tilt_range(
    directions: Float[AnyArray, "directions 3"],
    group: PointGroup,
    tilt_range_deg: tuple[float, float],
) -> Float64[np.ndarray, "some 3"]:
    """Of every direction a mate whose tilt, its angle to the z axis, is in a range.

    Args:
        directions: unit vectors, one of each orbit.
        group: of the orbits.
        tilt_range_deg: least and greatest tilt, 0 to 180.

    Returns:
        The directions themselves where they are in the range; those without such a mate are left
        out.
    """
    directions = np.asarray(directions, np.float64)
    mates = np.einsum("gij,dj->dgi", group.operators, directions)
    tilt = np.rad2deg(np.arccos(np.clip(mates[..., 2], -1.0, 1.0)))
    inside = (tilt >= tilt_range_deg[0]) & (tilt <= tilt_range_deg[1])
    found = inside.any(axis=1)
    return mates[np.arange(len(directions)), inside.argmax(axis=1)][found]


def poses_of_directions(
    directions: Float[AnyArray, "directions 3"],
) -> Float64[np.ndarray, "directions 3 3"]:
    """Poses A with in-plane angle psi = 0 whose viewing direction Aᵀz is each direction."""
    x, y, z = np.asarray(directions, np.float64).T
    rot = np.rad2deg(np.arctan2(y, x))
    tilt = np.rad2deg(np.arctan2(np.hypot(x, y), z))
    return euler_to_matrix(rot, tilt, 0.0)
