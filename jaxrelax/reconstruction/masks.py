"""Soft masks: spheres, and the solvent mask of a map."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Float32

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import PointGroup
from jaxrelax.imaging import resample_map
from jaxrelax.reconstruction.rotate import symmetrise

# Of a map's highest power: what the end of its band leaves around the density.
RINGING = 1e-3
# Width of a Gaussian whose transform falls to a half at a resolution of 1.
BLUR = np.sqrt(0.5 * np.log(2.0)) / np.pi


def soft_sphere(n: int, radius_px: float, edge_px: float) -> Float32[np.ndarray, "n n n"]:
    """1 inside ``radius_px`` of the centre ``n // 2``, a raised cosine over ``edge_px``, then 0."""
    x = np.arange(n) - n // 2
    r = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2)
    t = np.clip((r - radius_px) / max(edge_px, 1e-6), 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * t)).astype(np.float32)


def independent_fraction(mask: Float[AnyArray, "n n n"]) -> float:
    """Fraction of a shell's Fourier coefficients that stay independent under a mask.

    Masking correlates neighbouring coefficients; the effective number is the box's times
    (Σm²)²/(n³ Σm⁴), which is the volume fraction for a hard mask.
    """
    m2 = np.asarray(mask, np.float64) ** 2
    return float(m2.sum() ** 2 / (mask.size * (m2**2).sum()))


def particle_radius_angstrom(
    map_: Float[AnyArray, "n n n"], pixel_size_angstrom: float, floor: float = 1e-3
) -> float:
    """Radius beyond which the radial variance of a map stays below ``floor`` of its maximum.

    At most 0.47 of the box edge, which is also the answer for a map without empty solvent.
    """
    n = map_.shape[0]
    x = np.arange(n) - n // 2
    r = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2)
    shell = np.rint(r).astype(int).ravel()
    power = np.bincount(shell, np.asarray(map_, np.float64).ravel() ** 2) / np.bincount(shell)
    above = np.flatnonzero(power[: n // 2] > floor * power[: n // 2].max())
    return float(min(above[-1] + 1, 0.47 * n) * pixel_size_angstrom)


def lowpass(
    map_: Float[np.ndarray, "n n n"], pixel_size_angstrom: float, resolution_angstrom: float
) -> Float32[np.ndarray, "n n n"]:
    """The map without frequencies beyond a resolution (through a coarser box and back)."""
    n = map_.shape[0]
    coarse = int(2 * round(n * pixel_size_angstrom / resolution_angstrom))
    if not 8 <= coarse < n:
        return np.asarray(map_, np.float32)
    return np.asarray(resample_map(np.asarray(resample_map(map_, coarse)), n))


def soft_region(
    solid: Bool[np.ndarray, "n n n"],
    pixel_size_angstrom: float,
    extend_angstrom: float,
    edge_angstrom: float,
) -> Float32[np.ndarray, "n n n"]:
    """A region extended by a distance, with a raised-cosine edge."""
    distance = np.asarray(scipy.ndimage.distance_transform_edt(~solid)) * pixel_size_angstrom
    t = np.clip((distance - extend_angstrom) / edge_angstrom, 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * t)).astype(np.float32)


def density_mask(
    first: Float[AnyArray, "n n n"],
    second: Float[AnyArray, "n n n"],
    pixel_size_angstrom: float,
    radius_angstrom: float,
    group: PointGroup,
    *,
    lowpass_angstrom: float = 15.0,
    coarse_angstrom: float = 30.0,
    extend_angstrom: float = 8.0,
    edge_angstrom: float = 12.0,
    significance: float = 7.0,
    faintest: float = 1.0,
) -> Float32[np.ndarray, "n n n"]:
    """Soft mask of everything that stands out from the noise, the same in every register.

    The low-passed map's symmetric average (where noise is least) and the average of its square
    (where a partner at one site counts in full at all of them) are compared with those of half the
    difference of the half-maps, which is noise alone and has its power. Around what was found it is
    looked for once more in a blurred map: a domain of some ten kDa stands out farthest from the
    noise at about its own size, and where images are few at no finer one. Where images are many,
    what stands out is also the ringing of a map that ends at a shell; so a small share of the
    highest power is asked for too. A generous mask: it removes noise from the solvent and must not
    cut off a weak partner.

    Args:
        first, second: unregularised half-maps in one frame, not masked.
        pixel_size_angstrom: of both.
        radius_angstrom: of the particle's sphere; nothing is looked for outside.
        group: G.
        lowpass_angstrom: resolution at which density is told from noise.
        coarse_angstrom: the same of the blurred map, a Gaussian's half height.
        extend_angstrom: kept around what stands out.
        edge_angstrom: over which the mask falls, beyond that.
        significance: threshold in robust standard deviations of the noise.
        faintest: share of the highest power that a partner may have in the symmetric average where
            it is seen nowhere else: it is looked for in the ringing, too.

    Returns:
        mask, 0 to 1; the sphere itself if nothing stands out.
    """
    first, second = np.asarray(first), np.asarray(second)
    n = first.shape[0]
    sphere = soft_sphere(n, radius_angstrom / pixel_size_angstrom, 2.0)
    inside = sphere > 0.5
    fine = [
        lowpass(0.5 * (first + sign * second), pixel_size_angstrom, lowpass_angstrom)
        for sign in (1.0, -1.0)
    ]
    averages = (
        lambda map_: np.asarray(symmetrise(map_, group)) ** 2,
        lambda map_: np.asarray(symmetrise(map_**2, group)),
    )

    def standing_out(maps, where) -> Bool[np.ndarray, "n n n"]:
        density, noise = (map_ * sphere for map_ in maps)
        found = np.zeros(sphere.shape, bool)
        if not where.any():  # the particle fills its sphere
            return found
        for average, share in zip(averages, (min(faintest, RINGING), RINGING), strict=True):
            empty = average(noise)[where]
            centre = np.median(empty)
            spread = 1.4826 * np.median(np.abs(empty - centre))
            power = average(density)
            highest = average(fine[0] * sphere).max()
            found |= power > max(centre + significance**2 * spread, share * highest)
        return found & where

    def around(solid) -> Float32[np.ndarray, "n n n"]:
        return soft_region(solid, pixel_size_angstrom, extend_angstrom, edge_angstrom)

    solid = standing_out(fine, inside)
    known = around(solid) if solid.any() else np.zeros_like(sphere)
    width = BLUR * coarse_angstrom / pixel_size_angstrom
    blurred = [
        scipy.ndimage.gaussian_filter(map_ * (1.0 - known), width, mode="constant") for map_ in fine
    ]
    solid |= standing_out(blurred, inside & (known < 0.5))
    return around(solid) if solid.any() else sphere


def solvent_mask(
    map_: Float[AnyArray, "n n n"],
    pixel_size_angstrom: float,
    *,
    lowpass_angstrom: float = 15.0,
    extend_angstrom: float = 8.0,
    edge_angstrom: float = 12.0,
) -> Float32[np.ndarray, "n n n"]:
    """A soft mask around the density: low-pass, threshold (Otsu), extend, soften.

    The procedure of RELION's ``relion_mask_create`` with the threshold chosen from the histogram
    (Otsu, IEEE Trans. SMC 9 (1979) 62) instead of by hand.
    """
    map_ = np.asarray(map_)
    n = map_.shape[0]
    smooth = lowpass(map_, pixel_size_angstrom, lowpass_angstrom)
    inside = soft_sphere(n, 0.47 * n, 0.02 * n) > 0.5
    solid = (smooth > otsu_threshold(smooth[inside])) & inside
    return soft_region(solid, pixel_size_angstrom, extend_angstrom, edge_angstrom)


def otsu_threshold(values: Float[np.ndarray, " voxels"], bins: int = 256) -> float:
    """Threshold that maximises the variance between the two classes it makes."""
    counts, edges = np.histogram(values, bins)
    centres = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts).astype(float)
    above = below[-1] - below
    sum_below = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (sum_below / below) - (sum_below[-1] - sum_below) / above
    between = np.nan_to_num(below * above * means**2)
    return float(centres[np.argmax(between)])
