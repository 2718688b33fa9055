"""A stand-in for an asymmetric part that nobody has seen yet: a ball of protein on the surface.

For a question before the refinement: could these data tell where a partner of this mass sits?
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.ndimage
import scipy.special
from jaxtyping import Bool, Float, Float32

from jaxrelax.geometry import PointGroup
from jaxrelax.io import InputError
from jaxrelax.reconstruction.masks import lowpass, otsu_threshold

# Partial specific volume of protein, 0.73 cm³/g.
CUBIC_ANGSTROM_PER_DALTON = 1.21
LOWPASS_ANGSTROM = 15.0
# Of the ball's surface: about a side chain, and enough for the sampling.
EDGE_SIGMA_ANGSTROM = 2.5
DIRECTIONS = 2000


def partner_ball(
    reference: Float[np.ndarray, "n n n"],
    pixel_size_angstrom: float,
    group: PointGroup,
    mass_kda: float,
    *,
    centre_angstrom: Sequence[float] | None = None,
    reference_mass_kda: float | None = None,
) -> Float32[np.ndarray, "n n n"]:
    """A ball with the volume and the density of so much protein, on the reference's grey scale.

    A solid ball of 1.21 Å³/Da with a soft edge. It has no inner structure: at 10 Å and finer a
    real partner differs more between registers than it does.

    Args:
        reference: symmetric map; its density (against the solvent's) sets the ball's.
        pixel_size_angstrom: of the map.
        group: its symmetry; the default position keeps away from its own mates.
        mass_kda: of the partner.
        centre_angstrom: x, y, z of the ball's centre from the centre of the box; by default where
            the ball touches the density from outside, in the direction that is furthest from its
            own mates.
        reference_mass_kda: of what the reference shows; by default its volume tells.

    Raises:
        InputError: the ball does not fit the box, or a mass is not positive.
    """
    if mass_kda <= 0 or (reference_mass_kda is not None and reference_mass_kda <= 0):
        raise InputError("masses must be above 0 kDa.")
    values = np.asarray(reference, np.float32)
    n = len(values)
    solid = solid_region(values, pixel_size_angstrom)
    grey = values - np.median(values[~solid])
    if reference_mass_kda is None:
        density = float(grey[solid].mean())
    else:
        volume = 1e3 * reference_mass_kda * CUBIC_ANGSTROM_PER_DALTON
        density = float(grey[solid].sum()) * pixel_size_angstrom**3 / volume
    radius = ball_radius_angstrom(mass_kda)
    if centre_angstrom is None:
        centre = _on_surface(solid, pixel_size_angstrom, group, radius)
    else:
        centre = np.asarray(centre_angstrom, float)
    edge = n // 2 * pixel_size_angstrom
    if np.linalg.norm(centre) + radius > edge:
        where = ", ".join(f"{x:.0f}" for x in centre)
        raise InputError(
            f"a partner of {mass_kda:g} kDa (radius {radius:.0f} Å) centred at {where} Å does not "
            f"fit the box ({edge:.0f} Å from its centre to its side). Say where it sits "
            "(--partner-at), or use a larger box."
        )
    x = (np.arange(n) - n // 2) * pixel_size_angstrom
    distance = np.sqrt(
        (x[:, None, None] - centre[2]) ** 2
        + (x[None, :, None] - centre[1]) ** 2
        + (x[None, None, :] - centre[0]) ** 2
    )
    # A cumulative normal across the surface: a ball convolved with a narrow Gaussian.
    ball = scipy.special.ndtr((radius - distance) / EDGE_SIGMA_ANGSTROM)
    exact = 1e3 * mass_kda * CUBIC_ANGSTROM_PER_DALTON / pixel_size_angstrom**3
    return (ball * (density * exact / ball.sum())).astype(np.float32)


def ball_radius_angstrom(mass_kda: float) -> float:
    """Radius of a ball of protein."""
    return float((0.75 / np.pi * 1e3 * mass_kda * CUBIC_ANGSTROM_PER_DALTON) ** (1.0 / 3.0))


def solid_region(
    map_: Float32[np.ndarray, "n n n"], pixel_size_angstrom: float
) -> Bool[np.ndarray, "n n n"]:
    """Where the density is: the low-passed map above Otsu's threshold."""
    smooth = lowpass(map_, pixel_size_angstrom, LOWPASS_ANGSTROM)
    return smooth > otsu_threshold(smooth.ravel())


def _on_surface(solid, pixel: float, group: PointGroup, radius: float):
    """Centre of a ball that touches the density, where its mates are furthest away."""
    n = len(solid)
    directions = _sphere_points(DIRECTIONS)
    if group.order > 1:
        turned = np.einsum("gij,dj->gdi", group.operators[1:], directions)
        separation = np.arccos(np.clip(np.einsum("gdi,di->gd", turned, directions), -1, 1)).min(0)
    else:
        separation = np.zeros(len(directions))
    best = directions[separation >= 0.98 * separation.max()]
    steps = np.arange(0.0, n // 2 - 1, 0.5)
    distance = np.asarray(scipy.ndimage.distance_transform_edt(~solid)) * pixel
    voxels = np.rint(best[:, None, :] * steps[None, :, None]).astype(int) + n // 2
    clear = distance[voxels[..., 2], voxels[..., 1], voxels[..., 0]]
    # The outermost place on each ray where the ball still touches; of equally good directions
    # the one where that is nearest.
    touching = np.where(clear < radius, steps[None], 0.0).max(axis=1) * pixel
    nearest = int(np.argmin(touching))
    return best[nearest] * touching[nearest]


def _sphere_points(count: int):
    """Points spread evenly over the sphere (a Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z = 1.0 - 2.0 * index / count
    azimuth = np.pi * (1.0 + np.sqrt(5.0)) * index
    ring = np.sqrt(1.0 - z**2)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], axis=1)
